cimport cython
from libc.stdint cimport int32_t, int64_t
from fastprod.internals.producer_batch cimport BatchList, ProducerBatch

# Which batches next_expired() looks for.
cdef enum Expiry:
    OVERDUE                # those that have passed delivery.timeout.ms
    ALL_NOT_HANDED_OVER    # those of which librdkafka was given nothing
    EVERYTHING

# A thread waits until all batches up to id have settled.
cdef struct FlushPoint:
    int64_t id
    int done
    FlushPoint *next


@cython.final
cdef class IncompleteBatches:
    # fixed at construction
    cdef int64_t linger_ns
    cdef int64_t delivery_timeout_ns
    cdef int64_t transit_grace_ns
    # guarded by the accumulator's lock
    cdef BatchList batches
    cdef BatchList lingering    # those that are open, and whose linger.ms has not passed
    cdef int64_t last_id
    cdef FlushPoint *flush_points
    cdef int32_t flushing       # threads that wait at them

    # lock: the accumulator's, held
    cdef void add(self, ProducerBatch *batch) noexcept nogil
    cdef int32_t remove(self, ProducerBatch *batch) noexcept nogil
    cdef int32_t settle_records(self, ProducerBatch *batch) noexcept nogil
    cdef void stop_lingering(self, ProducerBatch *batch) noexcept nogil
    cdef ProducerBatch *take_lingered(self, int64_t now_ns, int flush_requested) noexcept nogil
    cdef ProducerBatch *next_expired(self, ProducerBatch *after, int64_t now_ns, Expiry which) noexcept nogil
    cdef int64_t next_event_ns(self, int64_t next_expiry_ns) noexcept nogil
    cdef void add_flush_point(self, FlushPoint *point) noexcept nogil
    cdef void remove_flush_point(self, FlushPoint *point) noexcept nogil
    cdef int reach_flush_points(self) noexcept nogil
