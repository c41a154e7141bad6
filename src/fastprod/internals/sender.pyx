"""Sender: the background thread. Drain, hand over, collect reports, complete.

Source: org.apache.kafka.clients.producer.internals.Sender. The thread never
takes the GIL, so an application that loops on send() cannot hold it up.
"""

cimport cython
from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t, uintptr_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memset, strcmp, strncpy
from fastprod.internals.incomplete_batches cimport ALL_NOT_HANDED_OVER, EVERYTHING, OVERDUE, FlushPoint
from fastprod.internals.in_flight_partition cimport (
    FIRST_RECORD, FIRST_REQUEST_BYTES, MSG_SIZE_TOO_LARGE, InFlightPartition, batch_is_reported, in_flight_add,
    in_flight_delivered, in_flight_may_retry, in_flight_report, in_flight_restart, in_flight_retry, in_flight_rewind,
    in_flight_submit, in_flight_unsubmitted_exceed, phase_limit,
)
from fastprod.internals.partition_queue cimport PartitionQueue, Topic
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.producer_batch cimport (
    BATCH_IN_TRANSIT, ProducerBatch, batch_free, batch_records_within, batch_request_size,
)
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.future cimport NOT_PERSISTED, notify_completed, wait_completed
from fastprod.librdkafka.declarations cimport rd_kafka_event_t, rd_kafka_queue_t, rd_kafka_topic_partition_list_t
from fastprod.internals.sync cimport (
    fp_atomic_add, fp_atomic_exchange, fp_atomic_load, fp_atomic_store, fp_cond_destroy, fp_cond_init, fp_cond_signal,
    fp_cond_wait_until, fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_trylock,
    fp_mutex_unlock, fp_sleep_ns, fp_thread_join, fp_thread_start, fp_yield,
)
from fastprod.internals.threads cimport next_slice
from fastprod.internals.transport cimport Handle, OpenTopic, Report, Transport

import sys

from fastprod.errors import ForkedProducerError

cdef int64_t OVERSLEPT_NS = 100_000_000
cdef int64_t LAST_MOMENT_NS = 500_000_000
cdef int64_t UNSETTLED_NS = 60_000_000_000   # for so long after a leader has moved others are expected to
cdef enum:
    DRAIN_LIMIT = 128 << 10       # bytes handed over before reports are looked at
    EVENT_LIMIT = 8               # events served before batches are
    DIRECT_LIMIT = 1              # bytes that an application's thread hands over itself: a single batch
    EXPIRY_INTERVAL_MS = 100
    UNANSWERED_LIMIT = 1 << 20    # bytes of memory that librdkafka may have of a leader's partitions that do not answer
    YIELD_NS = 1_000_000            # of a thread whose work the application does
    LONGEST_SLEEP_MS = 1000
    # librdkafka's codes, RD_KAFKA_RESP_ERR__...
    CRIT_SYS_RESOURCE = -194
    MSG_TIMED_OUT = -192
    PURGE_QUEUE = -152
    PURGE_INFLIGHT = -151
    MANY_RECORDS = 2000           # handing over more takes a good part of librdkafka's linger.ms
    LOG_WARNING = 4


cdef void *sender_main(void *argument) noexcept nogil:
    (<Sender>argument).run()
    return NULL


cdef void sender_wakeup(void *argument) noexcept nogil:
    (<Sender>argument).wakeup()


cdef void sender_tick(void *argument) noexcept nogil:
    (<Sender>argument).tick()


cdef void sender_assist(void *argument) noexcept nogil:
    (<Sender>argument).assist()


cdef void sender_on_report(void *argument, const Report *report) noexcept nogil:
    (<Sender>argument).on_report(report)


cdef void sender_acknowledged(void *argument, const Report *report) noexcept nogil:
    (<Sender>argument).complete_early(report)


