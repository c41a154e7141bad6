/* Kafka's murmur2: org.apache.kafka.common.utils.Utils.murmur2, bit for bit.
 *
 * The multiplier, the shifts and the seed are Kafka's; the word loads are
 * little endian and may start at any address. */
#ifndef FASTPROD_MURMUR2_H
#define FASTPROD_MURMUR2_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t fp_load_le32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24; /* one load on a little-endian machine */
}

static inline uint32_t fp_murmur2(const void *data, size_t len) {
    const uint32_t m = 0x5bd1e995u;
    const unsigned char *p = (const unsigned char *)data;
    uint32_t h = 0x9747b28cu ^ (uint32_t)len;
    size_t left = len;

    for (; left >= 4; left -= 4, p += 4) {
        uint32_t k = fp_load_le32(p) * m;
        k ^= k >> 24;
        h = h * m ^ k * m;
    }
    if (left >= 3)
        h ^= (uint32_t)p[2] << 16;
    if (left >= 2)
        h ^= (uint32_t)p[1] << 8;
    if (left >= 1) {
        h ^= (uint32_t)p[0];
        h *= m;
    }
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}

/* The partition of a keyed record: the hash's sign bit is masked off, as
 * Utils.toPositive does; abs() would place negative hashes elsewhere. */
static inline int32_t fp_partition_for_key(const void *key, size_t len,
                                           int32_t partitions) {
    return (int32_t)((fp_murmur2(key, len) & 0x7fffffffu) %
                     (uint32_t)partitions);
}

#endif
