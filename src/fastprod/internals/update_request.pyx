"""UpdateRequest: what the metadata thread is to ask the brokers for.

Source: org.apache.kafka.clients.Metadata.requestUpdate().
"""

from libc.stdint cimport int64_t
from fastprod.internals.sync cimport (
    fp_cond_destroy, fp_cond_init, fp_cond_signal, fp_cond_wait_until, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock,
    fp_mutex_unlock,
)


cdef class UpdateRequest:
    """Wakes the metadata thread. Requests that come before it looks are one.

    Thread-safe. The mutex is a leaf. The condition is C's and not threading's: that one is Python code, in which a
    signal handler can raise between taking the lock and knowing of it.
    """

    def __cinit__(self):
        fp_mutex_init(&self.mutex)
        fp_cond_init(&self.asked)

    def __dealloc__(self):
        fp_cond_destroy(&self.asked)
        fp_mutex_destroy(&self.mutex)

    cdef void request(self, int what) noexcept nogil:
        """Asks once more, without waiting. what: AWAITED, EVERYTHING. thread: any  lock: any"""
        fp_mutex_lock(&self.mutex)
        self.requested = max(self.requested, what)
        fp_cond_signal(&self.asked)
        fp_mutex_unlock(&self.mutex)

    cdef int wait_requested(self, int64_t deadline) noexcept:
        """Waits for a request or close(), until the deadline. Returns 0, AWAITED or EVERYTHING. thread: metadata"""
        cdef int requested
        with nogil:
            fp_mutex_lock(&self.mutex)
            while not self.requested and not self.closed:
                if fp_cond_wait_until(&self.asked, &self.mutex, deadline):
                    break
            requested = self.requested
            self.requested = 0
            fp_mutex_unlock(&self.mutex)
        return requested

    cdef void wait_closed(self, int64_t deadline) noexcept:
        """Waits for close(), until the deadline. thread: metadata"""
        with nogil:
            fp_mutex_lock(&self.mutex)
            while not self.closed:
                if fp_cond_wait_until(&self.asked, &self.mutex, deadline):
                    break
            fp_mutex_unlock(&self.mutex)

    cdef void close(self) noexcept nogil:
        fp_mutex_lock(&self.mutex)
        self.closed = 1
        fp_cond_signal(&self.asked)
        fp_mutex_unlock(&self.mutex)
