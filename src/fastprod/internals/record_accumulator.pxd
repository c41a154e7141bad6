from libc.stdint cimport int32_t, int64_t, uint64_t
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.future cimport CallbackKind, ProduceRequestResult
from fastprod.internals.in_flight_partition cimport Phase
from fastprod.internals.partition_queue cimport PartitionQueue, QueueList, QueueState, Topic
from fastprod.internals.partitioner cimport PartitionerKind
from fastprod.internals.record cimport fp_record
from fastprod.internals.sync cimport fp_mutex

# What expire() takes.
cdef enum Expiry:
    OVERDUE                # what has passed delivery.timeout.ms
    ALL_NOT_HANDED_OVER    # what librdkafka was given nothing of
    EVERYTHING

# What one broker has been given and not yet reported on.
cdef struct BrokerWindow:
    int32_t broker            # its id; -1: leader unknown
    int32_t batches
    int64_t cost
    int64_t blocked_ns        # since when data waits for its window; 0: none does
    QueueList blocked
    int32_t blocked_full_count       # of those how many had a full batch, which waits for room

# Somebody waits until all batches up to id have settled.
cdef struct FlushPoint:
    int64_t id
    int done
    FlushPoint *next

cdef struct RecordAppendResult:
    ProduceRequestResult *result
    int32_t index
    int32_t partition
    int wake           # the sender has something to do
    int backlog_high   # and is far behind: the caller may assist() once it has released the GIL

# Where append_many() has put records side by side.
cdef struct Placed:
    ProduceRequestResult *result
    int32_t index             # of the first
    int32_t partition
    int32_t count

cdef struct CallbackSlot:
    CallbackKind kind
    void *function            # a new reference, or NULL
    void *future              # a new reference to the record's future
    size_t reserved           # bytes of the pool for it that no result has taken over yet

ctypedef void (*wake_function)(void *) noexcept nogil

