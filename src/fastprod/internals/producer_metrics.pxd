from libc.stdint cimport int64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.drain_scheduler cimport DrainScheduler
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.transport cimport Transport

cdef class ProducerMetrics:
    cdef BufferPool pool
    cdef DrainScheduler scheduler
    cdef Completion completion
    cdef Transport transport
    cdef Callbacks callbacks
    cdef int64_t started_ns    # monotonic
    cdef int64_t flush_ns      # guarded by the GIL

    cdef void record_flush(self, int64_t duration_ns) noexcept
    cdef dict values(self)
