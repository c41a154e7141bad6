# InFlightPartition: what librdkafka has of one partition, and how much of it goes next.
from libc.stdint cimport int32_t
from fastprod.internals.producer_batch cimport ProducerBatch

cdef enum:
    FIRST_REQUEST_BYTES = 700_000   # of an arena; librdkafka's batch.size is 1,000,000, with what it adds

# How much of a partition may be outstanding. All of it must be reported before more is submitted.
cdef enum Phase:
    FIRST_RECORD    # one record
    FIRST_REQUEST   # one request of up to FIRST_REQUEST_BYTES
    STEADY          # no limit
    SPLITTING       # one request of up to split_limit bytes: the broker has refused a larger one

# A partition's batches in transit. Embedded in PartitionQueue, guarded by sender_lock. Invariants:
# - The records that librdkafka was given are a prefix of those of the batches from `first` to `last`, but for batches
#   that have failed.
# - `outstanding` is the sum of `unreported` of these batches.
# - From `refused` on, batches have records to submit again, all refused with `retry_code`. The next submission waits
#   until nothing is outstanding, and begins with them. So no record behind them has been delivered.
cdef struct InFlightPartition:
    Phase phase
    size_t split_limit           # of SPLITTING; it only falls
    ProducerBatch *first         # drained and not settled, oldest first
    ProducerBatch *last
    ProducerBatch *unsubmitted   # the oldest that librdkafka has not been given wholly; NULL: none
    ProducerBatch *refused       # the oldest with records to submit again; NULL: none
    int retry_code               # why
    int32_t outstanding          # records that librdkafka has not reported yet
    int single_record_request    # the last submission was one record, with nothing else outstanding
    int submitting               # submit_next() is on the stack
    int unresponsive             # the last request was not answered within delivery.timeout.ms
    int32_t last_broker          # which took the newest records that were reported; -1: none yet
    void *open_topic             # the transport's, where the records go; none if generation is 0
    int generation               # of the librdkafka producer that the partition belongs to

cdef size_t phase_limit(Phase phase, size_t split_limit) noexcept nogil
cdef void in_flight_init(InFlightPartition *flight, Phase first) noexcept nogil
# batches
cdef int batch_is_reported(ProducerBatch *batch) noexcept nogil
cdef void in_flight_add(InFlightPartition *flight, ProducerBatch *batch) noexcept nogil
cdef void in_flight_remove(InFlightPartition *flight, ProducerBatch *batch) noexcept nogil
cdef int in_flight_unsubmitted_exceed(InFlightPartition *flight, int32_t limit) noexcept nogil
cdef void in_flight_submit(InFlightPartition *flight, ProducerBatch *batch, int32_t count) noexcept nogil
cdef void in_flight_report(InFlightPartition *flight, ProducerBatch *batch, int32_t count) noexcept nogil
# phases; these return whether the limit may have changed
cdef int in_flight_delivered(InFlightPartition *flight) noexcept nogil
cdef int in_flight_restart(InFlightPartition *flight, Phase first) noexcept nogil
# refused records
cdef int in_flight_may_retry(InFlightPartition *flight, ProducerBatch *batch, int32_t first, int code) noexcept nogil
cdef int in_flight_retry(InFlightPartition *flight, ProducerBatch *batch, int32_t first, int32_t count,
                         int code) noexcept nogil
cdef int in_flight_rewind(InFlightPartition *flight) noexcept nogil
cdef void in_flight_drop_retry(InFlightPartition *flight, ProducerBatch *batch) noexcept nogil
