"""OpenBatches: a record finds its partition and its batch, and memory for both.

Source: org.apache.kafka.clients.producer.internals.RecordAccumulator, append() and tryAppend().
"""

from libc.stdint cimport int32_t, int64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.drain_scheduler cimport DrainScheduler
from fastprod.internals.produce_request_result cimport (
    CALLBACK_COST, FIRST_CALLBACKS, GIVEN, IF_FREE, NOT_ALLOCATED, NOTHING_RESERVED, AddedCallback,
    result_add_callback,
)
from fastprod.internals.incomplete_batches cimport IncompleteBatches
from fastprod.internals.partition_queue cimport PartitionQueue
from fastprod.internals.partitioner cimport (
    STICKY, TIMED_STICKY, UNIFORM_STICKY, StickyState, sticky_on_new_batch, sticky_partition,
)
from fastprod.internals.producer_batch cimport (
    BATCH_CLOSED, BATCH_OPEN, ProducerBatch, batch_append, batch_fits_arena, batch_grow, batch_move, batch_new,
)
from fastprod.internals.record cimport fp_arena_size, fp_record, fp_ts_wire, fp_wire_size
from fastprod.internals.sync cimport fp_monotonic_ns
from fastprod.internals.topics cimport Topics

cdef enum:
    COLD_ARENA = 1024        # bytes that a partition's first batch starts with
    # If more bytes of full batches than this are queued, the application should assist. Running on would gain it
    # nothing: it would write to cold memory, and its records would leave too late for the cheap way of handing over.
    BACKLOG_BYTES = 1 << 17


cdef size_t first_reservation(const CallbackSlot *callback) noexcept nogil:
    """Bytes of the pool that a new batch's result needs for the callback of its first record."""
    return FIRST_CALLBACKS * CALLBACK_COST if callback.function is not NULL else 0


