from libc.stdint cimport int64_t
from fastprod.internals.producer_parts cimport ProducerParts
from fastprod.internals.threads cimport Lock

cdef class ProducerShutdown:
    cdef ProducerParts parts
    cdef list closable         # interceptors and partitioner of the user that close() closes last
    cdef Lock lock             # held by the close() that is under way
    cdef int64_t deadline      # monotonic; of that close(), or an earlier one of another close() meanwhile

    cdef int close(self, int64_t deadline, object timeout) except -1
    cdef int close_dropped(self) except -1
    cdef int lock_until(self, int64_t deadline) except -1
    cdef int64_t end(self) except -1
    cdef int64_t end_sender(self) except -1
    cdef int end_threads(self) except -1
    cdef int wait(self, int *done, int64_t grace_ns) except -1
    cdef int close_hooks(self) except -1
    cdef bint on_own_thread(self) except -1
