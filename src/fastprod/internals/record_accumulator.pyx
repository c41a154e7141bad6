"""RecordAccumulator: the records that were sent and have not settled, and the lock around them.

Source: org.apache.kafka.clients.producer.internals.RecordAccumulator.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.drain_scheduler cimport DrainScheduler
from fastprod.internals.produce_request_result cimport notify_completed
from fastprod.internals.in_flight_partition cimport STEADY, Phase
from fastprod.internals.incomplete_batches cimport Expiry, FlushPoint, IncompleteBatches
from fastprod.internals.open_batches cimport (
    APPENDED, CLOSED, MEMORY_NEEDED, NO_MEMORY, AppendRequest, AppendStatus, CallbackSlot, OpenBatches,
    Placed, RecordAppendResult, add_placed, append_request_init, appendable_batch, first_reservation,
)
from fastprod.internals.partition_queue cimport QUEUE_LIMIT_REACHED, PartitionQueue, Topic, uncount_queued
from fastprod.internals.producer_batch cimport (
    BATCH_CLOSED, BATCH_IN_TRANSIT, ProducerBatch, batch_append_fast_path, batch_append_run,
)
from fastprod.internals.record cimport fp_record
from fastprod.internals.sync cimport (
    fp_atomic_store, fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod.internals.topics cimport Topics

from fastprod.errors import ProducerClosedError

cdef enum:
    LOCK_BATCH = 64         # records that append_many() appends before it lets others have the lock


cdef int64_t nanoseconds(object ms) except -1:
    """At most 70 years, so that it can be added to a time of the clock."""
    return <int64_t>min(ms * 1_000_000, INT64_MAX // 4)


cdef inline Py_ssize_t append_run(RecordAccumulator self, Topic *topic, const fp_record *records,
                                  const int32_t *partitions, Py_ssize_t count,
                                  RecordAppendResult *appended) noexcept nogil:
    """Appends the first records that one open batch has room for; returns how many. append_one() takes the others.

    No batch gets full by them, and no partition changes. lock: held
    """
    cdef int64_t limit, before
    cdef Py_ssize_t number
    cdef ProducerBatch *batch
    if self.closed:
        return 0
    batch = appendable_batch(self.open_batches, topic, partitions[0], &limit, appended)
    if batch is NULL:
        return 0
    before = batch.wire_size
    number = batch_append_run(batch, records, partitions, count, limit)
    self.unsettled += number
    if partitions[0] < 0:
        topic.sticky.produced_bytes += batch.wire_size - before
    return number


@cython.no_gc_clear   # the sender may call it until both are gone
cdef class RecordAccumulator:
    """Batches from the first append until they have settled.

    Owns four parts: Topics, OpenBatches (append), DrainScheduler (drain) and IncompleteBatches (linger, expiry,
    flush). It knows neither librdkafka nor the sender: it calls ``wake`` when there may be something to drain.

    Invariant, under the lock: ``unsettled`` counts the records of all incomplete batches, except for batches whose
    records settled early.

    Thread-safe by one lock, which its parts share: they take none, and are called with it held. The lock is taken with
    or without the GIL, and never held when the GIL is taken. Order: this lock, then the pool's or the completion lock.
    """

    def __cinit__(self, BufferPool pool, *, size_t batch_size=16384, linger_ms=0, delivery_timeout_ms=120000,
                  max_block_ms=60000, transit_grace_ms=1500, partitioner="uniform_sticky", adaptive=True,
                  availability_timeout_ms=0, sticky_interval_ms=100, max_in_flight=5, uint64_t seed=0,
                  sequential_random=False, Phase first_phase=STEADY):
        fp_mutex_init(&self.lock)
        batch_size = max(batch_size, <size_t>1)
        self.pool = pool
        self.max_block_ns = nanoseconds(max_block_ms)
        self.scheduler = DrainScheduler(max_in_flight)
        self.incomplete = IncompleteBatches(
            nanoseconds(linger_ms), nanoseconds(delivery_timeout_ms), nanoseconds(transit_grace_ms))
        self.topics = Topics(
            pool, self.scheduler, batch_size, partitioner, adaptive, nanoseconds(availability_timeout_ms),
            nanoseconds(sticky_interval_ms), seed, sequential_random, first_phase)
        self.open_batches = OpenBatches(pool, self.topics, self.scheduler, self.incomplete, batch_size)

    def __dealloc__(self):
        fp_mutex_destroy(&self.lock)

    # Topics. thread: app or metadata, with the GIL

    cdef Topic *add_topic(self, const char *name) except NULL:
        """A topic without partitions yet; it lives until remove_topic()."""
        cdef Topic *topic
        fp_mutex_lock(&self.lock)
        topic = self.topics.add(name, fp_monotonic_ns())
        fp_mutex_unlock(&self.lock)
        if topic is NULL:
            raise MemoryError()
        return topic

    cdef int remove_topic(self, Topic *topic) noexcept nogil:
        """Frees a topic that nobody appends to any more; 0 if it still has batches. lock: sender_lock"""
        cdef int removed
        fp_mutex_lock(&self.lock)
        removed = self.topics.remove(topic)
        fp_mutex_unlock(&self.lock)
        return removed

    cdef int set_partitions(self, Topic *topic, const int32_t *brokers, int32_t count) except -1:
        """What metadata says: brokers[i] leads partition i, -1 for none."""
        cdef int done
        fp_mutex_lock(&self.lock)
        done = self.topics.set_partitions(topic, brokers, count, fp_monotonic_ns())
        fp_mutex_unlock(&self.lock)
        if not done:
            raise MemoryError()
        self.wake_sender()
        return 0

    # Append. thread: app, with the GIL

    cdef int append(self, Topic *topic, int32_t partition, const fp_record *record, int epoch, int64_t now_ns,
                    int64_t deadline_ns, CallbackSlot *callback, int abort_on_new_batch,
                    RecordAppendResult *appended) except -1:
        """Copies a record into the open batch of its partition; partition -1 lets the partitioner choose.

        epoch: its value when the caller's call began. A call that waited while one transaction ended and the next began
        is refused, because its records belong to the first.

        Returns 1; 0 if abort_on_new_batch and a new batch would be needed. Waits for memory in FIFO order, with the GIL
        released, until deadline_ns (0: max.block.ms from now), then raises BufferExhaustedError. now_ns: 0 reads the
        clock; tests give a time.
        """
        cdef AppendRequest request
        cdef AppendStatus status
        append_request_init(&request, topic, callback)
        request.partition, request.record = partition, record
        request.abort_on_new_batch, request.now_ns = abort_on_new_batch, now_ns
        appended.wake = appended.backlog_high = 0
        try:
            while True:
                fp_mutex_lock(&self.lock)
                status = CLOSED if self.epoch != epoch else self.append_one(&request, appended)
                if status == MEMORY_NEEDED:
                    self.scheduler.memory_waiters += 1
                fp_mutex_unlock(&self.lock)
                if status != MEMORY_NEEDED:
                    break
                deadline_ns = deadline_ns or fp_monotonic_ns() + self.max_block_ns
                self.wait_for_memory(&request, deadline_ns)
        finally:
            if request.arena is not NULL:
                self.pool.deallocate(request.arena, request.arena_size)
            if callback.reserved:
                self.pool.release_callbacks(callback.reserved)
        if status == CLOSED:
            self.raise_closed()
        if status == NO_MEMORY:
            raise MemoryError("no memory for a batch")
        if appended.wake:
            self.wake_sender()
        return status == APPENDED

    cdef int wait_for_memory(self, AppendRequest *request, int64_t deadline_ns) except -1:
        """Waits for the arena that a record needs. The caller has counted itself in memory_waiters, under the lock.

        So the sender, once it looks, drains every batch, whether full or not. That brings memory back, and the sender
        must not sleep through it.
        """
        cdef size_t reserved = first_reservation(request.callback)
        try:
            self.wake_sender()
            # Both at once: a thread that kept the one while it waits for the other could block all others.
            request.arena = <char *>self.pool.allocate(request.arena_size, reserved, deadline_ns)
            request.callback.reserved = reserved
        finally:
            fp_mutex_lock(&self.lock)
            self.scheduler.memory_waiters -= 1
            fp_mutex_unlock(&self.lock)
        return 0

    cdef int raise_closed(self) except -1:
        if self.closed_error is not None:
            raise self.closed_error()
        raise ProducerClosedError("the producer is closed: no record can be sent any more")

    cdef AppendStatus append_one(self, AppendRequest *request, RecordAppendResult *appended) noexcept nogil:
        """One attempt. lock: held"""
        cdef AppendStatus status
        if self.closed:
            return CLOSED
        status = self.open_batches.append(request, appended)
        self.unsettled += status == APPENDED
        return status

    cdef Py_ssize_t append_many(self, Topic *topic, const fp_record *records, const int32_t *partitions,
                                Py_ssize_t count, int epoch, Placed *placed, Py_ssize_t *runs) noexcept nogil:
        """Appends records up to the first that would have to wait or fails, which is for append(); returns how many.

        Each takes a share of its batch's result, as a future would. placed has room for count runs, and gets *runs of
        them. thread: app, without the GIL  lock: none
        """
        cdef CallbackSlot callback
        cdef AppendRequest request
        cdef RecordAppendResult appended
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t limit, number
        cdef int wake, backlog_high
        cdef AppendStatus status = APPENDED
        callback.function = NULL
        append_request_init(&request, topic, &callback)
        runs[0] = 0
        while done < count and status == APPENDED:
            wake = backlog_high = 0
            limit = min(count, done + LOCK_BATCH)
            fp_mutex_lock(&self.lock)
            if self.epoch != epoch:
                status = CLOSED
            while done < limit and status == APPENDED:
                number = append_run(self, topic, &records[done], &partitions[done], limit - done, &appended)
                if number == 0:
                    appended.wake = appended.backlog_high = 0
                    request.record = &records[done]
                    request.partition = partitions[done]
                    status = self.append_one(&request, &appended)
                    wake |= appended.wake
                    backlog_high |= appended.backlog_high
                    if status != APPENDED:
                        break
                    number = 1
                done += number
                add_placed(placed, runs, &appended, number)
            fp_mutex_unlock(&self.lock)
            if wake:
                self.wake_sender()
            if backlog_high:
                self.assist_sender()
        if request.arena is not NULL:
            self.pool.deallocate(request.arena, request.arena_size)
        return done

    cdef int append_fast_path(self, Topic *topic, int32_t partition, const fp_record *record,
                              RecordAppendResult *appended) noexcept nogil:
        """append() for a record that an open batch has room for, as nearly always; 0: call append() for it."""
        cdef ProducerBatch *batch = NULL
        cdef int64_t limit, before
        cdef int done = 0
        fp_mutex_lock(&self.lock)
        if not self.closed:
            batch = appendable_batch(self.open_batches, topic, partition, &limit, appended)
        if batch is not NULL:
            before = batch.wire_size
            done = batch_append_fast_path(batch, record, limit)
            self.unsettled += done
            if partition < 0:
                topic.sticky.produced_bytes += batch.wire_size - before
        fp_mutex_unlock(&self.lock)
        return done

    # Any thread. lock: none

    cdef void wake_sender(self) noexcept nogil:
        """There may be something to drain."""
        if self.wake is not NULL:
            self.wake(self.wake_argument, 0)

    cdef void assist_sender(self) noexcept nogil:
        """The sender is far behind. thread: app, without the GIL"""
        self.wake(self.wake_argument, 1)

    cdef int64_t pause_ns(self) noexcept nogil:
        """How long an application that is far ahead should let the others catch up."""
        cdef int64_t pause
        fp_mutex_lock(&self.lock)
        pause = self.scheduler.pause_ns()
        fp_mutex_unlock(&self.lock)
        return pause

    cdef int has_waiters(self) noexcept nogil:
        """Whether a thread waits until batches have gone or settled."""
        cdef int found
        fp_mutex_lock(&self.lock)
        found = self.flush_requested()
        fp_mutex_unlock(&self.lock)
        return found

    cdef int64_t count_unsettled(self) noexcept nogil:
        cdef int64_t count
        fp_mutex_lock(&self.lock)
        count = self.unsettled
        fp_mutex_unlock(&self.lock)
        return count

    # Drain. thread: sender, without the GIL  lock: none

    cdef int flush_requested(self) noexcept nogil:
        """Batches go although they are neither full nor have lingered. lock: held"""
        return self.scheduler.memory_waiters > 0 or self.incomplete.flushing > 0 or self.closing

    cdef void end_lingering(self, int64_t now_ns) noexcept nogil:
        """Makes ready what has lingered for long enough. lock: held"""
        cdef int flush_requested = self.flush_requested()
        cdef ProducerBatch *batch = self.incomplete.take_lingered(now_ns, flush_requested)
        while batch is not NULL:
            self.scheduler.make_ready(<PartitionQueue *>batch.queue)
            batch = self.incomplete.take_lingered(now_ns, flush_requested)

    cdef ProducerBatch *drain(self, int64_t now_ns, int64_t limit) noexcept nogil:
        """Takes batches of up to limit bytes, chained by next in the order to hand them over, until settle()."""
        cdef ProducerBatch *chain
        fp_mutex_lock(&self.lock)
        self.end_lingering(now_ns)
        chain = self.scheduler.drain(now_ns, limit)
        fp_mutex_unlock(&self.lock)
        return chain

    cdef void on_submitted(self, PartitionQueue *queue, int32_t batches, int waiting, int64_t now_ns) noexcept nogil:
        """librdkafka has so many more batches of a partition. waiting: others wait for an answer first.

        The partitioner counts the batches that wait, here or in transit: a broker that does not answer has most.
        lock: sender_lock
        """
        fp_mutex_lock(&self.lock)
        queue.topic.partitions.queue_lengths[queue.partition] -= batches
        if not waiting and queue.state != QUEUE_LIMIT_REACHED:
            queue.waiting_ns = 0
        elif batches or queue.waiting_ns == 0:
            queue.waiting_ns = now_ns
        fp_mutex_unlock(&self.lock)

    cdef void set_request_limit(self, PartitionQueue *queue, size_t request_limit) noexcept nogil:
        """How many bytes of a partition may be in transit; 0: no limit. thread: any"""
        fp_mutex_lock(&self.lock)
        self.scheduler.set_request_limit(queue, request_limit)
        fp_mutex_unlock(&self.lock)

    cdef int64_t prepare_sleep(self, int64_t now_ns, int64_t next_expiry_ns) noexcept nogil:
        """Until when there is nothing to do, monotonic; now_ns or earlier if there is.

        next_expiry_ns: when expire() is called next. Batches that expire before can wait for that.
        """
        cdef int64_t until = now_ns
        fp_mutex_lock(&self.lock)
        self.end_lingering(now_ns)
        self.scheduler.unblock_idle_windows()
        if self.scheduler.ready.first is NULL:
            until = self.incomplete.next_event_ns(next_expiry_ns)
        self.scheduler.sleep_until_ns = until
        fp_mutex_unlock(&self.lock)
        return until

    # Expire and settle. thread: sender, without the GIL  lock: none

    cdef ProducerBatch *expire(self, int64_t now_ns, Expiry which) noexcept nogil:
        """Takes batches whose time is over, chained by next. lock: sender_lock

        The caller fails their futures, then calls drop_expired(). A batch of which librdkafka was given nothing is the
        caller's after that. The arena of another one waits for librdkafka's last report.
        """
        cdef ProducerBatch *chain = NULL
        cdef ProducerBatch **end = &chain
        cdef ProducerBatch *batch
        fp_mutex_lock(&self.lock)
        batch = self.incomplete.next_expired(NULL, now_ns, which)
        while batch is not NULL:
            if batch.state != BATCH_IN_TRANSIT:
                # The oldest of all batches but those in transit is the first of its queue.
                self.incomplete.stop_lingering(batch)
                self.scheduler.take_head(<PartitionQueue *>batch.queue)
                batch.state = BATCH_CLOSED
            uncount_queued(batch)
            batch.expired = 1
            batch.next = NULL
            end[0] = batch
            end = &batch.next
            batch = self.incomplete.next_expired(batch, now_ns, which)
        fp_mutex_unlock(&self.lock)
        return chain

    cdef void drop_expired(self, ProducerBatch *batch) noexcept nogil:
        """The futures of an expired batch have failed."""
        cdef int flushed
        fp_mutex_lock(&self.lock)
        self.unsettled -= self.incomplete.remove(batch)
        flushed = self.incomplete.reach_flush_points()
        fp_mutex_unlock(&self.lock)
        if flushed:
            notify_completed()

    cdef void settle_records(self, ProducerBatch *batch) noexcept nogil:
        """The batch's futures are about to have their results, before it is over."""
        fp_mutex_lock(&self.lock)
        self.unsettled -= self.incomplete.settle_records(batch)
        fp_mutex_unlock(&self.lock)

    cdef void settle(self, ProducerBatch *batch) noexcept nogil:
        """The batch is over: its window is free again. The caller owns it from here on."""
        cdef int flushed
        fp_mutex_lock(&self.lock)
        self.unsettled -= self.incomplete.remove(batch)
        if batch.state == BATCH_IN_TRANSIT:
            self.scheduler.settle(batch)
        flushed = self.incomplete.reach_flush_points()
        fp_mutex_unlock(&self.lock)
        if flushed:
            notify_completed()

    # Flush and close. thread: app  lock: none

    cdef void begin_flush(self, FlushPoint *point) noexcept nogil:
        """point.done is stored once every batch that exists now has settled."""
        fp_mutex_lock(&self.lock)
        self.incomplete.add_flush_point(point)
        fp_mutex_unlock(&self.lock)
        self.wake_sender()

    cdef void end_flush(self, FlushPoint *point) noexcept nogil:
        fp_mutex_lock(&self.lock)
        self.incomplete.remove_flush_point(point)
        fp_mutex_unlock(&self.lock)

    cdef void close_for_appends(self) noexcept nogil:
        """From here on append() raises, and every batch is sendable."""
        fp_mutex_lock(&self.lock)
        self.closed = self.closing = 1
        fp_mutex_unlock(&self.lock)
        self.wake_sender()

    cdef void stop_appends(self) noexcept nogil:
        """Until resume_appends(), append() raises what closed_error() returns. thread: any

        Batches linger on: an abort is about to drop them.
        """
        fp_mutex_lock(&self.lock)
        self.closed = 1
        fp_mutex_unlock(&self.lock)

    cdef void resume_appends(self) noexcept nogil:
        fp_mutex_lock(&self.lock)
        self.closed = 0
        fp_atomic_store(&self.epoch, self.epoch + 1)
        fp_mutex_unlock(&self.lock)
