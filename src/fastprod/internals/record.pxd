# csrc/record.h: declarations only.
from libc.stdint cimport int32_t, int64_t

cdef extern from "record.h" nogil:
    enum:
        FP_BATCH_OVERHEAD
        FP_HEADER_ROOM
        FP_MAX_OVERHEAD

    void fp_prefetch(const void *object) noexcept

    ctypedef struct fp_record:
        const char *key
        const char *value
        const char *headers
        size_t key_len
        size_t value_len
        size_t headers_len
        size_t headers_wire
        int32_t headers_count
        int32_t timed
        int64_t timestamp
    ctypedef struct fp_header:
        const char *name
        const char *value
        size_t name_len
        size_t value_len

    void fp_no_headers(fp_record *) noexcept
    size_t fp_wire_size(const fp_record *, size_t ts_wire, int32_t offset_delta) noexcept
    size_t fp_ts_wire(int64_t ts_delta) noexcept
    size_t fp_wire_upper_bound(const fp_record *) noexcept
    size_t fp_arena_size(const fp_record *, int64_t ts_delta) noexcept
    char *fp_record_write(char *, const fp_record *, int64_t ts_delta) noexcept
    const char *fp_record_read(const char *, fp_record *, int64_t base_timestamp) noexcept
    char *fp_header_write(char *, const fp_header *) noexcept
    const char *fp_header_read(const char *, fp_header *) noexcept
    size_t fp_header_wire(const fp_header *) noexcept
