"""ProduceRequests: which records librdkafka gets, and when.

Source: org.apache.kafka.clients.producer.internals.Sender.sendProduceRequests() and handleProduceResponse().

A partition starts with a single record, if the producer is idempotent. Broker and librdkafka both take a batch with any
sequence number for the first of a producer that is new to the partition:
1. A broker becomes the leader between two requests. It refuses the first and takes the second.
2. librdkafka concludes that the first was written too (rd_kafka_handle_idempotent_Produce_success).
So nothing may follow the first record before it is delivered. After it comes one large request, and the rest once that
was not too large for the topic. `Phase` in in_flight_partition.pxd names these steps.

Where the order of a partition is to last, one submission is one request, and the next submission waits until all of its
records are reported. With two requests the second can overtake the first:
1. The first fails with an error that is retried. Its records go back into librdkafka's queue for retry.backoff.ms.
2. The second is in flight already, and is taken.
Or, when the leader moves (rd_kafka_msgbatch_handle_Produce_result):
1. The old leader's thread takes the failed request out of the partition's count, before it puts the records back.
2. The new leader's thread sees nothing in flight, and sends what is behind them.
With idempotence the broker refuses the second. Then librdkafka takes a new epoch, and sends again in it what other
partitions have in the log without an answer: duplicates (rd_kafka_handle_idempotent_Produce_error).

librdkafka makes one request of what its queue holds when it looks, so:
- A submission is smaller than librdkafka's limits of a request (keep_order()).
- The partition is paused meanwhile, if the submission has two records or more. Then the broker's thread leaves the
  queue alone: it reads the flag and takes from the queue in one critical section (rd_kafka_toppar_producer_serve). A
  request that fails goes back in one critical section too, with one backoff. So there is never a second request.
- A pause costs some 50 us. With idempotence, where sequence numbers keep the order anyway, partitions are only paused
  for MANY_RECORDS, and for UNSETTLED_NS after a leader has moved. Else librdkafka makes no request before its
  linger.ms is over. By then everything is submitted, unless the thread loses its core, or linger.ms is 0: that gap
  remains.

A batch whose delivery.timeout.ms has passed is not submitted: it fails. librdkafka counts that time from the
submission, and so keeps a batch that was submitted late for longer than it should. A partition whose last request was
not answered in time therefore gets little, and nothing in a batch's last moment, when it would only fail with an open
outcome.

When the transport has switched over to another librdkafka producer, a partition follows once nothing of it is
outstanding with the former, so that its order lasts.
"""

cimport cython
from libc.stdint cimport INT32_MAX, int32_t, int64_t
from libc.stdio cimport snprintf
from libc.string cimport memset
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.produce_request_result cimport NOT_PERSISTED
from fastprod.internals.in_flight_partition cimport (
    FIRST_RECORD, FIRST_REQUEST_BYTES, InFlightPartition, batch_is_reported, in_flight_add,
    in_flight_delivered, in_flight_may_retry, in_flight_report, in_flight_restart, in_flight_retry, in_flight_rewind,
    in_flight_submit, in_flight_unsubmitted_exceed, phase_limit,
)
from fastprod.internals.partition_queue cimport PartitionQueue, Topic
from fastprod.internals.producer_batch cimport (
    BATCH_IN_TRANSIT, ProducerBatch, batch_free, batch_records_within, batch_request_size,
)
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns
from fastprod.internals.handle cimport Handle, OpenTopic
from fastprod.internals.delivery_report cimport Report
from fastprod.internals.partition_pause cimport pause_partition, resume_partition
from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.declarations cimport rd_kafka_queue_t
from fastprod.librdkafka.codes cimport CRIT_SYS_RESOURCE, MSG_SIZE_TOO_LARGE, MSG_TIMED_OUT, PURGE_INFLIGHT, PURGE_QUEUE

cdef int64_t LAST_MOMENT_NS = 500_000_000
cdef int64_t UNSETTLED_NS = 60_000_000_000   # for so long after a leader has moved others are expected to
cdef enum:
    UNRESPONSIVE_LIMIT = 1 << 20    # bytes that librdkafka may have of a leader's partitions that do not answer
    MANY_RECORDS = 2000           # to submit more takes a good part of librdkafka's linger.ms
    LOG_WARNING = 4


