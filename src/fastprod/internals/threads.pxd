from libc.stdint cimport int64_t
from fastprod.internals.sync cimport fp_cond, fp_mutex, fp_thread

cdef int64_t next_slice(int64_t deadline_ns, int64_t *pause_ns) except -1
cdef bint pause_greenlet(int64_t pause_ns) except -1
cdef bint can_wait() except -1
cdef unsigned long thread_ident() noexcept

cdef class Thread:
    cdef object target
    cdef tuple arguments
    cdef bytes name
    cdef bint green            # a greenlet of the thread that starts it, and not a thread of the system's
    cdef readonly bint started
    cdef fp_thread thread
    cdef int pid               # process that has it
    cdef bint unjoined         # `thread` was started and neither joined nor detached yet
    # guarded by mutex, a leaf
    cdef fp_mutex mutex
    cdef fp_cond changed
    cdef int ended

    cdef int run(self) except -1
    cdef bint wait(self, int64_t deadline) except -1

cdef class Lock:
    # written with the GIL
    cdef object holder         # current() of its holder, or None
    cdef int depth             # how often the holder has entered again
    # guarded by mutex, a leaf
    cdef fp_mutex mutex
    cdef fp_cond released
    cdef int free

    cdef bint acquire(self, int64_t deadline) except -1
    cdef int release(self) except -1
    cdef bint waits_for_itself(self) except -1
