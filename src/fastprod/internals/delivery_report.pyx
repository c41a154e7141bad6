"""Reads librdkafka's delivery reports: consecutive records of a batch become one Report."""

from libc.stdint cimport int64_t, uint64_t, uintptr_t
from fastprod.internals.produce_request_result cimport PERSISTED
from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions

fp_librdkafka_use(functions())


cdef void delivery_reports_init(DeliveryReports *self, rd_kafka_event_t *event) noexcept nogil:
    """Begins to read an event, which must live until next_report() returns 0."""
    self.event = event
    self.count = self.read = 0
    self.delivered = self.has_offsets = self.failed = 0


cdef inline int64_t log_timestamp(const rd_kafka_message_t *message, uint64_t tag) noexcept nogil:
    """The timestamp that the broker or produce_batch gave the record; -1: it has its own."""
    cdef int kind = 0
    cdef int64_t timestamp = rd_kafka_message_timestamp(message, &kind)
    return timestamp if kind == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME or tag_is_batch_api(tag) else -1


cdef int next_report(DeliveryReports *self, Report *report) noexcept nogil:
    """Reads the next records that one report describes; 0: there are no more."""
    cdef const rd_kafka_message_t *message
    cdef uint64_t tag
    cdef uint64_t expected = 0
    cdef int64_t offset, timestamp
    cdef int64_t next_offset = -1
    cdef size_t read = self.read
    report.count = 0
    while True:
        if read == self.count:
            self.count = rd_kafka_event_message_array(self.event, self.messages, FETCH)
            read = 0
            if self.count == 0:
                self.read = 0
                return report.count > 0
        message = self.messages[read]
        tag = <uintptr_t>message._private
        # An answer without offsets (acks=0, or a lost one that was made up for) numbers its messages from -1001 on,
        # into the positive.
        if not self.delivered and message.err == 0:
            self.delivered = 1
            self.has_offsets = message.offset >= 0
        offset = message.offset if self.has_offsets and message.offset >= 0 else -1
        timestamp = log_timestamp(message, tag)
        if report.count == 0:
            report.slot = tag_slot(tag)
            report.first = tag_index(tag)
            report.code = message.err
            report.offset = offset
            report.timestamp = timestamp
            report.latency_us = rd_kafka_message_latency(message)
            report.broker = rd_kafka_message_broker_id(message)
            report.persisted = rd_kafka_message_status(message) if message.err else PERSISTED
            self.failed |= message.err != 0
        elif not (tag == expected and message.err == report.code and timestamp == report.timestamp
                  and offset == next_offset):
            self.read = read
            return 1
        next_offset = offset + 1 if offset >= 0 else -1
        report.count += 1
        expected = tag + 1
        read += 1


cdef void acknowledgement_report(Report *report, const rd_kafka_message_t *message) noexcept nogil:
    """Makes a report on a record that was delivered, before librdkafka makes its own."""
    cdef uint64_t tag = <uintptr_t>message._private
    report.slot = tag_slot(tag)
    report.first = 0
    report.count = 1
    report.code = 0
    report.offset = message.offset if message.offset >= 0 else -1
    report.timestamp = log_timestamp(message, tag)
    report.latency_us = rd_kafka_message_latency(message)
    report.broker = -1
    report.persisted = PERSISTED
