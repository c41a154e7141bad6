from libc.stdint cimport int32_t, int64_t
from fastprod.internals.open_batches cimport Placed
from fastprod.internals.future cimport FutureRecordMetadata
from fastprod.internals.produce_request_result cimport ProduceRequestResult

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
    cdef bint ended_call                   # it is the `sent` of an exception that ended the call
    cdef Py_ssize_t run_count
    cdef Py_ssize_t run_capacity
    cdef Py_ssize_t settled                # the runs before this one have settled
    # while the call is under way
    cdef Py_ssize_t *latest                # partition -> its last run, -1: none
    cdef int32_t latest_count

    cdef int place(self, const Placed *placed) noexcept nogil
    cdef int add(self, FutureRecordMetadata future) except -1
    cdef object describe_sent(self, object error, bint reading)
    cdef int wait(self, object timeout) except -1
    cdef object metadata(self)
    cdef object delivery_error(self, list failures)
    cdef void forget_latest(self) noexcept
    cdef int room(self, int32_t partition) noexcept nogil
    cdef Py_ssize_t first_unsettled(self) except? -2
    cdef list failures(self)
    cdef str topic_of(self, const PlacedRun *run)

cdef BulkFuture future_of_call(object topic)
