from libc.stdint cimport int32_t, int64_t
from fastprod.bulk.bulk_future cimport BulkFuture
from fastprod.internals.open_batches cimport Placed
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.topic_metadata cimport TopicMetadata
from fastprod.internals.record cimport fp_record
from fastprod.internals.record_appender cimport RecordAppender

cdef enum:
    CHUNK = 256          # records of a call that are appended at once

cdef class BulkAppend:
    cdef RecordAppender appender
    cdef RecordAccumulator accumulator
    cdef ProducerMetadata metadata
    cdef object topic                      # as the call gave it, for interceptors
    cdef TopicMetadata entry
    cdef int epoch                         # the accumulator's, when the call began
    cdef int64_t max_block_ns
    cdef size_t largest_record
    cdef str size_limit
    cdef bint ignore_keys                  # nor are there any, perhaps
    cdef BulkFuture future
    cdef int unrecorded                       # a record was appended that the future has no memory for
    # one chunk
    cdef fp_record *records
    cdef int32_t *partitions               # -1: to be chosen
    cdef Placed *placed                    # runs of them

    cdef int append_all(self) except -1
    cdef bint append_next(self) except -1
    cdef int send_through(self, object value, object key, object partition, object timestamp, object headers) except -1
    cdef int append(self, Py_ssize_t count, bint wait) except -1
    cdef void place_keys(self, Py_ssize_t count) noexcept nogil
    cdef Py_ssize_t append_ready(self, Py_ssize_t first, Py_ssize_t count) noexcept nogil
    cdef int append_rest(self, Py_ssize_t first, Py_ssize_t count) except -1
    cdef int append_one(self, Py_ssize_t i) except -1

cdef int give_way() except -1
