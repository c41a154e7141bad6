from libc.stdint cimport int32_t, int64_t
from fastprod.bulk.arrow cimport ArrowArray
from fastprod.bulk.arrow_column cimport ArrowColumn
from fastprod.bulk.arrow_headers cimport ArrowHeaders, RowError
from fastprod.bulk.arrow_stream cimport ArrowStream
from fastprod.bulk.bulk_append cimport BulkAppend
from fastprod.bulk.bulk_future cimport BulkFuture
from fastprod.internals.record cimport fp_record
from fastprod.internals.record_appender cimport RecordAppender

cdef class ArrowAppend(BulkAppend):
    cdef ArrowStream data
    # the call
    cdef list labels          # of the columns, by number
    cdef list children        # their numbers in the schema; -1: the data is that column itself
    cdef ArrowColumn **columns
    cdef ArrowColumn *value
    cdef ArrowColumn *key         # NULL: none
    cdef ArrowColumn *partition   # NULL: the same for all
    cdef int32_t same_partition   # -1: to be chosen
    cdef ArrowColumn *timestamp   # NULL: the same for all
    cdef int64_t same_timestamp   # -1: now
    cdef ArrowHeaders headers     # None: the same for all
    cdef fp_record same       # the fields that all records share
    cdef bytes same_headers   # what `same` points at
    # the current array
    cdef int64_t rows
    cdef int64_t row          # that comes next
    cdef const unsigned char *row_validity
    # one chunk
    cdef RowError row_error   # with the record behind the chunk's last

    cdef int open(self, object data, object value, object key, object partition, object timestamp,
                  object headers) except -1
    cdef int open_headers(self, object headers) except -1
    cdef ArrowColumn *column(self, str name, str field) except NULL
    cdef ArrowColumn *add_column(self, ArrowColumn *column, str label, int64_t child) except NULL
    cdef bint more(self) except -1
    cdef int bind_columns(self, ArrowArray *array) except -1
    cdef bint send(self) except -1
    cdef Py_ssize_t read(self) except -1
    cdef tuple record(self, Py_ssize_t i)
    cdef Py_ssize_t fill(self, int64_t now_ms, size_t limit) noexcept nogil
    cdef Py_ssize_t check_rows(self, Py_ssize_t count) noexcept nogil
    cdef Py_ssize_t fill_bytes(self, const ArrowColumn *column, Py_ssize_t count, const char **data,
                               size_t *size) noexcept nogil
    cdef Py_ssize_t fill_partitions(self, Py_ssize_t count) noexcept nogil
    cdef Py_ssize_t fill_timestamps(self, Py_ssize_t count, int64_t now_ms) noexcept nogil
    cdef int raise_row_error(self) except -1

cdef BulkFuture append_arrow(RecordAppender appender, object topic, object data, object value, object key,
                             object partition, object timestamp, object headers)
