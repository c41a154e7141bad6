from libc.stdint cimport int32_t, int64_t
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.in_flight_partition cimport InFlightPartition
from fastprod.internals.partition_queue cimport PartitionQueue
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.handle cimport Handle
from fastprod.internals.delivery_report cimport Report
from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.declarations cimport rd_kafka_queue_t, rd_kafka_topic_partition_list_t

# One call of submit_next().
cdef struct Submission:
    int64_t now_ns
    int one_at_a_time            # its reports are awaited before more is submitted
    size_t left                  # bytes that fit into the request
    size_t unresponsive            # ProduceRequests.unresponsive_bytes()
    rd_kafka_topic_partition_list_t *paused   # NULL: the partition is not paused

cdef class ProduceRequests:
    cdef RecordAccumulator accumulator
    cdef Transport transport
    cdef Callbacks callbacks
    cdef Completion completion
    cdef int ordered             # partitions keep their order through retries; fixed, as are the next three
    cdef int pausing             # each partition is paused while it is submitted: nothing else keeps its order
    cdef size_t request_size     # bytes and records of a partition that librdkafka puts into one request
    cdef int32_t request_records
    cdef int32_t stopping        # atomic: the producer closes
    cdef int32_t purging         # atomic: how many callers want all pending records to fail
    # guarded by sender_lock
    cdef int32_t unresponsive_count     # partitions whose last request was not answered in time
    cdef int64_t unsettled_until_ns   # leaders move until then

    cdef int keep_order(self, dict properties, bint idempotent) except -1
    cdef void add(self, ProducerBatch *chain) noexcept nogil
    cdef void advance(self, PartitionQueue *queue) noexcept nogil
    cdef int may_submit(self, PartitionQueue *queue, int one_at_a_time) noexcept nogil
    cdef void submit_next(self, PartitionQueue *queue) noexcept nogil
    cdef void submit(self, InFlightPartition *flight, ProducerBatch *batch, int32_t count) noexcept nogil
    cdef int32_t records_in_request(self, PartitionQueue *queue, ProducerBatch *batch,
                                    Submission *request) noexcept nogil
    cdef int wants_pause(self, PartitionQueue *queue) noexcept nogil
    cdef int open_topic(self, PartitionQueue *queue) noexcept nogil
    cdef void update_limit(self, PartitionQueue *queue) noexcept nogil
    cdef void on_report(self, const Report *report) noexcept nogil
    cdef void record_answer(self, PartitionQueue *queue, const Report *report) noexcept nogil
    cdef int may_split(self, PartitionQueue *queue, ProducerBatch *batch, const Report *report) noexcept nogil
    cdef int was_given_back(self, PartitionQueue *queue, ProducerBatch *batch, const Report *report) noexcept nogil
    cdef void split(self, PartitionQueue *queue) noexcept nogil
    cdef int may_submit_unresponsive(self, ProducerBatch *batch, Submission *request) noexcept nogil
    cdef size_t unresponsive_bytes(self, int32_t leader) noexcept nogil
    cdef void submit_unresponsive(self) noexcept nogil
    cdef void set_unresponsive(self, PartitionQueue *queue, int unresponsive) noexcept nogil
    cdef int take_retired(self, Handle *taken, const rd_kafka_queue_t *polled) noexcept nogil
    cdef void fail_expired(self, ProducerBatch *chain, int code) noexcept nogil
    cdef int fail_batch(self, ProducerBatch *batch, int code) noexcept nogil
