from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t
from fastprod.internals.record_accumulator cimport Placed, RecordAccumulator
from fastprod.internals.future cimport FutureRecordMetadata, ProduceRequestResult
from fastprod.internals.input cimport Span
from fastprod.internals.producer_metadata cimport ProducerMetadata, TopicMetadata
from fastprod.internals.record cimport fp_record

cdef enum:
    CHUNK = 256          # records of a call that are appended at once

# Records of one call that lie side by side in one batch.
cdef struct PlacedRun:
    ProduceRequestResult *result   # `count` shares of it, or the futures have them
    int32_t first                  # index in the batch of the first of them
    int32_t count
    int64_t first_input       # the first one's place in the call
    int64_t last_input
    unsigned char *gaps       # varints: from each one's place to the next one's; NULL: they are all 1
    int32_t gaps_used         # bytes
    int32_t gaps_size

cdef class BulkFuture:
    cdef object __weakref__
    cdef readonly str topic
    cdef readonly int64_t count            # records
    cdef int64_t size                      # bytes of their keys and values
    cdef PlacedRun *runs
    cdef int borrows                       # the shares are those of `futures`, which keeps them
    cdef list futures
    cdef bint broken_off                   # it is the `sent` of what came out of the call
    cdef Py_ssize_t run_count
    cdef Py_ssize_t run_capacity
    cdef Py_ssize_t settled                # the runs before this one have settled
    # while the call is under way
    cdef Py_ssize_t *latest                # partition -> its last run, -1: none
    cdef int32_t latest_count

    cdef int place(self, const Placed *placed) noexcept nogil
    cdef int add(self, FutureRecordMetadata future) except -1
    cdef object tell(self, object error, bint reading)
    cdef void forget_latest(self) noexcept
    cdef int room(self, int32_t partition) noexcept nogil
    cdef Py_ssize_t first_unsettled(self) except? -2
    cdef list failures(self)
    cdef str topic_of(self, const PlacedRun *run)

cdef BulkFuture future_of_call(object topic)

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

cdef class BulkAppend:
    cdef RecordAccumulator accumulator
    cdef ProducerMetadata metadata
    cdef TopicMetadata entry
    cdef int epoch                         # the accumulator's, when the call began
    cdef int64_t max_block_ns
    cdef size_t largest_record
    cdef str size_limit
    cdef bint ignore_keys                  # nor are there any, perhaps
    cdef BulkFuture future
    cdef int unnoted                       # a record was appended that the future has no memory for
    # one chunk
    cdef fp_record *records
    cdef int32_t *partitions               # -1: to be chosen
    cdef Placed *placed                    # runs of them

    cdef int append(self, Py_ssize_t count, bint wait) except -1
    cdef void place_keys(self, Py_ssize_t count) noexcept nogil
    cdef Py_ssize_t append_ready(self, Py_ssize_t first, Py_ssize_t count) noexcept nogil
    cdef int append_rest(self, Py_ssize_t first, Py_ssize_t count) except -1
    cdef int append_one(self, Py_ssize_t i) except -1

cdef class SequenceAppend(BulkAppend):
    cdef Column values
    cdef Column keys
    cdef Column record_partitions
    cdef Column timestamps
    cdef Column headers
    cdef tuple columns    # these five
    cdef bint fast_path   # a record has a value, and perhaps a key
    # one chunk
    cdef Span *spans                       # of values that are neither bytes nor str
    cdef Py_ssize_t span_count
    cdef list refs                         # encoded headers
    cdef object error                      # what a column raised behind the chunk's last record

    cdef Py_ssize_t take(self) except -1
    cdef int append_taken(self, Py_ssize_t count) except -1
    cdef Py_ssize_t read_bare(self, Py_ssize_t first, Py_ssize_t count, int64_t now_ms) noexcept
    cdef int read(self, Py_ssize_t i, int64_t now_ms) except -1
    cdef int point(self, object value, const char **data, size_t *size, str what) except -1
    cdef void unref(self) noexcept
    cdef void release_spans(self) noexcept
