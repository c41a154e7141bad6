from fastprod.bulk.arrow_column cimport ArrowColumn
from fastprod.internals.record cimport fp_header, fp_record
from libc.stdint cimport int64_t

cdef enum RowErrorKind:
    NO_ERROR
    MALFORMED                 # against the ABI
    NULL_ROW
    BAD_PARTITION
    BAD_TIMESTAMP
    TOO_LARGE
    HEADER_WITHOUT_NAME
    HEADER_NOT_UTF8
    NO_MEMORY

# Why a chunk ends before a row.
cdef struct RowError:
    RowErrorKind kind
    int column                # its number
    int64_t value             # a partition, a timestamp, a size, or the place of a pair

cdef inline Py_ssize_t stop(RowError *error, Py_ssize_t i, RowErrorKind kind, int column, int64_t value) noexcept nogil:
    """The chunk ends before its record i."""
    error.kind = kind
    error.column = column
    error.value = value
    return i

cdef struct Bytes:
    const char *data
    size_t size

# One header of every record.
cdef struct HeaderColumn:
    fp_header header          # its name; and its value, if that is the same for all
    ArrowColumn *column       # else

cdef class ArrowHeaders:
    cdef ArrowColumn *lists     # NULL: they are in header columns, or there are none
    cdef HeaderColumn *columns
    cdef Py_ssize_t count       # of header columns
    cdef Py_ssize_t capacity
    cdef list refs              # bytes of their names and values
    # one chunk
    cdef Bytes *values          # CHUNK for each header column
    cdef char *encoded
    cdef size_t encoded_size

    cdef int reserve(self, Py_ssize_t count) except -1
    cdef int add(self, bytes name, bytes value, ArrowColumn *column) except -1
    cdef Py_ssize_t measure(self, fp_record *records, int64_t row, Py_ssize_t count, size_t limit,
                            RowError *error) noexcept nogil
    cdef Py_ssize_t encode(self, fp_record *records, int64_t row, Py_ssize_t count, RowError *error) noexcept nogil
    cdef Py_ssize_t measure_columns(self, fp_record *records, int64_t row, Py_ssize_t count, size_t limit,
                                    RowError *error) noexcept nogil
    cdef Py_ssize_t measure_lists(self, fp_record *records, int64_t row, Py_ssize_t count, size_t limit,
                                  RowError *error) noexcept nogil
    cdef void load_value(self, Py_ssize_t h, Py_ssize_t i) noexcept nogil
    cdef char *write(self, char *at, int64_t row, Py_ssize_t i) noexcept nogil

cdef int read_pair(const ArrowColumn *pairs, int64_t k, fp_header *header) noexcept nogil
