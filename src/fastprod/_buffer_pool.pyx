"""BufferPool: the memory of buffer.memory, its accounting and who waits for it.

Source: org.apache.kafka.clients.producer.internals.BufferPool, made stricter.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, realloc
from fastprod._sync cimport (
    fp_cond_destroy, fp_cond_init, fp_cond_signal, fp_cond_wait_until, fp_monotonic_ns,
    fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock, fp_slice_end,
)

from fastprod.errors import BufferExhaustedError, ProducerClosedError


cdef class BufferPool:
    """Memory for batches, kept under a limit in bytes.

    Owns the buffers of its free list; a buffer that was handed out belongs to
    the taker until ``deallocate``. Invariant, under the lock: unallocated +
    free_count * poolable_size + handed out = total_memory.

    Fair: memory goes to the longest waiting thread until that one has enough,
    and a newcomer queues behind waiters (Java lets it barge). A grant is made
    by whoever gives memory back, so nothing can slip in between the signal and
    the wake-up.

    Thread-safe. The lock is a leaf but for the accumulator's, which may be held
    when try_allocate, try_reserve or release is called.
    """

    def __cinit__(self, size_t total_memory, size_t poolable_size):
        fp_mutex_init(&self.lock)
        self.total_memory = total_memory
        self.poolable_size = poolable_size
        self.unallocated = total_memory

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.free_count):
            free(self.free_buffers[i])
        free(self.free_buffers)
        fp_mutex_destroy(&self.lock)

    # The C door.

    cdef void *try_allocate(self, size_t size) noexcept nogil:
        """A buffer of size bytes, or NULL if it would have to wait."""
        cdef void *buffer = NULL
        cdef int taken = 0
        fp_mutex_lock(&self.lock)
        if self.first is NULL and not self.closed:
            taken = self.take(size, &buffer)
        fp_mutex_unlock(&self.lock)
        if taken and buffer is NULL:
            buffer = malloc(size)
            if buffer is NULL:
                self.release(size)
        return buffer

    cdef int try_reserve(self, size_t size) noexcept nogil:
        """Charges size bytes by which the caller enlarges a buffer; 0 if it would have to wait.

        Such a buffer may end up on the free list without ever having come from it. So one that lies there goes for
        it, or the list would grow, up to all of the memory, though few buffers are in use at a time.
        """
        cdef void *spare = NULL
        cdef int reserved = 0
        fp_mutex_lock(&self.lock)
        if self.first is NULL and not self.closed:
            if self.free_count > 0:
                self.free_count -= 1
                spare = self.free_buffers[self.free_count]
                self.unallocated += self.poolable_size
            reserved = self.charge(size)
        fp_mutex_unlock(&self.lock)
        free(spare)
        return reserved

    cdef void *allocate(self, size_t size, int64_t deadline_ns) except NULL:
        """A buffer of size bytes, waiting for it until deadline_ns (monotonic).

        Called with the GIL, which is released while waiting; signals are served.
        BufferExhaustedError once the deadline has passed, ProducerClosedError if
        the pool is closed meanwhile. Whoever leaves by an exception leaves no trace.
        """
        cdef void *buffer = self.try_allocate(size)
        cdef Waiter waiter
        cdef int over, granted
        if buffer is not NULL:
            return buffer
        if size > self.total_memory:
            raise BufferExhaustedError(
                f"{size} bytes asked of a buffer of {self.total_memory}: raise buffer.memory")
        with nogil:
            self.begin_wait(&waiter, size)
        try:
            while True:
                with nogil:
                    over = self.wait(&waiter, fp_slice_end(deadline_ns))
                if over:
                    break
                PyErr_CheckSignals()
                if fp_monotonic_ns() >= deadline_ns:
                    break
        except BaseException:
            with nogil:
                granted = self.end_wait(&waiter)
                if granted:
                    self.refund(waiter.buffer, size)
            raise
        with nogil:
            granted = self.end_wait(&waiter)
        if not granted:
            if self.closed:
                raise ProducerClosedError("the producer was closed while send() waited for buffer.memory")
            self.exhausted_total += 1
            raise BufferExhaustedError(
                f"no {size} bytes of buffer.memory became free within max.block.ms: "
                f"{self.available_memory} of {self.total_memory} bytes are free, {self.queued} threads wait. "
                "The brokers take records more slowly than they are sent; "
                "send less, raise max.block.ms or buffer.memory, or look at the brokers", retriable=True)
        buffer = waiter.buffer
        if buffer is NULL:
            buffer = malloc(size)
            if buffer is NULL:
                self.release(size)
                raise MemoryError(f"the machine has no {size} bytes for a batch")
        return buffer

    cdef void deallocate(self, void *buffer, size_t size) noexcept nogil:
        """Takes back a buffer of size bytes, both as they were handed out."""
        fp_mutex_lock(&self.lock)
        if size == self.poolable_size and not self.closed and self.keep(buffer):
            buffer = NULL
        else:
            self.unallocated += size
        self.grant()
        fp_mutex_unlock(&self.lock)
        free(buffer)

    cdef void release(self, size_t size) noexcept nogil:
        """Gives size bytes back whose memory the caller freed, or keeps outside the pool."""
        fp_mutex_lock(&self.lock)
        self.unallocated += size
        self.grant()
        fp_mutex_unlock(&self.lock)

    cdef void refund(self, void *buffer, size_t size) noexcept nogil:
        if buffer is NULL:
            self.release(size)
        else:
            self.deallocate(buffer, size)

    cdef void begin_wait(self, Waiter *waiter, size_t size) noexcept nogil:
        fp_cond_init(&waiter.granted_or_closed)
        waiter.size = size
        waiter.granted = 0
        waiter.buffer = NULL
        waiter.next = NULL
        waiter.since_ns = fp_monotonic_ns()
        fp_mutex_lock(&self.lock)
        if self.last is NULL:
            self.first = waiter
        else:
            self.last.next = waiter
        self.last = waiter
        self.waiting += 1
        self.grant()    # memory may have come back since try_allocate said no
        fp_mutex_unlock(&self.lock)

    cdef int wait(self, Waiter *waiter, int64_t until_ns) noexcept nogil:
        """Whether the wait is over: memory was granted, or the pool is closed."""
        cdef int over
        fp_mutex_lock(&self.lock)
        while not waiter.granted and not self.closed:
            if fp_cond_wait_until(&waiter.granted_or_closed, &self.lock, until_ns):
                break
        over = waiter.granted or self.closed
        fp_mutex_unlock(&self.lock)
        return over

    cdef int end_wait(self, Waiter *waiter) noexcept nogil:
        """Leaves the queue. Returns whether memory had been granted, which is then the caller's.

        A grant may come between the caller's last look and this call; the answer is what counts.
        """
        cdef Waiter *other
        cdef Waiter *previous = NULL
        fp_mutex_lock(&self.lock)
        self.wait_ns_total += fp_monotonic_ns() - waiter.since_ns
        if not waiter.granted:
            other = self.first
            while other is not waiter:
                previous = other
                other = other.next
            if previous is NULL:
                self.first = waiter.next
            else:
                previous.next = waiter.next
            if self.last is waiter:
                self.last = previous
            self.waiting -= 1
            self.grant()    # the next in line may want less than this one did
        fp_mutex_unlock(&self.lock)
        fp_cond_destroy(&waiter.granted_or_closed)
        return waiter.granted

    # lock: held

    cdef int take(self, size_t size, void **buffer) noexcept nogil:
        """Charges size bytes. *buffer is a pooled one, or NULL: the caller allocates, outside the lock."""
        buffer[0] = NULL
        if size == self.poolable_size and self.free_count > 0:
            self.free_count -= 1
            buffer[0] = self.free_buffers[self.free_count]
            return 1
        return self.charge(size)

    cdef int charge(self, size_t size) noexcept nogil:
        """Takes size bytes off the unallocated ones, which the free list may have to fill up first."""
        if self.unallocated + <size_t>self.free_count * self.poolable_size < size:
            return 0
        while self.unallocated < size:
            self.free_count -= 1
            free(self.free_buffers[self.free_count])
            self.unallocated += self.poolable_size
        self.unallocated -= size
        return 1

    cdef void grant(self) noexcept nogil:
        """Serves waiters in order, until one must go on waiting."""
        cdef Waiter *waiter = self.first
        while waiter is not NULL and not self.closed and self.take(waiter.size, &waiter.buffer):
            waiter.granted = 1
            self.waiting -= 1
            self.first = waiter.next
            if self.first is NULL:
                self.last = NULL
            fp_cond_signal(&waiter.granted_or_closed)
            waiter = self.first

    cdef int keep(self, void *buffer) noexcept nogil:
        """Puts a poolable buffer on the free list; 0 if the list itself found no memory."""
        cdef void **grown
        cdef Py_ssize_t capacity
        if self.free_count == self.free_capacity:
            capacity = 2 * self.free_capacity + 16
            grown = <void **>realloc(self.free_buffers, capacity * sizeof(void *))
            if grown is NULL:
                return 0
            self.free_buffers = grown
            self.free_capacity = capacity
        self.free_buffers[self.free_count] = buffer
        self.free_count += 1
        return 1

    # The Python door: the same functions, for tests and for those who look at numbers.

    def allocate_buffer(self, size_t size, max_block_ms=0):
        """A Buffer of size bytes; waits at most max_block_ms."""
        cdef Buffer buffer = Buffer()
        buffer.memory = self.allocate(size, fp_monotonic_ns() + <int64_t>(max_block_ms * 1_000_000))
        buffer.size = size
        buffer.pool = self
        return buffer

    def close(self):
        """Wakes every waiter with ProducerClosedError, and frees what nobody has. Memory can still be given back."""
        cdef Waiter *waiter
        fp_mutex_lock(&self.lock)
        self.closed = 1
        while self.free_count > 0:
            self.free_count -= 1
            free(self.free_buffers[self.free_count])
            self.unallocated += self.poolable_size
        waiter = self.first
        while waiter is not NULL:
            fp_cond_signal(&waiter.granted_or_closed)
            waiter = waiter.next
        fp_mutex_unlock(&self.lock)

    @property
    def available_memory(self):
        """Bytes that could be handed out now, the free list's included."""
        fp_mutex_lock(&self.lock)
        available = self.unallocated + <size_t>self.free_count * self.poolable_size
        fp_mutex_unlock(&self.lock)
        return available

    @property
    def unallocated_memory(self):
        """Bytes that are neither handed out nor in the free list."""
        fp_mutex_lock(&self.lock)
        unallocated = self.unallocated
        fp_mutex_unlock(&self.lock)
        return unallocated

    @property
    def queued(self):
        """Number of threads waiting for memory."""
        fp_mutex_lock(&self.lock)
        queued = self.waiting
        fp_mutex_unlock(&self.lock)
        return queued

    @property
    def wait_time_ns(self):
        """Time spent waiting for memory, summed over all threads, nanoseconds."""
        fp_mutex_lock(&self.lock)
        waited = self.wait_ns_total
        fp_mutex_unlock(&self.lock)
        return waited

    @property
    def exhausted(self):
        """How often a wait ended without memory."""
        return self.exhausted_total


@cython.no_gc_clear   # __dealloc__ gives the memory back to the pool
cdef class Buffer:
    """Memory taken from a pool through the Python door; goes back by ``deallocate()`` or when dropped."""

    def deallocate(self):
        if self.memory is not NULL:
            self.pool.deallocate(self.memory, self.size)
            self.memory = NULL

    @property
    def address(self):
        return <size_t>self.memory

    def __dealloc__(self):
        if self.memory is not NULL and self.pool is not None:
            self.pool.deallocate(self.memory, self.size)
