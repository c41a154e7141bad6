"""PendingRecords: how application threads wait for records to settle, or fail them."""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport free, malloc
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.produce_request_result cimport wait_completed
from fastprod.internals.incomplete_batches cimport FlushPoint
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sender cimport Sender
from fastprod.internals.sync cimport fp_monotonic_ns
from fastprod.internals.threads cimport next_slice

import sys

from fastprod.errors import ForkedProducerError


@cython.no_gc_clear   # a producer that is freed may still end its parts
cdef class PendingRecords:
    """The records of a producer that have not settled, and their callbacks, as flush(), close() and purge() see them.

    Owns no records: those are the accumulator's. thread: app, with the GIL  lock: none, in all methods
    """

    def __cinit__(self, RecordAccumulator accumulator, Callbacks callbacks, Sender sender):
        self.accumulator = accumulator
        self.callbacks = callbacks
        self.sender = sender

    cdef bint wait_settled(self, int64_t deadline) except -1:
        """Flushes the records appended so far; whether they have settled, and their callbacks run, by the deadline."""
        cdef FlushPoint *point = <FlushPoint *>malloc(sizeof(FlushPoint))   # the stack may be a greenlet's
        cdef int64_t until, pause_ns = 0
        cdef int done = 0
        cdef bint forked = False
        if point is NULL:
            raise MemoryError()
        with nogil:
            self.accumulator.begin_flush(point)
        try:
            while not done:
                until = next_slice(deadline, &pause_ns)
                with nogil:
                    done = wait_completed(&point.done, until)
                if not done and fp_monotonic_ns() >= deadline:
                    if self.accumulator.count_unsettled():
                        return False
                    with nogil:
                        self.sender.wait_for_step()
                    break                  # every record has its result; only reports on lone records are outstanding
        except ForkedProducerError:        # the parent's threads may have held the lock
            forked = True
            raise
        finally:
            if not forked:
                with nogil:
                    self.accumulator.end_flush(point)
                    free(point)
        return self.wait_callbacks(deadline)

    cdef bint wait_callbacks(self, int64_t deadline) except -1:
        """Waits until the callbacks queued by now have run; whether they have by the deadline.

        An interpreter that ends runs no callbacks any more.
        """
        cdef int64_t until, pause_ns = 0
        cdef int never = 0
        if sys.is_finalizing():
            return True
        target, finished = self.callbacks.counts()
        while finished < target and self.callbacks.can_be_awaited():
            until = next_slice(min(deadline, fp_monotonic_ns() + 1_000_000), &pause_ns)
            with nogil:
                # Nothing is stored at `never`: this wakes with any completion, or after a millisecond.
                wait_completed(&never, until)
            _, finished = self.callbacks.counts()
            if finished < target and fp_monotonic_ns() >= deadline:
                return False
        return True

    def purge(self):
        """Fails all pending records, also those sent meanwhile, and returns when they have settled."""
        with nogil:
            self.sender.begin_purge()
        try:
            self.wait_settled(INT64_MAX)
        finally:
            self.sender.end_purge()

    def unfinished(self):
        """Describes what had not settled when wait_settled() returned."""
        cdef int64_t left = self.accumulator.unsettled
        queued, finished = self.callbacks.counts()
        records = f"{left} records had not settled"
        if queued == finished:
            return records
        callbacks = f"the callbacks of {queued - finished} batches had not run"
        return f"{records} and {callbacks}" if left else callbacks
