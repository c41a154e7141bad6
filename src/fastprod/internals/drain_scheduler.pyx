"""DrainScheduler: which partition's batches go next, and how much each broker is handed.

Source: org.apache.kafka.clients.producer.internals.RecordAccumulator, ready() and drain(). Java walks over all
partitions to find the ready ones. Here a partition joins a list when it becomes ready, so 1000 idle partitions cost
nothing.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from fastprod.internals.partition_queue cimport (
    QUEUE_BLOCKED, QUEUE_IDLE, QUEUE_LIMIT_REACHED, QUEUE_READY, PartitionQueue, QueueState, queue_append,
    queue_insert, queue_remove,
)
from fastprod.internals.producer_batch cimport BATCH_CLOSED, BATCH_IN_TRANSIT, BATCH_OPEN, ProducerBatch

cdef enum:
    # Of batches that are not full, max.in.flight.requests.per.connection may be with librdkafka, and MORE_PARTIAL times
    # as many while an application waits for the memory that they hold. Some of them linger there, and are no requests.
    MORE_PARTIAL = 4
    # librdkafka allocates about this much for a record, beside the payload, which stays in our arena.
    TRANSPORT_RECORD_COST = 256
    TRANSPORT_HEADER_COST = 96     # name and value of a header are an allocation each
    WINDOW_COST = 10 << 20
    TOTAL_COST = 24 << 20          # of all windows
    SMALL_WINDOW_COST = 1 << 20    # a broker may always have this, though the others have taken up the total
    # If full batches with more records than this are still queued after assisting, the application pauses, at most for
    # as long as the records that were added since its last pause would take at 4 M/s. See docs/design.md.
    PACE_RECORDS = 4000
    PACE_NS_PER_RECORD = 250
    SHORTEST_PAUSE_NS = 60_000     # the kernel adds about as much to any sleep
    LONGEST_PAUSE_NS = 200_000


cdef int64_t transport_cost(ProducerBatch *batch) noexcept nogil:
    return <int64_t>batch.used + <int64_t>batch.count * TRANSPORT_RECORD_COST + batch.headers * TRANSPORT_HEADER_COST


cdef void join_blocked(BrokerWindow *window, PartitionQueue *queue, PartitionQueue *previous) noexcept nogil:
    """Behind previous; NULL puts it first."""
    queue_insert(&window.blocked, queue, previous)
    queue.blocked_full = queue.head is not NULL and queue.head.state == BATCH_CLOSED
    window.blocked_full_count += queue.blocked_full


cdef void leave_blocked(BrokerWindow *window, PartitionQueue *queue) noexcept nogil:
    queue_remove(&window.blocked, queue)
    window.blocked_full_count -= queue.blocked_full
    queue.blocked_full = 0


cdef void end_quantum(PartitionQueue *queue) noexcept nogil:
    queue.has_quantum = queue.force_partial = 0
    queue.quantum_bytes = 0


cdef class DrainScheduler:
    """Deficit round robin over the partitions of each broker, within that broker's window.

    Owns the ready list, the windows with their lists of blocked queues, and the counts of full batches in the queues.
    Invariants: a queue whose first batch does not linger is ready, blocked, or has reached its request limit; the cost
    of a window is the cost of the batches that were charged to it and have not settled.

    Part of the RecordAccumulator, whose lock the caller holds.
    """

    def __cinit__(self, int32_t max_in_flight):
        self.max_in_flight = max_in_flight
        if self.window_of(-1) < 0:
            raise MemoryError()

    def __dealloc__(self):
        free(self.windows)

    cdef int32_t window_of(self, int32_t broker) noexcept nogil:
        """The index of a broker's window, which is made if need be; -1 if there is no memory."""
        cdef int32_t i
        cdef BrokerWindow *grown
        for i in range(self.window_count):
            if self.windows[i].broker == broker:
                return i
        grown = <BrokerWindow *>realloc(self.windows, (self.window_count + 1) * sizeof(BrokerWindow))
        if grown is NULL:
            return -1
        self.windows = grown
        memset(&grown[self.window_count], 0, sizeof(BrokerWindow))
        grown[self.window_count].broker = broker
        self.window_count += 1
        return self.window_count - 1

    cdef void change_leader(self, PartitionQueue *queue, int32_t leader) noexcept nogil:
        """Makes a queue ready that waited at another broker's window."""
        if queue.state == QUEUE_BLOCKED and queue.leader != leader:
            leave_blocked(&self.windows[queue.leader], queue)
            self.enter_ready(queue)
        queue.leader = leader

    # From append

    cdef void make_ready(self, PartitionQueue *queue) noexcept nogil:
        """The first batch of the queue may go."""
        if queue.state == QUEUE_IDLE:
            self.enter_ready(queue)
        elif queue.state == QUEUE_BLOCKED and queue.head is queue.tail and queue.head.state == BATCH_CLOSED:
            # It may have been blocked because its only batch was not full. Other queues keep their place.
            leave_blocked(&self.windows[queue.leader], queue)
            self.enter_ready(queue)

    cdef void add_full(self, PartitionQueue *queue, ProducerBatch *batch) noexcept nogil:
        """The last batch of the queue was closed."""
        self.backlog_bytes += batch.used
        self.backlog_records += batch.count
        self.filled_records += batch.count
        self.make_ready(queue)

    cdef int every_broker_is_behind(self) noexcept nogil:
        """Full batches wait for room in every broker's window."""
        cdef int32_t i
        for i in range(self.window_count):
            if self.windows[i].broker >= 0 and self.windows[i].blocked_full_count == 0:
                return 0
        return 1

    cdef int64_t pause_ns(self) noexcept nogil:
        """How long an application that is far ahead should pause. A pause starts the next count of records."""
        cdef int64_t pause = (self.filled_records - self.paused_at) * PACE_NS_PER_RECORD
        if self.backlog_records < PACE_RECORDS:
            pause = 0
        elif pause < SHORTEST_PAUSE_NS:
            return 0
        self.paused_at = self.filled_records
        return min(pause, <int64_t>LONGEST_PAUSE_NS)

    # Drain

    cdef ProducerBatch *drain(self, int64_t now_ns, int64_t limit) noexcept nogil:
        """Takes batches of up to limit bytes, chained by next in the order to hand them over.

        Each is charged to its broker's window until settle(). The caller has ended what lingered for long enough.
        """
        cdef ProducerBatch *chain = NULL
        cdef ProducerBatch **end = &chain
        cdef ProducerBatch *batch
        cdef PartitionQueue *queue
        cdef PartitionQueue *blocked = NULL   # the last one here
        cdef BrokerWindow *window
        while limit > 0 and self.ready.first is not NULL:
            queue = self.ready.first
            batch = queue.head
            window = &self.windows[queue.leader]
            if batch is NULL or batch.lingering:
                self.leave_ready(queue, QUEUE_IDLE)
                end_quantum(queue)
                continue
            if self.limit_reached(queue):
                self.leave_ready(queue, QUEUE_LIMIT_REACHED)
                queue.waiting_ns = queue.waiting_ns or now_ns
                end_quantum(queue)
                continue
            batch.cost = transport_cost(batch)
            if not self.has_room(queue, window, batch):
                self.block(queue, window, blocked, now_ns)
                blocked = queue
                continue
            self.take_head(queue)
            self.charge(queue, window, batch, now_ns)
            self.count_drained(batch, now_ns)
            end[0] = batch
            end = &batch.next
            limit -= batch.used + 1
            self.spend_quantum(queue, window, batch, now_ns)
        return chain

    cdef void take_head(self, PartitionQueue *queue) noexcept nogil:
        """Takes the first batch out of its queue."""
        cdef ProducerBatch *batch = queue.head
        if batch.state == BATCH_OPEN:
            queue.last_batch_was_full = 0
        else:
            self.backlog_bytes -= batch.used
            self.backlog_records -= batch.count
        queue.head = batch.next
        if queue.head is NULL:
            queue.tail = NULL
        batch.next = NULL

    cdef int has_room(self, PartitionQueue *queue, BrokerWindow *window, ProducerBatch *batch) noexcept nogil:
        """Whether the broker may be handed the batch now, the first of the queue.

        Queues wait for room in FIFO order; otherwise a queue with a large batch could starve. A batch that is not full
        waits behind max.in.flight others, as it does in Java, and fills meanwhile.
        """
        if window.batches == 0:
            return 1
        if window.blocked_full_count and not queue.has_quantum:
            return 0
        if window.cost + batch.cost > WINDOW_COST:
            return 0
        if self.outstanding_cost >= TOTAL_COST and window.cost >= SMALL_WINDOW_COST:
            return 0
        return batch.state == BATCH_CLOSED or queue.force_partial or window.batches < self.partial_limit()

    cdef int32_t partial_limit(self) noexcept nogil:
        """How many batches a broker may have before one that is not full waits."""
        return MORE_PARTIAL * self.max_in_flight if self.memory_waiters else self.max_in_flight

    cdef void charge(self, PartitionQueue *queue, BrokerWindow *window, ProducerBatch *batch,
                     int64_t now_ns) noexcept nogil:
        """Counts a batch that goes into transit."""
        batch.state = BATCH_IN_TRANSIT
        batch.leader = queue.leader
        queue.drained += 1
        queue.drained_bytes += batch.used
        queue.force_partial = 0
        window.batches += 1
        window.cost += batch.cost
        window.blocked_ns = now_ns if window.blocked.first is not NULL else 0
        self.outstanding_cost += batch.cost

    cdef void count_drained(self, ProducerBatch *batch, int64_t now_ns) noexcept nogil:
        # now_ns was read before the lock was taken: the batch can be younger.
        cdef int64_t waited_ns = max(now_ns - batch.created_ns, <int64_t>0)
        self.batches_drained += 1
        self.records_drained += batch.count
        self.bytes_drained += batch.wire_size
        self.largest_batch = max(self.largest_batch, <int64_t>batch.wire_size)
        self.queue_time_ns += waited_ns
        self.longest_queue_time_ns = max(self.longest_queue_time_ns, waited_ns)

    cdef void spend_quantum(self, PartitionQueue *queue, BrokerWindow *window, ProducerBatch *batch,
                            int64_t now_ns) noexcept nogil:
        queue.has_quantum = 1
        queue.quantum_bytes += batch.used
        if queue.head is NULL:   # it must not look ready, or the sender would be woken for it
            self.leave_ready(queue, QUEUE_IDLE)
            end_quantum(queue)
        elif queue.quantum_bytes >= QUANTUM_BYTES:
            self.rotate(queue, window, now_ns)

    cdef void rotate(self, PartitionQueue *queue, BrokerWindow *window, int64_t now_ns) noexcept nogil:
        """Puts a queue that has spent its quantum behind the others of its broker."""
        end_quantum(queue)
        if window.blocked.first is NULL:
            self.leave_ready(queue, QUEUE_READY)
            queue_append(&self.ready, queue)
        else:
            self.leave_ready(queue, QUEUE_BLOCKED)
            join_blocked(window, queue, window.blocked.last)
            window.blocked_ns = now_ns   # until a batch goes: there may be room for none
            self.unblock(window)

    cdef void leave_ready(self, PartitionQueue *queue, QueueState state) noexcept nogil:
        queue_remove(&self.ready, queue)
        queue.state = state

    cdef void enter_ready(self, PartitionQueue *queue) noexcept nogil:
        queue.state = QUEUE_READY
        queue_append(&self.ready, queue)

    # The window

    cdef void block(self, PartitionQueue *queue, BrokerWindow *window, PartitionQueue *blocked,
                    int64_t now_ns) noexcept nogil:
        """Lets a queue wait until there is room. blocked: the queue that this drain() has blocked before it, or NULL.

        Queues that have a quantum come before the others, in the order they had.
        """
        self.leave_ready(queue, QUEUE_BLOCKED)
        if not queue.has_quantum:
            join_blocked(window, queue, window.blocked.last)
        elif (blocked is not NULL and blocked.state == QUEUE_BLOCKED and blocked.has_quantum and
                blocked.leader == queue.leader):
            join_blocked(window, queue, blocked)
        else:
            join_blocked(window, queue, NULL)
        if window.blocked_ns == 0:
            window.blocked_ns = now_ns

    cdef void settle(self, ProducerBatch *batch) noexcept nogil:
        """Takes a batch that was in transit out of its window."""
        cdef PartitionQueue *queue = <PartitionQueue *>batch.queue
        cdef BrokerWindow *window = &self.windows[batch.leader]
        queue.drained -= 1
        queue.drained_bytes -= batch.used
        self.recheck_limit(queue)
        window.batches -= 1
        window.cost -= batch.cost
        self.outstanding_cost -= batch.cost
        self.unblock(window)

    cdef void unblock(self, BrokerWindow *window) noexcept nogil:
        """Makes the blocked queues ready whose first batch has room now.

        A batch that is not full goes too, however many are in flight, if full batches wait behind it: their partitions
        have had their turns, and would have to wait until the window is all but empty.
        """
        cdef PartitionQueue *queue
        cdef ProducerBatch *batch
        cdef int force_partial
        cdef int64_t cost = window.cost
        cdef int32_t batches = window.batches
        while window.blocked.first is not NULL:
            queue = window.blocked.first
            batch = queue.head
            if batch is not NULL:
                cost += transport_cost(batch)
                force_partial = batch.state == BATCH_OPEN and batches >= self.partial_limit()
                if batches and (cost > WINDOW_COST or force_partial and not window.blocked_full_count):
                    break
                queue.force_partial = force_partial
                batches += 1
            leave_blocked(window, queue)
            queue.state = QUEUE_IDLE
            if batch is not NULL:   # else it expired
                queue.has_quantum = 1
                self.enter_ready(queue)
        if window.blocked.first is NULL:
            window.blocked_ns = 0

    cdef void unblock_idle_windows(self) noexcept nogil:
        """Unblocks windows that no report will unblock.

        unblock() counts on it that each queue that it makes ready is drained. A queue whose batches expired meanwhile
        was not, and its broker may have nothing outstanding.
        """
        cdef int32_t i
        for i in range(self.window_count):
            if self.windows[i].batches == 0 and self.windows[i].blocked.first is not NULL:
                self.unblock(&self.windows[i])

    # The request limit

    cdef void set_request_limit(self, PartitionQueue *queue, size_t request_limit) noexcept nogil:
        """How many bytes of a partition may be in transit; 0: no limit."""
        queue.request_limit = request_limit
        self.recheck_limit(queue)

    cdef int limit_reached(self, PartitionQueue *queue) noexcept nogil:
        return (queue.request_limit and queue.drained and
                queue.drained_bytes + queue.head.used > queue.request_limit)

    cdef void recheck_limit(self, PartitionQueue *queue) noexcept nogil:
        """Makes a queue ready that had reached its limit, if it is below it now."""
        if queue.state != QUEUE_LIMIT_REACHED:
            return
        if queue.head is NULL:   # its batches expired
            queue.state = QUEUE_IDLE
        elif not self.limit_reached(queue):
            self.enter_ready(queue)
