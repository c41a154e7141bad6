cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.drain_scheduler cimport DrainScheduler
from fastprod.internals.in_flight_partition cimport Phase
from fastprod.internals.partition_queue cimport Topic
from fastprod.internals.partitioner cimport PartitionerKind


@cython.final
cdef class Topics:
    # fixed at construction
    cdef BufferPool pool
    cdef DrainScheduler scheduler
    cdef size_t batch_size
    cdef PartitionerKind kind
    cdef int adaptive
    cdef int64_t availability_timeout_ns
    cdef int64_t sticky_interval_ns
    cdef int sequential_random
    cdef Phase first_phase      # of each new partition
    # guarded by the accumulator's lock
    cdef Topic *first
    cdef uint64_t seed                # of the next topic's random numbers

    # lock: the accumulator's, held
    cdef Topic *add(self, const char *name, int64_t now_ns) noexcept nogil
    cdef int remove(self, Topic *topic) noexcept nogil
    cdef int set_partitions(self, Topic *topic, const int32_t *brokers, int32_t count, int64_t now_ns) noexcept nogil
    cdef void refresh_available(self, Topic *topic, int64_t now_ns) noexcept nogil
    cdef int update_sticky(self, Topic *topic, int64_t appended, int enable_switch) noexcept nogil
    cdef void count_produced(self, Topic *topic, int64_t appended, int enable_switch, int64_t now_ns) noexcept nogil
    # lock: the accumulator's, held; internal
    cdef int add_queues(self, Topic *topic, int32_t count) noexcept nogil
    cdef int is_stalled(self, int64_t since_ns, int64_t now_ns) noexcept nogil
