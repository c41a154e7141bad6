from libc.stdint cimport int64_t
from fastprod.internals.sync cimport fp_cond, fp_mutex

# A thread that waits for memory. It lives from begin_wait() until end_wait(), which is always called; it is not on the
# stack, which may be a greenlet's.
cdef struct Waiter:
    fp_cond granted_or_closed
    size_t size
    size_t callbacks     # bytes for callbacks that are wanted with it
    int first            # it is the callback thread, which is served before all others
    int granted
    void *buffer         # a free buffer handed over with the grant, or NULL
    int64_t since_ns
    Waiter *next

cdef class BufferPool:
    cdef readonly size_t total_memory      # buffer.memory, bytes
    cdef readonly size_t poolable_size     # batch.size, bytes: what the free list holds
    # guarded by lock
    cdef fp_mutex lock
    cdef int64_t unallocated               # bytes neither handed out, nor in the free list, nor reserved for callbacks
    cdef int64_t callbacks                 # bytes reserved for callbacks that have not run
    cdef void **free_buffers               # a stack: the warmest buffer goes out first
    cdef Py_ssize_t free_count
    cdef Py_ssize_t free_capacity
    cdef Waiter *first
    cdef Waiter *last
    cdef int closed
    cdef int waiting                       # length of the queue
    cdef int64_t wait_ns_total
    cdef int64_t exhausted_total
    # guarded by the GIL
    cdef object callback_thread            # what current() is there; None: none runs

    cdef void *try_allocate(self, size_t size, size_t callbacks) noexcept nogil
    cdef int try_reserve(self, size_t size) noexcept nogil
    cdef void *allocate(self, size_t size, size_t callbacks, int64_t deadline_ns) except NULL
    cdef int reserve_for_callbacks(self, size_t size, int forced) noexcept nogil
    cdef void release_callbacks(self, size_t size) noexcept nogil
    cdef void deallocate(self, void *buffer, size_t size) noexcept nogil
    cdef void uncharge(self, size_t size) noexcept nogil
    cdef int wait_in_line(self, size_t size, size_t callbacks, int64_t deadline_ns, void **buffer) except -1
    cdef int raise_exhausted(self, size_t size) except -1
    cdef void begin_wait(self, Waiter *waiter) noexcept nogil
    cdef int wait(self, Waiter *waiter, int64_t until_ns) noexcept nogil
    cdef int end_wait(self, Waiter *waiter) noexcept nogil
    cdef int64_t free_memory(self) noexcept nogil
    cdef int64_t needed(self, size_t size, size_t callbacks) noexcept nogil
    cdef size_t share(self) noexcept nogil
    cdef int take(self, size_t size, size_t callbacks, int first, void **buffer) noexcept nogil
    cdef void charge(self, size_t size) noexcept nogil
    cdef void grant(self) noexcept nogil
    cdef void refund(self, void *buffer, size_t size, size_t callbacks) noexcept nogil
    cdef int keep(self, void *buffer) noexcept nogil
