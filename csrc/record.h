/* One record as it lies in a batch's arena, and its size on the wire.
 *
 * In the arena:  flags | ts delta | [key len] [value len] [headers len] | key | value | headers
 *   flags         1 byte: which of key, value, headers are there (null is not empty); whether the timestamp was given
 *   ts delta      zigzag varint, milliseconds from the batch's first timestamp
 *   lengths       varints
 *   headers       per header: varint name length, name, NUL, varint (value length + 1, 0 = null), value
 * It is never longer than the same record in format v2 but for the NUL behind
 * a header's name, which librdkafka needs; so an arena of batch.size bytes
 * holds what a Java batch of batch.size holds, and buffer.memory means the same.
 */
#ifndef FASTPROD_RECORD_H
#define FASTPROD_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { FP_HAS_KEY = 1, FP_HAS_VALUE = 2, FP_HAS_HEADERS = 4, FP_TIMED = 8 };

/* DefaultRecordBatch.RECORD_BATCH_OVERHEAD and DefaultRecord.MAX_RECORD_OVERHEAD */
enum { FP_BATCH_OVERHEAD = 61, FP_RECORD_OVERHEAD = 21 };

/* The most that fp_header_write() adds to name and value. */
enum { FP_HEADER_ROOM = 21 };

/* The most that fp_wire_upper_bound() adds to key and value of a record without headers. */
enum { FP_MAX_OVERHEAD = FP_BATCH_OVERHEAD + FP_RECORD_OVERHEAD + 5 + 5 + 1 };

typedef struct {
    const char *key;     /* NULL: no key */
    const char *value;   /* NULL: tombstone */
    const char *headers; /* NULL: none; encoded as above */
    size_t key_len, value_len, headers_len;
    size_t headers_wire; /* bytes the headers take in format v2, their count excluded */
    int32_t headers_count;
    int32_t timed;     /* the timestamp was given with the record: not the time at which it was sent */
    int64_t timestamp; /* ms since the epoch */
} fp_record;

static inline void fp_no_headers(fp_record *r) {
    r->headers = NULL;
    r->headers_len = r->headers_wire = 0;
    r->headers_count = 0;
}

/* Starts to bring an object that is not in a cache, and what follows it, into one. */
static inline void fp_prefetch(const void *object) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(object);
    __builtin_prefetch((const char *)object + 64);
#endif
}

/* Bits / 7, rounded up, by a multiplication that is exact up to 64 bits. */
static inline int fp_varint_size(uint64_t v) {
#if defined(__GNUC__) || defined(__clang__)
    return ((64 - __builtin_clzll(v | 1)) * 9 + 64) >> 6;
#else
    int n = 1;
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
#endif
}

