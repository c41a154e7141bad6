from libc.stdint cimport int64_t
from fastprod.internals.sync cimport fp_cond, fp_mutex

cdef enum:
    AWAITED = 1                # what is to be asked for: the topics that a thread waits for
    EVERYTHING = 2             # all topics

cdef class UpdateRequest:
    # guarded by mutex, a leaf, under which no thread waits for the GIL
    cdef fp_mutex mutex
    cdef fp_cond asked
    cdef int requested         # 0, AWAITED or EVERYTHING
    cdef int closed            # read without the mutex, too

    cdef void request(self, int what) noexcept nogil
    cdef int wait_requested(self, int64_t deadline) noexcept
    cdef void wait_closed(self, int64_t deadline) noexcept
    cdef void close(self) noexcept nogil
