from libc.stdint cimport int32_t, int64_t

cdef extern from "arrow.h" nogil:
    struct ArrowSchema:
        const char *format
        const char *name
        int64_t n_children
        ArrowSchema **children
        ArrowSchema *dictionary
        void (*release)(ArrowSchema *) noexcept nogil
    struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept nogil
    struct ArrowArrayStream:
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
        const char *(*get_last_error)(ArrowArrayStream *) noexcept nogil
        void (*release)(ArrowArrayStream *) noexcept nogil

    int32_t fp_int32_at(const void *values, int64_t i) noexcept
    int64_t fp_int64_at(const void *values, int64_t i) noexcept
    int64_t fp_integer_at(const void *values, int width, int is_signed, int64_t i) noexcept
    int fp_bit_at(const unsigned char *bits, int64_t i) noexcept
    int fp_is_utf8(const char *text, size_t size) noexcept
