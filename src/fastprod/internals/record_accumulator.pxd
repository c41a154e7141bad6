from libc.stdint cimport int32_t, int64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.drain_scheduler cimport DrainScheduler
from fastprod.internals.incomplete_batches cimport Expiry, FlushPoint, IncompleteBatches
from fastprod.internals.open_batches cimport (
    AppendRequest, AppendStatus, CallbackSlot, OpenBatches, Placed, RecordAppendResult,
)
from fastprod.internals.partition_queue cimport PartitionQueue, Topic
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.record cimport fp_record
from fastprod.internals.sync cimport fp_mutex
from fastprod.internals.topics cimport Topics

ctypedef void (*wake_function)(void *, int backlog_high) noexcept nogil

cdef class RecordAccumulator:
    # fixed at construction
    cdef BufferPool pool
    cdef int64_t max_block_ns
    cdef Topics topics
    cdef OpenBatches open_batches
    cdef DrainScheduler scheduler
    cdef IncompleteBatches incomplete
    cdef wake_function wake       # the sender's: see wake_sender() and assist_sender()
    cdef void *wake_argument
    cdef object closed_error   # () -> what append() raises between stop_appends() and resume_appends()
    cdef int epoch             # atomic, written under the lock: how often resume_appends() was called
    # guarded by lock
    cdef fp_mutex lock
    cdef int closed            # append() raises
    cdef int closing           # every batch is to be drained
    cdef int64_t unsettled        # records that have no outcome yet

    # app threads
    cdef int append(self, Topic *topic, int32_t partition, const fp_record *record, int epoch, int64_t now_ns,
                    int64_t deadline_ns, CallbackSlot *callback, int abort_on_new_batch,
                    RecordAppendResult *appended) except -1
    cdef Py_ssize_t append_many(self, Topic *topic, const fp_record *records, const int32_t *partitions,
                                Py_ssize_t count, int epoch, Placed *placed, Py_ssize_t *runs) noexcept nogil
    cdef int append_fast_path(self, Topic *topic, int32_t partition, const fp_record *record,
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
    cdef ProducerBatch *expire(self, int64_t now_ns, Expiry which) noexcept nogil
    cdef void on_submitted(self, PartitionQueue *queue, int32_t batches, int waiting, int64_t now_ns) noexcept nogil
    cdef void settle(self, ProducerBatch *batch) noexcept nogil
    cdef void settle_records(self, ProducerBatch *batch) noexcept nogil
    cdef void set_request_limit(self, PartitionQueue *queue, size_t request_limit) noexcept nogil
    cdef int64_t prepare_sleep(self, int64_t now_ns, int64_t next_expiry_ns) noexcept nogil
    cdef void drop_expired(self, ProducerBatch *batch) noexcept nogil
    # any thread
    cdef int64_t pause_ns(self) noexcept nogil
    cdef void wake_sender(self) noexcept nogil
    cdef void assist_sender(self) noexcept nogil
    cdef int has_waiters(self) noexcept nogil
    cdef int64_t count_unsettled(self) noexcept nogil
    # lock: none; internal
    cdef int wait_for_memory(self, AppendRequest *request, int64_t deadline_ns) except -1
    cdef int raise_closed(self) except -1
    # lock: held; internal
    cdef AppendStatus append_one(self, AppendRequest *request, RecordAppendResult *appended) noexcept nogil
    cdef int flush_requested(self) noexcept nogil
    cdef void end_lingering(self, int64_t now_ns) noexcept nogil
