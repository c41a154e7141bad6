from libc.stdint cimport int32_t
from fastprod.internals.handle cimport OpenTopic
from fastprod.librdkafka.declarations cimport rd_kafka_topic_partition_list_t

cdef rd_kafka_topic_partition_list_t *pause_partition(
    OpenTopic *topic, const char *name, int32_t partition) noexcept nogil
cdef void resume_partition(rd_kafka_topic_partition_list_t *paused, OpenTopic *topic,
                           int32_t partition) noexcept nogil
