"""InFlightPartition: what librdkafka has of one partition, and how much of it goes next.

The struct and its invariants are in the .pxd. thread: any  lock: sender_lock, in all functions.
"""

from libc.stdint cimport int32_t
from fastprod.internals.producer_batch cimport BATCH_IN_TRANSIT, ProducerBatch, batch_request_size, batch_rewind
from fastprod.librdkafka.codes cimport MSG_SIZE_TOO_LARGE


def first_phase(str acks, bint idempotent):
    """The Phase of a new partition; ProduceRequests.submit_next() has the reasons."""
    if acks == "0":
        return STEADY   # no answer would end another phase
    return FIRST_RECORD if idempotent else FIRST_REQUEST


cdef size_t phase_limit(Phase phase, size_t split_limit) noexcept nogil:
    """The bytes that may be outstanding, or a single record; 0: no limit."""
    if phase == STEADY:
        return 0
    if phase == SPLITTING:
        return split_limit
    return 1 if phase == FIRST_RECORD else FIRST_REQUEST_BYTES


cdef void in_flight_init(InFlightPartition *flight, Phase first) noexcept nogil:
    """Initializes memory that is zero."""
    flight.phase = first
    flight.last_broker = -1


# Batches


cdef int batch_is_reported(ProducerBatch *batch) noexcept nogil:
    """Whether every record of a batch in transit has its outcome."""
    return (batch.state == BATCH_IN_TRANSIT and batch.submitted == batch.count and batch.unreported == 0 and
            batch.retry_count == 0)


cdef void in_flight_add(InFlightPartition *flight, ProducerBatch *batch) noexcept nogil:
    """Adds a batch that was drained."""
    batch.cursor = batch.arena
    batch.transit_previous = flight.last
    if flight.last is NULL:
        flight.first = batch
    else:
        flight.last.transit_next = batch
    flight.last = batch
    if flight.unsubmitted is NULL:
        flight.unsubmitted = batch


cdef void in_flight_remove(InFlightPartition *flight, ProducerBatch *batch) noexcept nogil:
    """Removes a batch of which nothing is outstanding."""
    if batch.transit_previous is NULL:
        flight.first = batch.transit_next
    else:
        batch.transit_previous.transit_next = batch.transit_next
    if batch.transit_next is NULL:
        flight.last = batch.transit_previous
    else:
        batch.transit_next.transit_previous = batch.transit_previous
    if flight.unsubmitted is batch:   # it expired before its turn
        flight.unsubmitted = batch.transit_next


cdef int in_flight_unsubmitted_exceed(InFlightPartition *flight, int32_t limit) noexcept nogil:
    """Whether more than `limit` records wait for submission."""
    cdef ProducerBatch *batch = flight.unsubmitted
    while batch is not NULL and limit >= 0:
        limit -= batch.count - batch.submitted
        batch = batch.transit_next
    return limit < 0


cdef void in_flight_submit(InFlightPartition *flight, ProducerBatch *batch, int32_t count) noexcept nogil:
    """Counts records as outstanding, just before librdkafka gets them."""
    flight.single_record_request = count == 1 and flight.outstanding == 0
    flight.outstanding += count
    batch.submitted += count
    batch.unreported += count
    batch.generation = flight.generation


cdef void in_flight_report(InFlightPartition *flight, ProducerBatch *batch, int32_t count) noexcept nogil:
    """Counts records as reported."""
    batch.unreported -= count
    flight.outstanding -= count


# Phases


cdef int in_flight_delivered(InFlightPartition *flight) noexcept nogil:
    """A record was delivered: enters the next phase if nothing is outstanding."""
    if flight.outstanding or flight.phase >= STEADY:
        return 0
    flight.phase = FIRST_REQUEST if flight.phase == FIRST_RECORD else STEADY
    return 1


cdef int in_flight_restart(InFlightPartition *flight, Phase first) noexcept nogil:
    """Another librdkafka producer takes over, which is new to the partition. The broker's limit stays as it is."""
    if flight.phase == SPLITTING:
        return 0
    flight.phase = first
    return 1


# Refused records


cdef int in_flight_may_retry(InFlightPartition *flight, ProducerBatch *batch, int32_t first, int code) noexcept nogil:
    """Whether refused records, from index `first` of the batch, continue those that were refused before."""
    return ((flight.refused is NULL or flight.retry_code == code)
            and (batch.retry_count == 0 or first == batch.retry_first + batch.retry_count))


cdef int in_flight_retry(InFlightPartition *flight, ProducerBatch *batch, int32_t first, int32_t count,
                         int code) noexcept nogil:
    """Keeps refused records, to submit them again once nothing is outstanding. See in_flight_may_retry()."""
    if flight.refused is NULL:
        flight.refused = batch
        flight.retry_code = code
    if batch.retry_count == 0:
        batch.retry_first = first
    batch.retry_count += count
    if code != MSG_SIZE_TOO_LARGE or flight.phase == SPLITTING:
        return 0
    flight.phase = SPLITTING
    flight.split_limit = FIRST_REQUEST_BYTES
    return 1


cdef int in_flight_rewind(InFlightPartition *flight) noexcept nogil:
    """Makes the refused records the next ones to submit, and halves the limit if they were too large together.

    Nothing is outstanding.
    """
    cdef ProducerBatch *batch = flight.refused
    cdef size_t size = 0
    flight.unsubmitted = batch
    flight.refused = NULL
    while batch is not NULL:
        if batch.retry_count:
            size += batch_request_size(batch.arena, batch.arena + batch.used // batch.count * batch.retry_count,
                                       batch.retry_count)
            batch_rewind(batch, batch.retry_first)
            batch.retry_count = 0
        batch = batch.transit_next
    if flight.retry_code != MSG_SIZE_TOO_LARGE:
        return 0
    flight.split_limit = max(min(flight.split_limit, size) // 2, <size_t>1)
    return 1


cdef void in_flight_drop_retry(InFlightPartition *flight, ProducerBatch *batch) noexcept nogil:
    """The refused records of a batch have failed."""
    batch.retry_count = 0
    while flight.refused is not NULL and flight.refused.retry_count == 0:
        flight.refused = flight.refused.transit_next