cdef class OpenBatches:
    """The open batches: the last one of each queue, which records are appended to.

    Owns the decision where a record goes, and the growth and the end of a batch. Invariants: only the last batch of a
    queue is open; an open batch is smaller than batch.size, unless it has a single record.

    Part of the RecordAccumulator, whose lock the caller holds. Takes the pool's lock.
    """

    def __cinit__(self, BufferPool pool, Topics topics, DrainScheduler scheduler, IncompleteBatches incomplete,
                  size_t batch_size):
        self.pool = pool
        self.topics = topics
        self.scheduler = scheduler
        self.incomplete = incomplete
        self.batch_size = batch_size
        self.availability_timeout_ns = topics.availability_timeout_ns

    cdef AppendStatus append(self, AppendRequest *request, RecordAppendResult *appended) noexcept nogil:
        """One attempt. An attempt that finds no memory undoes its choice of a partition; the next makes it again."""
        cdef StickyState *sticky = &request.topic.sticky
        cdef StickyState before
        cdef AppendStatus status
        if request.partition >= 0 or sticky.kind == UNIFORM_STICKY:
            return self.place(request, appended)
        before = sticky[0]
        status = self.place(request, appended)
        if status == MEMORY_NEEDED:
            sticky[0] = before
        return status

    cdef AppendStatus place(self, AppendRequest *request, RecordAppendResult *appended) noexcept nogil:
        """append(), which undoes a choice."""
        cdef PartitionQueue *queue = NULL
        cdef ProducerBatch *batch
        cdef size_t size = 0       # of the record in format v2, in its batch
        cdef size_t before = 0
        cdef AppendStatus status = self.find_room(request, &queue, &size, appended)
        if status != APPENDED:
            return status
        if size:
            before = queue.tail.wire_size
        else:
            status = self.open(queue, request, appended)
            if status != APPENDED:
                return status
            size = fp_wire_size(request.record, fp_ts_wire(0), 0)
        if request.callback.function is not NULL:
            status = self.add_callback(queue, request)
            if status != APPENDED:
                return status
        batch = queue.tail
        appended.result = batch.result
        appended.partition = queue.partition
        appended.index = batch_append(batch, request.record, size)
        if batch.wire_size >= self.batch_size:
            self.close(queue, batch)
            appended.wake = 1
        if request.partition < 0 and request.topic.sticky.kind == UNIFORM_STICKY:
            self.topics.count_produced(request.topic, batch.wire_size - before, self.is_full(queue), request.now_ns)
        return APPENDED

    cdef AppendStatus find_room(self, AppendRequest *request, PartitionQueue **found, size_t *size,
                                RecordAppendResult *appended) noexcept nogil:
        """Chooses the queue, and closes batches that have no room. *size: of the record there; 0: a new batch it is."""
        cdef StickyState *sticky = &request.topic.sticky
        cdef PartitionQueue *queue = self.choose_queue(request)
        size[0] = self.room_in(queue, request)
        if size[0] == 0 and self.is_full(queue):
            # A batch may have been closed, though the record goes to another queue.
            appended.wake = self.scheduler.ready.first is not NULL
            if request.partition < 0 and sticky.kind == UNIFORM_STICKY:
                # A switch that was held back until the batch is full happens now: after two batches at full speed, as
                # in Java.
                if self.topics.update_sticky(request.topic, 0, 1):
                    queue = request.topic.queues[sticky.current]
                    size[0] = self.room_in(queue, request)
            if size[0] == 0 and self.is_full(queue):
                if request.abort_on_new_batch:
                    return ABORTED
                if request.partition < 0 and sticky.kind == STICKY:
                    queue = request.topic.queues[sticky_on_new_batch(sticky, &request.topic.partitions)]
                    size[0] = self.room_in(queue, request)
        found[0] = queue
        return MEMORY_NEEDED if size[0] == 0 and not self.is_full(queue) else APPENDED

    cdef PartitionQueue *choose_queue(self, AppendRequest *request) noexcept nogil:
        cdef StickyState *sticky = &request.topic.sticky
        cdef int64_t now_ns = request.now_ns
        cdef int32_t partition = request.partition
        if partition < 0:
            if sticky.kind == TIMED_STICKY and now_ns == 0:
                now_ns = fp_monotonic_ns()
            partition = sticky_partition(sticky, &request.topic.partitions, now_ns)
            if sticky.kind == UNIFORM_STICKY and self.is_full(request.topic.queues[partition]):
                # A switch that was held back until the batch is full happens here.
                if self.topics.update_sticky(request.topic, 0, 1):
                    partition = sticky.current
        return request.topic.queues[partition]

    cdef size_t room_in(self, PartitionQueue *queue, AppendRequest *request) noexcept nogil:
        """The record's size in the queue's open batch, if it fits; else 0, and the batch is closed.

        The batch stays open if it may grow and the pool has no memory for that: the caller waits for an arena, and the
        batch moves there. If it were closed, small memory would make small batches, which give memory back in small
        pieces: of 1000 partitions with 4 MB none would get beyond 1024 bytes.
        """
        cdef ProducerBatch *batch = queue.tail
        cdef AppendStatus grown
        cdef size_t size
        cdef int64_t delta
        if batch is NULL or batch.state != BATCH_OPEN:
            return 0
        delta = request.record.timestamp - batch.base_timestamp if batch.count else 0
        size = fp_wire_size(request.record, fp_ts_wire(delta), batch.count)
        # The first record always fits, as in MemoryRecordsBuilder.hasRoomFor.
        if batch.wire_size + size <= self.batch_size or batch.count == 0:
            if batch_fits_arena(batch, request.record):
                return size
            grown = self.grow(batch, request)
            if grown != ABORTED:
                return size if grown == APPENDED else 0
        self.close(queue, batch)
        return 0

    cdef AppendStatus grow(self, ProducerBatch *batch, AppendRequest *request) noexcept nogil:
        """Enlarges a batch's arena by half, as often as the record needs it. ABORTED: it needs more than batch.size.

        Doubling would leave more of it unused.
        """
        cdef int64_t delta = request.record.timestamp - batch.base_timestamp if batch.count else 0
        cdef size_t needed = batch.used + fp_arena_size(request.record, delta)
        cdef size_t capacity = batch.capacity
        while capacity < needed:
            if capacity >= self.batch_size:
                return ABORTED
            capacity = min(capacity + capacity // 2, self.batch_size)
        if request.arena is NULL:
            if batch_grow(batch, capacity, self.pool):
                return APPENDED
            request.arena_size = capacity
            return MEMORY_NEEDED
        if request.arena_size < capacity:
            return ABORTED   # it is for a new batch: another thread has opened this one meanwhile
        batch_move(batch, request.arena, request.arena_size, self.pool)
        request.arena = NULL
        return APPENDED

    cdef AppendStatus open(self, PartitionQueue *queue, AppendRequest *request,
                           RecordAppendResult *appended) noexcept nogil:
        """Puts a new batch at the end of the queue."""
        cdef ProducerBatch *batch
        if request.arena is NULL:
            request.arena_size = self.first_arena(queue, request.record)
            request.arena = <char *>self.pool.try_allocate(request.arena_size, first_reservation(request.callback))
            if request.arena is NULL:
                return MEMORY_NEEDED
            request.callback.reserved = first_reservation(request.callback)
        batch = batch_new(request.arena, request.arena_size, queue.partition, request.now_ns or fp_monotonic_ns())
        if batch is NULL:
            return NO_MEMORY
        request.arena = NULL
        batch.result.pool = <void *>self.pool
        batch.queue = queue
        if queue.tail is NULL:
            queue.head = batch
        else:
            queue.tail.next = batch
        queue.tail = batch
        queue.topic.partitions.queue_lengths[queue.partition] += 1
        batch.queued = 1
        queue.topic.used_ns = batch.created_ns
        self.incomplete.add(batch)
        if not batch.lingering:
            self.scheduler.make_ready(queue)
        appended.backlog_high = self.scheduler.backlog_bytes > BACKLOG_BYTES
        appended.wake = (self.scheduler.ready.first is not NULL or
                         batch.created_ns + self.incomplete.linger_ns < self.scheduler.sleep_until_ns)
        return APPENDED

    cdef AppendStatus add_callback(self, PartitionQueue *queue, AppendRequest *request) noexcept nogil:
        """Gives the result of the queue's open batch the callback of its next record."""
        cdef CallbackSlot *callback = request.callback
        cdef ProducerBatch *batch = queue.tail
        cdef AddedCallback added = result_add_callback(
            batch.result, batch.count, callback.kind, callback.function, callback.future,
            GIVEN if callback.reserved else IF_FREE)
        if added == NOTHING_RESERVED:
            request.arena_size = self.first_arena(queue, request.record)   # by then the batch will have gone
            return MEMORY_NEEDED
        if added == NOT_ALLOCATED:
            return NO_MEMORY   # the batch stays, perhaps empty; the next record goes there
        callback.function = NULL
        callback.reserved = 0
        return APPENDED

    cdef size_t first_arena(self, PartitionQueue *queue, const fp_record *record) noexcept nogil:
        """How large the arena of a new batch is that begins with the record."""
        return max(fp_arena_size(record, 0),
                   self.batch_size if queue.last_batch_was_full else min(<size_t>COLD_ARENA, self.batch_size))

    cdef int is_full(self, PartitionQueue *queue) noexcept nogil:
        return queue.tail is NULL or queue.tail.state != BATCH_OPEN or queue.tail.wire_size >= self.batch_size

    cdef void close(self, PartitionQueue *queue, ProducerBatch *batch) noexcept nogil:
        batch.state = BATCH_CLOSED
        queue.last_batch_was_full = 1
        self.incomplete.stop_lingering(batch)
        self.scheduler.add_full(queue, batch)
