from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from fastprod.bulk.bulk_append cimport CHUNK, BulkAppend
from fastprod.bulk.bulk_future cimport BulkFuture
from fastprod.internals.input cimport Span
from fastprod.internals.record_appender cimport RecordAppender

cdef class Column:
    cdef object items                      # list, tuple, or iterator
    cdef object scalar                     # what every record has, if items is None
    cdef Py_ssize_t at                     # in a list or tuple
    # one chunk
    cdef PyObject *taken[CHUNK]            # strong references
    cdef Py_ssize_t count                  # how many they are
    cdef object error                      # what came instead of the next item
    cdef int take(self, Py_ssize_t most) except -1
    cdef PyObject *item(self, Py_ssize_t i) noexcept
    cdef void unref(self) noexcept

cdef class SequenceAppend(BulkAppend):
    cdef Column values
    cdef Column keys
    cdef Column record_partitions
    cdef Column timestamps
    cdef Column headers
    cdef tuple columns    # these five, in the order of FIELDS
    cdef bint fast_path   # a record has a value, and perhaps a key
    # one chunk
    cdef Span *spans                       # of values that are neither bytes nor str
    cdef Py_ssize_t span_count
    cdef list refs                         # encoded headers
    cdef object error                      # what a column raised behind the chunk's last record

    cdef int read_from(self, tuple columns) except -1
    cdef Py_ssize_t take(self) except -1
    cdef int append_taken(self, Py_ssize_t count) except -1
    cdef Py_ssize_t read_fast_path(self, Py_ssize_t first, Py_ssize_t count, int64_t now_ms) noexcept
    cdef int read(self, Py_ssize_t i, int64_t now_ms) except -1
    cdef int point(self, object value, const char **data, size_t *size, str what) except -1
    cdef void unref(self) noexcept
    cdef void release_spans(self) noexcept

cdef BulkFuture append_sequences(RecordAppender appender, object topic, object values, object keys, object partitions,
                                 object timestamps, object headers)
