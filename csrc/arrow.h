/* The structures of the Arrow C data interface and the Arrow C stream
 * interface, and loads of what their buffers hold.
 *
 * Source: the specification, arrow.apache.org/docs/format/CDataInterface.html
 * and CStreamInterface.html. A structure whose release is NULL has been released
 * or moved, which is copying it and setting the original's release to NULL. */
#ifndef FASTPROD_ARROW_H
#define FASTPROD_ARROW_H

#include <stdint.h>
#include <string.h>

/* A type: of a column, or "+s" with a child for each column. */
struct ArrowSchema {
    const char *format;
    const char *name;     /* UTF-8, may be NULL */
    const char *metadata; /* extension types and the like; may be NULL */
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary; /* of the values, if format is an index's */
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

/* Values of that type. offset counts from the start of every buffer; the
 * children of "+s" have offsets of their own on top of it. */
struct ArrowArray {
    int64_t length;
    int64_t null_count; /* -1: not counted */
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers; /* first the validity, NULL if nothing is null */
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* Arrays of one type, one after the other; the last is one that is released.
 * The callbacks return 0 or an errno. */
struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

/* Buffers may start at any address. */
static inline int32_t fp_int32_at(const void *values, int64_t i) {
    int32_t v;
    memcpy(&v, (const char *)values + i * 4, 4);
    return v;
}

static inline int64_t fp_int64_at(const void *values, int64_t i) {
    int64_t v;
    memcpy(&v, (const char *)values + i * 8, 8);
    return v;
}

/* An integer of 1, 2, 4 or 8 bytes. An unsigned one of 8 bytes comes out
 * negative if it is more than INT64_MAX. */
static inline int64_t fp_integer_at(const void *values, int width,
                                    int is_signed, int64_t i) {
    const char *p = (const char *)values + i * width;
    uint16_t half;
    uint32_t word;

    switch (width) {
    case 1:
        return is_signed ? (int64_t)(int8_t)*p : (int64_t)(uint8_t)*p;
    case 2:
        memcpy(&half, p, 2);
        return is_signed ? (int64_t)(int16_t)half : (int64_t)half;
    case 4:
        memcpy(&word, p, 4);
        return is_signed ? (int64_t)(int32_t)word : (int64_t)word;
    default:
        return fp_int64_at(values, i);
    }
}

/* Whether the bit is set; bits is NULL where all of them are. */
static inline int fp_bit_at(const unsigned char *bits, int64_t i) {
    return bits == NULL || (bits[i >> 3] >> (i & 7) & 1);
}

/* Whether Python can decode the bytes as UTF-8: RFC 3629, so no overlong forms
 * and no surrogates. */
static inline int fp_is_utf8(const char *text, size_t size) {
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char *end = p + size;

    while (p < end) {
        unsigned char lead = *p++;
        unsigned char low = 0x80, high = 0xbf; /* of the second byte */
        int more;

        if (lead < 0x80)
            continue;
        if (lead < 0xc2 || lead > 0xf4)
            return 0;
        more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
        if (lead == 0xe0)
            low = 0xa0;
        else if (lead == 0xed)
            high = 0x9f;
        else if (lead == 0xf0)
            low = 0x90;
        else if (lead == 0xf4)
            high = 0x8f;
        while (more--) {
            if (p == end || *p < low || *p > high)
                return 0;
            low = 0x80;
            high = 0xbf;
            p++;
        }
    }
    return 1;
}

#endif
