from libc.stdint cimport int32_t, int64_t
from fastprod.bulk.bulk_append cimport BulkAppend
from fastprod.internals.record cimport fp_header, fp_record

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

cdef enum Layout:
    NULLS            # nothing but nulls
    OFFSETS32        # bytes end to end, and where each value starts
    OFFSETS64
    VIEWS            # 16 bytes for each value, which hold it or say where it is
    FIXED            # bytes end to end, of one width
    DICTIONARY       # indexes of values
    INTEGERS
    TIMESTAMPS
    LIST32           # of pairs; a map too
    LIST64
    FIXED_LIST
    PAIRS            # structs of two

# The values of one column, and what they are in the array at hand.
cdef struct Cells:
    # of the type
    Layout layout
    int column                # its number, for errors
    int text                  # UTF-8, not just bytes
    int32_t width             # bytes of a fixed value, an integer or an index; items of a fixed list
    int is_signed
    int64_t per_unit          # ms in a unit of a timestamp, or
    int64_t per_ms            # units in a ms; the other is 1
    Cells *inner              # a dictionary's values, a list's pairs, the first of a pair
    Cells *second             # of a pair
    # of the array
    int64_t start             # where row 0 is in the buffers
    int64_t length
    const unsigned char *validity   # NULL: none is null
    const char *main                # offsets, views, indexes, or the values themselves
    const char *bytes               # what offsets point into; NULL: they are all empty
    const void **variadic           # what views point into
    const void *variadic_sizes
    int64_t variadic_count

# One header of every record.
cdef struct HeaderColumn:
    fp_header header          # its name, and its value, where that is the same for all
    Cells *cells              # else

cdef struct Bytes:
    const char *data
    size_t size

cdef enum Problem:
    NO_PROBLEM
    UNSOUND                   # against the ABI
    NULL_ROW
    BAD_PARTITION
    BAD_TIMESTAMP
    TOO_LARGE
    HEADER_WITHOUT_NAME
    HEADER_NOT_UTF8
    NO_MEMORY

cdef class ArrowData:
    cdef ArrowArrayStream stream
    cdef ArrowSchema schema
    cdef ArrowArray array     # the one at hand
    cdef bint given           # it is the only one, and not taken yet

    cdef int open(self, object data) except -1
    cdef bint next(self) except -1
    cdef void release(self) noexcept
    cdef object failure(self, int code)

cdef class ArrowAppend(BulkAppend):
    cdef ArrowData data
    # the call
    cdef list labels          # of the columns, by number
    cdef list children        # their numbers in the schema; -1: the data is that column itself
    cdef Cells **columns
    cdef Cells *value
    cdef Cells *key               # NULL: none
    cdef Cells *partition         # NULL: the same for all
    cdef int32_t same_partition   # -1: to be chosen
    cdef Cells *timestamp         # NULL: the same for all
    cdef int64_t same_timestamp   # -1: now
    cdef Cells *header_lists      # NULL: none
    cdef HeaderColumn *header_columns
    cdef Py_ssize_t header_count
    cdef fp_record same       # what all records have alike; those of a chunk start as it
    cdef list refs            # bytes of header names and values
    # the array at hand
    cdef int64_t rows
    cdef int64_t row          # that comes next
    cdef const unsigned char *row_validity
    # one chunk
    cdef Bytes *header_values   # a run of CHUNK for each column
    cdef char *encoded          # headers
    cdef size_t encoded_size
    cdef Problem row_error      # with the record behind the chunk's last
    cdef int problem_column
    cdef int64_t problem_number

    cdef int open(self, object data, object value, object key, object partition, object timestamp,
                  object headers) except -1
    cdef int open_headers(self, object headers) except -1
    cdef Cells *column(self, str name, str what) except NULL
    cdef bint more(self) except -1
    cdef int bind_columns(self, ArrowArray *array) except -1
    cdef bint send(self) except -1
    cdef Py_ssize_t read(self) except -1
    cdef tuple record(self, Py_ssize_t i)
    cdef Py_ssize_t fill(self, int64_t now_ms, size_t limit) noexcept nogil
    cdef Py_ssize_t stop(self, Py_ssize_t i, Problem row_error, int column, int64_t number) noexcept nogil
    cdef Py_ssize_t fill_bytes(self, const Cells *cells, Py_ssize_t count, const char **data, size_t *size,
                               size_t stride) noexcept nogil
    cdef Py_ssize_t fill_partitions(self, Py_ssize_t count) noexcept nogil
    cdef Py_ssize_t fill_timestamps(self, Py_ssize_t count, int64_t now_ms) noexcept nogil
    cdef Py_ssize_t measure_columns(self, Py_ssize_t count) noexcept nogil
    cdef void take_value(self, HeaderColumn *one, Py_ssize_t h, Py_ssize_t i) noexcept nogil
    cdef Py_ssize_t measure_lists(self, Py_ssize_t count) noexcept nogil
    cdef Py_ssize_t encode(self, Py_ssize_t count) noexcept nogil
    cdef int raise_problem(self) except -1

cdef int check_arrow(object data, object value, object key, object partition, object timestamp) except -1
cdef object check_headers(object headers)
