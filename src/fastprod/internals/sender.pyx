"""Sender: the background thread. Drain, hand over, collect reports, complete.

Source: org.apache.kafka.clients.producer.internals.Sender. The thread never
takes the GIL, so an application that loops on send() cannot hold it up.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uintptr_t
from fastprod.internals.completion cimport SLOW_TOPICS, Completion
from fastprod.internals.produce_request_result cimport notify_completed, wait_completed
from fastprod.internals.incomplete_batches cimport ALL_NOT_HANDED_OVER, EVERYTHING, OVERDUE
from fastprod.internals.partition_queue cimport TOPIC_NAME_SIZE, Topic
from fastprod.internals.produce_requests cimport ProduceRequests
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sync cimport (
    fp_atomic_add, fp_atomic_load, fp_atomic_store, fp_cond_destroy, fp_cond_init, fp_cond_signal,
    fp_cond_wait_until, fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_trylock,
    fp_mutex_unlock, fp_sleep_ns, fp_thread_join, fp_thread_start, fp_yield,
)
from fastprod.internals.handle cimport Handle
from fastprod.internals.delivery_report cimport DeliveryReports, Report, next_report
from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.declarations cimport rd_kafka_event_t, rd_kafka_queue_t
from fastprod.librdkafka.codes cimport MSG_TIMED_OUT, PURGE_QUEUE

cdef int64_t OVERSLEPT_NS = 100_000_000
cdef enum:
    DRAIN_LIMIT = 128 << 10       # bytes submitted before reports are served
    EVENT_LIMIT = 8               # events served before batches are drained
    DIRECT_LIMIT = 1              # bytes that an appending thread submits itself: a single batch
    EXPIRY_INTERVAL_MS = 100
    YIELD_NS = 1_000_000          # of a thread whose work the application does
    LONGEST_SLEEP_MS = 1000


cdef void *sender_main(void *argument) noexcept nogil:
    (<Sender>argument).run()
    return NULL


cdef void sender_wakeup(void *argument, int backlog_high) noexcept nogil:
    if backlog_high:
        (<Sender>argument).assist()
    else:
        (<Sender>argument).wakeup()


cdef void sender_acknowledged(void *argument, const Report *report) noexcept nogil:
    (<Sender>argument).complete_early(report)


@cython.no_gc_clear   # the thread may still work with the parts when the collector finds the producer
cdef class Sender:
    """The thread between the accumulator and librdkafka.

    Owns batches from drain() until their last report. The thread that holds `sender_lock` works on them: it drains,
    submits (ProduceRequests), and collects reports, which end batches (Completion). That is the sender thread, or an
    application thread that has just appended, while the sender thread polls or is far behind. A thread of librdkafka's
    takes the lock, if it is free, to complete a lone record.

    Invariant: only one thread at a time has an event that it has not served, so events are served in order. While the
    state is POLLING or WAKING, that is the sender thread.

    Lock order: sender_lock, then the accumulator's lock.
    """

    def __cinit__(self, RecordAccumulator accumulator, Transport transport, Completion completion,
                  ProduceRequests requests, *, int64_t overdue_ns=0):
        fp_mutex_init(&self.sender_lock)
        fp_cond_init(&self.wake_cond)
        self.accumulator = accumulator
        self.transport = transport
        self.completion = completion
        self.requests = requests
        self.overdue_ns = overdue_ns
        accumulator.wake = sender_wakeup
        accumulator.wake_argument = <void *>self
        transport.acknowledged = sender_acknowledged
        transport.receiver = <void *>self

    def __dealloc__(self):
        fp_cond_destroy(&self.wake_cond)
        fp_mutex_destroy(&self.sender_lock)

    def start(self):
        if fp_thread_start(&self.thread, sender_main, <void *>self, b"fastprod-sender"):
            raise RuntimeError("the operating system gives no thread to the sender")
        self.started = 1

    # The thread

    cdef void run(self) noexcept nogil:
        fp_mutex_lock(&self.sender_lock)
        while self.state != ENDED:
            if self.assisted:
                self.yield_to_app()
            elif fp_atomic_load(<const int *>&self.assist_waiters):
                fp_mutex_unlock(&self.sender_lock)   # here, where it has no event that a later one could overtake
                fp_yield()
                fp_mutex_lock(&self.sender_lock)
            self.look_after_time()
            if not self.step(DRAIN_LIMIT):
                self.poll()
            if self.transport.retired.rk is not NULL:
                self.serve_retired()
        fp_mutex_unlock(&self.sender_lock)
        fp_atomic_store(&self.finished, 1)
        notify_completed()

    cdef int step(self, int64_t limit) noexcept nogil:
        """Drains batches up to `limit` bytes, submits them, and collects reports; whether there was anything to do.

        The sender thread does this, and an application thread in its place. lock: sender_lock

        While the sender thread polls it may have an event already, and wait for sender_lock with it. Events must be
        served in order, so it collects the reports itself then. After ENDED there is nothing to drain: the thread ends
        only when appends are closed and every record has settled.
        """
        cdef ProducerBatch *chain = self.accumulator.drain(fp_monotonic_ns(), limit)
        cdef int served = 0
        if chain is not NULL:
            self.requests.add(chain)
        if self.state == WORKING or self.state == YIELDING:
            served = self.collect(self.transport.next_event(0))
        return chain is not NULL or served

    cdef int collect(self, rd_kafka_event_t *event) noexcept nogil:
        """Serves an event and those behind it, up to EVENT_LIMIT; how many. event: NULL if there is none"""
        cdef int served = 0
        while event is not NULL:
            self.serve(event, 0)
            served += 1
            event = self.transport.next_event(0) if served < EVENT_LIMIT else NULL
        return served

    cdef void serve(self, rd_kafka_event_t *event, int retired) noexcept nogil:
        """Acts on an event, and ends it. retired: it is the retired librdkafka producer's. lock: sender_lock"""
        cdef DeliveryReports reports
        cdef Report report
        if self.transport.open_event(event, &reports, retired):
            while next_report(&reports, &report):
                self.requests.on_report(&report)
        self.transport.close_event(&reports)

    cdef void poll(self) noexcept nogil:
        """Waits for an event without sender_lock, or until something is due; ends the thread if nothing can come.

        No append is missed:
        1. The thread stores POLLING.
        2. It looks for batches in prepare_sleep(), which takes the lock of the appends.
        A thread that appends after 1 sees POLLING and acts. What was appended before, 2 finds.
        """
        cdef rd_kafka_event_t *event
        cdef rd_kafka_queue_t *queue = self.transport.queue
        cdef int64_t now, until
        cdef int timeout_ms = 0
        fp_atomic_store(&self.state, POLLING)
        now = fp_monotonic_ns()   # the drain's is older than newer batches, which would seem to linger
        until = self.accumulator.prepare_sleep(now, self.next_expiry_ns)
        if self.completion.transit_count == 0 and fp_atomic_load(<const int *>&self.requests.stopping) and (
                self.accumulator.unsettled == 0):
            fp_atomic_store(&self.state, ENDED)   # the handle will be destroyed: nobody may use it from here on
            return
        if self.completion.transit_count:
            until = min(until, self.next_expiry_ns)
        if until > now:
            timeout_ms = <int>min((until - now) // 1_000_000 + 1, LONGEST_SLEEP_MS)
        self.polls_until_ns = now + timeout_ms * <int64_t>1_000_000
        self.polled = queue
        fp_mutex_unlock(&self.sender_lock)
        event = self.transport.next_of(queue, timeout_ms)
        fp_mutex_lock(&self.sender_lock)
        self.polled = NULL
        fp_atomic_store(&self.state, WORKING)
        self.collect(event)

    cdef void wake_thread(self) noexcept nogil:
        """Ends poll(), once. lock: sender_lock, under which the thread cannot end, nor close() destroy the handle"""
        if self.state == POLLING:
            fp_atomic_store(&self.state, WAKING)
            self.transport.wake()

    cdef void yield_to_app(self) noexcept nogil:
        """Leaves the work to application threads for as long as they assist, but for what is done at intervals.

        Work of the thread in between would cost: the application would wait for sender_lock, and memory in its cache
        would move to another core. Where cores are few, waking up costs librdkafka's threads theirs.

        A thread that begins to wait for the sender ends this, and its signal is not missed:
        1. The waiting thread records that it waits, in the accumulator.
        2. It loads the state. If that is YIELDING, it signals wake_cond under sender_lock, which it gets only once the
           sender thread waits for wake_cond.
        If it does not see YIELDING in 2, the sender thread stores that later, and then finds the record of 1.
        """
        fp_atomic_store(&self.state, YIELDING)
        while self.assisted:
            self.assisted = 0
            if self.accumulator.has_waiters() or not fp_cond_wait_until(
                    &self.wake_cond, &self.sender_lock, min(fp_monotonic_ns() + YIELD_NS, self.next_expiry_ns)):
                break
            if fp_monotonic_ns() >= self.next_expiry_ns:
                break
        fp_atomic_store(&self.state, WORKING)

    # What is done every EXPIRY_INTERVAL_MS. lock: sender_lock

    cdef void look_after_time(self) noexcept nogil:
        cdef int64_t now = fp_monotonic_ns()
        if now >= self.next_expiry_ns:
            self.next_expiry_ns = now + EXPIRY_INTERVAL_MS * <int64_t>1_000_000
            if fp_atomic_load(<const int *>&self.requests.purging):
                self.purge(now)
            else:
                self.expire(now)
        if self.completion.unresponsive_freed:
            self.requests.submit_unresponsive()

    cdef void expire(self, int64_t now) noexcept nogil:
        """Fails overdue batches, and has librdkafka look for overdue requests."""
        self.requests.fail_expired(self.accumulator.expire(now, OVERDUE), MSG_TIMED_OUT)
        if fp_atomic_load(<const int *>&self.requests.stopping) and self.accumulator.unsettled == 0:
            self.transport.purge(0)   # every record has its outcome, so nobody needs what librdkafka still holds
        else:
            self.transport.purge_after_fatal()
        if self.completion.has_older(now - self.overdue_ns):
            self.transport.trigger_timeout_scan()
        self.requests.submit_unresponsive()

    cdef void purge(self, int64_t now) noexcept nogil:
        """Fails every record without an outcome.

        librdkafka is asked to report the records that it holds, since it knows better what was written. If its thread
        is busy, with a DNS query for example, it reports late. So the second call fails the rest without it.
        """
        self.requests.fail_expired(self.accumulator.expire(
            now, EVERYTHING if self.purged_once else ALL_NOT_HANDED_OVER), PURGE_QUEUE)
        self.purged_once = 1
        self.transport.purge(not fp_atomic_load(<const int *>&self.requests.stopping))

    cdef void raise_flag(self, int32_t *flag) noexcept nogil:
        """Raises a flag that look_after_time() acts on at once. thread: app, without the GIL  lock: none"""
        fp_mutex_lock(&self.sender_lock)
        fp_atomic_add(flag, 1)
        self.next_expiry_ns = 0
        self.purged_once = 0
        self.wake_thread()
        fp_mutex_unlock(&self.sender_lock)

    # Other threads, in the sender thread's place

    cdef void wakeup(self) noexcept nogil:
        """There may be batches to drain. thread: any  lock: none

        While the sender thread polls, sender_lock is free, and the calling thread submits one batch itself: on an idle
        producer that saves a switch of threads. The sender thread is woken for the rest. If it yields, it is woken only
        if a thread waits.
        """
        cdef int64_t now, polls_until
        cdef int state = fp_atomic_load(&self.state)
        if state != POLLING:
            if state == YIELDING and self.accumulator.has_waiters():
                fp_mutex_lock(&self.sender_lock)
                fp_cond_signal(&self.wake_cond)
                fp_mutex_unlock(&self.sender_lock)
            return
        if fp_mutex_trylock(&self.sender_lock):
            now = fp_monotonic_ns()
            polls_until = min(self.accumulator.scheduler.sleep_until_ns, now + LONGEST_SLEEP_MS * <int64_t>1_000_000)
            self.step(DIRECT_LIMIT)
            if self.accumulator.prepare_sleep(now, self.next_expiry_ns) >= polls_until:
                fp_mutex_unlock(&self.sender_lock)
                return
        else:
            fp_mutex_lock(&self.sender_lock)   # its last holder may have drained too early
        self.wake_thread()                     # unless it has ended: close() may have overtaken a flush()
        fp_mutex_unlock(&self.sender_lock)

    def wake_if_overslept(self):
        """Wakes the thread if it has overslept. thread: callbacks, about once a second  lock: none

        librdkafka's queues wait until a time of the wall clock (cnd_timedwait). If that is set back by an hour, they
        wait an hour longer.
        """
        if fp_atomic_load(&self.state) == POLLING and fp_mutex_trylock(&self.sender_lock):
            if fp_monotonic_ns() > self.polls_until_ns + OVERSLEPT_NS:
                self.wake_thread()
            fp_mutex_unlock(&self.sender_lock)

    cdef void assist(self) noexcept nogil:
        """Works in the place of the sender thread, which is far behind. thread: app, without the GIL  lock: none

        Then the sender thread yields: two threads that both submit take turns at locks and at cold memory, and get less
        done than one. There is no limit, since less than a batch of large records at a time would leave the backlog as
        long as it was. If that was not enough, the application pauses, so that librdkafka's threads catch up. Where
        brokers are slow, the pauses are too short to matter, and buffer.memory takes the records.
        """
        cdef int64_t pause_ns
        fp_atomic_add(&self.assist_waiters, 1)
        fp_mutex_lock(&self.sender_lock)
        fp_atomic_add(&self.assist_waiters, -1)
        self.assisted = 1
        self.step(INT64_MAX)
        fp_mutex_unlock(&self.sender_lock)
        pause_ns = self.accumulator.pause_ns()
        if pause_ns:
            fp_sleep_ns(pause_ns)

    # Another librdkafka producer in the place of the current one: see MetadataRequests.prepare()

    cdef list slow_topics(self, int64_t ns):
        """Topics of which librdkafka has had a record for so long, a few of them. thread: metadata"""
        cdef char names[SLOW_TOPICS][TOPIC_NAME_SIZE]
        cdef int count, i
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            count = self.completion.slow_topics(names, fp_monotonic_ns() - ns)
            fp_mutex_unlock(&self.sender_lock)
        return [(<bytes>names[i]).decode() for i in range(count)]

    cdef int remove_topic(self, Topic *topic) noexcept nogil:
        """Frees a topic if it has no batches. thread: metadata, with the GIL

        Not while purge() makes librdkafka give up its records: that may hold sender_lock for as long as a DNS query.
        """
        cdef int32_t i
        cdef int32_t unresponsive = 0
        cdef int removed
        if fp_atomic_load(<const int *>&self.requests.purging):
            return 0
        fp_mutex_lock(&self.sender_lock)
        for i in range(topic.capacity):
            unresponsive += topic.queues[i].in_flight.unresponsive
        removed = self.accumulator.remove_topic(topic)
        if removed:
            self.requests.unresponsive_count -= unresponsive
        fp_mutex_unlock(&self.sender_lock)
        return removed

    cdef int switch_over(self, list stranded) except -1:
        """Goes over to the librdkafka producer that was prepared. thread: metadata

        stranded: addresses of the topics that the former one cannot deliver to any more.
        """
        cdef Topic *topic
        fp_mutex_lock(&self.sender_lock)
        for address in stranded:
            topic = <Topic *><uintptr_t>address
            topic.stranded_generation = self.transport.generation
        self.transport.switch_over()
        fp_mutex_unlock(&self.sender_lock)
        self.accumulator.wake_sender()
        return 0

    cdef void serve_retired(self) noexcept nogil:
        """All events there are: another one wakes the thread only if it is the first."""
        cdef rd_kafka_event_t *event = self.transport.next_of(self.transport.retired.queue, 0)
        while event is not NULL:
            self.serve(event, 1)
            event = self.transport.next_of(self.transport.retired.queue, 0)

    cdef bint end_retired(self) except -1:
        """Ends the retired librdkafka producer once all its records are reported; whether it has. thread: metadata"""
        cdef Handle taken
        cdef int ended
        if self.transport.retired.rk is NULL:
            return True
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            ended = self.requests.take_retired(&taken, self.polled)
            fp_mutex_unlock(&self.sender_lock)
        if ended:
            self.transport.end(&taken)
        return ended

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
