"""Completion: the end of a batch. Its outcome, its memory, and its place in the accumulator.

Source: org.apache.kafka.clients.producer.internals.Sender.completeBatch() and failBatch().
"""

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, strcmp, strncpy
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.failed_records cimport FailedRecords
from fastprod.internals.produce_request_result cimport NOT_PERSISTED, POSSIBLY_PERSISTED, result_complete, result_record
from fastprod.internals.in_flight_partition cimport batch_is_reported, in_flight_drop_retry, in_flight_remove
from fastprod.internals.partition_queue cimport PartitionQueue, Topic
from fastprod.internals.producer_batch cimport ProducerBatch, batch_free
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sync cimport fp_atomic_load, fp_atomic_store
from fastprod.internals.delivery_report cimport Report, rejection_report
from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.codes cimport (
    BAD_MSG, DESTROYED, FATAL, KAFKA_STORAGE_ERROR, MSG_TIMED_OUT, PURGE_INFLIGHT, PURGE_QUEUE,
    TOPIC_AUTHORIZATION_FAILED, UNDERFLOW, UNKNOWN_PARTITION, UNKNOWN_SERVER_ERROR,
)


@cython.no_gc_clear   # the sender thread may still work with the parts when the collector finds the producer
cdef class Completion:
    """Records the outcomes of batches in transit and ends the batches.

    Owns the slots: a batch in transit has one, whose index travels through librdkafka with its records. A slot is
    free again after the last report. Also owns the counters of outcomes, and the first failure of a transaction.

    Invariants: batches of a partition complete in order, except those that expire. A batch ends in this order: its
    result, its arena and failures, then its place in the accumulator.

    thread: any  lock: sender_lock, in all methods. Locks taken here: the accumulator's, completion, and the leaves.
    """

    def __cinit__(self, RecordAccumulator accumulator, BufferPool pool, Transport transport, Callbacks callbacks, *,
                  bint transactional=False, int64_t first_retry_us=0):
        self.transactional = transactional
        self.first_retry_us = first_retry_us
        self.accumulator = accumulator
        self.pool = pool
        self.transport = transport
        self.callbacks = callbacks
        self.failed_records = FailedRecords(pool.total_memory // 4)

    def __dealloc__(self):
        free(self.slots)
        free(self.free_slots)

    # Slots

    cdef int add(self, ProducerBatch *batch) noexcept nogil:
        """Gives a drained batch a slot; 0 if there is no memory."""
        cdef int32_t count, i
        cdef ProducerBatch **slots
        cdef int32_t *free_slots
        self.transit_count += 1
        batch.requests_before = fp_atomic_load(&self.transport.requests)
        if self.free_count == 0:
            count = 2 * self.slot_count + 64
            slots = <ProducerBatch **>realloc(self.slots, count * sizeof(ProducerBatch *))
            if slots is NULL:
                return 0
            self.slots = slots
            free_slots = <int32_t *>realloc(self.free_slots, count * sizeof(int32_t))
            if free_slots is NULL:
                return 0
            self.free_slots = free_slots
            for i in range(count - 1, self.slot_count - 1, -1):
                self.slots[i] = NULL
                self.free_slots[self.free_count] = i
                self.free_count += 1
            self.slot_count = count
        self.free_count -= 1
        batch.slot = self.free_slots[self.free_count]
        self.slots[batch.slot] = batch
        return 1

    cdef int has_older(self, int64_t created_ns) noexcept nogil:
        """Whether a batch in transit was created before that time."""
        cdef int32_t i
        if self.transit_count:
            for i in range(self.slot_count):
                if self.slots[i] is not NULL and self.slots[i].created_ns < created_ns:
                    return 1
        return 0

    cdef int slow_topics(self, char (*names)[TOPIC_NAME_SIZE], int64_t created_ns) noexcept nogil:
        """Names of topics of which librdkafka has a record from before that time, up to SLOW_TOPICS; how many."""
        cdef const char *name
        cdef ProducerBatch *batch
        cdef int count = 0
        cdef int i
        cdef int32_t slot
        for slot in range(self.slot_count if self.transit_count else 0):
            batch = self.slots[slot]
            if batch is NULL or batch.unreported == 0 or batch.created_ns > created_ns:
                continue
            name = (<PartitionQueue *>batch.queue).topic.name
            for i in range(count):
                if strcmp(names[i], name) == 0:
                    break
            else:
                strncpy(names[count], name, TOPIC_NAME_SIZE - 1)
                names[count][TOPIC_NAME_SIZE - 1] = 0
                count += 1
                if count == SLOW_TOPICS:
                    break
        return count

    # Outcomes

    cdef void record_report(self, ProducerBatch *batch, const Report *report) noexcept nogil:
        """Records the outcome that librdkafka reports, corrected where fastprod knows better."""
        cdef Topic *topic = (<PartitionQueue *>batch.queue).topic
        cdef int code = report.code
        if code == PURGE_QUEUE and fp_atomic_load(&self.transport.errors.fatal_code):
            code = FATAL   # the reason for the purge
        elif code == TOPIC_AUTHORIZATION_FAILED or topic.unauthorized and code in (UNKNOWN_PARTITION, DESTROYED):
            # librdkafka removes the partitions of a topic that may not be written to. Its records for them fail with
            # one of the other codes if metadata arrives in that moment.
            code = TOPIC_AUTHORIZATION_FAILED
        topic.unauthorized = code == TOPIC_AUTHORIZATION_FAILED
        self.record_outcome(batch, report.first, report.count, code, report.offset, report.timestamp,
                            self.persisted(batch, report))
        if report.latency_us >= 0:
            self.latency_us += report.latency_us
            self.latency_count += 1
            self.longest_latency_us = max(self.longest_latency_us, report.latency_us)

    cdef int8_t persisted(self, ProducerBatch *batch, const Report *report) noexcept nogil:
        """Whether records that failed may be in the log.

        librdkafka goes by the last answer, and that is not enough:
        - A broker that was deposed while it waited for its followers has written the record, and says that it is not
          the leader.
        - A refusal may answer the repetition of a request that was written though it failed.
        - librdkafka takes an answer that it could not read, and a broker's own fault, for a refusal.
        So NOT_PERSISTED is certain only if nothing was sent, or if the refusal came before librdkafka would have
        repeated a request.
        """
        cdef int requests
        if report.persisted != NOT_PERSISTED or report.code == 0:
            return report.persisted
        requests = fp_atomic_load(&self.transport.requests) - batch.requests_before
        if (report.code in (BAD_MSG, UNDERFLOW, UNKNOWN_SERVER_ERROR, KAFKA_STORAGE_ERROR) or
                requests and (report.code in (MSG_TIMED_OUT, PURGE_QUEUE) or
                              requests > 1 and report.latency_us >= self.first_retry_us)):
            return POSSIBLY_PERSISTED
        return NOT_PERSISTED

    cdef void record_outcome(self, ProducerBatch *batch, int32_t first, int32_t count, int code, int64_t offset,
                             int64_t timestamp, int8_t persisted) noexcept nogil:
        result_record(batch.result, first, count, code, offset, timestamp, persisted)
        if code == 0:
            self.records_sent += count
        else:
            self.records_failed += count
            self.record_failure(batch, code, persisted)

    cdef void record_failure(self, ProducerBatch *batch, int code, int8_t persisted) noexcept nogil:
        """Keeps the first failure of a transaction, which must now be aborted, and stops the next send()."""
        if not self.transactional or fp_atomic_load(&self.failure_code):
            return
        self.failure_persisted = persisted
        strncpy(self.failure_topic, (<PartitionQueue *>batch.queue).topic.name, sizeof(self.failure_topic) - 1)
        self.failure_partition = batch.result.partition
        fp_atomic_store(&self.failure_code, code)
        self.accumulator.stop_appends()

    cdef void fail_unsubmitted(self, ProducerBatch *batch, int code) noexcept nogil:
        """Fails the records of a batch that librdkafka was not given."""
        cdef int32_t first = batch.submitted
        if first == batch.count:
            return
        batch.submitted = batch.count
        self.record_outcome(batch, first, batch.count - first, code, -1, -1, NOT_PERSISTED)

    cdef void fail_refused(self, PartitionQueue *queue) noexcept nogil:
        """Fails the refused records of a partition: submitted again, they would come after newer ones."""
        cdef Report report
        cdef ProducerBatch *batch = queue.in_flight.refused
        queue.in_flight.refused = NULL
        while batch is not NULL:
            if batch.retry_count:
                rejection_report(&report, batch.slot, batch.retry_first, batch.retry_count, queue.in_flight.retry_code)
                batch.retry_count = 0
                self.record_report(batch, &report)
            batch = batch.transit_next

    cdef void fail_rest(self, ProducerBatch *batch, int code) noexcept nogil:
        """Fails the records without an outcome. Those that librdkafka has are possibly persisted."""
        cdef PartitionQueue *queue = <PartitionQueue *>batch.queue
        cdef int32_t known = batch.submitted - batch.unreported - batch.retry_count
        cdef int8_t persisted = POSSIBLY_PERSISTED if batch.unreported else NOT_PERSISTED
        if known and batch.result.recorded_end != known:
            known = 0   # reports out of order, or no memory for their outcomes: all records fail
            batch.result.segment_count = batch.result.unknown = 0
        if batch.submitted > known:
            self.record_outcome(batch, known, batch.submitted - known,
                                PURGE_INFLIGHT if code == PURGE_QUEUE and batch.unreported else code, -1, -1, persisted)
        self.fail_unsubmitted(batch, code)
        in_flight_drop_retry(&queue.in_flight, batch)

    # Ends of batches

    cdef void finish(self, PartitionQueue *queue) noexcept nogil:
        """Completes the batches of a partition that are reported, in order, and frees them."""
        cdef ProducerBatch *batch
        cdef ProducerBatch *next_batch = queue.in_flight.first
        self.complete_in_order(queue)
        while next_batch is not NULL:
            batch = next_batch
            next_batch = batch.transit_next
            if not batch_is_reported(batch):
                if not batch.expired:
                    break
            elif batch.expired or batch.completed:
                self.settle(batch)

    cdef void complete_in_order(self, PartitionQueue *queue) noexcept nogil:
        """Completes batches that are reported, up to the first one that is not.

        So callbacks of a partition come in the order of its records, though librdkafka may refuse a batch at once
        while earlier ones are in flight.
        """
        cdef ProducerBatch *batch = queue.in_flight.first
        while batch is not NULL:
            if not batch.expired and not batch.completed:
                if not batch_is_reported(batch):
                    break
                self.complete(batch)
            batch = batch.transit_next

    cdef void complete(self, ProducerBatch *batch) noexcept nogil:
        """Gives the futures of a batch their results."""
        batch.completed = 1
        self.accumulator.settle_records(batch)   # before a result is visible, or len() would still count the record
        if result_complete(batch.result, batch.count):
            self.callbacks.add(batch.result)

    cdef void complete_first(self, const Report *report) noexcept nogil:
        """Completes a batch whose only record was delivered, unless an older one of its partition is in transit.

        The report on an older batch may have arrived without being served, and callbacks come in order. The rest
        follows with the report on this one.
        """
        cdef ProducerBatch *batch = self.slots[report.slot]
        if (<PartitionQueue *>batch.queue).in_flight.first is batch and not batch.expired:
            self.record_report(batch, report)
            self.complete(batch)

    cdef void settle(self, ProducerBatch *batch) noexcept nogil:
        """Frees a batch that is completed, and of which nothing is outstanding."""
        cdef PartitionQueue *queue = <PartitionQueue *>batch.queue
        in_flight_remove(&queue.in_flight, batch)
        if queue.in_flight.unresponsive:
            self.unresponsive_freed = 1
        self.transit_count -= 1
        if batch.slot >= 0:
            self.slots[batch.slot] = NULL
            self.free_slots[self.free_count] = batch.slot
            self.free_count += 1
            batch.slot = -1
        self.return_arena(batch)
        self.accumulator.settle(batch)
        batch_free(batch, self.pool)

    cdef void return_arena(self, ProducerBatch *batch) noexcept nogil:
        """Returns the arena to the pool, or gives it to FailedRecords. No report is outstanding.

        accumulator.settle() comes after this: it lets flush() return, which reads the failures next, and its caller
        perhaps reads the free memory.
        """
        if batch.result is not NULL and batch.result.unobserved > 0:
            self.pool.uncharge(batch.capacity)
            self.failed_records.keep(batch, (<PartitionQueue *>batch.queue).topic.name, batch.arena)
        else:
            self.pool.deallocate(batch.arena, batch.capacity)
        batch.arena = NULL

    cdef void keep_copy(self, ProducerBatch *batch) noexcept nogil:
        """Gives FailedRecords a copy of the records: librdkafka still reads the arena."""
        cdef char *copy
        if batch.result.unobserved > 0:
            copy = <char *>malloc(max(batch.used, <size_t>1))
            if copy is not NULL:
                memcpy(copy, batch.arena, batch.used)
            self.failed_records.keep(batch, (<PartitionQueue *>batch.queue).topic.name, copy)
