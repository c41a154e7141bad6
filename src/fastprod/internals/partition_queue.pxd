# PartitionQueue, the batches of one partition, and Topic, its queues: declarations and the list of queues.
# Guarded by the accumulator's lock, except for the fields that are marked as the sender's.
from libc.stdint cimport int32_t, int64_t
from fastprod.internals.in_flight_partition cimport InFlightPartition
from fastprod.internals.partitioner cimport Partitions, StickyState
from fastprod.internals.producer_batch cimport ProducerBatch

cdef enum:
    TOPIC_NAME_SIZE = 250     # bytes, with the final NUL: org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH

cdef enum QueueState:
    QUEUE_IDLE            # nothing to drain
    QUEUE_READY           # in the ready list
    QUEUE_BLOCKED         # waits for room in its broker's window, or for its turn: in the window's list
    QUEUE_LIMIT_REACHED   # has something to drain, but no more than `request_limit` may be in transit

# The batches of one partition, oldest first; only the last can be open.
cdef struct PartitionQueue:
    Topic *topic
    int32_t partition
    int32_t leader            # index of its broker's window; 0: unknown
    ProducerBatch *head
    ProducerBatch *tail
    int last_batch_was_full   # so the next one gets an arena of batch.size at once
    int has_quantum           # it comes before blocked queues, until it has spent QUANTUM_BYTES or is empty
    size_t quantum_bytes      # drained of its quantum
    int force_partial         # its first batch goes, though it is not full and max.in.flight others are in transit
    QueueState state
    int blocked_full          # it was blocked with a full batch: counted by the window
    PartitionQueue *next      # in the ready list, or in the window's list of blocked queues
    PartitionQueue *previous
    size_t request_limit      # bytes that may be in transit, or a single batch; 0: no bound. phase_limit() of in_flight
    int64_t waiting_ns        # since when batches in transit wait, and none was handed over; 0: none waits
    int32_t drained           # batches in transit: drained, and not settled
    size_t drained_bytes
    # the sender's, guarded by its sender_lock
    InFlightPartition in_flight
    int expiring              # it is in fail_expired()'s list, by the next
    PartitionQueue *next_expiring

cdef struct QueueList:
    PartitionQueue *first
    PartitionQueue *last

cdef struct Topic:
    char *name
    Partitions partitions
    int32_t capacity          # of the arrays below and in partitions
    PartitionQueue **queues
    StickyState sticky
    int64_t used_ns           # when its last batch was opened; monotonic
    Topic *next
    Topic *previous
    # the sender's, guarded by its sender_lock
    void *open_topic          # the transport's newest; none if generation is 0
    int generation
    int unauthorized          # the last answer was that the client may not write to it
    int stranded_generation   # the librdkafka producer of this generation knows only the deleted topic; 0: none does


cdef inline void uncount_queued(ProducerBatch *batch) noexcept nogil:
    """Counts the batch in its topic's queue_lengths no more. lock: the accumulator's"""
    cdef PartitionQueue *queue = <PartitionQueue *>batch.queue
    queue.topic.partitions.queue_lengths[queue.partition] -= batch.queued
    batch.queued = 0


cdef inline void queue_insert(QueueList *queues, PartitionQueue *queue, PartitionQueue *previous) noexcept nogil:
    """Behind previous; NULL puts it first."""
    queue.previous = previous
    queue.next = queues.first if previous is NULL else previous.next
    if queue.next is NULL:
        queues.last = queue
    else:
        queue.next.previous = queue
    if previous is NULL:
        queues.first = queue
    else:
        previous.next = queue


cdef inline void queue_append(QueueList *queues, PartitionQueue *queue) noexcept nogil:
    queue_insert(queues, queue, queues.last)


cdef inline void queue_remove(QueueList *queues, PartitionQueue *queue) noexcept nogil:
    if queue.previous is NULL:
        queues.first = queue.next
    else:
        queue.previous.next = queue.next
    if queue.next is NULL:
        queues.last = queue.previous
    else:
        queue.next.previous = queue.previous