@cython.no_gc_clear   # the sender thread may still work with the parts when the collector finds the producer
cdef class ProduceRequests:
    """Submits batches to librdkafka and acts on its delivery reports.

    Owns the InFlightPartition of each partition, whose invariants are in in_flight_partition.pxd. Once nothing more can
    be done for a batch, Completion ends it.

    librdkafka may refuse records at once. They are reported while `submitting` is set, and advance(), which frees
    batches, is left to the caller of submit_next().

    thread: any  lock: sender_lock, in all methods, but for the atomics. Locks taken here: the accumulator's.
    """

    def __cinit__(self, RecordAccumulator accumulator, Transport transport, Callbacks callbacks,
                  Completion completion, dict properties, *, bint ordered=False, bint idempotent=False):
        """properties: librdkafka's. ordered: partitions keep their order through retries."""
        self.accumulator = accumulator
        self.transport = transport
        self.callbacks = callbacks
        self.completion = completion
        self.request_size = FIRST_REQUEST_BYTES
        self.request_records = INT32_MAX
        if ordered:
            self.keep_order(properties, idempotent)

    cdef int keep_order(self, dict properties, bint idempotent) except -1:
        """Makes each submission of a partition a single request; properties: librdkafka's."""
        cdef Py_ssize_t largest = min(int(properties["batch.size"]), int(properties["message.max.bytes"]))
        self.ordered = 1
        self.pausing = not idempotent
        self.request_size = max(1, min(<Py_ssize_t>FIRST_REQUEST_BYTES, largest - largest // 16 - 600))   # header
        self.request_records = int(properties["batch.num.messages"])
        return 0

    cdef void add(self, ProducerBatch *chain) noexcept nogil:
        """Takes batches that were drained, chained by next, and submits what librdkafka may have."""
        cdef ProducerBatch *batch
        cdef PartitionQueue *queue
        while chain is not NULL:
            batch = chain
            chain = batch.next
            batch.next = NULL
            queue = <PartitionQueue *>batch.queue
            in_flight_add(&queue.in_flight, batch)
            if not self.completion.add(batch):
                self.completion.fail_unsubmitted(batch, CRIT_SYS_RESOURCE)
            self.advance(queue)

    cdef void advance(self, PartitionQueue *queue) noexcept nogil:
        """Submits and completes what can be, after a change. Not within submit_next(), since it frees batches."""
        if queue.in_flight.refused is not NULL and queue.in_flight.outstanding == 0:
            self.split(queue)
        self.submit_next(queue)
        self.completion.finish(queue)

    # Submission

    cdef int may_submit(self, PartitionQueue *queue, int one_at_a_time) noexcept nogil:
        cdef InFlightPartition *flight = &queue.in_flight
        return (flight.unsubmitted is not NULL
                and not (one_at_a_time and (flight.outstanding or flight.refused is not NULL))
                and not (fp_atomic_load(<const int *>&self.purging) and fp_atomic_load(<const int *>&self.stopping)))

    cdef void submit_next(self, PartitionQueue *queue) noexcept nogil:
        """Submits what librdkafka may have of the partition's batches. The rules stand at the top of this file."""
        cdef InFlightPartition *flight = &queue.in_flight
        cdef Submission request
        cdef ProducerBatch *batch
        cdef const char *start
        cdef int32_t count
        cdef int32_t whole = 0   # batches
        memset(&request, 0, sizeof(request))
        request.one_at_a_time = self.ordered or phase_limit(flight.phase, flight.split_limit) > 0
        if not self.may_submit(queue, request.one_at_a_time):
            if flight.unsubmitted is not NULL and queue.waiting_ns == 0:
                self.accumulator.on_submitted(queue, 0, 1, fp_monotonic_ns())
            return
        request.now_ns = fp_monotonic_ns()
        if flight.unresponsive:
            request.unresponsive = self.unresponsive_bytes(queue.leader)
        flight.submitting = 1
        while flight.unsubmitted is not NULL:
            batch = flight.unsubmitted
            if batch.submitted == batch.count:
                flight.unsubmitted = batch.transit_next
                continue
            if request.now_ns - batch.created_ns >= self.accumulator.incomplete.delivery_timeout_ns:
                self.completion.fail_unsubmitted(batch, MSG_TIMED_OUT)
                continue
            if flight.unresponsive and batch.unreported == 0 and not self.may_submit_unresponsive(batch, &request):
                break
            if flight.generation != self.transport.generation and (
                    flight.outstanding == 0 or not request.one_at_a_time and batch.submitted == 0):
                if not self.open_topic(queue):
                    self.completion.fail_unsubmitted(batch, CRIT_SYS_RESOURCE)
                    continue
            count = batch.count - batch.submitted
            if request.one_at_a_time:
                count = self.records_in_request(queue, batch, &request)
                if count == 0:
                    break
            start = batch.cursor
            self.submit(flight, batch, count)
            request.left -= min(request.left, batch_request_size(start, batch.cursor, count))
            if batch.submitted == batch.count and batch.queued:
                batch.queued = 0
                whole += 1
        if request.paused is not NULL:
            resume_partition(request.paused, <OpenTopic *>flight.open_topic, queue.partition)
        flight.submitting = 0
        self.accumulator.on_submitted(queue, whole, flight.unsubmitted is not NULL, request.now_ns)

    cdef void submit(self, InFlightPartition *flight, ProducerBatch *batch, int32_t count) noexcept nogil:
        """Gives librdkafka count more records of a batch."""
        cdef Report refused
        cdef int32_t taken
        cdef int32_t first = batch.submitted
        in_flight_submit(flight, batch, count)
        while count > 0:
            taken = self.transport.hand_over(<OpenTopic *>flight.open_topic, batch, first, count)
            first += taken
            count -= taken
            while self.transport.next_rejected(&refused):
                self.on_report(&refused)

    cdef int32_t records_in_request(self, PartitionQueue *queue, ProducerBatch *batch,
                                    Submission *request) noexcept nogil:
        """How many of the batch's next records belong to this request; 0: it is full."""
        cdef InFlightPartition *flight = &queue.in_flight
        cdef size_t limit
        cdef int32_t count
        if flight.outstanding == 0:
            # The request begins here, or librdkafka has refused all records before these at once, as it does after a
            # fatal error: no report would come that submits the rest.
            limit = phase_limit(flight.phase, flight.split_limit)
            request.left = min(limit, self.request_size) if limit else self.request_size
            if request.paused is NULL and self.wants_pause(queue):
                request.paused = pause_partition(<OpenTopic *>flight.open_topic, queue.topic.name, queue.partition)
                if request.paused is NULL:
                    request.left = 0    # a single record is a single request
        count = min(batch_records_within(batch, request.left), self.request_records - flight.outstanding)
        return count if count > 0 else flight.outstanding == 0

    cdef int wants_pause(self, PartitionQueue *queue) noexcept nogil:
        """Whether librdkafka could make two requests of the next submission."""
        cdef int32_t safe = MANY_RECORDS
        if not self.ordered or queue.in_flight.phase == FIRST_RECORD:
            return 0
        if self.pausing or self.unsettled_until_ns and fp_monotonic_ns() < self.unsettled_until_ns:
            safe = 1
        return in_flight_unsubmitted_exceed(&queue.in_flight, safe)

    cdef int open_topic(self, PartitionQueue *queue) noexcept nogil:
        """Moves a partition to the current librdkafka producer, to which it is new; 0: there is no memory."""
        cdef Topic *topic = queue.topic
        cdef int generation = self.transport.generation
        cdef OpenTopic *opened
        if topic.generation != generation:
            opened = self.transport.open_topic(topic.name)
            if opened is NULL:
                return 0
            topic.open_topic = opened
            topic.generation = generation
        if queue.in_flight.generation and self.ordered and (
                in_flight_restart(&queue.in_flight, self.accumulator.topics.first_phase)):
            self.update_limit(queue)
        queue.in_flight.open_topic = topic.open_topic
        queue.in_flight.generation = generation
        return 1

    cdef void update_limit(self, PartitionQueue *queue) noexcept nogil:
        """The partition has entered another phase."""
        self.accumulator.set_request_limit(queue, phase_limit(queue.in_flight.phase, queue.in_flight.split_limit))

    # Reports

    cdef void on_report(self, const Report *report) noexcept nogil:
        """A report on consecutive records of one batch."""
        cdef ProducerBatch *batch = self.completion.slots[report.slot]
        cdef PartitionQueue *queue = <PartitionQueue *>batch.queue
        cdef InFlightPartition *flight = &queue.in_flight
        in_flight_report(flight, batch, report.count)
        self.record_answer(queue, report)
        if batch.expired or batch.completed:
            pass
        elif self.may_split(queue, batch, report) or self.was_given_back(queue, batch, report):
            if in_flight_retry(flight, batch, report.first, report.count, report.code):
                self.update_limit(queue)
        else:
            if flight.refused is not NULL:
                self.completion.fail_refused(queue)
            self.completion.record_report(batch, report)
            if report.code in (MSG_TIMED_OUT, PURGE_QUEUE, PURGE_INFLIGHT):
                self.completion.fail_unsubmitted(batch, report.code)
        if report.code == 0 and in_flight_delivered(flight):
            self.update_limit(queue)
        if not flight.submitting:
            self.advance(queue)

    cdef void record_answer(self, PartitionQueue *queue, const Report *report) noexcept nogil:
        """Keeps whether the partition's broker answers, and whether the leader has moved."""
        cdef InFlightPartition *flight = &queue.in_flight
        if flight.unresponsive and report.code >= 0:
            self.set_unresponsive(queue, 0)
        elif report.code == MSG_TIMED_OUT:
            self.set_unresponsive(queue, 1)
        if report.broker != flight.last_broker and report.code == 0:
            if flight.last_broker >= 0:
                self.unsettled_until_ns = fp_monotonic_ns() + UNSETTLED_NS
            flight.last_broker = report.broker

    cdef int may_split(self, PartitionQueue *queue, ProducerBatch *batch, const Report *report) noexcept nogil:
        """Whether records that were too large together may be submitted again in smaller requests.

        librdkafka puts the records of several batches into one request, up to its own batch.size, and fails all of
        them if that is larger than the topic's max.message.bytes. Java's producer splits its batch and sends it again.

        Not a record that was alone, nor one that librdkafka refused itself. In a transaction librdkafka demands an
        abort after this.
        """
        return (report.code == MSG_SIZE_TOO_LARGE and not queue.in_flight.single_record_request
                and not queue.in_flight.submitting and not self.completion.transactional
                and in_flight_may_retry(&queue.in_flight, batch, report.first, report.code))

    cdef int was_given_back(self, PartitionQueue *queue, ProducerBatch *batch, const Report *report) noexcept nogil:
        """Whether records come from a retired librdkafka producer that knows only the deleted topic of that name.

        They were not written: that topic is gone with its records, and of the new one librdkafka's last word was that
        the broker does not lead it. See MetadataRequests.prepare().
        """
        return (report.code == PURGE_QUEUE and report.persisted == NOT_PERSISTED
                and queue.topic.stranded_generation == batch.generation
                and batch.generation != self.transport.generation
                and not queue.in_flight.submitting and not fp_atomic_load(&self.transport.errors.fatal_code)
                and not fp_atomic_load(<const int *>&self.purging)
                and in_flight_may_retry(&queue.in_flight, batch, report.first, report.code))

    cdef void split(self, PartitionQueue *queue) noexcept nogil:
        """Makes the refused records the next ones, in smaller requests if need be: nothing behind them was written."""
        cdef char text[512]
        if not in_flight_rewind(&queue.in_flight):
            return
        self.update_limit(queue)
        snprintf(text, sizeof(text),
                 b"%s [%d] refuses requests that are larger than its max.message.bytes: its records go in requests of "
                 b"up to %zu bytes from here on, one at a time. Faster: make librdkafka.batch.size smaller than "
                 b"max.message.bytes", queue.topic.name, queue.partition, queue.in_flight.split_limit)
        self.callbacks.log(LOG_WARNING, b"SPLIT", text)

    # Partitions whose last request was not answered in time

    cdef int may_submit_unresponsive(self, ProducerBatch *batch, Submission *request) noexcept nogil:
        """Whether a batch may be submitted although the last request was not answered; counts its memory if so."""
        if request.unresponsive and request.unresponsive + batch.capacity > UNRESPONSIVE_LIMIT or (
                request.now_ns - batch.created_ns
                >= self.accumulator.incomplete.delivery_timeout_ns - LAST_MOMENT_NS):
            return 0
        request.unresponsive += batch.capacity
        return 1

    cdef size_t unresponsive_bytes(self, int32_t leader) noexcept nogil:
        """The memory that librdkafka has of a leader's partitions whose last request was not answered in time."""
        cdef ProducerBatch *batch
        cdef PartitionQueue *queue
        cdef size_t found = 0
        cdef int32_t i
        for i in range(self.completion.slot_count):
            batch = self.completion.slots[i]
            if batch is not NULL and batch.unreported:
                queue = <PartitionQueue *>batch.queue
                if queue.in_flight.unresponsive and queue.leader == leader:
                    found += batch.capacity
        return found

    cdef void submit_unresponsive(self) noexcept nogil:
        """Advances partitions that stopped at UNRESPONSIVE_LIMIT: some of that memory is free again."""
        cdef PartitionQueue *queue
        cdef int32_t i
        self.completion.unresponsive_freed = 0
        if self.unresponsive_count == 0:
            return
        for i in range(self.completion.slot_count):
            if self.completion.slots[i] is not NULL:
                queue = <PartitionQueue *>self.completion.slots[i].queue
                if queue.in_flight.unresponsive and queue.in_flight.unsubmitted is not NULL:
                    self.advance(queue)   # which may free batches, and leaves their slots NULL

    cdef void set_unresponsive(self, PartitionQueue *queue, int unresponsive) noexcept nogil:
        if queue.in_flight.unresponsive != unresponsive:
            queue.in_flight.unresponsive = unresponsive
            self.unresponsive_count += 1 if unresponsive else -1

    cdef int take_retired(self, Handle *taken, const rd_kafka_queue_t *polled) noexcept nogil:
        """Takes the retired librdkafka producer away, if nothing of it is outstanding and no thread polls its queue.

        Records that it cannot deliver any more are outstanding for ever, so it is made to give them back.
        """
        cdef ProducerBatch *batch
        cdef int32_t slot
        cdef int stuck = 0
        memset(taken, 0, sizeof(Handle))
        for slot in range(self.completion.slot_count):
            batch = self.completion.slots[slot]
            if batch is NULL or batch.unreported == 0 or batch.generation == self.transport.generation:
                continue
            if (<PartitionQueue *>batch.queue).topic.stranded_generation != batch.generation:
                return 0
            stuck = 1
        if stuck:
            self.transport.purge_retired()
            return 0
        if polled is self.transport.retired.queue:
            return 0
        self.transport.take_retired(taken)
        return 1

    # Expiry

    cdef void fail_expired(self, ProducerBatch *chain, int code) noexcept nogil:
        """Fails the batches that expire() took, chained by next.

        The queues advance after the walk: that frees batches, which the chain may have.
        """
        cdef PartitionQueue *queues = NULL
        cdef PartitionQueue *queue
        cdef ProducerBatch *batch
        while chain is not NULL:
            batch = chain
            chain = batch.next
            batch.next = NULL
            queue = <PartitionQueue *>batch.queue
            if self.fail_batch(batch, code) and not queue.expiring:
                queue.expiring = 1
                queue.next_expiring = queues
                queues = queue
        while queues is not NULL:
            queue = queues
            queues = queue.next_expiring
            queue.expiring = 0
            self.advance(queue)

    cdef int fail_batch(self, ProducerBatch *batch, int code) noexcept nogil:
        """Fails a batch that has expired; whether its queue must advance.

        Frees the batch, unless librdkafka still reads its arena: then the last report frees it.
        """
        if batch.completed or batch_is_reported(batch):
            batch.expired = 0   # it was in time
            return 0
        self.completion.fail_rest(batch, code)
        self.completion.complete(batch)
        if batch.state != BATCH_IN_TRANSIT:
            self.completion.return_arena(batch)
            self.accumulator.drop_expired(batch)
            batch_free(batch, self.completion.pool)
            return 0
        if batch.unreported:
            if code == MSG_TIMED_OUT:
                self.set_unresponsive(<PartitionQueue *>batch.queue, 1)
            self.completion.keep_copy(batch)
            self.accumulator.drop_expired(batch)
        else:
            self.completion.settle(batch)
        return 1