cdef class RecordAccumulator:
    # fixed at construction
    cdef BufferPool pool
    cdef size_t batch_size
    cdef int64_t linger_ns
    cdef int64_t delivery_timeout_ns
    cdef int64_t max_block_ns
    cdef int64_t transit_grace_ns
    cdef int64_t availability_timeout_ns
    cdef int64_t sticky_interval_ns
    cdef PartitionerKind kind
    cdef int adaptive
    cdef int32_t max_in_flight
    cdef uint64_t seed
    cdef int sequential_random
    cdef Phase first_phase         # of every partition
    cdef wake_function wake       # called without the lock when the sender has something to do
    cdef wake_function assist     # likewise, without the GIL too: the sender needs a hand
    cdef void *wake_argument
    cdef object closed_error   # () -> what append() raises between stop_appends() and resume_appends()
    cdef int epoch             # atomic, written under the lock: how often resume_appends() was called
    # guarded by lock
    cdef fp_mutex lock
    cdef Topic *topics
    cdef BrokerWindow *leaders
    cdef int32_t leader_count
    cdef QueueList ready
    cdef ProducerBatch *oldest                # of the incomplete batches, in the order of creation
    cdef ProducerBatch *newest
    cdef ProducerBatch *linger_first          # open batches whose linger.ms has not passed, in the same order
    cdef ProducerBatch *linger_last
    cdef int64_t last_id
    cdef int64_t sleep_until_ns   # when the sender wakes by itself
    cdef int32_t memory_waiters   # threads that wait for memory
    cdef int32_t flushing
    cdef int64_t closed_bytes         # of full batches in the queues
    cdef int64_t closed_records       # in them
    cdef int64_t closed_total         # records of all batches that were full
    cdef int64_t paused_at            # closed_total at the last pause
    cdef FlushPoint *flush_points
    cdef int closed
    cdef int64_t unsettled            # records
    cdef int64_t outstanding_cost     # of all leaders
    # counters, written under the lock
    cdef int64_t batches_drained
    cdef int64_t bytes_drained        # estimated, format v2
    cdef int64_t records_drained
    cdef int64_t largest_batch
    cdef int64_t queue_time_ns
    cdef int64_t longest_queue_time_ns

    # app threads
    cdef int append(self, Topic *topic, int32_t partition, const fp_record *record, int epoch, int64_t now_ns,
                    int64_t deadline_ns, CallbackSlot *callback, int abort_on_new_batch,
                    RecordAppendResult *appended) except -1
    cdef Py_ssize_t append_many(self, Topic *topic, const fp_record *records, const int32_t *partitions,
                                Py_ssize_t count, int epoch, Placed *placed, Py_ssize_t *runs) noexcept nogil
    cdef int append_bare(self, Topic *topic, int32_t partition, const fp_record *record,
                         RecordAppendResult *appended) noexcept nogil
    cdef Topic *add_topic(self, const char *name) except NULL
    cdef int remove_topic(self, Topic *topic) noexcept nogil
    cdef int set_partitions(self, Topic *topic, const int32_t *brokers, int32_t count) except -1
    cdef void begin_flush(self, FlushPoint *point) noexcept nogil
    cdef void end_flush(self, FlushPoint *point) noexcept nogil
    cdef void close_for_appends(self) noexcept nogil
    cdef void stop_appends(self) noexcept nogil
    cdef void resume_appends(self) noexcept nogil
    # sender thread
    cdef ProducerBatch *drain(self, int64_t now_ns, int64_t limit) noexcept nogil
    cdef ProducerBatch *expire(self, int64_t now_ns, Expiry what) noexcept nogil
    cdef void on_submitted(self, PartitionQueue *queue, int32_t batches, int waiting, int64_t now_ns) noexcept nogil
    cdef void settle(self, ProducerBatch *batch) noexcept nogil
    cdef void settle_records(self, ProducerBatch *batch) noexcept nogil
    cdef void set_request_limit(self, PartitionQueue *queue, size_t request_limit) noexcept nogil
    cdef int64_t prepare_sleep(self, int64_t now_ns, int64_t next_expiry_ns) noexcept nogil
    cdef void drop_expired(self, ProducerBatch *batch) noexcept nogil
    # any thread
    cdef int32_t leader_of(self, int32_t broker) except -1
    cdef int64_t pause_ns(self) noexcept nogil
    cdef void wake_sender(self) noexcept nogil
    cdef int has_waiters(self) noexcept nogil
    cdef int64_t count_unsettled(self) noexcept nogil
    # lock: held
    cdef Py_ssize_t append_run(self, Topic *topic, const fp_record *records, const int32_t *partitions,
                               Py_ssize_t count, RecordAppendResult *appended) noexcept nogil
    cdef int try_append(self, Topic *topic, int32_t partition, const fp_record *record, int64_t now_ns,
                        CallbackSlot *callback, int abort_on_new_batch, char **arena, size_t *arena_size,
                        RecordAppendResult *appended) noexcept nogil
    cdef int place(self, Topic *topic, int32_t partition, const fp_record *record, int64_t now_ns,
                   CallbackSlot *callback, int abort_on_new_batch, char **arena, size_t *arena_size,
                   RecordAppendResult *appended) noexcept nogil
    cdef ProducerBatch *open_batch(self, PartitionQueue *queue, char *arena, size_t size, int64_t now_ns) noexcept nogil
    cdef size_t room_in_tail(self, PartitionQueue *queue, const fp_record *record, char **arena,
                             size_t *arena_size) noexcept nogil
    cdef int move_on(self, Topic *topic, int64_t appended, int enable_switch) noexcept nogil
    cdef int all_behind(self) noexcept nogil
    cdef size_t first_arena(self, PartitionQueue *queue, const fp_record *record) noexcept nogil
    cdef void close_batch(self, PartitionQueue *queue, ProducerBatch *batch) noexcept nogil
    cdef void make_ready(self, PartitionQueue *queue) noexcept nogil
    cdef int is_full(self, PartitionQueue *queue) noexcept nogil
    cdef void stop_lingering(self, ProducerBatch *batch) noexcept nogil
    cdef void end_lingering(self, int64_t now_ns) noexcept nogil
    cdef int flush_requested(self) noexcept nogil
    cdef int sendable(self, ProducerBatch *batch, int64_t now_ns) noexcept nogil
    cdef int32_t partial_limit(self) noexcept nogil
    cdef int window_open(self, PartitionQueue *queue, BrokerWindow *leader, ProducerBatch *batch) noexcept nogil
    cdef void leave_ready(self, PartitionQueue *queue, QueueState state) noexcept nogil
    cdef void block(self, PartitionQueue *queue, BrokerWindow *leader, PartitionQueue *blocked,
                    int64_t now_ns) noexcept nogil
    cdef void rotate(self, PartitionQueue *queue, BrokerWindow *leader, int64_t now_ns) noexcept nogil
    cdef void charge(self, PartitionQueue *queue, BrokerWindow *leader, ProducerBatch *batch,
                     int64_t now_ns) noexcept nogil
    cdef void count_drained(self, ProducerBatch *batch, int64_t now_ns) noexcept nogil
    cdef void take_head(self, PartitionQueue *queue) noexcept nogil
    cdef void remove_incomplete(self, ProducerBatch *batch) noexcept nogil
    cdef void unblock(self, BrokerWindow *leader) noexcept nogil
    cdef int limit_reached(self, PartitionQueue *queue) noexcept nogil
    cdef void hold_back_no_longer(self, PartitionQueue *queue) noexcept nogil
    cdef void refresh_available(self, Topic *topic, int64_t now_ns) noexcept nogil
    cdef int stalled(self, int64_t since_ns, int64_t now_ns) noexcept nogil
    cdef void leave_queue(self, ProducerBatch *batch) noexcept nogil
    cdef int check_flush_points(self) noexcept nogil
