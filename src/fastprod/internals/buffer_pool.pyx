"""BufferPool: the memory of buffer.memory, its accounting, and the threads that wait for it.

Source: org.apache.kafka.clients.producer.internals.BufferPool, made stricter.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, realloc
from fastprod.internals.sync cimport (
    fp_cond_destroy, fp_cond_init, fp_cond_signal, fp_cond_wait_until, fp_monotonic_ns,
    fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod.internals.threads cimport next_slice

from fastprod.internals.threads import current
from fastprod.errors import BufferExhaustedError, ForkedProducerError, ProducerClosedError

cdef enum:
    MIN_SHARE = 1 << 16   # bytes: callbacks that wait while one of them sends, where buffer.memory is tiny


cdef class BufferPool:
    """Memory for batches and callbacks, kept under a limit in bytes.

    Owns the buffers of its free list. A buffer that was handed out belongs to its taker until ``deallocate``. Callbacks
    are only counted: their memory is allocated elsewhere. Invariant, under the lock: unallocated + free_count *
    poolable_size + handed out + callbacks = total_memory. After a reservation that was forced, or that is larger than
    all of the memory, unallocated is below zero, and all threads wait until it is not.

    Fair: memory goes to the thread that has waited longest until that one has enough, and a newcomer queues behind
    waiters (Java lets it barge). The thread that gives memory back makes the grant, so nothing can slip in between the
    signal and the wake-up.

    A callback may call send(), and must not wait there for memory that only callbacks behind it give back. So for the
    callback thread, up to total_memory of the callbacks' bytes counts as free, or MIN_SHARE if that is more, and it
    comes before all other waiters: it only ever waits for the sender. Buffers and callbacks together therefore take at
    most about twice total_memory. Beyond that, waiting could not help, and the callback thread is refused at once.

    Thread-safe. The lock is a leaf, except that the accumulator's and the completion lock may be held when
    try_allocate, try_reserve, uncharge or reserve_for_callbacks is called.
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

    cdef void *try_allocate(self, size_t size, size_t callbacks) noexcept nogil:
        """A buffer of size bytes and `callbacks` bytes reserved, or NULL if the thread would have to wait for both."""
        cdef void *buffer = NULL
        cdef int taken = 0
        fp_mutex_lock(&self.lock)
        if self.first is NULL and not self.closed:
            taken = self.take(size, callbacks, 0, &buffer)
        fp_mutex_unlock(&self.lock)
        if taken and buffer is NULL:
            buffer = malloc(size)
            if buffer is NULL:
                self.refund(NULL, size, callbacks)
        return buffer

    cdef int try_reserve(self, size_t size) noexcept nogil:
        """Charges size bytes by which the caller enlarges a buffer; 0 if the thread would have to wait.

        Frees a buffer of the free list, because the enlarged one may end up there without having come from it.
        Otherwise the list would grow, up to all of the memory, though few buffers are in use at a time.
        """
        cdef void *spare = NULL
        cdef int reserved = 0
        fp_mutex_lock(&self.lock)
        if self.first is NULL and not self.closed:
            if self.free_count > 0:
                self.free_count -= 1
                spare = self.free_buffers[self.free_count]
                self.unallocated += self.poolable_size
            reserved = self.free_memory() >= <int64_t>size
            if reserved:
                self.charge(size)
        fp_mutex_unlock(&self.lock)
        free(spare)
        return reserved

    cdef int reserve_for_callbacks(self, size_t size, int forced) noexcept nogil:
        """Counts size bytes for callbacks until release_callbacks(); 0 if the thread would have to wait.

        forced: never 0, for a callback of a record that was sent before. Nothing can wait for its memory any more, so
        the next send() waits instead.
        """
        cdef int reserved
        fp_mutex_lock(&self.lock)
        reserved = forced or self.first is NULL and not self.closed and self.free_memory() >= <int64_t>size
        if reserved:
            self.callbacks += size
            self.charge(size)
        fp_mutex_unlock(&self.lock)
        return reserved

    cdef void release_callbacks(self, size_t size) noexcept nogil:
        """The callbacks for which size bytes were reserved have run, or never will."""
        fp_mutex_lock(&self.lock)
        self.callbacks -= size
        self.unallocated += size
        self.grant()
        fp_mutex_unlock(&self.lock)

    cdef void *allocate(self, size_t size, size_t callbacks, int64_t deadline_ns) except NULL:
        """A buffer of size bytes and `callbacks` bytes reserved; waits for both until deadline_ns (monotonic).

        Called with the GIL, which is released while waiting; signals are served. Raises BufferExhaustedError once the
        deadline has passed, ProducerClosedError if the pool is closed meanwhile. A thread that leaves by an exception
        holds nothing.
        """
        cdef void *buffer = self.try_allocate(size, callbacks)
        if buffer is not NULL:
            return buffer
        if size > self.total_memory:
            raise BufferExhaustedError(
                f"{size} bytes asked of a buffer of {self.total_memory}: raise buffer.memory")
        if not self.wait_in_line(size, callbacks, deadline_ns, &buffer):
            self.raise_exhausted(size + callbacks)
        if buffer is NULL:
            buffer = malloc(size)
            if buffer is NULL:
                self.refund(NULL, size, callbacks)
                raise MemoryError(f"the machine has no {size} bytes for a batch")
        return buffer

    cdef int wait_in_line(self, size_t size, size_t callbacks, int64_t deadline_ns, void **buffer) except -1:
        """Whether memory was granted, which is then the caller's; *buffer: from the free list, or NULL."""
        cdef Waiter *waiter = <Waiter *>malloc(sizeof(Waiter))
        cdef int64_t until, pause_ns = 0
        cdef int over, granted
        if waiter is NULL:
            raise MemoryError()
        waiter.size = size
        waiter.callbacks = callbacks
        waiter.first = self.callback_thread is not None and self.callback_thread == current()
        if waiter.first and self.callback_memory > self.share() + self.total_memory - self.needed(size, callbacks):
            deadline_ns = 0    # only this thread could end that wait
        with nogil:
            self.begin_wait(waiter)
        try:
            while True:
                until = next_slice(deadline_ns, &pause_ns)
                with nogil:
                    over = self.wait(waiter, until)
                if over or fp_monotonic_ns() >= deadline_ns:
                    break
        except ForkedProducerError:        # the parent's threads may have held the lock
            raise
        except BaseException:
            with nogil:
                granted = self.end_wait(waiter)
                if granted:
                    self.refund(waiter.buffer, size, callbacks)
                free(waiter)
            raise
        with nogil:
            granted = self.end_wait(waiter)
            buffer[0] = waiter.buffer
            free(waiter)
        return granted

    cdef int raise_exhausted(self, size_t size) except -1:
        """Says why no memory was granted."""
        if self.closed:
            raise ProducerClosedError("the producer was closed while send() waited for buffer.memory")
        self.exhausted_total += 1
        reserved = self.callback_memory
        raise BufferExhaustedError(
            f"no {size} bytes of buffer.memory became free within max.block.ms: "
            f"{self.available_memory} of {self.total_memory} bytes are free, {self.queued} threads wait. " + (
                f"Callbacks that have not run take {reserved}: they are slower than send(), or wait for something "
                "that a thread holds while it sends; do less in them, send less, or raise max.block.ms"
                if reserved > self.total_memory // 2 else
                "The brokers take records more slowly than they are sent; "
                "send less, raise max.block.ms or buffer.memory, or look at the brokers"), retriable=True)

    cdef void deallocate(self, void *buffer, size_t size) noexcept nogil:
        """Takes back a buffer, with the size that it was handed out with."""
        fp_mutex_lock(&self.lock)
        if size == self.poolable_size and not self.closed and self.unallocated >= 0 and self.keep(buffer):
            buffer = NULL
        else:
            self.unallocated += size
        self.grant()
        fp_mutex_unlock(&self.lock)
        free(buffer)

    cdef void uncharge(self, size_t size) noexcept nogil:
        """Gives back size bytes whose memory the caller has freed, or keeps outside the pool."""
        fp_mutex_lock(&self.lock)
        self.unallocated += size
        self.grant()
        fp_mutex_unlock(&self.lock)

    cdef void refund(self, void *buffer, size_t size, size_t callbacks) noexcept nogil:
        if callbacks:
            self.release_callbacks(callbacks)
        if buffer is NULL:
            self.uncharge(size)
        else:
            self.deallocate(buffer, size)

    cdef void begin_wait(self, Waiter *waiter) noexcept nogil:
        """Joins the queue. The caller has set size, callbacks and first."""
        fp_cond_init(&waiter.granted_or_closed)
        waiter.granted = 0
        waiter.buffer = NULL
        waiter.next = NULL
        waiter.since_ns = fp_monotonic_ns()
        fp_mutex_lock(&self.lock)
        if self.last is NULL:
            self.first = self.last = waiter
        elif waiter.first:
            waiter.next = self.first
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

    cdef int64_t free_memory(self) noexcept nogil:
        return self.unallocated + self.free_count * <int64_t>self.poolable_size

    cdef int64_t needed(self, size_t size, size_t callbacks) noexcept nogil:
        """How much must be free for both: at most all memory, or a record that fills it could have no callback."""
        return max(size, min(size + callbacks, self.total_memory))

    cdef size_t share(self) noexcept nogil:
        """How many of the callbacks' bytes count as free for the callback thread."""
        return max(self.total_memory, <size_t>MIN_SHARE)

    cdef int take(self, size_t size, size_t callbacks, int first, void **buffer) noexcept nogil:
        """Charges both, if enough is free. *buffer: from the free list, or NULL, then the caller allocates it."""
        cdef int64_t available = self.free_memory()
        buffer[0] = NULL
        if first:
            available += min(self.callbacks, <int64_t>self.share())
        if available < self.needed(size, callbacks):
            return 0
        if size == self.poolable_size and self.free_count > 0:
            self.free_count -= 1
            buffer[0] = self.free_buffers[self.free_count]
            size = 0
        self.callbacks += callbacks
        self.charge(size + callbacks)
        return 1

    cdef void charge(self, size_t size) noexcept nogil:
        """Takes size bytes off the unallocated ones. If these run short, frees buffers of the free list."""
        self.unallocated -= size
        while self.unallocated < 0 and self.free_count > 0:
            self.free_count -= 1
            free(self.free_buffers[self.free_count])
            self.unallocated += self.poolable_size

    cdef void grant(self) noexcept nogil:
        """Serves waiters in order, until one must go on waiting."""
        cdef Waiter *waiter = self.first
        while waiter is not NULL and not self.closed and self.take(
                waiter.size, waiter.callbacks, waiter.first, &waiter.buffer):
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

    # thread: any, with the GIL

    def close(self):
        """Wakes every waiter with ProducerClosedError, and frees the free list. Memory can still be given back."""
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
        available = max(self.free_memory(), <int64_t>0)
        fp_mutex_unlock(&self.lock)
        return available

    @property
    def callback_memory(self):
        """Bytes that are reserved for callbacks."""
        fp_mutex_lock(&self.lock)
        callbacks = self.callbacks
        fp_mutex_unlock(&self.lock)
        return callbacks

    @property
    def unallocated_memory(self):
        """Bytes that are neither handed out, nor in the free list, nor reserved; below 0 after forced reservations."""
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
