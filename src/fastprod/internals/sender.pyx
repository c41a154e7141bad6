"""Sender: the background thread. Drain, hand over, collect reports, complete.

Source: org.apache.kafka.clients.producer.internals.Sender. The thread never
takes the GIL, so an application that loops on send() cannot hold it up.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uintptr_t
from libc.string cimport memset, strcmp, strncpy
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.produce_request_result cimport notify_completed, wait_completed
from fastprod.internals.incomplete_batches cimport ALL_NOT_HANDED_OVER, EVERYTHING, OVERDUE
from fastprod.internals.partition_queue cimport PartitionQueue, Topic
from fastprod.internals.produce_requests cimport ProduceRequests, requests_on_report
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sync cimport (
    fp_atomic_add, fp_atomic_exchange, fp_atomic_load, fp_atomic_store, fp_cond_destroy, fp_cond_init, fp_cond_signal,
    fp_cond_wait_until, fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_trylock,
    fp_mutex_unlock, fp_sleep_ns, fp_thread_join, fp_thread_start, fp_yield,
)
from fastprod.internals.handle cimport Handle
from fastprod.internals.transport cimport Report, Transport
from fastprod.librdkafka.declarations cimport rd_kafka_event_t, rd_kafka_queue_t

cdef int64_t OVERSLEPT_NS = 100_000_000
cdef enum:
    DRAIN_LIMIT = 128 << 10       # bytes submitted before reports are served
    EVENT_LIMIT = 8               # events served before batches are drained
    DIRECT_LIMIT = 1              # bytes that an appending thread submits itself: a single batch
    EXPIRY_INTERVAL_MS = 100
    YIELD_NS = 1_000_000          # of a thread whose work the application does
    LONGEST_SLEEP_MS = 1000
    # librdkafka's codes, RD_KAFKA_RESP_ERR__...
    MSG_TIMED_OUT = -192
    PURGE_QUEUE = -152


cdef void *sender_main(void *argument) noexcept nogil:
    (<Sender>argument).run()
    return NULL


cdef void sender_wakeup(void *argument) noexcept nogil:
    (<Sender>argument).wakeup()


cdef void sender_tick(void *argument) noexcept nogil:
    (<Sender>argument).tick()


cdef void sender_assist(void *argument) noexcept nogil:
    (<Sender>argument).assist()


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
        self.requests = ProduceRequests(accumulator, transport, callbacks, self.completion)
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
                if fp_atomic_load(<const int *>&self.requests.purging):
                    self.give_up_all(now)
                else:
                    self.look_after_time(now)
            if self.completion.unanswered_freed:
                self.requests.submit_unanswered()
            chain = self.accumulator.drain(now, DRAIN_LIMIT)
            if chain is not NULL:
                self.requests.add(chain)
                event = self.transport.next_event(0)
            else:
                # Whoever appends after this store sees it and does something
                # about it; whoever appended before it is seen by
                # prepare_sleep(), which takes the lock of the appends.
                fp_atomic_store(&self.sleeping, 1)
                now = fp_monotonic_ns()   # the drain's is older than what came meanwhile, which would seem to linger
                until = self.accumulator.prepare_sleep(now, self.next_expiry_ns)
                if self.completion.transit_count == 0 and fp_atomic_load(<const int *>&self.requests.stopping) and (
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
                self.transport.serve(event, requests_on_report, <void *>self.requests)
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
        self.requests.fail_expired(self.accumulator.expire(now, OVERDUE), MSG_TIMED_OUT)
        if fp_atomic_load(<const int *>&self.requests.stopping) and self.accumulator.unsettled == 0:
            # Every record has its outcome, so nothing that librdkafka still holds is of any worth.
            self.transport.purge(0)
        else:
            self.transport.purge_after_fatal()
        if self.completion.has_older(now - self.overdue_ns):
            self.transport.trigger_timeout_scan()
        self.requests.submit_unanswered()

    cdef void give_up_all(self, int64_t now) noexcept nogil:
        """The same for purge() and abort(): fails every record that has no outcome yet.

        librdkafka is asked to report what it holds, since it knows better what was written. A thread of librdkafka's
        that is busy, with a DNS query for example, reports late. So what is left at the second look fails without it.
        """
        self.requests.fail_expired(self.accumulator.expire(
            now, EVERYTHING if self.looked_once else ALL_NOT_HANDED_OVER), PURGE_QUEUE)
        self.looked_once = 1
        self.transport.purge(not fp_atomic_load(<const int *>&self.requests.stopping))

    cdef void raise_flag(self, int32_t *flag) noexcept nogil:
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
                self.requests.add(chain)
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
            self.requests.add(chain)
        if not self.fetching:
            # Else the thread may have an event already and wait for sender_lock with
            # it: that one comes first. `sleeping` does not tell, since whoever
            # wakes the thread clears it, long before the thread is back.
            served = 0
            while served < EVENT_LIMIT:
                event = self.transport.next_event(0)
                if event is NULL:
                    break
                self.transport.serve(event, requests_on_report, <void *>self.requests)
                served += 1
        fp_mutex_unlock(&self.sender_lock)
        pause_ns = self.accumulator.pause_ns()
        if pause_ns:
            fp_sleep_ns(pause_ns)

    # Another librdkafka producer in the place of the current one: see Transport.prepare().

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
        if fp_atomic_load(<const int *>&self.requests.purging):
            return 0
        fp_mutex_lock(&self.sender_lock)
        for i in range(topic.capacity):
            unanswered += topic.queues[i].in_flight.unanswered
        removed = self.accumulator.remove_topic(topic)
        if removed:
            self.requests.unanswered_count -= unanswered
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
            self.transport.serve(event, requests_on_report, <void *>self.requests)
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
        self.requests.fail_expired(self.accumulator.expire(fp_monotonic_ns(), ALL_NOT_HANDED_OVER), PURGE_QUEUE)
        fp_mutex_unlock(&self.sender_lock)

    # Ending. thread: app

    cdef void wait_for_step(self) noexcept nogil:
        """Waits for the end of the current work step: it may have completed futures, and keeps the failures next.

        Not while purge() makes librdkafka fail its records: that may hold sender_lock for as long as a DNS query.
        lock: none
        """
        if not fp_atomic_load(<const int *>&self.requests.purging):
            fp_mutex_lock(&self.sender_lock)
            fp_mutex_unlock(&self.sender_lock)

    cdef void begin_purge(self) noexcept nogil:
        """Fails all pending records from now on, until end_purge(). lock: none"""
        self.raise_flag(&self.requests.purging)

    cdef void end_purge(self) noexcept nogil:
        fp_atomic_add(&self.requests.purging, -1)

    def stop(self):
        """Lets the thread end once everything has settled."""
        with nogil:
            self.raise_flag(&self.requests.stopping)

    def abort(self):
        """Makes the thread fail all pending records, then end."""
        with nogil:
            self.raise_flag(&self.requests.purging)
            self.raise_flag(&self.requests.stopping)

    def join(self):
        """Waits until the thread has ended, if it was started. thread: metadata"""
        if self.started:
            with nogil:
                wait_completed(&self.finished, INT64_MAX)
                fp_thread_join(self.thread)
            self.started = 0
