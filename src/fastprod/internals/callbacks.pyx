"""Callbacks: the one thread on which users' code is called back.

The sender thread never takes the GIL. Work that needs it (on_delivery, done callbacks, waking asyncio loops, log lines)
goes through a queue to this thread. So a slow callback delays other callbacks only, and send() once the callbacks in
the queue take all of buffer.memory. Under gevent and eventlet the thread is a greenlet.
"""

from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.future cimport FutureRecordMetadata
from fastprod.internals.produce_request_result cimport (
    AWAITED, CALLBACK_COST, ON_ACKNOWLEDGEMENT, ON_DELIVERY, Callback, process_generation, notify_completed,
)
from fastprod.internals.sync cimport (
    fp_atomic_load, fp_atomic_store, fp_cond_destroy, fp_cond_init, fp_cond_signal, fp_cond_wait_until, fp_monotonic_ns,
    fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod.internals.threads cimport can_wait, pause_greenlet, thread_ident

import _thread

from fastprod.internals.threads import current
from fastprod.errors import ForkedProducerError
from fastprod.internals.logs import LogLimit

cdef int64_t IDLE_NS = 1_000_000_000
cdef int64_t TURN_NS = 10_000_000              # how long a greenlet runs callbacks before it lets others run
cdef int64_t FIRST_PAUSE_NS = 500_000          # of a greenlet that has nothing to do; each is twice the one before
cdef int64_t LONGEST_PAUSE_NS = 20_000_000
cdef enum:
    LOG_LIMIT = 1000   # lines waiting to be logged; more are counted and dropped
    RELEASE_STEP = 16  # callbacks that run before their memory is released


cdef void unraisable(object error, object where) noexcept:
    """Shows an exception that has no caller to go to, through sys.unraisablehook."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(where)


def _raise(error):
    raise error


cdef void pass_on(object error) except *:
    """Raises Ctrl-C in the main greenlet, as gevent and eventlet do if a greenlet ends by it."""
    _thread.start_new_thread(_raise, (error,))


cdef int let_others_run(int64_t pause_ns) except -1:
    try:
        pause_greenlet(pause_ns)
    except (KeyboardInterrupt, SystemExit) as raised:
        pass_on(raised)
    return 0


def _settle_awaited(list futures):
    for future in futures:
        if not future.done():
            future.set_result(None)


cdef class Callbacks:
    """The queue of results with callbacks, and the loop that runs them.

    Owns the callbacks of a queued result. Their references to its futures keep the result alive. Their part of
    buffer.memory is released as they run. Callbacks of a partition run in the order in which its batches completed.
    The lock is a leaf. The GIL is never taken under it.
    """

    def __cinit__(self, BufferPool pool, bint green=False):
        """green: run() is to be a greenlet of the current thread."""
        self.pool = pool
        self.green_thread = thread_ident() if green else 0
        fp_mutex_init(&self.lock)
        fp_cond_init(&self.something)
        self.log_limit = LogLimit()
        self.fork_generation = process_generation

    def __dealloc__(self):
        cdef LogLine *line
        while self.log_first is not NULL:
            line = self.log_first
            self.log_first = line.next
            free(line)
        fp_cond_destroy(&self.something)
        fp_mutex_destroy(&self.lock)

    cdef void add(self, ProduceRequestResult *result) noexcept nogil:
        """Queues a completed result that has callbacks. thread: any  lock: none, or sender_lock"""
        fp_mutex_lock(&self.lock)
        result.next = NULL
        if self.last is NULL:
            self.first = result
        else:
            self.last.next = result
        self.last = result
        self.queued += 1
        self.callbacks_queued += result.callback_count
        fp_mutex_unlock(&self.lock)
        fp_cond_signal(&self.something)   # outside the lock: the thread takes it first thing

    cdef void log(self, int level, const char *facility, const char *text) noexcept nogil:
        """Queues a line for the logger. thread: any  lock: any but another leaf"""
        cdef LogLine *line = NULL
        fp_mutex_lock(&self.lock)
        if self.log_count < LOG_LIMIT:
            line = <LogLine *>malloc(sizeof(LogLine))
        if line is NULL:
            self.log_dropped += 1
        else:
            line.level = level
            line.next = NULL
            snprintf(line.text, sizeof(line.text), b"%s: %s", facility, text)
            if self.log_last is NULL:
                self.log_first = line
            else:
                self.log_last.next = line
            self.log_last = line
            self.log_count += 1
        fp_cond_signal(&self.something)
        fp_mutex_unlock(&self.lock)

    def run(self, on_idle):
        """The thread's loop; returns after close() once the queue is empty.

        on_idle: called once a second while there is nothing to do. This thread waits by a clock that is never set.
        """
        cdef TakenWork work
        cdef int64_t count
        self.thread_id = self.pool.callback_thread = current()
        while True:
            if self.green_thread:
                self.await_as_greenlet()
            with nogil:
                self.take(&work, 0 if self.green_thread else fp_monotonic_ns() + IDLE_NS)
            count = self.run_results(work.results)
            self.write_log(work.lines)
            if count:
                with nogil:
                    fp_mutex_lock(&self.lock)
                    self.finished += count
                    fp_mutex_unlock(&self.lock)
                    notify_completed()
            elif not work.closed:
                if work.lines is NULL:
                    on_idle()
            else:
                self.end_log()
                self.thread_id = None   # the system gives the number to another thread
                self.pool.callback_thread = None
                break
        fp_atomic_store(&self.ended, 1)
        notify_completed()

    cdef void take(self, TakenWork *work, int64_t until_ns) noexcept nogil:
        """Waits for work, and takes all of it. lock: none"""
        fp_mutex_lock(&self.lock)
        while not (self.first is not NULL or self.log_first is not NULL or self.closed):
            if fp_cond_wait_until(&self.something, &self.lock, until_ns):
                break
        work.results = self.first
        self.first = self.last = NULL
        work.lines = self.log_first
        self.log_first = self.log_last = NULL
        self.log_count = 0
        work.closed = self.closed
        fp_mutex_unlock(&self.lock)

    cdef int64_t run_results(self, ProduceRequestResult *results) except -1:
        """Runs the callbacks of results that are chained by next; how many results."""
        cdef ProduceRequestResult *next_result
        cdef int64_t count = 0
        cdef int64_t turn_ends_ns = fp_monotonic_ns() + TURN_NS
        while results is not NULL:
            next_result = results.next   # the result may be gone after its last callback
            self.run_result(results)
            if self.fork_generation != process_generation:   # a greenlet forked: the rest is the parent's
                raise ForkedProducerError("the process forked in a callback")
            results = next_result
            count += 1
            if self.green_thread and fp_monotonic_ns() >= turn_ends_ns:
                let_others_run(0)
                turn_ends_ns = fp_monotonic_ns() + TURN_NS
        return count

    cdef int await_as_greenlet(self) except -1:
        """Lets other greenlets run, once at least and until there is something to do or IDLE_NS have passed."""
        cdef int64_t pause_ns = 0
        cdef int64_t idle_until = fp_monotonic_ns() + IDLE_NS
        cdef bint idle = True
        while idle and fp_monotonic_ns() < idle_until:
            let_others_run(pause_ns)
            pause_ns = LONGEST_PAUSE_NS if pause_ns > LONGEST_PAUSE_NS // 2 else pause_ns * 2 or FIRST_PAUSE_NS
            fp_mutex_lock(&self.lock)
            idle = self.first is NULL and self.log_first is NULL and not self.closed
            fp_mutex_unlock(&self.lock)
        return 0

    cdef int refuse_wait(self, str name) except -1:
        """Raises in a callback, which a call that waits for all callbacks would wait for. thread: any, with the GIL"""
        if current() == self.thread_id:
            raise RuntimeError(f"{name}() in a callback would wait for that callback: call it from another thread")
        return 0

    cdef bint can_be_awaited(self) except -1:
        """Whether run() makes progress while the caller waits: as a greenlet it makes none while its hub waits."""
        return not fp_atomic_load(&self.ended) and (self.green_thread != thread_ident() or can_wait())

    cdef int run_result(self, ProduceRequestResult *result) except -1:
        cdef Callback *callbacks = result.callbacks
        cdef int count = result.callback_count
        cdef int reserved = result.callback_capacity
        cdef FutureRecordMetadata future
        cdef object function
        cdef dict awaited = None
        result.callbacks = NULL
        result.callback_count = result.callback_capacity = 0
        for i in range(count):
            function = <object>callbacks[i].function
            future = <FutureRecordMetadata>callbacks[i].future
            Py_DECREF(function)
            Py_DECREF(future)
            try:
                if callbacks[i].kind in (ON_DELIVERY, ON_ACKNOWLEDGEMENT):
                    error = future.error()
                    if error is None:
                        function(future.metadata(), None)
                    else:
                        function(None, error)
                elif callbacks[i].kind == AWAITED:
                    if awaited is None:
                        awaited = {}
                    awaited.setdefault(function.get_loop(), []).append(function)
                else:
                    function(future)
            except BaseException as raised:
                if self.green_thread and isinstance(raised, (KeyboardInterrupt, SystemExit)):
                    pass_on(raised)            # the main thread's Ctrl-C, which came while it was in here
                else:
                    unraisable(raised, function)   # the others still run
            self.callbacks_run += 1
            if i % RELEASE_STEP == RELEASE_STEP - 1:
                self.pool.release_callbacks(RELEASE_STEP * CALLBACK_COST)
                reserved -= RELEASE_STEP
        free(callbacks)
        if awaited is not None:
            for loop, futures in awaited.items():
                try:
                    loop.call_soon_threadsafe(_settle_awaited, futures)
                except RuntimeError:
                    pass   # the loop was closed
                except BaseException as raised:
                    unraisable(raised, loop)
        self.pool.release_callbacks(reserved * <size_t>CALLBACK_COST)
        return 0

    cdef int write_log(self, LogLine *line) except -1:
        cdef LogLine *written
        while line is not NULL:
            try:
                self.log_limit.write(line.level & 7, (<bytes>line.text).decode("utf-8", "replace"))
            except BaseException as raised:
                unraisable(raised, None)
            written = line
            line = line.next
            free(written)
        return 0

    cdef int end_log(self) except -1:
        try:
            self.log_limit.close(self.log_dropped)
        except BaseException as raised:
            unraisable(raised, None)
        return 0

    def close(self):
        """Lets run() return once the queue is empty."""
        fp_mutex_lock(&self.lock)
        self.closed = 1
        fp_cond_signal(&self.something)
        fp_mutex_unlock(&self.lock)

    def waiting(self):
        """Callbacks of settled records that have not run."""
        fp_mutex_lock(&self.lock)
        queued = self.callbacks_queued
        fp_mutex_unlock(&self.lock)
        return queued - self.callbacks_run

    def counts(self):
        """(results queued, results finished), ever."""
        fp_mutex_lock(&self.lock)
        queued, finished = self.queued, self.finished
        fp_mutex_unlock(&self.lock)
        return queued, finished
