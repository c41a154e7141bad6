from libc.stdint cimport int32_t, int64_t
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.record cimport fp_record
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.client_errors cimport ClientErrors
from fastprod.internals.delivery_report cimport DeliveryReports, Report
from fastprod.internals.handle cimport Handle, HandleFactory, OpenTopic
from fastprod.internals.recreated_topics cimport RecreatedTopics
from fastprod.internals.update_request cimport UpdateRequest
from fastprod.librdkafka.declarations cimport (
    rd_kafka_event_t, rd_kafka_message_t, rd_kafka_queue_t, rd_kafka_t, rd_kafka_topic_partition_list_t, rd_kafka_vu_t,
)

ctypedef void (*acknowledged_function)(void *, const Report *) noexcept nogil

cdef class Transport:
    cdef rd_kafka_t *rk
    cdef rd_kafka_queue_t *queue
    cdef rd_kafka_queue_t *sasl_queue    # NULL unless tokens come from the user's provider
    cdef OpenTopic *topics               # those of rk; guarded by sender_lock
    cdef HandleFactory factory
    cdef ClientErrors errors
    cdef int generation                  # of rk: grows with each; written under the GIL and sender_lock
    cdef Handle coming                   # the metadata thread's, written under the GIL
    cdef Handle retired                  # written under the GIL and sender_lock
    cdef rd_kafka_queue_t *polled_for_tokens   # TokenRequests.wanted() waits there; guarded by the GIL
    cdef RecreatedTopics recreated_topics
    cdef UpdateRequest update_request    # an error may mean that the metadata is out of date
    cdef int log_level                   # the user's; syslog's levels
    cdef bint shows_metadata             # the user wants the debug lines that RecreatedTopics reads, too
    cdef Callbacks callbacks
    cdef acknowledged_function acknowledged
    cdef void *receiver                  # what it is called with
    cdef int requests                    # atomic: ProduceRequests sent, to any broker
    cdef int without_acks                # acks=0
    # guarded by sender_lock
    cdef rd_kafka_message_t *messages    # for produce_batch; with their errors until the next hand_over()
    cdef int32_t rejected_slot            # next_rejected() reads messages[rejected_read:rejected_end] of this batch
    cdef int32_t rejected_from            # index of messages[0] in the batch
    cdef int32_t rejected_read
    cdef int32_t rejected_end
    cdef rd_kafka_vu_t *arguments        # scratch for produceva
    cdef size_t arguments_size
    cdef int stamping_zero               # the record that is being handed over has the timestamp 0

    cdef int make(self, Handle *made) except -1
    cdef int end(self, Handle *handle) except -1
    cdef OpenTopic *open_topic(self, const char *name) noexcept nogil
    cdef int discard(self) except -1
    cdef void switch_over(self) noexcept nogil
    cdef void purge_retired(self) noexcept nogil
    cdef void take_retired(self, Handle *taken) noexcept nogil
    cdef int end_all(self) except -1
    cdef int32_t hand_over(self, OpenTopic *topic, ProducerBatch *batch, int32_t first, int32_t count) noexcept nogil
    cdef int32_t produce_batch(self, OpenTopic *topic, ProducerBatch *batch, int32_t first, int32_t count,
                               int64_t now_ms) noexcept nogil
    cdef int32_t produce_each(self, OpenTopic *topic, ProducerBatch *batch, int32_t first, int32_t count,
                              int64_t now_ms) noexcept nogil
    cdef int next_rejected(self, Report *report) noexcept nogil
    cdef void reject(self, int code) noexcept nogil
    cdef void produce_stamped(self, OpenTopic *topic, ProducerBatch *batch, int32_t index,
                              const fp_record *record) noexcept nogil
    cdef rd_kafka_event_t *next_event(self, int timeout_ms) noexcept nogil
    cdef rd_kafka_event_t *next_of(self, rd_kafka_queue_t *queue, int timeout_ms) noexcept nogil
    cdef int open_event(self, rd_kafka_event_t *event, DeliveryReports *reports, int retired) noexcept nogil
    cdef void close_event(self, DeliveryReports *reports) noexcept nogil
    cdef void log(self, int level, const char *facility, const char *text, int retired) noexcept nogil
    cdef void record_acknowledgement(self, const rd_kafka_message_t *message) noexcept nogil
    cdef void wake(self) noexcept nogil
    cdef void purge(self, int wait) noexcept nogil
    cdef void purge_after_fatal(self) noexcept nogil
    cdef void trigger_timeout_scan(self) noexcept nogil
