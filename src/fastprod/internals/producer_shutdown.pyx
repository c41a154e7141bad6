"""ProducerShutdown: the end of a producer, in the order in which its parts depend on each other."""

cimport cython
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX, int64_t
from fastprod.internals.open_producers cimport EXIT_TIMEOUT_S
from fastprod.internals.produce_request_result cimport wait_completed
from fastprod.internals.producer_parts cimport ProducerParts
from fastprod.internals.producer_state cimport CLOSED, OPEN, SENDER_ENDED
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns, fp_slice_end
from fastprod.internals.threads cimport Lock, next_slice

import contextlib
import sys
import warnings

from fastprod.errors import DeliveryError
from fastprod.internals.threads import current

# The least time of each step of close(), when its timeout is over. A step that takes longer ends in the background.
cdef int64_t STEP_TIMEOUT_NS = 100_000_000
cdef int64_t LOOK_NS = 5_000_000
cdef int64_t GIVE_UP_TIMEOUT_NS = 250_000_000      # of the sender, to fail the pending records


@cython.no_gc_clear                        # a producer that is freed may have to end its parts
cdef class ProducerShutdown:
    """Closes a producer. It can be called again after an interrupt, and from several threads.

    Owns the deadline, which only comes nearer while a close() is under way, and the user's hooks that have a close().
    The parts end in this order: the records, the sender thread, the callback thread, the token thread, the metadata
    thread with DeferredCleanup. Invariant: a part ends only when no other part uses it any more.

    thread: app, with the GIL; not the callback or the metadata thread, for which it waits
    lock: `lock`, in end() and below
    """

    def __cinit__(self, ProducerParts parts, hooks):
        self.parts = parts
        self.closable = [hook for hook in hooks if hasattr(hook, "close")]
        self.lock = Lock()

    cdef int close(self, int64_t deadline, object timeout) except -1:
        """See Producer.close(). timeout: what the deadline was made of."""
        cdef int64_t started, left
        self.parts.state.check_fork()
        self.parts.callbacks.refuse_wait("close")
        if current() == self.parts.metadata.thread_id:   # in a finalizer that the garbage collector runs there
            raise RuntimeError("close() on the metadata thread would wait for that thread: call it from another thread")
        if self.lock.waits_for_itself():
            self.deadline = min(self.deadline, deadline)
            return 0
        if self.parts.transactions is not None:
            self.parts.transactions.refuse_nested()
        self.parts.state.closing = True
        self.lock_until(deadline)
        self.deadline = deadline
        started = fp_monotonic_ns()
        try:
            left = self.end()
        finally:
            self.lock.release()
        if timeout is None:
            timeout = f"{(fp_monotonic_ns() - started) / 1e9:.1f}"
        try:
            self.close_hooks()
        finally:                           # lost records matter more than an error of a hook
            self.parts.completion.failed_records.raise_all(
                f"close() gave up {left} records after {timeout} s; " if left else "")
        return 0

    cdef int close_dropped(self) except -1:
        """Closes a producer that is about to be freed. Reports lost records on stderr."""
        self.parts.state.closing = True
        self.deadline = fp_monotonic_ns() + EXIT_TIMEOUT_S * <int64_t>1_000_000_000
        try:
            warnings.warn("a producer was dropped without close(), and its class has a __del__() that does not call "
                          "super().__del__()", ResourceWarning)
        finally:                           # the warning may be an exception (-W error)
            try:
                if not self.on_own_thread():
                    self.end()
            finally:
                if self.parts.state.lifecycle != CLOSED:   # its thread still uses the parts
                    Py_INCREF(self.parts.sender)
        try:
            self.parts.completion.failed_records.raise_all()
        except DeliveryError as error:
            print(f"fastprod: a producer ended without close(): {error}", file=sys.stderr)
        return 0

    cdef int lock_until(self, int64_t deadline) except -1:
        """Takes the lock. If another close() has it and more time, that one keeps to this deadline too."""
        if self.lock.acquire(deadline):
            return 0
        self.deadline = min(self.deadline, deadline)
        if self.parts.state.lifecycle == OPEN:
            self.parts.accumulator.close_for_appends()
            self.parts.sender.abort()
        self.lock.acquire(INT64_MAX)
        return 0

    cdef int64_t end(self) except -1:
        """Ends the parts that have not ended. Returns how many pending records it failed."""
        cdef int64_t left = 0
        if self.parts.state.lifecycle == OPEN:
            left = self.end_sender()
            self.parts.state.lifecycle = SENDER_ENDED   # only the sender uses the transport from here on
        if self.parts.state.lifecycle == SENDER_ENDED:
            if not sys.is_finalizing():    # an interpreter that ends runs no other Python thread
                self.end_threads()
            self.parts.state.lifecycle = CLOSED
        return left

    cdef int64_t end_sender(self) except -1:
        """Waits until all records have settled, or fails them at the deadline, and ends the sender thread."""
        cdef ProducerParts parts = self.parts
        cdef int64_t left = 0
        settled = True
        if parts.transactions is not None:
            parts.transactions.close(self.deadline)
        parts.accumulator.close_for_appends()
        while True:                        # in slices, since the deadline may come nearer meanwhile
            settled = parts.pending.wait_settled(fp_slice_end(self.deadline))
            if settled or fp_monotonic_ns() >= self.deadline:
                break
        left = 0 if settled else parts.accumulator.unsettled
        parts.pool.close()
        if settled:
            parts.sender.stop()
        else:
            parts.sender.abort()
        # These records fail soon, though librdkafka may still hold them.
        while parts.accumulator.count_unsettled() and not fp_atomic_load(&parts.sender.finished):
            self.wait(&parts.sender.finished, LOOK_NS)
        self.wait(&parts.sender.finished, GIVE_UP_TIMEOUT_NS)
        return left

    cdef int end_threads(self) except -1:
        cdef ProducerParts parts = self.parts
        parts.callbacks.close()
        if parts.callbacks.can_be_awaited():
            self.wait(&parts.callbacks.ended, GIVE_UP_TIMEOUT_NS)
        if parts.tokens is not None:
            parts.tokens.close(max(self.deadline - fp_monotonic_ns(), STEP_TIMEOUT_NS) / 1e9)
            parts.tokens = None            # its queue may be gone when this is called again
        parts.metadata.close()
        self.wait(&parts.deferred_cleanup.cleared, STEP_TIMEOUT_NS)
        # A join() that a signal interrupts marks the thread as ended. So wait for the end of its work first.
        if fp_atomic_load(&parts.callbacks.ended):
            parts.callback_thread.join()
        if fp_atomic_load(&parts.deferred_cleanup.cleared):
            parts.metadata_thread.join()
        return 0

    cdef int wait(self, int *done, int64_t grace_ns) except -1:
        """Waits until *done is set or the deadline has passed. A signal handler may bring the deadline forward.

        grace_ns: the wait takes at least so long, if *done is not set.
        """
        cdef int64_t least = fp_monotonic_ns() + grace_ns
        cdef int64_t until, pause_ns = 0
        cdef int ended = 0
        while not ended and fp_monotonic_ns() < max(least, self.deadline):
            until = next_slice(max(least, self.deadline), &pause_ns)
            with nogil:
                ended = wait_completed(done, until)
        return 0

    cdef int close_hooks(self) except -1:
        """Closes each hook once, even if closing one raises, and the last first."""
        closable, self.closable = self.closable, []
        with contextlib.ExitStack() as stack:
            for hook in reversed(closable):
                stack.callback(hook.close)
        return 0

    cdef bint on_own_thread(self) except -1:
        """Whether this is a thread of the producer's, for which close() would have to wait."""
        return current() in (self.parts.callbacks.thread_id, self.parts.metadata.thread_id)
