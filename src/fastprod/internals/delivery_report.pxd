from libc.stdint cimport int8_t, int32_t, int64_t
from libc.string cimport memset
from fastprod.internals.produce_request_result cimport NOT_PERSISTED

# What librdkafka reports of consecutive records of one batch.
cdef struct Report:
    int32_t slot             # what hand_over() was given for the batch
    int32_t first            # index of the first of them in the batch
    int32_t count
    int32_t code             # 0, or librdkafka's error code
    int64_t offset           # of the first; -1: the broker gave none
    int64_t timestamp        # in the log, if the broker or produce_batch gave it; -1: the record's own
    int64_t latency_us       # of the first, from hand-over to acknowledgement
    int32_t broker           # that took them; -1: unknown, or none did
    int8_t persisted

cdef inline void refusal_report(Report *refused, int32_t slot, int32_t first, int32_t count, int code) noexcept nogil:
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
