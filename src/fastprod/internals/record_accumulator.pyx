"""RecordAccumulator: topic -> partition -> batches; append, drain, expire.

Source: org.apache.kafka.clients.producer.internals.RecordAccumulator. Java
walks over all partitions to find the ready ones; here a partition joins a list
when it becomes ready, so 1000 idle partitions cost nothing.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset, strdup
from fastprod.internals.producer_batch cimport (
    BATCH_CLOSED, BATCH_IN_TRANSIT, BATCH_OPEN, batch_append, batch_append_bare, batch_append_run, batch_fits_arena,
    batch_free, batch_grow, batch_move, batch_new,
)
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.future cimport (
    CALLBACK_COST, FIRST_CALLBACKS, GIVEN, IF_FREE, NOT_ALLOCATED, NOTHING_RESERVED, AddedCallback,
    notify_completed, result_add_callback,
)
from fastprod.internals.in_flight_partition cimport STEADY, Phase, in_flight_init, phase_limit
from fastprod.internals.partition_queue cimport (
    QUEUE_BLOCKED, QUEUE_IDLE, QUEUE_LIMIT_REACHED, QUEUE_READY, PartitionQueue, QueueState, Topic, queue_append,
    queue_insert, queue_remove,
)
from fastprod.internals.partitioner cimport (
    STICKY, TIMED_STICKY, UNIFORM_STICKY, StickyState, sticky_free, sticky_init, sticky_on_new_batch, sticky_partition,
    sticky_update,
)
from fastprod.internals.record cimport fp_arena_size, fp_record, fp_ts_wire, fp_wire_size
from fastprod.internals.sync cimport (
    fp_atomic_store, fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)

from fastprod.internals.partitioner import KINDS
from fastprod.errors import ProducerClosedError

cdef enum AppendStatus:
    APPENDED
    ABORTED            # a new batch would be needed, and the caller wants to choose again first
    MEMORY_NEEDED
    CLOSED
    NO_MEMORY

cdef enum:
    COLD_ARENA = 1024              # what a partition's first batch starts with, bytes
    # Batches that are not full and with librdkafka, by max.in.flight.requests.per.connection: more while an application
    # waits for memory, which they give back. Some of them linger there, and are no requests yet.
    MORE_PARTIAL = 4
    # The hand-over window. librdkafka allocates about this much for a record
    # it holds, beside the payload, which stays in our arena.
    TRANSPORT_RECORD_COST = 256
    TRANSPORT_HEADER_COST = 96     # each is an allocation of its own there, of name and value
    LEADER_WINDOW = 10 << 20
    TOTAL_WINDOW = 24 << 20
    LEADER_SHARE = 1 << 20         # which a leader may have though the others have taken up the total
    # Of full batches that could go. An application that is this far ahead of the
    # sender thread gains nothing by running on: it would write to cold memory,
    # and its records would leave too late for the cheap way of handing over.
    BACKLOG_BYTES = 1 << 17
    # Beyond so many records in them, which its help did not lessen, it pauses: at most for as long as the records since
    # its last pause would take at 4 M/s. Records are counted, not bytes, since a record is what costs librdkafka time:
    # large ones would wait at a rate that brokers exceed. Without pauses every small record of a producer at its limit
    # queues as deep as buffer.memory allows.
    PACE_RECORDS = 4000
    PACE_NS_PER_RECORD = 250
    SHORTEST_PAUSE_NS = 60_000     # the kernel adds about as much to any sleep
    LONGEST_PAUSE_NS = 200_000
    # Of one partition, before the next is drained. librdkafka makes a request of what it has of one: the fewer it
    # has something of, the more records are in each.
    QUANTUM_BYTES = 3 << 17
    MANY_PARTITIONS = 200   # about the batches of 100 B records that a window takes; see move_on()
    LOCK_BATCH = 64         # records that append_many() appends before it lets others have the lock


cdef int64_t nanoseconds(object ms) except -1:
    """At most 70 years, so that it can be added to a time of the clock."""
    return <int64_t>min(ms * 1_000_000, INT64_MAX // 4)


cdef void join_blocked(BrokerWindow *leader, PartitionQueue *queue, PartitionQueue *previous) noexcept nogil:
    queue_insert(&leader.blocked, queue, previous)
    queue.blocked_full = queue.head is not NULL and queue.head.state == BATCH_CLOSED
    leader.blocked_full_count += queue.blocked_full


cdef void leave_blocked(BrokerWindow *leader, PartitionQueue *queue) noexcept nogil:
    queue_remove(&leader.blocked, queue)
    leader.blocked_full_count -= queue.blocked_full
    queue.blocked_full = 0


cdef void end_quantum(PartitionQueue *queue) noexcept nogil:
    queue.has_quantum = queue.force_partial = 0
    queue.quantum_bytes = 0


cdef inline ProducerBatch *appendable_batch(RecordAccumulator self, Topic *topic, int32_t partition, int64_t *limit,
                                            RecordAppendResult *appended) noexcept nogil:
    """The open batch that the next record only fills further, below *limit bytes, if it can. lock: held"""
    cdef StickyState *sticky = NULL
    cdef ProducerBatch *batch
    cdef int64_t left
    if self.closed:
        return NULL
    if partition < 0:
        sticky = &topic.sticky
        if sticky.kind != UNIFORM_STICKY or sticky.current < 0:
            return NULL
        partition = sticky.current
    batch = topic.queues[partition].tail
    if batch is NULL or batch.state != BATCH_OPEN or batch.count == 0:
        return NULL
    limit[0] = self.batch_size
    if sticky is not NULL:
        left = sticky.stick_bytes - sticky.produced_bytes
        if left <= 0 and self.availability_timeout_ns == 0:
            left += sticky.stick_bytes   # the change waits for the batch to be full, or for this
        limit[0] = min(limit[0], <int64_t>batch.wire_size + left)
    appended.result = batch.result
    appended.partition = partition
    appended.index = batch.count
    return batch


cdef size_t first_reservation(const CallbackSlot *callback) noexcept nogil:
    """Bytes of the pool that a new batch's result needs for the callback of its first record."""
    return FIRST_CALLBACKS * CALLBACK_COST if callback.function is not NULL else 0


cdef void free_topic(Topic *topic) noexcept nogil:
    cdef int32_t i
    for i in range(topic.capacity):
        free(topic.queues[i])
    free(topic.queues)
    free(topic.partitions.queue_lengths)
    free(topic.partitions.available)
    sticky_free(&topic.sticky)
    free(topic.name)
    free(topic)


