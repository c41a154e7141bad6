from libc.stdint cimport int32_t, int64_t
from fastprod.internals.record cimport fp_record

# Bytes of a key or value and who holds them while they are copied.
cdef struct Span:
    const char *data
    size_t size
    Py_buffer view
    int viewed

cdef int span_of(object value, Span *span, str what) except -1
cdef void span_release(Span *span) noexcept
cdef str shorten(object value)
cdef bint is_boolean(object given) except -1
cdef object whole_number(object given, str wanted)
cdef bytes encode_headers(object headers, size_t limit, int32_t *count, size_t *wire)
cdef bytes set_headers(fp_record *record, object headers, size_t limit)
cdef int64_t checked_timestamp(object timestamp) except -1
cdef object refuse_size(str topic, size_t size, size_t limit, str name)
cdef int check_topic(object topic) except -1