static inline uint64_t fp_zigzag(int64_t v) {
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

static inline int64_t fp_unzigzag(uint64_t v) {
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

static inline char *fp_put_varint(char *p, uint64_t v) {
    while (v >= 0x80) {
        *p++ = (char)(v | 0x80);
        v >>= 7;
    }
    *p++ = (char)v;
    return p;
}

static inline const char *fp_get_varint(const char *p, uint64_t *v) {
    uint64_t out = (unsigned char)*p;
    int shift = 7;
    if (out < 0x80) {
        *v = out;
        return p + 1;
    }
    out &= 0x7f;
    do {
        p++;
        out |= (uint64_t)((unsigned char)*p & 0x7f) << shift;
        shift += 7;
    } while ((unsigned char)*p & 0x80);
    *v = out;
    return p + 1;
}

/* fp_varint_size(fp_zigzag(n)) of what is never negative, and mostly small. */
static inline size_t fp_count_wire(size_t n) {
    return n < 64 ? 1 : n < 8192 ? 2 : (size_t)fp_varint_size((uint64_t)n << 1);
}

static inline size_t fp_nullable_wire(const char *data, size_t len) {
    return data ? fp_count_wire(len) + len : 1;
}

/* Key, value and headers as format v2 writes them. */
static inline size_t fp_payload_wire(const fp_record *r) {
    return fp_nullable_wire(r->key, r->key_len) +
           fp_nullable_wire(r->value, r->value_len) +
           fp_count_wire((size_t)r->headers_count) + r->headers_wire;
}

/* Bytes of a record's timestamp in format v2. */
static inline size_t fp_ts_wire(int64_t ts_delta) {
    return (size_t)fp_varint_size(fp_zigzag(ts_delta));
}

/* DefaultRecord.sizeInBytes. ts_wire: fp_ts_wire(), which most neighbours have in common. */
static inline size_t fp_wire_size(const fp_record *r, size_t ts_wire,
                                  int32_t offset_delta) {
    size_t body = 1 + ts_wire + fp_count_wire((size_t)offset_delta) +
                  fp_payload_wire(r);
    return fp_count_wire(body) + body;
}

/* AbstractRecords.estimateSizeInBytesUpperBound: what max.request.size and
 * buffer.memory are checked against before a record is accepted. */
static inline size_t fp_wire_upper_bound(const fp_record *r) {
    return FP_BATCH_OVERHEAD + FP_RECORD_OVERHEAD + fp_payload_wire(r);
}

static inline size_t fp_arena_size(const fp_record *r, int64_t ts_delta) {
    size_t n = 1 + fp_varint_size(fp_zigzag(ts_delta));
    if (r->key)
        n += fp_varint_size(r->key_len) + r->key_len;
    if (r->value)
        n += fp_varint_size(r->value_len) + r->value_len;
    if (r->headers)
        n += fp_varint_size(r->headers_len) + r->headers_len;
    return n;
}

/* Writes r at p, which has fp_arena_size() bytes; returns the end. */
static inline char *fp_record_write(char *p, const fp_record *r,
                                    int64_t ts_delta) {
    /* Copies: for all that the compiler knows, p points into r. */
    const char *key = r->key, *value = r->value, *headers = r->headers;
    size_t key_len = r->key_len, value_len = r->value_len;

    *p++ = (char)((key ? FP_HAS_KEY : 0) | (value ? FP_HAS_VALUE : 0) |
                  (headers ? FP_HAS_HEADERS : 0) | (r->timed ? FP_TIMED : 0));
    p = fp_put_varint(p, fp_zigzag(ts_delta));
    if (key)
        p = fp_put_varint(p, key_len);
    if (value)
        p = fp_put_varint(p, value_len);
    if (headers)
        p = fp_put_varint(p, r->headers_len);
    if (key) {
        memcpy(p, key, key_len);
        p += key_len;
    }
    if (value) {
        memcpy(p, value, value_len);
        p += value_len;
    }
    if (headers) {
        memcpy(p, headers, r->headers_len);
        p += r->headers_len;
    }
    return p;
}

/* Reads the record at p into r, whose pointers point into the arena; returns
 * where the next one starts. headers_wire and headers_count are not restored. */
static inline const char *fp_record_read(const char *p, fp_record *r,
                                         int64_t base_timestamp) {
    uint64_t v;
    int flags = *p++;

    p = fp_get_varint(p, &v);
    r->timestamp = base_timestamp + fp_unzigzag(v);
    r->timed = flags & FP_TIMED;
    if ((flags & ~FP_TIMED) == FP_HAS_VALUE) { /* as most are */
        p = fp_get_varint(p, &v);
        r->key = r->headers = NULL;
        r->key_len = r->headers_len = 0;
        r->value = p;
        r->value_len = (size_t)v;
        return p + v;
    }
    r->key_len = r->value_len = r->headers_len = 0;
    if (flags & FP_HAS_KEY) {
        p = fp_get_varint(p, &v);
        r->key_len = (size_t)v;
    }
    if (flags & FP_HAS_VALUE) {
        p = fp_get_varint(p, &v);
        r->value_len = (size_t)v;
    }
    if (flags & FP_HAS_HEADERS) {
        p = fp_get_varint(p, &v);
        r->headers_len = (size_t)v;
    }
    r->key = flags & FP_HAS_KEY ? p : NULL;
    p += r->key_len;
    r->value = flags & FP_HAS_VALUE ? p : NULL;
    p += r->value_len;
    r->headers = flags & FP_HAS_HEADERS ? p : NULL;
    return p + r->headers_len;
}

typedef struct {
    const char *name; /* NUL-terminated */
    const char *value; /* NULL: null */
    size_t name_len, value_len;
} fp_header;

/* Writes h at p, which has name_len + value_len + FP_HEADER_ROOM bytes; returns the end. */
static inline char *fp_header_write(char *p, const fp_header *h) {
    p = fp_put_varint(p, h->name_len);
    memcpy(p, h->name, h->name_len);
    p += h->name_len;
    *p++ = 0;
    p = fp_put_varint(p, h->value ? h->value_len + 1 : 0);
    if (h->value_len) {
        memcpy(p, h->value, h->value_len);
        p += h->value_len;
    }
    return p;
}

static inline const char *fp_header_read(const char *p, fp_header *h) {
    uint64_t v;
    p = fp_get_varint(p, &v);
    h->name = p;
    h->name_len = (size_t)v;
    p = fp_get_varint(p + h->name_len + 1, &v);
    h->value = v ? p : NULL;
    h->value_len = v ? (size_t)v - 1 : 0;
    return p + h->value_len;
}

static inline size_t fp_header_wire(const fp_header *h) {
    return fp_varint_size(fp_zigzag((int64_t)h->name_len)) + h->name_len +
           fp_nullable_wire(h->value, h->value_len);
}

#endif
