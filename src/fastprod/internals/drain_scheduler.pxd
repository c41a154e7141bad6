cimport cython
from libc.stdint cimport int32_t, int64_t
from fastprod.internals.partition_queue cimport PartitionQueue, QueueList, QueueState
from fastprod.internals.producer_batch cimport ProducerBatch

cdef enum:
    QUANTUM_BYTES = 3 << 17   # of one partition, before the next is drained; see docs/design.md

# What one broker has been handed and has not reported.
cdef struct BrokerWindow:
    int32_t broker               # its id; -1: leader unknown
    int32_t batches
    int64_t cost                 # of these batches
    QueueList blocked            # queues that wait for room or for their turn, in FIFO order
    int32_t blocked_full_count   # how many of them had a full batch, which waits for room
    int64_t blocked_ns           # since when the window has let nothing through; 0: no queue waits


@cython.final
cdef class DrainScheduler:
    # fixed at construction
    cdef int32_t max_in_flight
    # guarded by the accumulator's lock
    cdef BrokerWindow *windows
    cdef int32_t window_count
    cdef QueueList ready
    cdef int64_t outstanding_cost   # of all windows
    cdef int32_t memory_waiters     # threads that wait for buffer.memory
    cdef int64_t sleep_until_ns     # when the sender wakes by itself
    cdef int64_t backlog_bytes      # of full batches in the queues
    cdef int64_t backlog_records
    cdef int64_t filled_records     # of all batches that were ever full
    cdef int64_t paused_at          # filled_records at the last pause
    # counters for metrics()
    cdef int64_t batches_drained
    cdef int64_t bytes_drained      # estimated, format v2
    cdef int64_t records_drained
    cdef int64_t largest_batch
    cdef int64_t queue_time_ns
    cdef int64_t longest_queue_time_ns

    # lock: the accumulator's, held
    cdef int32_t window_of(self, int32_t broker) noexcept nogil
    cdef void change_leader(self, PartitionQueue *queue, int32_t leader) noexcept nogil
    cdef void set_request_limit(self, PartitionQueue *queue, size_t request_limit) noexcept nogil
    cdef void make_ready(self, PartitionQueue *queue) noexcept nogil
    cdef void add_full(self, PartitionQueue *queue, ProducerBatch *batch) noexcept nogil
    cdef ProducerBatch *drain(self, int64_t now_ns, int64_t limit) noexcept nogil
    cdef void take_head(self, PartitionQueue *queue) noexcept nogil
    cdef void settle(self, ProducerBatch *batch) noexcept nogil
    cdef void unblock_idle_windows(self) noexcept nogil
    cdef int every_broker_is_behind(self) noexcept nogil
    cdef int64_t pause_ns(self) noexcept nogil
    # lock: the accumulator's, held; internal
    cdef int has_room(self, PartitionQueue *queue, BrokerWindow *window, ProducerBatch *batch) noexcept nogil
    cdef int32_t partial_limit(self) noexcept nogil
    cdef int limit_reached(self, PartitionQueue *queue) noexcept nogil
    cdef void recheck_limit(self, PartitionQueue *queue) noexcept nogil
    cdef void leave_ready(self, PartitionQueue *queue, QueueState state) noexcept nogil
    cdef void enter_ready(self, PartitionQueue *queue) noexcept nogil
    cdef void block(self, PartitionQueue *queue, BrokerWindow *window, PartitionQueue *blocked,
                    int64_t now_ns) noexcept nogil
    cdef void unblock(self, BrokerWindow *window) noexcept nogil
    cdef void charge(self, PartitionQueue *queue, BrokerWindow *window, ProducerBatch *batch,
                     int64_t now_ns) noexcept nogil
    cdef void count_drained(self, ProducerBatch *batch, int64_t now_ns) noexcept nogil
    cdef void spend_quantum(self, PartitionQueue *queue, BrokerWindow *window, ProducerBatch *batch,
                            int64_t now_ns) noexcept nogil
    cdef void rotate(self, PartitionQueue *queue, BrokerWindow *window, int64_t now_ns) noexcept nogil
