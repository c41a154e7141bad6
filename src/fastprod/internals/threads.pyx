"""Threads, locks and waits that keep their promises under gevent and eventlet.

Both replace `threading` and `_thread`: a Thread is a greenlet then, a Lock wakes
greenlets, and get_ident() names them. A greenlet runs only while the others of
its thread let it, so:

* What blocks in C (metadata) has a thread of the system's, which C starts.
* What runs users' code (callbacks, token providers, log handlers) is a greenlet
  where it can be one. That code uses their locks and events, which other threads
  of the system's must not touch (eventlet's) or touch at a price (gevent's).
* Waits let the other greenlets of the thread run (next_slice).

A greenlet that is not running has its piece of the C stack copied away, and others use the place. So a function that
waits must not give another thread the address of anything on its stack.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, int64_t
from posix.unistd cimport getpid
from fastprod.internals.sync cimport (
    fp_atomic_load, fp_atomic_store, fp_cond_broadcast, fp_cond_destroy, fp_cond_init, fp_cond_wait_until,
    fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock, fp_on_main_thread, fp_slice_end,
    fp_thread_detach, fp_thread_join, fp_thread_start,
)

import _thread
import sys
import threading
from types import BuiltinFunctionType

from fastprod.errors import ForkedProducerError

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept

cdef int64_t FIRST_PAUSE_NS = 500_000      # of a wait among greenlets; each is half as long again as the one before
cdef int64_t LONGEST_PAUSE_NS = 20_000_000
cdef int64_t START_TIMEOUT_NS = 30_000_000_000
cdef set own_threads = set()               # the system's idents of the threads that Thread has started in C


# The current thread or greenlet, and how to let others run. thread: any, with the GIL

cdef unsigned long thread_ident() noexcept:
    """The system's thread, which threading.get_ident() may not return."""
    return PyThread_get_thread_ident()


def current():
    """Identifies the current thread and greenlet, for comparisons; the greenlet 0 is the thread's own stack."""
    greenlet = sys.modules.get("greenlet")
    getcurrent = getattr(greenlet, "getcurrent", None)
    if getcurrent is None:
        return thread_ident(), 0
    running = getcurrent()
    return thread_ident(), 0 if running.parent is None else id(running)


cdef object green_sleep():
    """sleep(seconds) of gevent or eventlet; None if `threading` is neither's, or in the hub, where nothing may wait."""
    modules = sys.modules
    if thread_ident() in own_threads:      # no greenlets there, and a hub would be made
        return None
    if "gevent.monkey" in modules and modules["gevent.monkey"].is_module_patched("threading"):
        import gevent
        return None if gevent.getcurrent() is gevent.get_hub() else gevent.sleep
    if "eventlet.patcher" in modules and modules["eventlet.patcher"].is_monkey_patched("thread"):
        import eventlet.hubs
        return None if eventlet.getcurrent() is eventlet.hubs.get_hub().greenlet else eventlet.sleep
    return None


cdef object sleep_green(object sleep, int64_t pause_ns):
    """Lets other greenlets run. ForkedProducerError in a child that was forked meanwhile."""
    cdef int pid = getpid()
    sleep(pause_ns / 1e9)
    if getpid() != pid:
        raise ForkedProducerError("the process forked while this greenlet waited for a producer of the parent's")


cdef bint can_wait() except -1:
    """Whether other greenlets of this thread could run while this one waits."""
    return green_sleep() is not None


cdef bint pause_greenlet(int64_t pause_ns) except -1:
    """Lets the other greenlets of this thread run; False if this is no greenlet that can."""
    sleep = green_sleep()
    if sleep is None:
        return False
    sleep_green(sleep, pause_ns)
    return True


