from libc.stdint cimport int32_t, int64_t
from fastprod.internals.produce_request_result cimport ProduceRequestResult
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.sync cimport fp_mutex

# A batch that is gone, with failures that the program has not observed.
cdef struct FailedBatch:
    ProduceRequestResult *result   # a reference
    char *topic                    # name, since the topic may be gone; NULL: there was no memory for it
    char *arena                    # the records, from malloc(); NULL: only their outcomes are kept
    size_t used                    # bytes of arena
    int64_t base_timestamp
    int32_t count                  # records
    FailedBatch *next

cdef class FailedRecords:
    cdef size_t limit              # bytes of arenas
    # guarded by lock, a leaf
    cdef fp_mutex lock
    cdef FailedBatch *first
    cdef FailedBatch *last
    cdef size_t bytes              # of arenas
    cdef int64_t unkept            # failed records that there was no memory to keep

    # lock: none
    cdef object raise_all(self, str preface=*)
    # lock: none, or sender_lock
    cdef void keep(self, ProducerBatch *batch, const char *topic, char *arena) noexcept nogil
    cdef void discard(self) noexcept nogil
    cdef FailedBatch *detach(self) noexcept nogil
    cdef void attach(self, FailedBatch *first) noexcept nogil
    # lock: held
    cdef void append(self, FailedBatch *kept) noexcept nogil
    cdef void prune(self) noexcept nogil
