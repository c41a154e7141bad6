"""Topics: their partitions' queues and leaders, and where records without a key go."""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport strdup
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.drain_scheduler cimport QUANTUM_BYTES, BrokerWindow, DrainScheduler
from fastprod.internals.in_flight_partition cimport Phase, in_flight_init, phase_limit
from fastprod.internals.partition_queue cimport QUEUE_IDLE, PartitionQueue, Topic
from fastprod.internals.partitioner cimport StickyState, sticky_free, sticky_init, sticky_update
from fastprod.internals.producer_batch cimport ProducerBatch, batch_free
from fastprod.internals.sync cimport fp_monotonic_ns

from fastprod.internals.partitioner import KINDS

cdef enum:
    MANY_PARTITIONS = 200   # about the batches of 100 B records that a window takes; see update_sticky()


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


@cython.no_gc_clear   # __dealloc__ gives arenas back to the pool
cdef class Topics:
    """The topics that are written to.

    Owns the topics and their queues, with the batches in them. A topic lives until remove(), and its queues live as
    long as it does: a partition that is gone keeps its queue, for the batches in it. Partition counts and leaders come
    from the metadata.

    Part of the RecordAccumulator, whose lock the caller holds.
    """

    def __cinit__(self, BufferPool pool, DrainScheduler scheduler, size_t batch_size, partitioner, bint adaptive,
                  int64_t availability_timeout_ns, int64_t sticky_interval_ns, uint64_t seed, bint sequential_random,
                  Phase first_phase):
        self.pool = pool
        self.scheduler = scheduler
        self.batch_size = batch_size
        self.kind = KINDS[partitioner]
        self.adaptive = adaptive
        self.availability_timeout_ns = availability_timeout_ns
        self.sticky_interval_ns = sticky_interval_ns
        self.seed = seed
        self.sequential_random = sequential_random
        self.first_phase = first_phase

    def __dealloc__(self):
        cdef Topic *topic
        cdef ProducerBatch *batch
        cdef int32_t i
        while self.first is not NULL:
            topic = self.first
            for i in range(topic.capacity):
                while topic.queues[i].head is not NULL:
                    batch = topic.queues[i].head
                    topic.queues[i].head = batch.next
                    batch_free(batch, self.pool)
            self.first = topic.next
            free_topic(topic)

    cdef Topic *add(self, const char *name, int64_t now_ns) noexcept nogil:
        """A topic without partitions yet; NULL if there is no memory."""
        cdef Topic *topic = <Topic *>calloc(1, sizeof(Topic))
        if topic is NULL:
            return NULL
        topic.name = strdup(name)
        if topic.name is NULL:
            free(topic)
            return NULL
        topic.used_ns = now_ns
        self.seed += 1
        sticky_init(&topic.sticky, self.kind, self.adaptive, self.batch_size, self.sticky_interval_ns,
                    0 if self.sequential_random else self.seed * <uint64_t>0x9e3779b97f4a7c15, self.sequential_random)
        topic.next = self.first
        if topic.next is not NULL:
            topic.next.previous = topic
        self.first = topic
        return topic

    cdef int remove(self, Topic *topic) noexcept nogil:
        """Frees a topic that nobody appends to any more; 0 if it still has batches. lock: sender_lock too

        Under sender_lock no batch is on its way from one list to another. So a queue that has no batch and none in
        transit has none at all, except for failed batches that are kept, which do not refer to it.
        """
        cdef PartitionQueue *queue
        cdef int32_t i
        for i in range(topic.capacity):
            queue = topic.queues[i]
            if queue.head is not NULL or queue.in_flight.first is not NULL or queue.state != QUEUE_IDLE:
                return 0
        if topic.previous is NULL:
            self.first = topic.next
        else:
            topic.previous.next = topic.next
        if topic.next is not NULL:
            topic.next.previous = topic.previous
        free_topic(topic)
        return 1

    cdef int set_partitions(self, Topic *topic, const int32_t *brokers, int32_t count, int64_t now_ns) noexcept nogil:
        """brokers[i] leads partition i, -1 for none; returns 0 if there is no memory.

        Keyed records go to other partitions from here on if the count changed, as in Java. Partitions that are gone, of
        a topic that was deleted and created again, lose their leaders.
        """
        cdef int32_t i, leader
        if not self.add_queues(topic, count):
            return 0
        for i in range(topic.capacity):
            leader = self.scheduler.window_of(brokers[i] if i < count else -1)
            if leader < 0:
                return 0
            self.scheduler.change_leader(topic.queues[i], leader)
        topic.partitions.count = count
        if topic.sticky.current >= count:
            topic.sticky.current = -1
            topic.sticky.produced_bytes = 0
        self.refresh_available(topic, now_ns)
        return 1

    cdef int add_queues(self, Topic *topic, int32_t count) noexcept nogil:
        """Gives the topic as many queues as it has partitions; 0 if there is no memory."""
        cdef PartitionQueue *queue
        cdef void *grown
        if count <= topic.capacity:
            return 1
        grown = realloc(topic.queues, count * sizeof(PartitionQueue *))
        if grown is NULL:
            return 0
        topic.queues = <PartitionQueue **>grown
        grown = realloc(topic.partitions.queue_lengths, count * sizeof(int32_t))
        if grown is NULL:
            return 0
        topic.partitions.queue_lengths = <int32_t *>grown
        grown = realloc(topic.partitions.available, count)
        if grown is NULL:
            return 0
        topic.partitions.available = <unsigned char *>grown
        while topic.capacity < count:
            queue = <PartitionQueue *>calloc(1, sizeof(PartitionQueue))
            if queue is NULL:
                return 0
            queue.topic = topic
            queue.partition = topic.capacity
            queue.request_limit = phase_limit(self.first_phase, 0)
            in_flight_init(&queue.in_flight, self.first_phase)
            topic.queues[topic.capacity] = queue
            topic.partitions.queue_lengths[topic.capacity] = 0
            topic.partitions.available[topic.capacity] = 0
            topic.capacity += 1
        return 1

    cdef void refresh_available(self, Topic *topic, int64_t now_ns) noexcept nogil:
        """A partition is available if it has a leader that takes data (partitioner.availability.timeout.ms)."""
        cdef int32_t i, available = 0
        cdef PartitionQueue *queue
        cdef BrokerWindow *window
        for i in range(topic.partitions.count):
            queue = topic.queues[i]
            window = &self.scheduler.windows[queue.leader]
            topic.partitions.available[i] = window.broker >= 0 and not (
                self.is_stalled(window.blocked_ns, now_ns) or self.is_stalled(queue.waiting_ns, now_ns))
            available += topic.partitions.available[i]
        topic.partitions.available_count = available

    cdef int is_stalled(self, int64_t since_ns, int64_t now_ns) noexcept nogil:
        return self.availability_timeout_ns > 0 and since_ns > 0 and now_ns - since_ns > self.availability_timeout_ns

    cdef void count_produced(self, Topic *topic, int64_t appended, int enable_switch, int64_t now_ns) noexcept nogil:
        """Counts the bytes of a record to the partition of records without a key. now_ns: 0 reads the clock."""
        if (self.availability_timeout_ns > 0 and
                topic.sticky.produced_bytes + appended >= topic.sticky.stick_bytes):
            self.refresh_available(topic, now_ns or fp_monotonic_ns())
        self.update_sticky(topic, appended, enable_switch)

    cdef int update_sticky(self, Topic *topic, int64_t appended, int enable_switch) noexcept nogil:
        """sticky_update(), but only after QUANTUM_BYTES if many partitions would share brokers that do not keep up.

        A request of librdkafka's holds one partition, while Java's holds a batch of each. If 1000 partitions took turns
        by 16 KiB, each batch would be a request. With few partitions, the batches of several turns share one.
        """
        cdef StickyState *sticky = &topic.sticky
        sticky.stick_bytes = self.batch_size
        if (topic.partitions.count > MANY_PARTITIONS and sticky.produced_bytes + appended >= sticky.stick_bytes and
                self.scheduler.every_broker_is_behind()):
            sticky.stick_bytes = max(sticky.stick_bytes, <int64_t>QUANTUM_BYTES)
        return sticky_update(sticky, &topic.partitions, appended, enable_switch)