cdef int64_t transport_cost(ProducerBatch *batch) noexcept nogil:
    return <int64_t>batch.used + <int64_t>batch.count * TRANSPORT_RECORD_COST + batch.headers * TRANSPORT_HEADER_COST


@cython.no_gc_clear   # __dealloc__ gives arenas back to the pool
cdef class RecordAccumulator:
    """Batches from the first append until they have settled.

    Owns topics, queues and batches (drained ones too, until ``settle``), and
    the windows that bound what each broker has been given. It knows neither
    librdkafka nor the sender: partition counts and leaders are given to it,
    it calls ``wake`` when there may be something to drain, and ``help`` when the
    sender is far behind with that.

    Invariants, under the lock: a queue with a sendable batch at its head is
    ready or blocked; unsettled = records of all incomplete and expired batches;
    a leader's cost = the cost of the batches charged to it.

    Thread-safe by one lock, taken with or without the GIL and never held when
    the GIL is taken. Order: this lock, then the pool's or the completion lock.
    """

    def __cinit__(self, BufferPool pool, *, size_t batch_size=16384, linger_ms=0, delivery_timeout_ms=120000,
                  max_block_ms=60000, transit_grace_ms=1500, partitioner="uniform_sticky", adaptive=True,
                  availability_timeout_ms=0, sticky_interval_ms=100, max_in_flight=5, uint64_t seed=0,
                  sequential_random=False, Phase first_phase=STEADY):
        fp_mutex_init(&self.lock)
        self.pool = pool
        self.batch_size = max(batch_size, <size_t>1)
        self.linger_ns = nanoseconds(linger_ms)
        self.delivery_timeout_ns = nanoseconds(delivery_timeout_ms)
        self.max_block_ns = nanoseconds(max_block_ms)
        self.transit_grace_ns = nanoseconds(transit_grace_ms)
        self.availability_timeout_ns = nanoseconds(availability_timeout_ms)
        self.sticky_interval_ns = nanoseconds(sticky_interval_ms)
        self.kind = KINDS[partitioner]
        self.adaptive = adaptive
        self.max_in_flight = max_in_flight
        self.seed = seed
        self.sequential_random = sequential_random
        self.first_phase = first_phase
        self.leader_of(-1)

    def __dealloc__(self):
        cdef Topic *topic
        cdef ProducerBatch *batch
        cdef int32_t i
        while self.topics is not NULL:
            topic = self.topics
            for i in range(topic.capacity):
                while topic.queues[i].head is not NULL:
                    batch = topic.queues[i].head
                    topic.queues[i].head = batch.next
                    batch_free(batch, self.pool)
            self.topics = topic.next
            free_topic(topic)
        free(self.leaders)
        fp_mutex_destroy(&self.lock)

    # Topics. thread: app or metadata, with the GIL

    cdef Topic *add_topic(self, const char *name) except NULL:
        """A topic without partitions yet; it lives until remove_topic()."""
        cdef Topic *topic = <Topic *>calloc(1, sizeof(Topic))
        if topic is NULL:
            raise MemoryError()
        topic.name = strdup(name)
        topic.used_ns = fp_monotonic_ns()
        fp_mutex_lock(&self.lock)
        self.seed += 1
        sticky_init(&topic.sticky, self.kind, self.adaptive, self.batch_size, self.sticky_interval_ns,
                    0 if self.sequential_random else self.seed * <uint64_t>0x9e3779b97f4a7c15, self.sequential_random)
        topic.next = self.topics
        if topic.next is not NULL:
            topic.next.previous = topic
        self.topics = topic
        fp_mutex_unlock(&self.lock)
        return topic

    cdef int remove_topic(self, Topic *topic) noexcept nogil:
        """Frees a topic that nobody appends to any more; 0 if it still has batches. lock: sender_lock

        Under sender_lock no batch is on its way from one list to another: what a queue neither has nor has in transit
        does not exist, but for failed batches that are kept, and those do not know it.
        """
        cdef PartitionQueue *queue
        cdef int32_t i
        fp_mutex_lock(&self.lock)
        for i in range(topic.capacity):
            queue = topic.queues[i]
            if queue.head is not NULL or queue.in_flight.first is not NULL or queue.state != QUEUE_IDLE:
                fp_mutex_unlock(&self.lock)
                return 0
        if topic.previous is NULL:
            self.topics = topic.next
        else:
            topic.previous.next = topic.next
        if topic.next is not NULL:
            topic.next.previous = topic.previous
        fp_mutex_unlock(&self.lock)
        free_topic(topic)
        return 1

    cdef int32_t leader_of(self, int32_t broker) except -1:
        """The index of a broker's window, made if need be. lock: none, GIL held"""
        cdef int32_t i
        cdef BrokerWindow *grown
        for i in range(self.leader_count):
            if self.leaders[i].broker == broker:
                return i
        fp_mutex_lock(&self.lock)
        grown = <BrokerWindow *>realloc(self.leaders, (self.leader_count + 1) * sizeof(BrokerWindow))
        if grown is not NULL:
            memset(&grown[self.leader_count], 0, sizeof(BrokerWindow))
            grown[self.leader_count].broker = broker
            self.leaders = grown
            self.leader_count += 1
        fp_mutex_unlock(&self.lock)
        if grown is NULL:
            raise MemoryError()
        return self.leader_count - 1

    cdef int set_partitions(self, Topic *topic, const int32_t *brokers, int32_t count) except -1:
        """What metadata says: brokers[i] leads partition i, -1 for none.

        Keyed records go to other partitions from here on if the count changed, as in Java. Partitions that are gone,
        of a topic that was deleted and made anew, keep their queues, for what is in them, and lose their leaders.
        """
        cdef int32_t i, leader
        cdef PartitionQueue **queues
        cdef int32_t *lengths
        cdef unsigned char *available
        cdef PartitionQueue *queue
        cdef int ok = 1
        indexes = [self.leader_of(brokers[i]) for i in range(count)]
        fp_mutex_lock(&self.lock)
        if count > topic.capacity:
            queues = <PartitionQueue **>realloc(topic.queues, count * sizeof(PartitionQueue *))
            if queues is not NULL:
                topic.queues = queues
            lengths = <int32_t *>realloc(topic.partitions.queue_lengths, count * sizeof(int32_t))
            if lengths is not NULL:
                topic.partitions.queue_lengths = lengths
            available = <unsigned char *>realloc(topic.partitions.available, count)
            if available is not NULL:
                topic.partitions.available = available
            ok = queues is not NULL and lengths is not NULL and available is not NULL
            for i in range(topic.capacity, count if ok else topic.capacity):
                queue = <PartitionQueue *>calloc(1, sizeof(PartitionQueue))
                if queue is NULL:
                    ok = 0
                    break
                queue.topic = topic
                queue.partition = i
                queue.request_limit = phase_limit(self.first_phase, 0)
                in_flight_init(&queue.in_flight, self.first_phase)
                topic.queues[i] = queue
                lengths[i] = 0
                available[i] = 0
                topic.capacity = i + 1
        if ok:
            topic.partitions.count = count
            if topic.sticky.current >= count:
                topic.sticky.current = -1
                topic.sticky.produced_bytes = 0
            for i in range(topic.capacity):
                leader = indexes[i] if i < count else 0
                queue = topic.queues[i]
                if queue.state == QUEUE_BLOCKED and queue.leader != leader:
                    leave_blocked(&self.leaders[queue.leader], queue)
                    queue.state = QUEUE_READY
                    queue_append(&self.ready, queue)
                queue.leader = leader
            self.refresh_available(topic, fp_monotonic_ns())
        fp_mutex_unlock(&self.lock)
        if not ok:
            raise MemoryError()
        self.wake_sender()
        return 0

    cdef void refresh_available(self, Topic *topic, int64_t now_ns) noexcept nogil:
        """Available is what has a leader that takes data (partitioner.availability.timeout.ms)."""
        cdef int32_t i, available = 0
        cdef PartitionQueue *queue
        cdef BrokerWindow *leader
        for i in range(topic.partitions.count):
            queue = topic.queues[i]
            leader = &self.leaders[queue.leader]
            topic.partitions.available[i] = leader.broker >= 0 and not (
                self.stalled(leader.blocked_ns, now_ns) or self.stalled(queue.waiting_ns, now_ns))
            available += topic.partitions.available[i]
        topic.partitions.available_count = available

    cdef int stalled(self, int64_t since_ns, int64_t now_ns) noexcept nogil:
        return self.availability_timeout_ns > 0 and since_ns > 0 and now_ns - since_ns > self.availability_timeout_ns

    # Append. thread: app, with the GIL

    cdef int append(self, Topic *topic, int32_t partition, const fp_record *record, int epoch, int64_t now_ns,
                    int64_t deadline_ns, CallbackSlot *callback, int abort_on_new_batch,
                    RecordAppendResult *appended) except -1:
        """Copies a record into the open batch of its partition; partition -1 lets the partitioner choose.

        epoch: its value when the call began that this is part of. A call that waited while one transaction ended and
        the next began is refused: its records belong to the first.

        Returns 1; 0 if abort_on_new_batch and a new batch would be needed. Waits for memory until deadline_ns
        (0: max.block.ms from now) with the GIL released (BufferExhaustedError), at the end of the queue of those
        who wait. now_ns is 0 but for tests: the clock is then read where it is needed, once per batch.
        """
        cdef char *arena = NULL
        cdef size_t arena_size = 0
        cdef size_t wanted
        cdef int status
        appended.wake = appended.backlog_high = 0
        callback.reserved = 0
        try:
            while True:
                fp_mutex_lock(&self.lock)
                status = CLOSED if self.epoch != epoch else self.try_append(
                    topic, partition, record, now_ns, callback, abort_on_new_batch, &arena, &arena_size, appended)
                if status == MEMORY_NEEDED:
                    self.memory_waiters += 1
                fp_mutex_unlock(&self.lock)
                if status != MEMORY_NEEDED:
                    break
                # `memory_waiters` was raised under the lock, so the sender, once it
                # looks, drains every batch whether full or not; that is what
                # brings memory back, and it must not sleep through it.
                self.wake_sender()
                if deadline_ns == 0:
                    deadline_ns = fp_monotonic_ns() + self.max_block_ns
                try:
                    # Both at once: a thread that kept the one while it waits for the other could block all others.
                    wanted = first_reservation(callback)
                    arena = <char *>self.pool.allocate(arena_size, wanted, deadline_ns)
                    callback.reserved = wanted
                finally:
                    fp_mutex_lock(&self.lock)
                    self.memory_waiters -= 1
                    fp_mutex_unlock(&self.lock)
        finally:
            if arena is not NULL:
                self.pool.deallocate(arena, arena_size)
            if callback.reserved:
                self.pool.release_callbacks(callback.reserved)
        if status == CLOSED:
            if self.closed_error is not None:
                raise self.closed_error()
            raise ProducerClosedError("the producer is closed: no record can be sent any more")
        if status == NO_MEMORY:
            raise MemoryError("no memory for a batch")
        if appended.wake:
            self.wake_sender()
        return status == APPENDED

    cdef Py_ssize_t append_many(self, Topic *topic, const fp_record *records, const int32_t *partitions,
                                Py_ssize_t count, int epoch, Placed *placed, Py_ssize_t *runs) noexcept nogil:
        """Appends records up to the first that cannot be at once, which is for append(); returns how many.

        Each takes a share of its batch's result, as a future would. placed has room for count runs and tells where
        the records are, *runs how many runs. thread: app, without the GIL  lock: none
        """
        cdef CallbackSlot callback
        cdef RecordAppendResult appended
        cdef char *arena = NULL
        cdef size_t arena_size = 0
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t limit, number
        cdef Placed *latest = NULL
        cdef int wake, backlog_high
        cdef int status = APPENDED
        callback.function = NULL
        callback.reserved = 0
        runs[0] = 0
        while done < count and status == APPENDED:
            wake = backlog_high = 0
            limit = min(count, done + LOCK_BATCH)
            fp_mutex_lock(&self.lock)
            if self.epoch != epoch:
                status = CLOSED
            while done < limit and status == APPENDED:
                appended.wake = appended.backlog_high = 0
                number = self.append_run(topic, &records[done], &partitions[done], limit - done, &appended)
                if number == 0:
                    status = self.try_append(topic, partitions[done], &records[done], 0, &callback, 0,
                                             &arena, &arena_size, &appended)
                    wake |= appended.wake
                    backlog_high |= appended.backlog_high
                    if status != APPENDED:
                        break
                    number = 1
                done += number
                if latest is NULL or latest.result is not appended.result or (
                        latest.index + latest.count != appended.index):
                    latest = &placed[runs[0]]
                    runs[0] += 1
                    latest.result = appended.result
                    latest.index = appended.index
                    latest.partition = appended.partition
                    latest.count = 0
                latest.count += <int32_t>number
            fp_mutex_unlock(&self.lock)
            if wake:
                self.wake_sender()
            if backlog_high:
                self.assist(self.wake_argument)
        if arena is not NULL:
            self.pool.deallocate(arena, arena_size)
        return done

    cdef int append_bare(self, Topic *topic, int32_t partition, const fp_record *record,
                         RecordAppendResult *appended) noexcept nogil:
        """append() for a record that only fills an open batch further, as nearly all do; 0: it is for append().

        thread: app  lock: none
        """
        cdef ProducerBatch *batch
        cdef int64_t limit, before
        cdef int done = 0
        fp_mutex_lock(&self.lock)
        batch = appendable_batch(self, topic, partition, &limit, appended)
        if batch is not NULL:
            before = batch.wire_size
            done = batch_append_bare(batch, record, limit)
            self.unsettled += done
            if partition < 0:
                topic.sticky.produced_bytes += batch.wire_size - before
        fp_mutex_unlock(&self.lock)
        return done

    cdef Py_ssize_t append_run(self, Topic *topic, const fp_record *records, const int32_t *partitions,
                               Py_ssize_t count, RecordAppendResult *appended) noexcept nogil:
        """Appends the first records that only fill an open batch further; how many, the others are for try_append().

        They make no batch full, and no partition change. lock: held
        """
        cdef int64_t limit, before
        cdef Py_ssize_t number
        cdef ProducerBatch *batch = appendable_batch(self, topic, partitions[0], &limit, appended)
        if batch is NULL:
            return 0
        before = batch.wire_size
        number = batch_append_run(batch, records, partitions, count, limit)
        self.unsettled += number
        if partitions[0] < 0:
            topic.sticky.produced_bytes += batch.wire_size - before
        return number

    cdef int try_append(self, Topic *topic, int32_t partition, const fp_record *record, int64_t now_ns,
                        CallbackSlot *callback, int abort_on_new_batch, char **arena, size_t *arena_size,
                        RecordAppendResult *appended) noexcept nogil:
        """One attempt. *arena is memory for a new batch, if the caller has any; NULL afterwards if it was used.

        An attempt that finds no memory leaves no choice of a partition behind: the next one makes it again. lock: held
        """
        cdef StickyState unchosen
        cdef int chooses = partition < 0 and topic.sticky.kind != UNIFORM_STICKY
        cdef int status
        if chooses:
            unchosen = topic.sticky
        status = self.place(topic, partition, record, now_ns, callback, abort_on_new_batch, arena, arena_size,
                            appended)
        if chooses and status == MEMORY_NEEDED:
            topic.sticky = unchosen
        return status

    cdef int place(self, Topic *topic, int32_t partition, const fp_record *record, int64_t now_ns,
                   CallbackSlot *callback, int abort_on_new_batch, char **arena, size_t *arena_size,
                   RecordAppendResult *appended) noexcept nogil:
        """try_append(), which undoes a choice. lock: held"""
        cdef StickyState *sticky = NULL
        cdef PartitionQueue *queue
        cdef ProducerBatch *batch
        cdef size_t size       # of the record in format v2, in that batch
        cdef size_t before
        cdef AddedCallback added
        if self.closed:
            return CLOSED
        if partition < 0:
            sticky = &topic.sticky
            if sticky.kind == TIMED_STICKY and now_ns == 0:
                now_ns = fp_monotonic_ns()
            partition = sticky_partition(sticky, &topic.partitions, now_ns)
            if sticky.kind == UNIFORM_STICKY and self.is_full(topic.queues[partition]):
                # A switch that was held back until the batch is full happens here.
                if self.move_on(topic, 0, 1):
                    partition = sticky.current
        queue = topic.queues[partition]
        size = self.room_in_tail(queue, record, arena, arena_size)
        if size == 0 and not self.is_full(queue):
            return MEMORY_NEEDED   # so that the batch can grow
        if size == 0:
            # A batch may have been closed, though the record goes elsewhere.
            appended.wake = self.ready.first is not NULL
        if size == 0 and sticky is not NULL and sticky.kind == UNIFORM_STICKY:
            # That closed the batch, so a switch that was held back happens now:
            # after two batches at full speed, as in Java.
            if self.move_on(topic, 0, 1):
                partition = sticky.current
                queue = topic.queues[partition]
                size = self.room_in_tail(queue, record, arena, arena_size)
                if size == 0 and not self.is_full(queue):
                    return MEMORY_NEEDED
        if size == 0:
            if abort_on_new_batch:
                return ABORTED
            if sticky is not NULL and sticky.kind == STICKY:
                partition = sticky_on_new_batch(sticky, &topic.partitions)
                queue = topic.queues[partition]
                size = self.room_in_tail(queue, record, arena, arena_size)
                if size == 0 and not self.is_full(queue):
                    return MEMORY_NEEDED
        batch = queue.tail
        before = 0
        if size:
            before = batch.wire_size
        else:
            if arena[0] is NULL:
                arena_size[0] = self.first_arena(queue, record)
                arena[0] = <char *>self.pool.try_allocate(arena_size[0], first_reservation(callback))
                if arena[0] is NULL:
                    return MEMORY_NEEDED
                callback.reserved = first_reservation(callback)
            batch = self.open_batch(queue, arena[0], arena_size[0], now_ns or fp_monotonic_ns())
            if batch is NULL:
                return NO_MEMORY
            arena[0] = NULL
            size = fp_wire_size(record, fp_ts_wire(0), 0)
            appended.backlog_high = self.closed_bytes > BACKLOG_BYTES
            appended.wake = (self.ready.first is not NULL or
                             batch.created_ns + self.linger_ns < self.sleep_until_ns)
        if callback.function is not NULL:
            added = result_add_callback(batch.result, batch.count, callback.kind, callback.function, callback.future,
                                        GIVEN if callback.reserved else IF_FREE)
            if added == NOTHING_RESERVED:
                arena_size[0] = self.first_arena(queue, record)   # by then the batch will have gone
                return MEMORY_NEEDED
            if added == NOT_ALLOCATED:
                return NO_MEMORY   # the batch stays, perhaps empty; the next record goes there
            callback.function = NULL
            callback.reserved = 0
        appended.result = batch.result
        appended.partition = partition
        appended.index = batch_append(batch, record, size)
        if batch.wire_size >= self.batch_size:
            self.close_batch(queue, batch)
            appended.wake = 1
        self.unsettled += 1
        if sticky is not NULL and sticky.kind == UNIFORM_STICKY:
            if sticky.produced_bytes + <int64_t>(batch.wire_size - before) >= sticky.stick_bytes:
                if self.availability_timeout_ns > 0:
                    self.refresh_available(topic, now_ns or fp_monotonic_ns())
            self.move_on(topic, batch.wire_size - before, self.is_full(queue))
        return APPENDED

    cdef int move_on(self, Topic *topic, int64_t appended, int enable_switch) noexcept nogil:
        """sticky_update(), but only after QUANTUM_BYTES where many partitions would share what no broker keeps up with.

        A request of librdkafka's has one partition, where Java's has a batch of each. Of 1000 partitions that take
        turns by 16 KiB each batch would be a request; of few, the batches of several turns meet in one. lock: held
        """
        cdef StickyState *sticky = &topic.sticky
        sticky.stick_bytes = self.batch_size
        if (topic.partitions.count > MANY_PARTITIONS and sticky.produced_bytes + appended >= sticky.stick_bytes and
                self.all_behind()):
            sticky.stick_bytes = max(sticky.stick_bytes, <int64_t>QUANTUM_BYTES)
        return sticky_update(sticky, &topic.partitions, appended, enable_switch)

    cdef int all_behind(self) noexcept nogil:
        """Full batches wait for room in every broker's window. lock: held"""
        cdef int32_t i
        for i in range(self.leader_count):
            if self.leaders[i].broker >= 0 and self.leaders[i].blocked_full_count == 0:
                return 0
        return 1

    cdef size_t first_arena(self, PartitionQueue *queue, const fp_record *record) noexcept nogil:
        """How large the arena of a new batch is that begins with the record."""
        return max(fp_arena_size(record, 0),
                   self.batch_size if queue.last_batch_was_full else min(<size_t>COLD_ARENA, self.batch_size))

    cdef size_t room_in_tail(self, PartitionQueue *queue, const fp_record *record, char **arena,
                             size_t *arena_size) noexcept nogil:
        """The record's size in the open batch, if it fits; else 0, and the batch is closed.

        But it stays open if it may grow and the pool has no memory for that: the caller waits for an arena of
        *arena_size bytes, and the batch moves there. If it were closed, small memory would make small batches, which
        give memory back in small pieces: of 1000 partitions with 4 MB none would get beyond 1024 bytes.
        """
        cdef ProducerBatch *batch = queue.tail
        cdef size_t capacity, size
        cdef int64_t delta
        if batch is NULL or batch.state != BATCH_OPEN:
            return 0
        delta = record.timestamp - batch.base_timestamp if batch.count else 0
        size = fp_wire_size(record, fp_ts_wire(delta), batch.count)
        # The first record always fits, as in MemoryRecordsBuilder.hasRoomFor.
        if batch.wire_size + size <= self.batch_size or batch.count == 0:
            if batch_fits_arena(batch, record):
                return size
            capacity = batch.capacity
            while capacity < self.batch_size:
                capacity = min(capacity + capacity // 2, self.batch_size)   # twice would leave more unused
                if batch.used + fp_arena_size(record, record.timestamp - batch.base_timestamp) > capacity:
                    continue
                if arena[0] is NULL:
                    if batch_grow(batch, capacity, self.pool):
                        return size
                    arena_size[0] = capacity
                    return 0
                if arena_size[0] < capacity:
                    break   # it is for a new batch: another thread has opened this one meanwhile
                batch_move(batch, arena[0], arena_size[0], self.pool)
                arena[0] = NULL
                return size
        self.close_batch(queue, batch)
        return 0

    cdef ProducerBatch *open_batch(self, PartitionQueue *queue, char *arena, size_t size,
                                   int64_t now_ns) noexcept nogil:
        cdef ProducerBatch *batch = batch_new(arena, size, queue.partition, now_ns)
        if batch is NULL:
            return NULL
        self.last_id += 1
        batch.id = self.last_id
        batch.result.pool = <void *>self.pool
        batch.queue = queue
        if queue.tail is NULL:
            queue.head = batch
        else:
            queue.tail.next = batch
        queue.tail = batch
        queue.topic.partitions.queue_lengths[queue.partition] += 1
        batch.queued = 1
        queue.topic.used_ns = now_ns
        batch.incomplete = 1
        batch.older = self.newest
        if self.newest is NULL:
            self.oldest = batch
        else:
            self.newest.newer = batch
        self.newest = batch
        if self.linger_ns > 0:
            batch.lingering = 1
            batch.linger_older = self.linger_last
            if self.linger_last is NULL:
                self.linger_first = batch
            else:
                self.linger_last.linger_newer = batch
            self.linger_last = batch
        else:
            self.make_ready(queue)
        return batch

    cdef int is_full(self, PartitionQueue *queue) noexcept nogil:
        return queue.tail is NULL or queue.tail.state != BATCH_OPEN or queue.tail.wire_size >= self.batch_size

    cdef void close_batch(self, PartitionQueue *queue, ProducerBatch *batch) noexcept nogil:
        batch.state = BATCH_CLOSED
        self.closed_bytes += batch.used
        self.closed_records += batch.count
        self.closed_total += batch.count
        queue.last_batch_was_full = 1
        self.stop_lingering(batch)
        self.make_ready(queue)

    cdef void stop_lingering(self, ProducerBatch *batch) noexcept nogil:
        if not batch.lingering:
            return
        batch.lingering = 0
        if batch.linger_older is NULL:
            self.linger_first = batch.linger_newer
        else:
            batch.linger_older.linger_newer = batch.linger_newer
        if batch.linger_newer is NULL:
            self.linger_last = batch.linger_older
        else:
            batch.linger_newer.linger_older = batch.linger_older

    cdef void make_ready(self, PartitionQueue *queue) noexcept nogil:
        if queue.state == QUEUE_IDLE:
            queue.state = QUEUE_READY
            queue_append(&self.ready, queue)
        elif queue.state == QUEUE_BLOCKED and queue.head is queue.tail and queue.head.state == BATCH_CLOSED:
            # It may have been blocked because its only batch was not full. Others keep their place.
            leave_blocked(&self.leaders[queue.leader], queue)
            queue.state = QUEUE_READY
            queue_append(&self.ready, queue)

    cdef int64_t pause_ns(self) noexcept nogil:
        """How long an application that is far ahead should let the others catch up. lock: none"""
        cdef int64_t pause
        fp_mutex_lock(&self.lock)
        pause = (self.closed_total - self.paused_at) * PACE_NS_PER_RECORD
        if self.closed_records < PACE_RECORDS:
            pause = 0
            self.paused_at = self.closed_total
        elif pause < SHORTEST_PAUSE_NS:
            pause = 0
        else:
            pause = min(pause, <int64_t>LONGEST_PAUSE_NS)
            self.paused_at = self.closed_total
        fp_mutex_unlock(&self.lock)
        return pause

    cdef void wake_sender(self) noexcept nogil:
        """thread: any  lock: none"""
        if self.wake is not NULL:
            self.wake(self.wake_argument)

    cdef int has_waiters(self) noexcept nogil:
        """Whether somebody waits until batches have gone or settled. thread: any  lock: none"""
        cdef int found
        fp_mutex_lock(&self.lock)
        found = self.flush_requested()
        fp_mutex_unlock(&self.lock)
        return found

    cdef int64_t count_unsettled(self) noexcept nogil:
        """Records that have no outcome yet. thread: any  lock: none"""
        cdef int64_t count
        fp_mutex_lock(&self.lock)
        count = self.unsettled
        fp_mutex_unlock(&self.lock)
        return count

    # Drain. thread: sender, without the GIL

    cdef int flush_requested(self) noexcept nogil:
        """Batches go although neither full nor lingered. lock: held"""
        return self.memory_waiters > 0 or self.flushing > 0 or self.closed

    cdef int sendable(self, ProducerBatch *batch, int64_t now_ns) noexcept nogil:
        return (batch.state == BATCH_CLOSED or self.flush_requested() or not batch.lingering or
                now_ns - batch.created_ns >= self.linger_ns)

    cdef int window_open(self, PartitionQueue *queue, BrokerWindow *leader, ProducerBatch *batch) noexcept nogil:
        """Whether the leader may be given the batch now, the first of the queue.

        The window keeps what librdkafka holds small, in cache, and bounded; the
        rest waits in compact arenas. Whoever finds others waiting for room in it
        waits behind them, or one with a large batch would wait for ever. A
        batch that is not full waits behind max.in.flight others, as it does in
        Java: it fills while they travel. While an application waits for memory
        it cannot fill, so MORE_PARTIAL times as many go.
        """
        if leader.batches == 0:
            return 1
        if leader.blocked_full_count and not queue.has_quantum:
            return 0
        if leader.cost + batch.cost > LEADER_WINDOW:
            return 0
        if self.outstanding_cost >= TOTAL_WINDOW and leader.cost >= LEADER_SHARE:
            return 0
        return batch.state == BATCH_CLOSED or queue.force_partial or leader.batches < self.partial_limit()

    cdef int32_t partial_limit(self) noexcept nogil:
        """How many batches a leader may have before one that is not full waits. lock: held"""
        return MORE_PARTIAL * self.max_in_flight if self.memory_waiters else self.max_in_flight

    cdef void end_lingering(self, int64_t now_ns) noexcept nogil:
        cdef ProducerBatch *batch = self.linger_first
        while batch is not NULL and (self.flush_requested() or now_ns - batch.created_ns >= self.linger_ns):
            self.stop_lingering(batch)
            self.make_ready(<PartitionQueue *>batch.queue)
            batch = self.linger_first

    cdef ProducerBatch *drain(self, int64_t now_ns, int64_t limit) noexcept nogil:
        """Takes sendable batches of up to limit bytes, chained by next in the order to hand them over.

        Each is charged to its leader's window until settle(). lock: none
        """
        cdef ProducerBatch *chain = NULL
        cdef ProducerBatch *last = NULL
        cdef ProducerBatch *batch
        cdef PartitionQueue *queue
        cdef PartitionQueue *blocked = NULL   # the last one here
        cdef BrokerWindow *leader
        fp_mutex_lock(&self.lock)
        self.end_lingering(now_ns)
        while limit > 0 and self.ready.first is not NULL:
            queue = self.ready.first
            batch = queue.head
            leader = &self.leaders[queue.leader]
            if batch is NULL or not self.sendable(batch, now_ns):
                self.leave_ready(queue, QUEUE_IDLE)
                end_quantum(queue)
                continue
            if self.limit_reached(queue):
                self.leave_ready(queue, QUEUE_LIMIT_REACHED)
                queue.waiting_ns = queue.waiting_ns or now_ns
                end_quantum(queue)
                continue
            batch.cost = transport_cost(batch)
            if not self.window_open(queue, leader, batch):
                self.block(queue, leader, blocked, now_ns)
                blocked = queue
                continue
            self.take_head(queue)
            self.charge(queue, leader, batch, now_ns)
            self.count_drained(batch, now_ns)
            if last is NULL:
                chain = batch
            else:
                last.next = batch
            last = batch
            limit -= batch.used + 1
            queue.has_quantum = 1
            queue.quantum_bytes += batch.used
            if queue.head is NULL:   # else it would look as if there were something to drain, and wake the thread
                self.leave_ready(queue, QUEUE_IDLE)
                end_quantum(queue)
            elif queue.quantum_bytes >= QUANTUM_BYTES:
                self.rotate(queue, leader, now_ns)
        fp_mutex_unlock(&self.lock)
        return chain

    cdef void leave_ready(self, PartitionQueue *queue, QueueState state) noexcept nogil:
        queue_remove(&self.ready, queue)
        queue.state = state

    cdef void block(self, PartitionQueue *queue, BrokerWindow *leader, PartitionQueue *blocked,
                    int64_t now_ns) noexcept nogil:
        """Has a queue wait until its leader's window is open. blocked: what this drain() blocked before it, or NULL

        Those whose turn it is come before the others, in the order they had. lock: held
        """
        self.leave_ready(queue, QUEUE_BLOCKED)
        if not queue.has_quantum:
            join_blocked(leader, queue, leader.blocked.last)
        elif (blocked is not NULL and blocked.state == QUEUE_BLOCKED and blocked.has_quantum and
                blocked.leader == queue.leader):
            join_blocked(leader, queue, blocked)
        else:
            join_blocked(leader, queue, NULL)
        if leader.blocked_ns == 0:
            leader.blocked_ns = now_ns

    cdef void rotate(self, PartitionQueue *queue, BrokerWindow *leader, int64_t now_ns) noexcept nogil:
        """Puts a queue that has had its turn behind the others of its leader: it must not keep the window to itself."""
        end_quantum(queue)
        if leader.blocked.first is NULL:
            self.leave_ready(queue, QUEUE_READY)
            queue_append(&self.ready, queue)
        else:
            self.leave_ready(queue, QUEUE_BLOCKED)
            join_blocked(leader, queue, leader.blocked.last)
            leader.blocked_ns = now_ns   # until one is drained: there may be room for none
            self.unblock(leader)

    cdef void charge(self, PartitionQueue *queue, BrokerWindow *leader, ProducerBatch *batch,
                     int64_t now_ns) noexcept nogil:
        """Counts a batch that goes into transit. lock: held"""
        batch.state = BATCH_IN_TRANSIT
        batch.leader = queue.leader
        queue.drained += 1
        queue.drained_bytes += batch.used
        queue.force_partial = 0
        leader.batches += 1
        leader.cost += batch.cost
        leader.blocked_ns = now_ns if leader.blocked.first is not NULL else 0
        self.outstanding_cost += batch.cost

    cdef void count_drained(self, ProducerBatch *batch, int64_t now_ns) noexcept nogil:
        """For metrics(). lock: held"""
        # now_ns was read before the lock was taken: the batch can be younger.
        cdef int64_t waited_ns = max(now_ns - batch.created_ns, <int64_t>0)
        self.batches_drained += 1
        self.records_drained += batch.count
        self.bytes_drained += batch.wire_size
        self.largest_batch = max(self.largest_batch, <int64_t>batch.wire_size)
        self.queue_time_ns += waited_ns
        self.longest_queue_time_ns = max(self.longest_queue_time_ns, waited_ns)

    cdef void take_head(self, PartitionQueue *queue) noexcept nogil:
        cdef ProducerBatch *batch = queue.head
        if batch.state == BATCH_OPEN:
            queue.last_batch_was_full = 0
        else:
            self.closed_bytes -= batch.used
            self.closed_records -= batch.count
        self.stop_lingering(batch)
        queue.head = batch.next
        if queue.head is NULL:
            queue.tail = NULL
        batch.next = NULL

    cdef ProducerBatch *expire(self, int64_t now_ns, Expiry what) noexcept nogil:
        """Takes batches whose time is over, chained by next.

        The caller fails their futures, then calls drop_expired(). One of which
        librdkafka was given nothing expires at delivery.timeout.ms to the
        moment, and is the caller's after that. The arena of another one waits
        for librdkafka's last report. librdkafka says more exactly what
        happened, so it gets some grace first. lock: none; sender_lock
        """
        cdef ProducerBatch *chain = NULL
        cdef ProducerBatch *last = NULL
        cdef ProducerBatch *batch
        cdef ProducerBatch *newer
        cdef int64_t age
        fp_mutex_lock(&self.lock)
        newer = self.oldest
        while newer is not NULL:
            batch = newer
            newer = batch.newer
            age = now_ns - batch.created_ns
            if what == OVERDUE and age < self.delivery_timeout_ns:
                break
            if batch.state == BATCH_IN_TRANSIT and batch.submitted > 0 and what != EVERYTHING and (
                    what == ALL_NOT_HANDED_OVER or age < self.delivery_timeout_ns + self.transit_grace_ns):
                continue
            if batch.state != BATCH_IN_TRANSIT:
                # The oldest of all but those in transit is the head of its queue.
                self.take_head(<PartitionQueue *>batch.queue)
                batch.state = BATCH_CLOSED
            self.leave_queue(batch)
            batch.expired = 1
            batch.next = NULL
            if last is NULL:
                chain = batch
            else:
                last.next = batch
            last = batch
        fp_mutex_unlock(&self.lock)
        return chain

    cdef void drop_expired(self, ProducerBatch *batch) noexcept nogil:
        """The futures of an expired batch have failed. lock: none"""
        cdef int flushed
        fp_mutex_lock(&self.lock)
        self.remove_incomplete(batch)
        flushed = self.check_flush_points()
        fp_mutex_unlock(&self.lock)
        if flushed:
            notify_completed()

    cdef void settle_records(self, ProducerBatch *batch) noexcept nogil:
        """The batch's futures are about to have their results, before it is over. lock: none"""
        fp_mutex_lock(&self.lock)
        if batch.incomplete and not batch.settled_early:
            batch.settled_early = 1
            self.unsettled -= batch.count
        fp_mutex_unlock(&self.lock)

    cdef void remove_incomplete(self, ProducerBatch *batch) noexcept nogil:
        """Takes the batch out of the incomplete ones: its records count as settled from here on. lock: held"""
        if not batch.incomplete:
            return
        batch.incomplete = 0
        self.leave_queue(batch)
        if not batch.settled_early:
            self.unsettled -= batch.count
        if batch.older is NULL:
            self.oldest = batch.newer
        else:
            batch.older.newer = batch.newer
        if batch.newer is NULL:
            self.newest = batch.older
        else:
            batch.newer.older = batch.older
        batch.older = batch.newer = NULL

    cdef void on_submitted(self, PartitionQueue *queue, int32_t batches, int waiting, int64_t now_ns) noexcept nogil:
        """librdkafka has all of so many more batches of a partition; whether others wait for an answer first.

        The partitioner sees what waits, here or in transit: it is what a broker that does not answer has most of.
        lock: none; sender_lock
        """
        fp_mutex_lock(&self.lock)
        queue.topic.partitions.queue_lengths[queue.partition] -= batches
        if not waiting and queue.state != QUEUE_LIMIT_REACHED:
            queue.waiting_ns = 0
        elif batches or queue.waiting_ns == 0:
            queue.waiting_ns = now_ns
        fp_mutex_unlock(&self.lock)

    cdef void leave_queue(self, ProducerBatch *batch) noexcept nogil:
        """Counts the batch in queue_lengths no more. lock: held"""
        cdef PartitionQueue *queue = <PartitionQueue *>batch.queue
        queue.topic.partitions.queue_lengths[queue.partition] -= batch.queued
        batch.queued = 0

    cdef void settle(self, ProducerBatch *batch) noexcept nogil:
        """The batch is over: its window is free again. The caller owns it from here on. lock: none"""
        cdef BrokerWindow *leader
        cdef int flushed
        fp_mutex_lock(&self.lock)
        self.remove_incomplete(batch)
        if batch.state == BATCH_IN_TRANSIT:
            (<PartitionQueue *>batch.queue).drained -= 1
            (<PartitionQueue *>batch.queue).drained_bytes -= batch.used
            self.hold_back_no_longer(<PartitionQueue *>batch.queue)
            leader = &self.leaders[batch.leader]
            leader.batches -= 1
            leader.cost -= batch.cost
            self.outstanding_cost -= batch.cost
            self.unblock(leader)
        flushed = self.check_flush_points()
        fp_mutex_unlock(&self.lock)
        if flushed:
            notify_completed()

    cdef void set_request_limit(self, PartitionQueue *queue, size_t request_limit) noexcept nogil:
        """How much of a partition may be in transit. thread: any  lock: none"""
        fp_mutex_lock(&self.lock)
        queue.request_limit = request_limit
        self.hold_back_no_longer(queue)
        fp_mutex_unlock(&self.lock)

    cdef int limit_reached(self, PartitionQueue *queue) noexcept nogil:
        return (queue.request_limit and queue.drained and
                queue.drained_bytes + queue.head.used > queue.request_limit)

    cdef void hold_back_no_longer(self, PartitionQueue *queue) noexcept nogil:
        """Makes a queue that was held back ready, if it may be. lock: held"""
        if queue.state != QUEUE_LIMIT_REACHED:
            return
        if queue.head is NULL:   # it expired
            queue.state = QUEUE_IDLE
        elif not self.limit_reached(queue):
            queue.state = QUEUE_IDLE
            self.make_ready(queue)

    cdef void unblock(self, BrokerWindow *leader) noexcept nogil:
        """Makes those blocked queues ready whose first batch the window can take now. lock: held

        A batch that is not full goes too, however many are in flight, if full
        ones wait behind it: they have had their turns, and would have to wait
        until the window is all but empty.
        """
        cdef PartitionQueue *queue
        cdef ProducerBatch *batch
        cdef int force_partial
        cdef int64_t cost = leader.cost
        cdef int32_t batches = leader.batches
        while leader.blocked.first is not NULL:
            queue = leader.blocked.first
            batch = queue.head
            if batch is not NULL:
                cost += transport_cost(batch)
                force_partial = batch.state == BATCH_OPEN and batches >= self.partial_limit()
                if batches and (cost > LEADER_WINDOW or force_partial and not leader.blocked_full_count):
                    break
                queue.force_partial = force_partial
                batches += 1
            leave_blocked(leader, queue)
            queue.state = QUEUE_IDLE
            if batch is not NULL:   # else it expired
                queue.state = QUEUE_READY
                queue.has_quantum = 1
                queue_append(&self.ready, queue)
        if leader.blocked.first is NULL:
            leader.blocked_ns = 0

    cdef int64_t prepare_sleep(self, int64_t now_ns, int64_t next_expiry_ns) noexcept nogil:
        """Until when there is nothing to do, monotonic; now_ns or earlier if there is. lock: none

        next_expiry_ns: when expire() is called next; what has expired by then can wait for that.
        """
        cdef int64_t until = INT64_MAX
        cdef int64_t expiry
        cdef int32_t i
        fp_mutex_lock(&self.lock)
        self.end_lingering(now_ns)
        for i in range(self.leader_count):
            # unblock() counts on each queue that it makes ready to be drained.
            # One whose batches expired meanwhile was not, and nothing else is
            # outstanding that would call it again.
            if self.leaders[i].batches == 0 and self.leaders[i].blocked.first is not NULL:
                self.unblock(&self.leaders[i])
        if self.ready.first is not NULL:
            until = now_ns
        else:
            if self.linger_first is not NULL:
                until = self.linger_first.created_ns + self.linger_ns
            if self.oldest is not NULL:
                expiry = self.oldest.created_ns + self.delivery_timeout_ns
                if self.oldest.state == BATCH_IN_TRANSIT:
                    expiry += self.transit_grace_ns
                until = min(until, max(expiry, next_expiry_ns))
        self.sleep_until_ns = until
        fp_mutex_unlock(&self.lock)
        return until

    # Flush and close

    cdef void begin_flush(self, FlushPoint *point) noexcept nogil:
        """point.done is stored once every batch that exists now has settled. thread: app  lock: none"""
        fp_mutex_lock(&self.lock)
        point.id = self.last_id
        point.done = self.oldest is NULL
        point.next = self.flush_points
        self.flush_points = point
        self.flushing += 1
        fp_mutex_unlock(&self.lock)
        self.wake_sender()

    cdef void end_flush(self, FlushPoint *point) noexcept nogil:
        cdef FlushPoint **link
        fp_mutex_lock(&self.lock)
        link = &self.flush_points
        while link[0] is not point:
            link = &link[0].next
        link[0] = point.next
        self.flushing -= 1
        fp_mutex_unlock(&self.lock)

    cdef int check_flush_points(self) noexcept nogil:
        """Whether one was reached. lock: held"""
        cdef FlushPoint *point = self.flush_points
        cdef int reached = 0
        while point is not NULL:
            if not point.done and (self.oldest is NULL or self.oldest.id > point.id):
                fp_atomic_store(&point.done, 1)
                reached = 1
            point = point.next
        return reached

    cdef void close_for_appends(self) noexcept nogil:
        """From here on append() raises, and every batch is sendable."""
        fp_mutex_lock(&self.lock)
        self.closed = 1
        fp_mutex_unlock(&self.lock)
        self.wake_sender()

    cdef void stop_appends(self) noexcept nogil:
        """The same until resume_appends(); append() raises what refusal() returns. thread: any  lock: none"""
        fp_mutex_lock(&self.lock)
        self.closed = 1
        fp_mutex_unlock(&self.lock)

    cdef void resume_appends(self) noexcept nogil:
        fp_mutex_lock(&self.lock)
        self.closed = 0
        fp_atomic_store(&self.epoch, self.epoch + 1)
        fp_mutex_unlock(&self.lock)
