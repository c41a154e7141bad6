from libc.stdint cimport int32_t, int64_t, uint64_t
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.future cimport CallbackKind, ProduceRequestResult
from fastprod.internals.partitioner cimport PartitionerKind, Partitions, StickyState
from fastprod.internals.record cimport fp_record
from fastprod.internals.sync cimport fp_mutex

cdef enum QueueState:
    QUEUE_IDLE            # nothing to drain
    QUEUE_READY           # in the ready list
    QUEUE_BLOCKED         # waits for its leader's window or for its turn: in the leader's list
    QUEUE_LIMIT_REACHED   # has something to drain, but no more than `allowance` may be in transit

# What expire() takes.
cdef enum Expiry:
    OVERDUE                # what has passed delivery.timeout.ms
    ALL_NOT_HANDED_OVER    # what librdkafka was given nothing of
    EVERYTHING

# The batches of one partition, oldest first; only the last can be open.
cdef struct PartitionQueue:
    Topic *topic
    int32_t partition
    int32_t leader            # index into the accumulator's leaders; 0: unknown
    ProducerBatch *head
    ProducerBatch *tail
    int last_batch_was_full   # the last batch was filled: give the next a whole arena at once
    size_t quantum_bytes      # drained in this turn
    int has_quantum           # it comes before those that are blocked, until it has had QUANTUM_BYTES or has no more
    int force_partial         # its first batch goes though it is not full and others are in flight
    QueueState state
    int blocked_full          # it was blocked with a full batch: counted by its leader
    PartitionQueue *next      # in the ready list, or in the leader's blocked list
    PartitionQueue *previous
    size_t allowance          # bytes that may be in transit, or a single batch; 0: no bound
    int64_t waiting_ns        # since when none was handed over though one in transit waits for that; 0: none waits
    int32_t drained           # batches that were drained and have not settled
    size_t drained_bytes
    # the sender's, guarded by its sender_lock
    ProducerBatch *transit_first      # those same batches, oldest first
    ProducerBatch *transit_last
    ProducerBatch *submitting_batch   # the oldest of them that librdkafka has not been given wholly; NULL: none
    ProducerBatch *held   # the oldest of them with records that may be sent again in smaller requests; NULL: none
    int32_t outstanding   # records that librdkafka has not reported yet
    size_t portion   # bytes that are handed over at once; then their reports are awaited. 0: no bound
    int limited   # one has refused a request as too large
    int alone   # what was handed over last was a single record, with nothing else outstanding
    int submitting   # hand_over() is on the stack
    int unanswered   # the last request was not answered within delivery.timeout.ms
    int expiring   # it is in fail_expired()'s list, by the next
    PartitionQueue *next_expiring
    int32_t taker      # the broker that took the newest records that were reported; -1: none yet
    int retry_code     # why those records came back
    void *open_topic   # the transport's, where its records are handed over; none if generation is 0
    int generation     # of the librdkafka producer that this belongs to

cdef struct QueueList:
    PartitionQueue *first
    PartitionQueue *last

# What one broker has been given and not yet reported on.
cdef struct BrokerWindow:
    int32_t broker            # its id; -1: leader unknown
    int32_t batches
    int64_t cost
    int64_t blocked_ns        # since when data waits for its window; 0: none does
    QueueList blocked
    int32_t blocked_full_count       # of those how many had a full batch, which waits for room

cdef struct Topic:
    char *name
    Partitions partitions
    int32_t capacity          # of the arrays below and in partitions
    PartitionQueue **queues
    StickyState sticky
    int64_t used_ns           # when its last batch was opened; monotonic
    Topic *next
    Topic *previous
    # the sender's, guarded by its sender_lock
    void *open_topic          # the transport's newest; none if generation is 0
    int generation
    int unauthorized          # the last answer was that the client may not write to it
    int remade                # the librdkafka producer of this generation knows only the deleted topic; 0: none does

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
    cdef size_t first_allowance   # of every partition, until set_allowance()
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
    cdef void set_allowance(self, PartitionQueue *queue, size_t allowance) noexcept nogil
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
