/* Kafka's murmur2: org.apache.kafka.common.utils.Utils.murmur2, bit for bit.
 *
 * The multiplier, the shifts and the seed are Kafka's; the word loads are
 * little endian and may start at any address. */
#ifndef FASTPROD_MURMUR2_H
#define FASTPROD_MURMUR2_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define FP_MURMUR2_AVX2 1
#include <immintrin.h>
#endif

enum { FP_MURMUR2_LANES = 8 };

#define FP_MURMUR2_M 0x5bd1e995u
#define FP_MURMUR2_SEED 0x9747b28cu

static inline uint32_t fp_load_le32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24; /* one load on a little-endian machine */
}

/* From h, what became of the words so far, over the bytes that are left. */
static inline uint32_t fp_murmur2_rest(uint32_t h, const unsigned char *p,
                                       size_t left) {
    const uint32_t m = FP_MURMUR2_M;

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

static inline uint32_t fp_murmur2(const void *data, size_t len) {
    return fp_murmur2_rest(FP_MURMUR2_SEED ^ (uint32_t)len,
                           (const unsigned char *)data, len);
}

#ifdef FP_MURMUR2_AVX2

__attribute__((target("avx2"))) static inline __m256i
fp_murmur2_word(__m256i h, __m256i k) {
    const __m256i m = _mm256_set1_epi32((int)FP_MURMUR2_M);
    k = _mm256_mullo_epi32(k, m);
    k = _mm256_xor_si256(k, _mm256_srli_epi32(k, 24));
    return _mm256_xor_si256(_mm256_mullo_epi32(h, m), _mm256_mullo_epi32(k, m));
}

/* 16 bytes from each of two addresses. */
__attribute__((target("avx2"))) static inline __m256i
fp_load_two(const unsigned char *low, const unsigned char *high) {
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
        _mm_loadu_si128((const __m128i *)high), 1);
}

/* Eight keys at once, for as many words as all of them have; what some have
 * beyond that is done for one after the other. */
__attribute__((target("avx2"))) static void
fp_murmur2_eight(const unsigned char *const *keys, const uint32_t *sizes,
                 uint32_t *hashes) {
    const __m256i m = _mm256_set1_epi32((int)FP_MURMUR2_M);
    const __m256i lengths = _mm256_loadu_si256((const __m256i *)sizes);
    const __m256i words = _mm256_srli_epi32(lengths, 2);
    __m256i h = _mm256_xor_si256(lengths, _mm256_set1_epi32((int)FP_MURMUR2_SEED));
    uint32_t each[FP_MURMUR2_LANES];
    size_t at = 0, end = sizes[0] / 4 * 4;
    int i, equal = _mm256_movemask_epi8(_mm256_cmpeq_epi32(
                       words, _mm256_set1_epi32((int)(sizes[0] / 4)))) == -1;

    for (i = 1; i < FP_MURMUR2_LANES && !equal; i++)
        if (sizes[i] / 4 * 4 < end)
            end = sizes[i] / 4 * 4;
    for (; at + 16 <= end; at += 16) { /* a 4 x 4 transposition of words in each half */
        const __m256i a = fp_load_two(keys[0] + at, keys[4] + at);
        const __m256i b = fp_load_two(keys[1] + at, keys[5] + at);
        const __m256i c = fp_load_two(keys[2] + at, keys[6] + at);
        const __m256i d = fp_load_two(keys[3] + at, keys[7] + at);
        const __m256i ab_low = _mm256_unpacklo_epi32(a, b);
        const __m256i cd_low = _mm256_unpacklo_epi32(c, d);
        const __m256i ab_high = _mm256_unpackhi_epi32(a, b);
        const __m256i cd_high = _mm256_unpackhi_epi32(c, d);
        h = fp_murmur2_word(h, _mm256_unpacklo_epi64(ab_low, cd_low));
        h = fp_murmur2_word(h, _mm256_unpackhi_epi64(ab_low, cd_low));
        h = fp_murmur2_word(h, _mm256_unpacklo_epi64(ab_high, cd_high));
        h = fp_murmur2_word(h, _mm256_unpackhi_epi64(ab_high, cd_high));
    }
    for (; at < end; at += 4) {
#define FP_LANE(i) (int)fp_load_le32(keys[i] + at)
        h = fp_murmur2_word(h, _mm256_setr_epi32(FP_LANE(0), FP_LANE(1), FP_LANE(2), FP_LANE(3),
                                                 FP_LANE(4), FP_LANE(5), FP_LANE(6), FP_LANE(7)));
#undef FP_LANE
    }
    if (!equal || end == 0) {
        _mm256_storeu_si256((__m256i *)each, h);
        for (i = 0; i < FP_MURMUR2_LANES; i++)
            hashes[i] = fp_murmur2_rest(each[i], keys[i] + end, sizes[i] - end);
        return;
    }
    const __m256i left = _mm256_and_si256(lengths, _mm256_set1_epi32(3));
    if (!_mm256_testz_si256(left, left)) {
        __m256i multiplied;
        for (i = 0; i < FP_MURMUR2_LANES; i++) /* the last bytes, of the last four; 0 if none is left */
            each[i] = (uint32_t)((uint64_t)fp_load_le32(keys[i] + sizes[i] - 4) >>
                                 (32 - 8 * (sizes[i] & 3)));
        multiplied = _mm256_mullo_epi32(
            _mm256_xor_si256(h, _mm256_loadu_si256((const __m256i *)each)), m);
        h = _mm256_blendv_epi8(multiplied, h,
                               _mm256_cmpeq_epi32(left, _mm256_setzero_si256()));
    }
    h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 13));
    h = _mm256_mullo_epi32(h, m);
    h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 15));
    _mm256_storeu_si256((__m256i *)hashes, h);
}

