/* The partitions of keys side by side, one after the other: by Kafka's murmur2 as fastprod has it, and as librdkafka does. */
#include "librdkafka.h"
#include "murmur2.h"

extern int32_t rd_kafka_msg_partitioner_murmur2(
    const rd_kafka_topic_t *, const void *, size_t, int32_t, void *, void *);

uint32_t fastprods(const char *keys, size_t size, int count, int32_t partitions) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += (fp_murmur2(keys + (size_t)i * size, size) & 0x7fffffff) % (uint32_t)partitions;
    return sum;
}

uint32_t librdkafkas(const char *keys, size_t size, int count, int32_t partitions) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += (uint32_t)rd_kafka_msg_partitioner_murmur2(NULL, keys + (size_t)i * size, size, partitions, NULL, NULL);
    return sum;
}
