"""IncompleteBatches: the batches that have not settled, oldest first.

Source: org.apache.kafka.clients.producer.internals.IncompleteBatches.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t
from fastprod.internals.partition_queue cimport uncount_queued
from fastprod.internals.producer_batch cimport (
    BATCH_IN_TRANSIT, INCOMPLETE, LINGERING, ProducerBatch, batch_list_append, batch_list_remove,
)
from fastprod.internals.sync cimport fp_atomic_store


cdef class IncompleteBatches:
    """Knows when a batch has lingered, when it expires, and which flush() calls wait for it.

    Owns the list of incomplete batches, its sublist of those that linger, and the flush points; not the batches.
    Invariants: both lists are in the order of creation, so ids and times of creation grow along them. A flush point
    is done exactly if no incomplete batch is as old as it.

    Part of the RecordAccumulator, whose lock the caller holds.
    """

    def __cinit__(self, int64_t linger_ns, int64_t delivery_timeout_ns, int64_t transit_grace_ns):
        self.linger_ns = linger_ns
        self.delivery_timeout_ns = delivery_timeout_ns
        self.transit_grace_ns = transit_grace_ns

    cdef void add(self, ProducerBatch *batch) noexcept nogil:
        """Takes a new batch in. It lingers, unless linger.ms is 0."""
        self.last_id += 1
        batch.id = self.last_id
        batch.incomplete = 1
        batch_list_append(&self.batches, batch, INCOMPLETE)
        if self.linger_ns > 0:
            batch.lingering = 1
            batch_list_append(&self.lingering, batch, LINGERING)

    cdef int32_t remove(self, ProducerBatch *batch) noexcept nogil:
        """Takes a batch out, if it is in; returns how many of its records count as settled only now."""
        if not batch.incomplete:
            return 0
        batch.incomplete = 0
        uncount_queued(batch)
        batch_list_remove(&self.batches, batch, INCOMPLETE)
        return 0 if batch.settled_early else batch.count

    cdef int32_t settle_records(self, ProducerBatch *batch) noexcept nogil:
        """The batch's futures are about to have their results, before it is removed; returns as remove() does."""
        if not batch.incomplete or batch.settled_early:
            return 0
        batch.settled_early = 1
        return batch.count

    cdef void stop_lingering(self, ProducerBatch *batch) noexcept nogil:
        if batch.lingering:
            batch.lingering = 0
            batch_list_remove(&self.lingering, batch, LINGERING)

    cdef ProducerBatch *take_lingered(self, int64_t now_ns, int flush_requested) noexcept nogil:
        """A batch that need not linger any longer, or NULL. With flush_requested, none need."""
        cdef ProducerBatch *batch = self.lingering.oldest
        if batch is NULL or not flush_requested and now_ns - batch.created_ns < self.linger_ns:
            return NULL
        self.stop_lingering(batch)
        return batch

    cdef ProducerBatch *next_expired(self, ProducerBatch *after, int64_t now_ns, Expiry which) noexcept nogil:
        """The oldest batch that is newer than `after` and has expired, or NULL. after: NULL to begin.

        A batch of which librdkafka was given nothing expires at delivery.timeout.ms. Another one gets some grace,
        because librdkafka reports more exactly what became of it.
        """
        cdef ProducerBatch *batch = self.batches.oldest if after is NULL else after.links[<int>INCOMPLETE].newer
        cdef int64_t age
        while batch is not NULL:
            age = now_ns - batch.created_ns
            if which == OVERDUE and age < self.delivery_timeout_ns:
                return NULL
            if (batch.state != BATCH_IN_TRANSIT or batch.submitted == 0 or which == EVERYTHING or
                    which == OVERDUE and age >= self.delivery_timeout_ns + self.transit_grace_ns):
                return batch
            batch = batch.links[<int>INCOMPLETE].newer
        return NULL

    cdef int64_t next_event_ns(self, int64_t next_expiry_ns) noexcept nogil:
        """When the next batch has lingered or expires; monotonic, INT64_MAX: never.

        Batches that expire before next_expiry_ns can wait for that.
        """
        cdef int64_t until = INT64_MAX
        cdef int64_t expiry
        if self.lingering.oldest is not NULL:
            until = self.lingering.oldest.created_ns + self.linger_ns
        if self.batches.oldest is not NULL:
            expiry = self.batches.oldest.created_ns + self.delivery_timeout_ns
            if self.batches.oldest.state == BATCH_IN_TRANSIT:
                expiry += self.transit_grace_ns
            until = min(until, max(expiry, next_expiry_ns))
        return until

    cdef void add_flush_point(self, FlushPoint *point) noexcept nogil:
        """point.done will be stored once every batch that exists now has settled."""
        point.id = self.last_id
        point.done = self.batches.oldest is NULL
        point.next = self.flush_points
        self.flush_points = point
        self.flushing += 1

    cdef void remove_flush_point(self, FlushPoint *point) noexcept nogil:
        cdef FlushPoint **link = &self.flush_points
        while link[0] is not point:
            link = &link[0].next
        link[0] = point.next
        self.flushing -= 1

    cdef int reach_flush_points(self) noexcept nogil:
        """Marks those done that no incomplete batch is in the way of; whether there was any."""
        cdef FlushPoint *point = self.flush_points
        cdef int reached = 0
        while point is not NULL:
            if not point.done and (self.batches.oldest is NULL or self.batches.oldest.id > point.id):
                fp_atomic_store(&point.done, 1)
                reached = 1
            point = point.next
        return reached
