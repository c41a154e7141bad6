from libc.stdint cimport int64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.produce_request_result cimport ProduceRequestResult
from fastprod.internals.sync cimport fp_cond, fp_mutex

cdef void unraisable(object error, object where) noexcept

cdef struct LogLine:
    int level                # syslog's, 0 to 7
    char text[480]
    LogLine *next

# All that was queued at one time.
cdef struct TakenWork:
    ProduceRequestResult *results
    LogLine *lines
    int closed

cdef class Callbacks:
    # guarded by lock
    cdef fp_mutex lock
    cdef fp_cond something
    cdef ProduceRequestResult *first
    cdef ProduceRequestResult *last
    cdef LogLine *log_first
    cdef LogLine *log_last
    cdef int log_count
    cdef int64_t log_dropped
    cdef int64_t queued              # results, ever
    cdef int64_t finished            # results whose callbacks have all run
    cdef int64_t callbacks_queued    # ever
    cdef int closed
    cdef int ended                   # atomic: run() is about to return
    # guarded by the GIL
    cdef int64_t callbacks_run       # of those queued
    # the callback thread's own
    cdef BufferPool pool
    cdef object log_limit             # LogLimit
    cdef readonly object thread_id    # current() of run()
    cdef unsigned long green_thread   # whose greenlet run() is; 0: run() has a thread of its own
    cdef int fork_generation          # `process_generation` when it was made

    cdef void add(self, ProduceRequestResult *result) noexcept nogil
    cdef void log(self, int level, const char *facility, const char *text) noexcept nogil
    cdef int end_log(self) except -1
    cdef int write_log(self, LogLine *line) except -1
    cdef void take(self, TakenWork *work, int64_t until_ns) noexcept nogil
    cdef int64_t run_results(self, ProduceRequestResult *results) except -1
    cdef int await_as_greenlet(self) except -1
    cdef int refuse_wait(self, str name) except -1
    cdef bint can_be_awaited(self) except -1
    cdef int run_result(self, ProduceRequestResult *result) except -1
