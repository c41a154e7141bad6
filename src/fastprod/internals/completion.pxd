from libc.stdint cimport int8_t, int32_t, int64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.failed_records cimport FailedRecords
from fastprod.internals.partition_queue cimport TOPIC_NAME_SIZE, PartitionQueue
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.delivery_report cimport Report
from fastprod.internals.transport cimport Transport

cdef enum:
    SLOW_TOPICS = 8

cdef class Completion:
    cdef RecordAccumulator accumulator
    cdef BufferPool pool
    cdef Transport transport
    cdef Callbacks callbacks
    cdef FailedRecords failed_records
    cdef int transactional          # fixed at construction, as is the next
    cdef int64_t first_retry_us     # librdkafka repeats no request earlier than this
    # guarded by sender_lock
    cdef ProducerBatch **slots      # batches in transit, or NULL
    cdef int32_t slot_count
    cdef int32_t *free_slots
    cdef int32_t free_count
    cdef int32_t transit_count
    cdef int unresponsive_freed       # a batch of a partition that does not answer was freed: see ProduceRequests
    # counters, written under sender_lock
    cdef int64_t records_sent       # acknowledged
    cdef int64_t records_failed
    cdef int64_t latency_us         # summed over the runs of records in `latency_count`
    cdef int64_t latency_count
    cdef int64_t longest_latency_us
    # the first record that failed in a transaction; written under sender_lock
    cdef int failure_code           # atomic, written last; 0: none did
    cdef int8_t failure_persisted
    cdef char failure_topic[TOPIC_NAME_SIZE]
    cdef int32_t failure_partition

    cdef int add(self, ProducerBatch *batch) noexcept nogil
    cdef int has_older(self, int64_t created_ns) noexcept nogil
    cdef int slow_topics(self, char (*names)[TOPIC_NAME_SIZE], int64_t created_ns) noexcept nogil
    cdef void record_report(self, ProducerBatch *batch, const Report *report) noexcept nogil
    cdef int8_t persisted(self, ProducerBatch *batch, const Report *report) noexcept nogil
    cdef void record_outcome(self, ProducerBatch *batch, int32_t first, int32_t count, int code, int64_t offset,
                             int64_t timestamp, int8_t persisted) noexcept nogil
    cdef void record_failure(self, ProducerBatch *batch, int code, int8_t persisted) noexcept nogil
    cdef void fail_unsubmitted(self, ProducerBatch *batch, int code) noexcept nogil
    cdef void fail_refused(self, PartitionQueue *queue) noexcept nogil
    cdef void fail_rest(self, ProducerBatch *batch, int code) noexcept nogil
    cdef void finish(self, PartitionQueue *queue) noexcept nogil
    cdef void complete_in_order(self, PartitionQueue *queue) noexcept nogil
    cdef void complete(self, ProducerBatch *batch) noexcept nogil
    cdef void complete_first(self, const Report *report) noexcept nogil
    cdef void settle(self, ProducerBatch *batch) noexcept nogil
    cdef void return_arena(self, ProducerBatch *batch) noexcept nogil
    cdef void keep_copy(self, ProducerBatch *batch) noexcept nogil