cdef int64_t next_slice(int64_t deadline_ns, int64_t *pause_ns) except -1:
    """Serves signals, and returns until when to wait natively. To be called before each slice of a long wait.

    A native wait would stop all greenlets of the thread. So where there are any, they run here, for pauses that grow
    with the length of the wait, and the slice has no length. pause_ns: 0 before the first slice.
    """
    PyErr_CheckSignals()
    if "gevent.monkey" not in sys.modules and "eventlet.patcher" not in sys.modules:
        return fp_slice_end(deadline_ns)
    sleep = green_sleep()
    if sleep is None:
        return fp_slice_end(deadline_ns)
    if pause_ns[0] == 0:
        pause_ns[0] = FIRST_PAUSE_NS       # the first look comes before the first pause
        return 0
    sleep_green(sleep, max(0, min(pause_ns[0], deadline_ns - fp_monotonic_ns())))
    pause_ns[0] = min(pause_ns[0] + pause_ns[0] // 2, LONGEST_PAUSE_NS)
    return 0


# Threads

def greenlets_run():
    """Whether a greenlet of this thread runs users' code.

    Only the main thread has one: another thread may end, and its greenlets with it.
    """
    return bool(fp_on_main_thread()) and green_sleep() is not None


cdef bint threads_are_real():
    """Whether threading.Thread makes a thread of the system's, as far as gevent and eventlet go."""
    if "gevent" not in sys.modules and "eventlet" not in sys.modules:
        return True
    start = getattr(threading, "_start_joinable_thread", None) or getattr(threading, "_start_new_thread", None)
    return isinstance(start, BuiltinFunctionType)


def make_thread(target, name, args=(), green=False, daemon=True):
    """A thread, not started: threading's where that is the system's, else one of ours.

    green: it runs users' code, and greenlets_run(). daemon: the interpreter's end does not wait for it, as for ours it
    never does.
    """
    if threads_are_real():                 # debuggers, tracers and log records know that one
        return threading.Thread(target=target, args=args, name=name, daemon=daemon)
    return Thread(target, name, args, green)


cdef void *thread_main(void *argument) noexcept nogil:
    with gil:
        thread = <object>argument
        Py_DECREF(thread)                  # the reference that start() took
        own_threads.add(thread_ident())
        (<Thread>thread)._bootstrap()
        thread = None
        own_threads.discard(thread_ident())
    return NULL


cdef class Thread:
    """A thread of the system's that runs Python code whatever `threading` is, or a greenlet.

    Nothing in here runs Python code between a lock's taking and its release, so no signal handler raises there.
    """

    def __cinit__(self, target, str name, tuple args=(), bint green=False):
        fp_mutex_init(&self.mutex)
        fp_cond_init(&self.changed)
        self.target = target
        self.arguments = args
        self.name = name.encode()[:15]     # as much as the system takes
        self.green = green

    def __dealloc__(self):
        if self.unjoined and self.pid == getpid():
            fp_thread_detach(self.thread)
        fp_cond_destroy(&self.changed)
        fp_mutex_destroy(&self.mutex)

    def start(self):
        if self.green:
            self.started = True
            _thread.start_new_thread(self._bootstrap, ())
            return
        self.pid = getpid()
        Py_INCREF(self)
        if fp_thread_start(&self.thread, thread_main, <void *>self, self.name):
            Py_DECREF(self)
            raise RuntimeError("can't start new thread")
        self.started = self.unjoined = True

    def _bootstrap(self):
        try:
            self.run()
        except ForkedProducerError:
            pass                           # a greenlet that came along with a fork: its producer is the parent's
        finally:
            self.target = self.arguments = None
            fp_mutex_lock(&self.mutex)
            fp_atomic_store(&self.ended, 1)
            fp_cond_broadcast(&self.changed)
            fp_mutex_unlock(&self.mutex)

    cdef int run(self) except -1:
        self.target(*self.arguments)
        return 0

    def is_alive(self):
        return self.started and not fp_atomic_load(&self.ended)

    def join(self, timeout=None):
        """Waits for its end; timeout: seconds."""
        if self.started:
            self.wait(INT64_MAX if timeout is None else fp_monotonic_ns() + int(timeout * 1e9))

    cdef bint wait(self, int64_t deadline) except -1:
        """Whether it has ended by the deadline."""
        cdef int64_t until, pause_ns = 0
        while not fp_atomic_load(&self.ended):
            until = next_slice(deadline, &pause_ns)
            with nogil:
                fp_mutex_lock(&self.mutex)
                if not fp_atomic_load(&self.ended):
                    fp_cond_wait_until(&self.changed, &self.mutex, until)
                fp_mutex_unlock(&self.mutex)
            if not fp_atomic_load(&self.ended) and fp_monotonic_ns() >= deadline:
                return False
        if self.unjoined:
            self.unjoined = False
            with nogil:
                fp_thread_join(self.thread)
        return True


cdef class Starter:
    """Starts threading's threads on a thread of its own, where no signal handler raises.

    Thread.start() waits in Python code for its thread. An exception in there can leave a lock taken that the new thread
    needs, or taken twice.
    """
    cdef list threads
    cdef object error

    def __init__(self, list threads):
        self.threads = threads

    def __call__(self):
        try:
            for thread in self.threads:
                thread.start()
        except BaseException as error:
            self.error = error


def start_threads(list threads):
    """Starts all; Ctrl-C comes out of it, and then they start all the same."""
    cdef Starter starter
    cdef Thread helper
    if not threads_are_real():
        for thread in threads:
            thread.start()
        return
    starter = Starter(threads)
    helper = Thread(starter, "fastprod-start")
    helper.start()
    if not helper.wait(fp_monotonic_ns() + START_TIMEOUT_NS):
        raise RuntimeError(
            f"the threads of the producer did not start within {START_TIMEOUT_NS // 1_000_000_000} s: something "
            "replaces threading in this process; gevent and eventlet are known, and must patch before that")
    if starter.error is not None:
        raise starter.error


cdef class Lock:
    """A lock for threads of the system's and for greenlets, which waits in slices.

    It knows its holder, because a signal handler that interrupts the holder would wait for ever. `with` lets the holder
    enter again, acquire() does not.
    """

    def __cinit__(self):
        fp_mutex_init(&self.mutex)
        fp_cond_init(&self.released)
        self.free = 1

    def __dealloc__(self):
        fp_cond_destroy(&self.released)
        fp_mutex_destroy(&self.mutex)

    cdef bint acquire(self, int64_t deadline) except -1:
        """Whether it was free by the deadline. If this raises, the lock was not taken."""
        cdef int64_t until, pause_ns = 0
        me = current()
        while self.holder is not None:
            if fp_monotonic_ns() >= deadline:
                return False
            until = next_slice(deadline, &pause_ns)
            with nogil:
                fp_mutex_lock(&self.mutex)
                if not fp_atomic_load(&self.free):
                    fp_cond_wait_until(&self.released, &self.mutex, until)
                fp_mutex_unlock(&self.mutex)
        self.holder = me
        fp_atomic_store(&self.free, 0)
        return True

    cdef int release(self) except -1:
        self.holder = None
        fp_mutex_lock(&self.mutex)
        fp_atomic_store(&self.free, 1)
        fp_cond_broadcast(&self.released)
        fp_mutex_unlock(&self.mutex)
        return 0

    cdef bint waits_for_itself(self) except -1:
        """Whether acquire() would wait for its own thread, or for a greenlet that cannot run meanwhile."""
        holder = self.holder
        if holder is None:
            return False
        me = current()
        return holder == me or (holder[0] == me[0] and green_sleep() is None)

    def __enter__(self):
        if self.holder is not None and self.holder == current():
            self.depth += 1
        else:
            self.acquire(INT64_MAX)

    def __exit__(self, *exception):
        if self.depth:
            self.depth -= 1
        else:
            self.release()