#endif

/* The hashes of count keys; several at once where that is faster. */
static inline void fp_murmur2_many(const unsigned char *const *keys,
                                   const uint32_t *sizes, uint32_t *hashes,
                                   size_t count) {
    size_t i = 0;
#ifdef FP_MURMUR2_AVX2
    if (__builtin_cpu_supports("avx2"))
        for (; i + FP_MURMUR2_LANES <= count; i += FP_MURMUR2_LANES)
            fp_murmur2_eight(keys + i, sizes + i, hashes + i);
#endif
    for (; i < count; i++)
        hashes[i] = fp_murmur2(keys[i], sizes[i]);
}

/* The partition of a keyed record: the hash's sign bit is masked off, as
 * Utils.toPositive does; abs() would place negative hashes elsewhere. */
static inline int32_t fp_partition_for_hash(uint32_t hash, int32_t partitions) {
    return (int32_t)((hash & 0x7fffffffu) % (uint32_t)partitions);
}

static inline int32_t fp_partition_for_key(const void *key, size_t len,
                                           int32_t partitions) {
    return fp_partition_for_hash(fp_murmur2(key, len), partitions);
}

/* Those of count hashes, which they replace. A remainder of 32-bit numbers is
 * the high word of two products, exactly: with c = ceil(2^64 / n), the fraction
 * h / n - floor(h / n) is c * h modulo 2^64, give or take less than 1 / n. */
static inline void fp_partitions_for_hashes(uint32_t *hashes, size_t count,
                                            int32_t partitions) {
    const uint32_t n = (uint32_t)partitions;
    size_t i;
#ifdef __SIZEOF_INT128__
    const uint64_t c = UINT64_MAX / n + 1; /* 0 for n = 1, whose remainders are 0 */
    for (i = 0; i < count; i++)
        hashes[i] = (uint32_t)((unsigned __int128)(c * (hashes[i] & 0x7fffffffu)) * n >> 64);
#else
    for (i = 0; i < count; i++)
        hashes[i] = (uint32_t)fp_partition_for_hash(hashes[i], partitions);
#endif
}

#endif
