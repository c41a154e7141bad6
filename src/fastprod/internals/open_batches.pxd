cimport cython
from libc.stdint cimport int32_t, int64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.drain_scheduler cimport DrainScheduler
from fastprod.internals.produce_request_result cimport CallbackKind, ProduceRequestResult
from fastprod.internals.incomplete_batches cimport IncompleteBatches
from fastprod.internals.partition_queue cimport PartitionQueue, Topic
from fastprod.internals.partitioner cimport UNIFORM_STICKY, StickyState
from fastprod.internals.producer_batch cimport BATCH_OPEN, ProducerBatch
from fastprod.internals.record cimport fp_record
from fastprod.internals.topics cimport Topics

cdef enum AppendStatus:
    APPENDED
    ABORTED            # a new batch would be needed, and the caller wants to choose a partition again first
    MEMORY_NEEDED      # an arena of arena_size bytes
    CLOSED
    NO_MEMORY

cdef struct CallbackSlot:
    CallbackKind kind
    void *function            # a new reference, or NULL
    void *future              # a new reference to the record's future
    size_t reserved           # bytes of the pool for it that no result has taken over yet

# A record that is to be appended, through all attempts.
cdef struct AppendRequest:
    Topic *topic
    const fp_record *record
    int32_t partition         # -1: the partitioner chooses
    int abort_on_new_batch
    int64_t now_ns            # 0: the clock is read where it is needed, once per batch
    CallbackSlot *callback
    char *arena               # memory for a batch, that none has taken over yet; or NULL
    size_t arena_size         # of it, or of the one that is needed

cdef inline void append_request_init(AppendRequest *request, Topic *topic, CallbackSlot *callback) noexcept nogil:
    request.topic = topic
    request.abort_on_new_batch = 0
    request.now_ns = 0
    request.callback = callback
    request.arena = NULL
    request.arena_size = 0
    callback.reserved = 0

cdef struct RecordAppendResult:
    ProduceRequestResult *result
    int32_t index
    int32_t partition
    int wake           # the sender has something to do
    int backlog_high   # and is far behind: the caller may assist() once it has released the GIL

# Consecutive records of a batch that append_many() has appended.
cdef struct Placed:
    ProduceRequestResult *result
    int32_t index             # of the first
    int32_t partition
    int32_t count

cdef size_t first_reservation(const CallbackSlot *callback) noexcept nogil


@cython.final
cdef class OpenBatches:
    # fixed at construction
    cdef BufferPool pool
    cdef Topics topics
    cdef DrainScheduler scheduler
    cdef IncompleteBatches incomplete
    cdef size_t batch_size
    cdef int64_t availability_timeout_ns

    # lock: the accumulator's, held
    cdef AppendStatus append(self, AppendRequest *request, RecordAppendResult *appended) noexcept nogil
    # lock: the accumulator's, held; internal
    cdef AppendStatus place(self, AppendRequest *request, RecordAppendResult *appended) noexcept nogil
    cdef AppendStatus find_room(self, AppendRequest *request, PartitionQueue **found, size_t *size,
                                RecordAppendResult *appended) noexcept nogil
    cdef PartitionQueue *choose_queue(self, AppendRequest *request) noexcept nogil
    cdef size_t room_in(self, PartitionQueue *queue, AppendRequest *request) noexcept nogil
    cdef AppendStatus grow(self, ProducerBatch *batch, AppendRequest *request) noexcept nogil
    cdef AppendStatus open(self, PartitionQueue *queue, AppendRequest *request,
                           RecordAppendResult *appended) noexcept nogil
    cdef AppendStatus add_callback(self, PartitionQueue *queue, AppendRequest *request) noexcept nogil
    cdef size_t first_arena(self, PartitionQueue *queue, const fp_record *record) noexcept nogil
    cdef int is_full(self, PartitionQueue *queue) noexcept nogil
    cdef void close(self, PartitionQueue *queue, ProducerBatch *batch) noexcept nogil


cdef inline ProducerBatch *appendable_batch(OpenBatches self, Topic *topic, int32_t partition, int64_t *limit,
                                            RecordAppendResult *appended) noexcept nogil:
    """The open batch that has room for the next record, if it stays below *limit bytes; or NULL. lock: held"""
    cdef StickyState *sticky = NULL
    cdef ProducerBatch *batch
    cdef int64_t left
    if partition < 0:
        sticky = &topic.sticky
        if sticky.kind != UNIFORM_STICKY or sticky.current < 0:
            return NULL
        partition = sticky.current
    batch = topic.queues[partition].tail
    if batch is NULL or batch.state != BATCH_OPEN or batch.count == 0:
        return NULL
    limit[0] = self.batch_size
    if sticky is not NULL:
        left = sticky.stick_bytes - sticky.produced_bytes
        if left <= 0 and self.availability_timeout_ns == 0:
            left += sticky.stick_bytes   # the partition changes when the batch is full, or then
        limit[0] = min(limit[0], <int64_t>batch.wire_size + left)
    appended.result = batch.result
    appended.partition = partition
    appended.index = batch.count
    return batch


cdef inline void add_placed(Placed *placed, Py_ssize_t *runs, const RecordAppendResult *appended,
                            Py_ssize_t number) noexcept nogil:
    """Extends the last run by so many records, or begins the next."""
    cdef Placed *latest = &placed[runs[0] - 1] if runs[0] else NULL
    if latest is NULL or latest.result is not appended.result or latest.index + latest.count != appended.index:
        latest = &placed[runs[0]]
        runs[0] += 1
        latest.result = appended.result
        latest.index = appended.index
        latest.partition = appended.partition
        latest.count = 0
    latest.count += <int32_t>number
