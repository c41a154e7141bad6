from libc.stdint cimport int8_t, int32_t, int64_t, uint64_t
from libc.string cimport memset
from fastprod.internals.produce_request_result cimport NOT_PERSISTED
from fastprod.librdkafka.declarations cimport rd_kafka_event_t, rd_kafka_message_t

cdef enum:
    FETCH = 64   # messages fetched from an event at once: they stay in the innermost cache until they are read

# What librdkafka reports of consecutive records of one batch.
cdef struct Report:
    int32_t slot             # of the batch: see Completion.slots
    int32_t first            # index of the first of them in the batch
    int32_t count
    int32_t code             # 0, or librdkafka's error code
    int64_t offset           # of the first; -1: the broker gave none
    int64_t timestamp        # in the log, if the broker or produce_batch gave it; -1: the record's own
    int64_t latency_us       # of the first, from hand-over to acknowledgement
    int32_t broker           # that took them; -1: unknown, or none did
    int8_t persisted

# The reports of one event, in the order of librdkafka's queue.
cdef struct DeliveryReports:
    rd_kafka_event_t *event
    const rd_kafka_message_t *messages[FETCH]
    size_t count             # of those messages
    size_t read              # of those, the ones that are in a report
    int delivered            # a record of the event was delivered
    int has_offsets          # and had an offset
    int failed               # a record of the event failed

cdef void delivery_reports_init(DeliveryReports *self, rd_kafka_event_t *event) noexcept nogil
cdef int next_report(DeliveryReports *self, Report *report) noexcept nogil
cdef void acknowledgement_report(Report *report, const rd_kafka_message_t *message) noexcept nogil

# A record carries this tag through librdkafka, as its opaque: the batch's slot, the record's index in the batch, and
# whether it went by rd_kafka_produce_batch() and is the only one of its batch.

cdef inline uint64_t record_tag(int32_t slot, int32_t index, int batch_api, int single) noexcept nogil:
    return <uint64_t>slot << 32 | <uint64_t>batch_api << 31 | <uint64_t>single << 30 | <uint64_t>index

cdef inline int32_t tag_slot(uint64_t tag) noexcept nogil:
    return <int32_t>(tag >> 32)

cdef inline int32_t tag_index(uint64_t tag) noexcept nogil:
    return <int32_t>(tag & 0x3fffffff)

cdef inline int tag_is_batch_api(uint64_t tag) noexcept nogil:
    return tag >> 31 & 1

cdef inline int tag_is_single(uint64_t tag) noexcept nogil:
    return tag >> 30 & 1

cdef inline void rejection_report(Report *refused, int32_t slot, int32_t first, int32_t count, int code) noexcept nogil:
    """Makes a report on records that librdkafka refused, or that it was not given."""
    memset(refused, 0, sizeof(Report))
    refused.slot = slot
    refused.first = first
    refused.count = count
    refused.code = code
    refused.offset = -1
    refused.timestamp = -1
    refused.latency_us = -1
    refused.broker = -1
    refused.persisted = NOT_PERSISTED
