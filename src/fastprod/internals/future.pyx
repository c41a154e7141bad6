"""FutureRecordMetadata: the outcome of one record, a pointer to its batch's result and an index.

Source: org.apache.kafka.clients.producer.internals.FutureRecordMetadata.
"""

cimport cython
from libc.stdint cimport int64_t
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns
from fastprod.internals.produce_request_result cimport (
    AWAITED, DONE_CALLBACK, CallbackKind, Segment, process_generation, register_callback, result_mark_observed,
    result_segment, result_unref, segment_error, wait_completed,
)
from fastprod.internals.callback_check cimport check_callback
from fastprod.internals.threads cimport next_slice

from fastprod.internals.produce_request_result import wait_deadline
from fastprod.errors import ForkedProducerError
from fastprod.records import RecordMetadata


@cython.final
@cython.freelist(1024)
cdef class FutureRecordMetadata:
    """FutureRecordMetadata()
--

    The outcome of one record: ``result()``, ``await``, or a callback.

    Owns a share of its batch's ProduceRequestResult. It settles when the whole batch has settled. Thread-safe.
    result(), exception(), await and a callback observe the outcome: flush() and close() then do not raise for the
    record.
    """

    def __init__(self):
        raise TypeError("a FutureRecordMetadata comes from Producer.send()")

    def __dealloc__(self):
        if self.produced is not NULL:
            result_unref(self.produced, -1)

    cdef void mark_observed(self) noexcept:
        result_mark_observed(self.produced, self.index)

    cdef int settled(self) except -1:
        if self.produced is NULL:
            raise TypeError("a FutureRecordMetadata comes from Producer.send()")
        return fp_atomic_load(&self.produced.done)

    cdef int wait(self, object timeout) except -1:
        """Returns once the record has settled. TimeoutError if that takes longer than timeout seconds."""
        cdef int64_t deadline, until, pause_ns = 0
        cdef int done
        if self.settled():
            return 0
        self.refuse_in_child()
        deadline = wait_deadline(timeout)
        while True:
            until = next_slice(deadline, &pause_ns)
            with nogil:
                done = wait_completed(&self.produced.done, until)
            if done:
                return 0
            if fp_monotonic_ns() >= deadline:
                raise TimeoutError(
                    f"the record for {self.topic} was not settled within {timeout} s; it is still on its way")

    cdef object metadata(self):
        cdef Segment *segment = result_segment(self.produced, self.index)
        return RecordMetadata(
            self.topic, self.produced.partition,
            segment.base_offset + self.index - segment.first if segment.base_offset >= 0 else -1,
            self.timestamp if segment.timestamp < 0 else segment.timestamp,
            self.key_size, self.value_size)

    cdef object error(self):
        return segment_error(result_segment(self.produced, self.index), self.topic, self.produced.partition)

    def result(self, timeout=None):
        """Returns the RecordMetadata. Waits at most `timeout` seconds (None: for ever).

        Raises the record's error if it failed. After a TimeoutError the record is still pending: call it again.
        """
        self.wait(timeout)
        error = self.exception(0)
        if error is not None:
            raise error
        return self.metadata()

    get = result

    def exception(self, timeout=None):
        """Returns the record's error, or None. Waits at most `timeout` seconds (None: for ever)."""
        self.wait(timeout)
        if result_segment(self.produced, self.index).code == 0:
            return None
        self.mark_observed()
        return self.error()

    def done(self):
        """Returns whether the record has settled. This does not count as observing the outcome."""
        return bool(self.settled())

    def add_done_callback(self, function):
        """Calls function(future) once the record has settled, from the producer's callback thread.

        If it has settled already, the calling thread calls it at once.
        """
        check_callback(function, "a done callback")
        if getattr(function, "__module__", None) == "asyncio.tasks":   # that of asyncio.wait() would not wake the loop
            raise TypeError("asyncio.wait() takes only asyncio futures: pass asyncio.ensure_future(future)")
        if not self.register(DONE_CALLBACK, function):
            self.mark_observed()
            function(self)

    def __reduce__(self):
        raise TypeError("a FutureRecordMetadata cannot be copied or pickled: only this process knows the outcome. "
                        "Call result() or exception() here and pass on what they return")

    cdef int refuse_in_child(self) except -1:
        if not self.settled() and self.produced.fork_generation != process_generation:
            raise ForkedProducerError(
                "the record was sent before the process forked: only the parent knows its outcome")
        return 0

    cdef int register(self, CallbackKind kind, object function) except -1:
        """Adds a callback. Returns whether it will be called: not if the record has settled."""
        self.refuse_in_child()
        return register_callback(self.produced, self.index, kind, function, self)

    def __await__(self):
        if not self.done():
            import asyncio
            settled = asyncio.get_running_loop().create_future()
            # This does not observe the outcome, because the await may be cancelled. result() does.
            if self.register(AWAITED, settled):
                yield from settled
        return self.result()

    def __repr__(self):
        state = "pending"
        if self.done():
            error = self.error()
            state = repr(self.metadata()) if error is None else repr(error)
        return f"<FutureRecordMetadata {self.topic} {state}>"
