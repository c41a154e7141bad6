"""Pauses librdkafka's requests for a partition while its records are handed over: they become one request."""

from libc.stdint cimport int32_t
from fastprod.internals.handle cimport OpenTopic
from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions

fp_librdkafka_use(functions())


cdef rd_kafka_topic_partition_list_t *pause_partition(
        OpenTopic *topic, const char *name, int32_t partition) noexcept nogil:
    """Keeps librdkafka from making requests for a partition. resume_partition() takes the answer.

    NULL: librdkafka does not know the topic. No record of the partition may be outstanding.
    thread: any  lock: sender_lock
    """
    cdef rd_kafka_topic_partition_list_t *paused = rd_kafka_topic_partition_list_new(1)
    cdef rd_kafka_topic_partition_t *entry = rd_kafka_topic_partition_list_add(paused, name, partition)
    rd_kafka_pause_partitions(topic.rk, paused)
    if entry.err:
        rd_kafka_topic_partition_list_destroy(paused)
        return NULL
    return paused


cdef void resume_partition(rd_kafka_topic_partition_list_t *paused, OpenTopic *topic,
                           int32_t partition) noexcept nogil:
    """Lets librdkafka make requests again, and wakes its threads. thread: any  lock: sender_lock

    Each change leaves an entry of a few hundred bytes in a queue that only consumers read. The next changes search
    through them, so they are taken out here (rd_kafka_toppar_op_version_bump).
    """
    cdef rd_kafka_message_t *found[1]
    rd_kafka_resume_partitions(topic.rk, paused)
    rd_kafka_topic_partition_list_destroy(paused)
    rd_kafka_consume_batch(topic.topic, partition, 0, found, 1)
    rd_kafka_flush(topic.rk, 0)   # only to wake the threads: resuming does not wake them