@cython.no_gc_clear   # the thread may still work with the parts when the collector finds the producer
cdef class Sender:
    """The thread between the accumulator and librdkafka.

    Owns a batch from drain() until its last report. Then it completes the result, in the order of the partition, and
    gives window and arena back. FailedRecords gets what failed and nothing has observed. What librdkafka has
    of a partition is a prefix of its batches in transit.

    The holder of `sender_lock` does all of this. That is the sender thread while it is awake, or a thread that has just
    appended, while the sender thread sleeps or is far behind. A thread of librdkafka's takes the lock for a lone
    record's result, if it is free. Lock order:
    sender_lock, then the accumulator's lock.
    """

    def __cinit__(self, RecordAccumulator accumulator, BufferPool pool, Transport transport, Callbacks callbacks):
        fp_mutex_init(&self.sender_lock)
        fp_cond_init(&self.wake_cond)
        self.accumulator = accumulator
        self.pool = pool
        self.transport = transport
        self.callbacks = callbacks
        self.completion = Completion(accumulator, pool, transport, callbacks)
        self.request_size = FIRST_REQUEST_BYTES
        self.request_records = INT32_MAX
        accumulator.wake = sender_wakeup
        accumulator.assist = sender_assist
        accumulator.wake_argument = <void *>self
        callbacks.tick = sender_tick
        callbacks.tick_argument = <void *>self
        transport.acknowledged = sender_acknowledged
        transport.receiver = <void *>self

    def __dealloc__(self):
        fp_cond_destroy(&self.wake_cond)
        fp_mutex_destroy(&self.sender_lock)

    def keep_order(self, dict properties, bint idempotent):
        """Makes what is handed over of a partition at once a single request; properties: librdkafka's.

        See submit_next().
        """
        cdef Py_ssize_t most = min(int(properties["batch.size"]), int(properties["message.max.bytes"]))
        self.ordered = 1
        self.pausing = not idempotent
        self.request_size = max(1, min(<Py_ssize_t>FIRST_REQUEST_BYTES, most - most // 16 - 600))   # for the header
        self.request_records = int(properties["batch.num.messages"])

    def start(self):
        if fp_thread_start(&self.thread, sender_main, <void *>self, b"fastprod-sender"):
            raise RuntimeError("the operating system gives no thread to the sender")
        self.started = 1

    cdef void run(self) noexcept nogil:
        cdef rd_kafka_event_t *event
        cdef rd_kafka_queue_t *queue
        cdef ProducerBatch *chain
        cdef int64_t now, until
        cdef int timeout_ms, served
        fp_mutex_lock(&self.sender_lock)
        while True:
            if self.assisted:
                self.yield_to_app()
            elif fp_atomic_load(<const int *>&self.assist_waiters):
                fp_mutex_unlock(&self.sender_lock)   # here, where it has no event that a later one could overtake
                fp_yield()
                fp_mutex_lock(&self.sender_lock)
            now = fp_monotonic_ns()
            if now >= self.next_expiry_ns:
                self.next_expiry_ns = now + EXPIRY_INTERVAL_MS * <int64_t>1_000_000
                if fp_atomic_load(<const int *>&self.giving_up):
                    self.give_up_all(now)
                else:
                    self.look_after_time(now)
            if self.completion.unanswered_freed:
                self.submit_unanswered()
            chain = self.accumulator.drain(now, DRAIN_LIMIT)
            if chain is not NULL:
                self.send(chain)
                event = self.transport.next_event(0)
            else:
                # Whoever appends after this store sees it and does something
                # about it; whoever appended before it is seen by
                # prepare_sleep(), which takes the lock of the appends.
                fp_atomic_store(&self.sleeping, 1)
                now = fp_monotonic_ns()   # the drain's is older than what came meanwhile, which would seem to linger
                until = self.accumulator.prepare_sleep(now, self.next_expiry_ns)
                if self.completion.transit_count == 0 and fp_atomic_load(<const int *>&self.stopping) and (
                        self.accumulator.unsettled == 0):
                    break
                if self.completion.transit_count:
                    until = min(until, self.next_expiry_ns)
                timeout_ms = 0
                if until > now:
                    timeout_ms = <int>min((until - now) // 1_000_000 + 1, LONGEST_SLEEP_MS)
                self.sleeps_until_ns = now + timeout_ms * <int64_t>1_000_000
                self.fetching = 1
                self.polled = queue = self.transport.queue
                fp_mutex_unlock(&self.sender_lock)
                event = self.transport.next_of(queue, timeout_ms)
                fp_mutex_lock(&self.sender_lock)
                self.fetching = 0
                self.polled = NULL
                fp_atomic_store(&self.sleeping, 0)
            served = 0
            while event is not NULL:
                self.transport.serve(event, sender_on_report, <void *>self)
                served += 1
                event = self.transport.next_event(0) if served < EVENT_LIMIT else NULL
            if self.transport.retired.rk is not NULL:
                self.serve_retired()
        # The handle will be destroyed. A thread that takes sender_lock from here on neither wakes nor fetches.
        fp_atomic_store(&self.sleeping, 0)
        self.fetching = 1
        self.polled = NULL
        fp_mutex_unlock(&self.sender_lock)
        fp_atomic_store(&self.finished, 1)
        notify_completed()

    cdef void yield_to_app(self) noexcept nogil:
        """Leaves the work to an application that does it, for as long as it does, but for what is done at intervals.

        Work of its own in between would cost: the application would wait for
        sender_lock, and memory that it has in its cache would go to another core. So
        would waking up, from librdkafka's threads, where cores are few.

        Whoever begins to wait for what the thread does ends it: it says so in
        the accumulator, and if it sees `yielding` then, signals `wake_cond` under
        sender_lock. If it does not see it yet, the thread, which looks into the
        accumulator after it has set it, sees that somebody waits; and if it does,
        it gets sender_lock only once the thread waits, which so misses no signal.
        """
        fp_atomic_store(&self.yielding, 1)
        while self.assisted:
            self.assisted = 0
            if self.accumulator.has_waiters() or not fp_cond_wait_until(
                    &self.wake_cond, &self.sender_lock, min(fp_monotonic_ns() + YIELD_NS, self.next_expiry_ns)):
                break
            if fp_monotonic_ns() >= self.next_expiry_ns:
                break
        fp_atomic_store(&self.yielding, 0)

    cdef void look_after_time(self, int64_t now) noexcept nogil:
        """What is done every EXPIRY_INTERVAL_MS."""
        self.fail_expired(self.accumulator.expire(now, OVERDUE), MSG_TIMED_OUT)
        if fp_atomic_load(<const int *>&self.stopping) and self.accumulator.unsettled == 0:
            # Every record has its outcome, so nothing that librdkafka still holds is of any worth.
            self.transport.purge(0)
        else:
            self.transport.purge_after_fatal()
        if self.completion.has_older(now - self.overdue_ns):
            self.transport.trigger_timeout_scan()
        self.submit_unanswered()

    cdef void give_up_all(self, int64_t now) noexcept nogil:
        """The same for purge() and abort(): fails every record that has no outcome yet.

        librdkafka is asked to report what it holds, since it knows better what was written. A thread of librdkafka's
        that is busy, with a DNS query for example, reports late. So what is left at the second look fails without it.
        """
        self.fail_expired(self.accumulator.expire(
            now, EVERYTHING if self.looked_once else ALL_NOT_HANDED_OVER), PURGE_QUEUE)
        self.looked_once = 1
        self.transport.purge(not fp_atomic_load(<const int *>&self.stopping))

    cdef void hurry(self, int32_t *flag) noexcept nogil:
        """Raises a flag that run() acts on at once. thread: app, without the GIL  lock: none"""
        fp_mutex_lock(&self.sender_lock)
        fp_atomic_add(flag, 1)
        self.next_expiry_ns = 0
        self.looked_once = 0
        if fp_atomic_exchange(&self.sleeping, 0):
            self.transport.wake()
        fp_mutex_unlock(&self.sender_lock)

    cdef void wakeup(self) noexcept nogil:
        """There may be something to drain. thread: any  lock: none

        While the thread sleeps, sender_lock is free, and a thread that has something to
        send does a little of it at once: that saves a record on an idle
        producer the way through another thread. What is left wakes the thread.
        A thread that yields is woken only if somebody waits.
        """
        cdef int64_t now, sleeps_until
        cdef ProducerBatch *chain
        if not fp_atomic_load(&self.sleeping):
            if fp_atomic_load(&self.yielding) and self.accumulator.has_waiters():
                fp_mutex_lock(&self.sender_lock)
                fp_cond_signal(&self.wake_cond)
                fp_mutex_unlock(&self.sender_lock)
            return
        if fp_mutex_trylock(&self.sender_lock):
            now = fp_monotonic_ns()
            sleeps_until = min(self.accumulator.scheduler.sleep_until_ns, now + LONGEST_SLEEP_MS * <int64_t>1_000_000)
            chain = self.accumulator.drain(now, DIRECT_LIMIT)
            if chain is not NULL:
                self.send(chain)
            if self.accumulator.prepare_sleep(now, self.next_expiry_ns) >= sleeps_until:
                fp_mutex_unlock(&self.sender_lock)
                return
        else:
            fp_mutex_lock(&self.sender_lock)   # its last holder may have drained too early
        # Under sender_lock the thread cannot end, and close() not destroy the handle:
        # a flush() that close() overtook comes here after both.
        if fp_atomic_exchange(&self.sleeping, 0):
            self.transport.wake()
        fp_mutex_unlock(&self.sender_lock)

    cdef void tick(self) noexcept nogil:
        """Wakes the thread if it has overslept. thread: callbacks, about once a second  lock: none

        librdkafka's queues wait until a time of the wall clock (cnd_timedwait):
        if that is set back by an hour, they wait an hour longer.
        """
        if fp_atomic_load(&self.sleeping) and fp_mutex_trylock(&self.sender_lock):
            if self.fetching and fp_monotonic_ns() > self.sleeps_until_ns + OVERSLEPT_NS:
                self.transport.wake()   # under sender_lock, so neither the thread nor the handle can end before
            fp_mutex_unlock(&self.sender_lock)

    cdef void assist(self) noexcept nogil:
        """Hands over in the thread's place, which is far behind. thread: app, without the GIL  lock: none

        And serves events for it, while the thread yields: two threads that both
        hand over take turns at locks and at cold memory, and get less done than
        one. It hands over all that the windows take: less than a batch of large
        records at a time would leave a backlog as long as it once became. Then
        the application pauses if that was not enough, so that librdkafka's
        threads catch up; where brokers are what is slow, the pauses are too short
        to matter, and buffer.memory takes what comes.
        """
        cdef ProducerBatch *chain
        cdef rd_kafka_event_t *event
        cdef int64_t pause_ns
        cdef int served
        fp_atomic_add(&self.assist_waiters, 1)
        fp_mutex_lock(&self.sender_lock)
        fp_atomic_add(&self.assist_waiters, -1)
        self.assisted = 1
        chain = self.accumulator.drain(fp_monotonic_ns(), INT64_MAX)
        if chain is not NULL:
            self.send(chain)
        if not self.fetching:
            # Else the thread may have an event already and wait for sender_lock with
            # it: that one comes first. `sleeping` does not tell, since whoever
            # wakes the thread clears it, long before the thread is back.
            served = 0
            while served < EVENT_LIMIT:
                event = self.transport.next_event(0)
                if event is NULL:
                    break
                self.transport.serve(event, sender_on_report, <void *>self)
                served += 1
        fp_mutex_unlock(&self.sender_lock)
        pause_ns = self.accumulator.pause_ns()
        if pause_ns:
            fp_sleep_ns(pause_ns)

    cdef void send(self, ProducerBatch *chain) noexcept nogil:
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
        """Does for a partition what can be done after news of it. Not within hand_over(), since it frees batches."""
        if queue.in_flight.refused is not NULL and queue.in_flight.outstanding == 0:
            self.split(queue)
        self.submit_next(queue)
        self.completion.finish(queue)

    cdef void submit_next(self, PartitionQueue *queue) noexcept nogil:
        """Hands over what librdkafka may have of the partition's batches.

        Of a new partition that is first one large request, and the rest once
        that was not too large for the topic. With idempotence a single record
        goes before it. Broker and librdkafka both take a batch with any sequence
        number for the first of a producer that is new to the partition: when a
        broker becomes the leader between two requests, it refuses the first and
        takes the second, and librdkafka concludes that the first had been
        written too (rd_kafka_handle_idempotent_Produce_success). Nothing may
        follow the first record before it is there.

        After that, where the order of a partition is to last, one hand-over is one
        request, and the next hand-over waits until all of its records are reported.
        With two requests the second can overtake the first:
        1. The first fails with an error that is retried. Its records go back into
           librdkafka's queue and wait for retry.backoff.ms.
        2. The second is under way already and is taken.
        Or, when the leader moves (rd_kafka_msgbatch_handle_Produce_result):
        1. The old leader's thread takes the failed request out of the partition's
           count, before it puts the records back into the queue.
        2. The new leader's thread sees nothing in flight and sends what is behind them.
        With idempotence the broker refuses the second. Then librdkafka takes a new
        epoch, and sends again in it what other partitions have in the log without
        an answer: duplicates (rd_kafka_handle_idempotent_Produce_error).

        librdkafka makes one request of what its queue holds when it looks, so:
        - A hand-over is smaller than librdkafka's limits of a request (keep_order()).
        - The partition is paused meanwhile, if the hand-over has two records or more.
          Then the broker's thread leaves the queue alone: it reads the flag and takes
          from the queue in one critical section (rd_kafka_toppar_producer_serve). A
          request that fails goes back in one critical section too, with one backoff.
          So there is never a second request.
        - A pause costs some 50 us. With idempotence, where sequence numbers keep the
          order anyway, partitions are only paused for MANY_RECORDS, and for
          UNSETTLED_NS after a leader has moved. Else librdkafka makes no request
          before its linger.ms is over, and by then all is handed over, unless the
          thread is kept from its core, or linger.ms is 0: that gap remains.

        A batch whose delivery.timeout.ms has passed is not handed over: it fails.
        librdkafka counts that time from the hand-over, and so keeps a batch that
        was handed over late for longer than it should. A partition whose last
        request was not answered in time is therefore handed over little, and
        nothing in its last moment, when it would only fail with an open outcome.

        When the transport has gone over to another librdkafka producer, a
        partition follows once nothing of it is outstanding with the former, so
        that its order lasts.
        """
        cdef ProducerBatch *batch
        cdef int32_t count
        cdef int32_t fed = 0
        cdef const char *start
        cdef size_t left = 0
        cdef size_t unanswered = 0
        cdef int64_t now
        cdef InFlightPartition *flight = &queue.in_flight
        cdef size_t limit = phase_limit(flight.phase, flight.split_limit)
        cdef int one_at_a_time = self.ordered or limit > 0
        cdef rd_kafka_topic_partition_list_t *paused = NULL
        if flight.unsubmitted is NULL or (one_at_a_time and (flight.outstanding or flight.refused is not NULL)) or (
                fp_atomic_load(<const int *>&self.giving_up) and fp_atomic_load(<const int *>&self.stopping)):
            if flight.unsubmitted is not NULL and queue.waiting_ns == 0:
                self.accumulator.on_submitted(queue, 0, 1, fp_monotonic_ns())
            return
        now = fp_monotonic_ns()
        if flight.unanswered:
            unanswered = self.unanswered_bytes(queue.leader)
        flight.submitting = 1
        while flight.unsubmitted is not NULL:
            batch = flight.unsubmitted
            if batch.submitted == batch.count:
                flight.unsubmitted = batch.transit_next
                continue
            if now - batch.created_ns >= self.accumulator.incomplete.delivery_timeout_ns:
                self.completion.fail_unsubmitted(batch, MSG_TIMED_OUT)
                continue
            if flight.unanswered and batch.unreported == 0:
                if unanswered and unanswered + batch.capacity > UNANSWERED_LIMIT or (
                        now - batch.created_ns >= self.accumulator.incomplete.delivery_timeout_ns - LAST_MOMENT_NS):
                    break
                unanswered += batch.capacity
            if flight.generation != self.transport.generation and (
                    flight.outstanding == 0 or not one_at_a_time and batch.submitted == 0):
                if not self.open_topic(queue):
                    self.completion.fail_unsubmitted(batch, CRIT_SYS_RESOURCE)
                    continue
                limit = phase_limit(flight.phase, flight.split_limit)
            count = batch.count - batch.submitted
            if one_at_a_time:
                if flight.outstanding == 0:
                    # It is the first, or librdkafka has refused all before it at
                    # once, as it does after a fatal error: no report would come
                    # that goes on with what is left here.
                    left = min(limit, self.request_size) if limit else self.request_size
                    if paused is NULL and self.wants_pause(queue):
                        paused = self.transport.pause(<OpenTopic *>flight.open_topic, queue.topic.name, queue.partition)
                        if paused is NULL:
                            left = 0    # so a single record goes, which is a single request
                count = min(batch_records_within(batch, left), self.request_records - flight.outstanding)
                if count <= 0:
                    if flight.outstanding:
                        break
                    count = 1
            start = batch.cursor
            in_flight_submit(flight, batch, count)
            self.transport.hand_over(<OpenTopic *>flight.open_topic, batch, count, sender_on_report, <void *>self)
            left -= min(left, batch_request_size(start, batch.cursor, count))
            if batch.submitted == batch.count and batch.queued:
                batch.queued = 0
                fed += 1
        if paused is not NULL:
            self.transport.resume(paused, <OpenTopic *>flight.open_topic, queue.partition)
        flight.submitting = 0
        self.accumulator.on_submitted(queue, fed, flight.unsubmitted is not NULL, now)

    cdef int wants_pause(self, PartitionQueue *queue) noexcept nogil:
        """Whether librdkafka could make two requests of what is handed over next; see submit_next()."""
        cdef int32_t safe = MANY_RECORDS
        if not self.ordered or queue.in_flight.phase == FIRST_RECORD:
            return 0
        if self.pausing or self.unsettled_until_ns and fp_monotonic_ns() < self.unsettled_until_ns:
            safe = 1
        return in_flight_unsubmitted_exceed(&queue.in_flight, safe)

    cdef int open_topic(self, PartitionQueue *queue) noexcept nogil:
        """Lets a partition go over to the current librdkafka producer, to which it is new; 0: there is no memory."""
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

    cdef size_t unanswered_bytes(self, int32_t leader) noexcept nogil:
        """The memory that librdkafka has of a leader's partitions whose last request was not answered in time."""
        cdef ProducerBatch *batch
        cdef size_t found = 0
        cdef int32_t i
        for i in range(self.completion.slot_count):
            batch = self.completion.slots[i]
            if batch is not NULL and batch.unreported and (<PartitionQueue *>batch.queue).in_flight.unanswered and (
                    (<PartitionQueue *>batch.queue).leader == leader):
                found += batch.capacity
        return found

    cdef void submit_unanswered(self) noexcept nogil:
        """Goes on with partitions that submit_next() stopped at UNANSWERED_LIMIT: some of that memory is free again."""
        cdef PartitionQueue *queue
        cdef int32_t i
        self.completion.unanswered_freed = 0
        if self.unanswered_count == 0:
            return
        for i in range(self.completion.slot_count):
            if self.completion.slots[i] is not NULL:
                queue = <PartitionQueue *>self.completion.slots[i].queue
                if queue.in_flight.unanswered and queue.in_flight.unsubmitted is not NULL:
                    self.advance(queue)   # which may free batches, and leaves their slots NULL

    cdef void set_unanswered(self, PartitionQueue *queue, int unanswered) noexcept nogil:
        if queue.in_flight.unanswered != unanswered:
            queue.in_flight.unanswered = unanswered
            self.unanswered_count += 1 if unanswered else -1

    cdef void on_report(self, const Report *report) noexcept nogil:
        """A report on consecutive records of one batch."""
        cdef ProducerBatch *batch = self.completion.slots[report.slot]
        cdef PartitionQueue *queue = <PartitionQueue *>batch.queue
        cdef InFlightPartition *flight = &queue.in_flight
        in_flight_report(flight, batch, report.count)
        if flight.unanswered and report.code >= 0:
            self.set_unanswered(queue, 0)
        elif report.code == MSG_TIMED_OUT:
            self.set_unanswered(queue, 1)
        if report.broker != flight.last_broker and report.code == 0:
            if flight.last_broker >= 0:
                self.unsettled_until_ns = fp_monotonic_ns() + UNSETTLED_NS
            flight.last_broker = report.broker
        if batch.expired or batch.completed:
            pass
        elif self.may_split(queue, batch, report) or self.comes_back(batch, report):
            if in_flight_retry(flight, batch, report.first, report.count, report.code):
                self.update_limit(queue)
        else:
            if flight.refused is not NULL:
                self.completion.fail_refused(queue)   # sent again they would come after this one
            self.completion.record_report(batch, report)
            if report.code in (MSG_TIMED_OUT, PURGE_QUEUE, PURGE_INFLIGHT):
                self.completion.fail_unsubmitted(batch, report.code)
        if report.code == 0 and in_flight_delivered(flight):
            self.update_limit(queue)
        if not flight.submitting:
            self.advance(queue)

    # A request that is larger than the topic's max.message.bytes. librdkafka puts
    # the records of several batches into one, up to its own batch.size, and fails
    # all of them; Java's producer splits its batch and sends it again.

    cdef int may_split(self, PartitionQueue *queue, ProducerBatch *batch, const Report *report) noexcept nogil:
        """Whether records that were too large for the broker may be sent again in smaller requests.

        Not a record that was alone, nor one that librdkafka refused itself. In
        a transaction librdkafka demands an abort after this.
        """
        return (report.code == MSG_SIZE_TOO_LARGE and not queue.in_flight.single_record_request
                and not queue.in_flight.submitting and not self.completion.transactional
                and in_flight_may_retry(&queue.in_flight, batch, report.first, report.code))

    cdef void split(self, PartitionQueue *queue) noexcept nogil:
        """Submits the refused records again, in smaller requests if need be: nothing behind them was written."""
        cdef char text[512]
        if not in_flight_rewind(&queue.in_flight):
            return
        self.update_limit(queue)
        snprintf(text, sizeof(text),
                 b"%s [%d] refuses requests that are larger than its max.message.bytes: its records go in requests of "
                 b"up to %zu bytes from here on, one at a time. Faster: make librdkafka.batch.size smaller than "
                 b"max.message.bytes", queue.topic.name, queue.partition, queue.in_flight.split_limit)
        self.callbacks.log(LOG_WARNING, b"SPLIT", text)

    # Another librdkafka producer in the place of the current one: see Transport.prepare().

    cdef int comes_back(self, ProducerBatch *batch, const Report *report) noexcept nogil:
        """Whether records were taken back from a librdkafka producer that knows only their topic's former self.

        They were not written: that topic is gone with its records, and of the new one librdkafka's last word was that
        the broker does not lead it.
        """
        cdef PartitionQueue *queue = <PartitionQueue *>batch.queue
        return (report.code == PURGE_QUEUE and report.persisted == NOT_PERSISTED
                and queue.topic.remade == batch.generation and batch.generation != self.transport.generation
                and not queue.in_flight.submitting and not self.transport.fatal_code
                and not fp_atomic_load(<const int *>&self.giving_up)
                and in_flight_may_retry(&queue.in_flight, batch, report.first, report.code))

    cdef list slow_topics(self, int64_t ns):
        """Topics of which librdkafka has had a record for so long, a few of them. thread: metadata"""
        cdef char names[8][250]
        cdef int64_t now = fp_monotonic_ns()
        cdef const char *name
        cdef ProducerBatch *batch
        cdef int count = 0
        cdef int i
        cdef int32_t slot
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            for slot in range(self.completion.slot_count if self.completion.transit_count else 0):
                batch = self.completion.slots[slot]
                if batch is NULL or batch.unreported == 0 or now - batch.created_ns < ns:
                    continue
                name = (<PartitionQueue *>batch.queue).topic.name
                for i in range(count):
                    if strcmp(names[i], name) == 0:
                        break
                else:
                    strncpy(names[count], name, 249)
                    names[count][249] = 0
                    count += 1
                    if count == 8:
                        break
            fp_mutex_unlock(&self.sender_lock)
        return [(<bytes>names[i]).decode() for i in range(count)]

    cdef int remove_topic(self, Topic *topic) noexcept nogil:
        """Frees a topic if it has no batches. thread: metadata, with the GIL

        Not while purge() makes librdkafka give up its records: that may hold sender_lock for as long as a DNS query.
        """
        cdef int32_t i
        cdef int32_t unanswered = 0
        cdef int removed
        if fp_atomic_load(<const int *>&self.giving_up):
            return 0
        fp_mutex_lock(&self.sender_lock)
        for i in range(topic.capacity):
            unanswered += topic.queues[i].in_flight.unanswered
        removed = self.accumulator.remove_topic(topic)
        if removed:
            self.unanswered_count -= unanswered
        fp_mutex_unlock(&self.sender_lock)
        return removed

    cdef int switch_over(self, list remade) except -1:
        """Goes over to the librdkafka producer that was prepared. thread: metadata

        remade: addresses of the topics that the former one cannot deliver to any more.
        """
        cdef Topic *topic
        fp_mutex_lock(&self.sender_lock)
        for address in remade:
            topic = <Topic *><uintptr_t>address
            topic.remade = self.transport.generation
        self.transport.switch_over()
        fp_mutex_unlock(&self.sender_lock)
        self.accumulator.wake_sender()
        return 0

    cdef void serve_retired(self) noexcept nogil:
        """All events there are: another one wakes the thread only if it is the first."""
        cdef rd_kafka_event_t *event = self.transport.next_of(self.transport.retired.queue, 0)
        while event is not NULL:
            self.transport.serve(event, sender_on_report, <void *>self)
            event = self.transport.next_of(self.transport.retired.queue, 0)

    cdef bint end_retired(self) except -1:
        """Ends the retired librdkafka producer once all its records are reported; whether it has. thread: metadata"""
        cdef Handle taken
        cdef int ended
        if self.transport.retired.rk is NULL:
            return True
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            ended = self.take_retired(&taken)
            fp_mutex_unlock(&self.sender_lock)
        if ended:
            self.transport.end(&taken)
        return ended

    cdef int take_retired(self, Handle *taken) noexcept nogil:
        """Takes it away if nothing of it is outstanding.

        When only records are that it cannot deliver any more, it is made to give them back.
        """
        cdef ProducerBatch *batch
        cdef int32_t slot
        cdef int stuck = 0
        memset(taken, 0, sizeof(Handle))
        for slot in range(self.completion.slot_count):
            batch = self.completion.slots[slot]
            if batch is NULL or batch.unreported == 0 or batch.generation == self.transport.generation:
                continue
            if (<PartitionQueue *>batch.queue).topic.remade != batch.generation:
                return 0
            stuck = 1
        if stuck:
            self.transport.purge_retired()
            return 0
        if self.fetching and self.polled is self.transport.retired.queue:
            return 0
        self.transport.take_retired(taken)
        return 1

    cdef void complete_early(self, const Report *report) noexcept nogil:
        """The only record of a batch was delivered: gives the future its result; the rest follows with the report.

        thread: librdkafka's  lock: none. That thread must not wait, so this is for an idle producer, where sender_lock
        is free. It halves the way of a record there.
        """
        if not fp_mutex_trylock(&self.sender_lock):
            return
        self.completion.complete_first(report)
        fp_mutex_unlock(&self.sender_lock)

    cdef void fail_expired(self, ProducerBatch *chain, int code) noexcept nogil:
        """Fails what expire() took. What librdkafka has nothing of is freed at once.

        The others go on to release() when their last report has come; until then librdkafka reads their arenas. The
        queues go on after the walk: that frees batches, and the chain may have them.
        """
        cdef PartitionQueue *queues = NULL
        cdef PartitionQueue *queue
        cdef ProducerBatch *batch
        while chain is not NULL:
            batch = chain
            chain = batch.next
            batch.next = NULL
            if batch.completed or batch_is_reported(batch):
                batch.expired = 0   # it was in time
                continue
            queue = <PartitionQueue *>batch.queue
            self.completion.fail_rest(batch, code)
            self.completion.complete(batch)
            if batch.state != BATCH_IN_TRANSIT:
                self.completion.return_arena(batch)
                self.accumulator.drop_expired(batch)
                batch_free(batch, self.pool)
                continue
            if batch.unreported:
                if code == MSG_TIMED_OUT:
                    self.set_unanswered(queue, 1)
                self.completion.keep_copy(batch)
                self.accumulator.drop_expired(batch)
            else:
                self.completion.settle(batch)
            if not queue.expiring:
                queue.expiring = 1
                queue.next_expiring = queues
                queues = queue
        while queues is not NULL:
            queue = queues
            queues = queue.next_expiring
            queue.expiring = 0
            self.advance(queue)

    # What a transaction needs.

    cdef void forget_failure(self) noexcept nogil:
        fp_mutex_lock(&self.sender_lock)
        fp_atomic_store(&self.completion.failure_code, 0)
        fp_mutex_unlock(&self.sender_lock)

    cdef void drop(self) noexcept nogil:
        """Fails every record that was not handed over. thread: app, without the GIL, appends stopped  lock: none

        What submit_next() holds back until an answer comes has not been handed over either.
        """
        fp_mutex_lock(&self.sender_lock)
        self.fail_expired(self.accumulator.expire(fp_monotonic_ns(), ALL_NOT_HANDED_OVER), PURGE_QUEUE)
        fp_mutex_unlock(&self.sender_lock)

    # Waiting. thread: app, with the GIL

    cdef bint wait_settled(self, int64_t deadline) except -1:
        """Hurries what was appended so far; whether it has settled, and its callbacks have run, by the deadline."""
        cdef FlushPoint *point = <FlushPoint *>malloc(sizeof(FlushPoint))   # the stack may be a greenlet's
        cdef int64_t until, pause_ns = 0
        cdef int done = 0
        cdef bint forked = False
        if point is NULL:
            raise MemoryError()
        with nogil:
            self.accumulator.begin_flush(point)
        try:
            while not done:
                until = next_slice(deadline, &pause_ns)
                with nogil:
                    done = wait_completed(&point.done, until)
                if not done and fp_monotonic_ns() >= deadline:
                    if self.accumulator.count_unsettled():
                        return False
                    with nogil:
                        self.wait_for_work_step()
                    break                  # every record has its result; the reports on lone ones are to come
        except ForkedProducerError:        # the parent's threads may have held the lock
            forked = True
            raise
        finally:
            if not forked:
                with nogil:
                    self.accumulator.end_flush(point)
                    free(point)
        return self.wait_callbacks(deadline)

    cdef void wait_for_work_step(self) noexcept nogil:
        """Lets the step end that is being done: it may have given futures their results, and keeps the failures next.

        Not while purge() makes librdkafka give up its records: that may hold sender_lock for as long as a DNS query.
        thread: app  lock: none
        """
        if not fp_atomic_load(<const int *>&self.giving_up):
            fp_mutex_lock(&self.sender_lock)
            fp_mutex_unlock(&self.sender_lock)

    cdef bint wait_callbacks(self, int64_t deadline) except -1:
        """Waits until the callbacks queued by now have run. Those of an interpreter that ends run no more."""
        cdef int64_t until, pause_ns = 0
        cdef int never = 0
        if sys.is_finalizing():
            return True
        target, finished = self.callbacks.counts()
        while finished < target and self.callbacks.can_be_awaited():
            until = next_slice(min(deadline, fp_monotonic_ns() + 1_000_000), &pause_ns)
            with nogil:
                # Nothing is stored at `never`: this wakes with any completion, or after a millisecond.
                wait_completed(&never, until)
            _, finished = self.callbacks.counts()
            if finished < target and fp_monotonic_ns() >= deadline:
                return False
        return True

    def purge(self):
        """Makes the thread give up what has not settled, as abort() does, and go on."""
        with nogil:
            self.hurry(&self.giving_up)
        try:
            self.wait_settled(INT64_MAX)
        finally:
            fp_atomic_add(&self.giving_up, -1)

    def unfinished(self):
        """What wait_settled() gave up waiting for, in words."""
        cdef int64_t left = self.accumulator.unsettled
        queued, finished = self.callbacks.counts()
        records = f"{left} records had not settled"
        if queued == finished:
            return records
        callbacks = f"the callbacks of {queued - finished} batches had not run"
        return f"{records} and {callbacks}" if left else callbacks

    # Ending. thread: app, with the GIL

    def stop(self):
        """Lets the thread end once everything has settled."""
        with nogil:
            self.hurry(&self.stopping)

    def abort(self):
        """Makes the thread give up what has not settled, then end."""
        with nogil:
            self.hurry(&self.giving_up)
            self.hurry(&self.stopping)

    def join(self):
        """Waits until the thread has ended, if it was started. thread: metadata"""
        if self.started:
            with nogil:
                wait_completed(&self.finished, INT64_MAX)
                fp_thread_join(self.thread)
            self.started = 0
