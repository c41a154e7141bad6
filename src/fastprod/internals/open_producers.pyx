"""The open producers of this process: they are closed when the interpreter exits, and their memory is summed up."""

from fastprod.internals.produce_request_result cimport process_generation

import atexit
import contextlib
import sys
import weakref


cdef class OpenProducers:
    """The producers that may be open.

    Owns a weak reference to each of them, and the finalizer of multiprocessing. Knows a producer by three methods:
    _close_at_exit(timeout), _is_unclosed() and _memory_in_use(). Invariant: a producer is in it from the start of its
    threads until it is freed; one that is closed has nothing to close and takes no memory.

    thread: any, with the GIL  lock: none
    """
    cdef object references                 # by id(): a WeakSet cannot be listed in one step
    cdef int finalizer_generation          # `process_generation` of the process that has the finalizer; -1: none has

    def __cinit__(self):
        self.references = weakref.WeakValueDictionary()
        self.finalizer_generation = -1

    cdef int add(self, object producer) except -1:
        self.references[id(producer)] = producer
        self.close_with_process()
        return 0

    cdef list producers(self):
        return [producer for producer in [ref() for ref in self.references.valuerefs()] if producer is not None]

    cdef int close_with_process(self) except -1:
        """Registers a finalizer of multiprocessing: its forked children run those, and not atexit's."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and self.finalizer_generation != process_generation:
            util.Finalize(None, close_all, exitpriority=0)
            self.finalizer_generation = process_generation
        return 0


cdef OpenProducers open_producers = OpenProducers()


cdef int register_producer(object producer) except -1:
    return open_producers.add(producer)


cdef int unregister_producer(object producer) except -1:
    """Takes a producer out that is being freed: a weak reference to it would revive it."""
    open_producers.references.pop(id(producer), None)
    return 0


@atexit.register
def close_all():
    """Closes every open producer, even if closing one raises. After an interrupt, it uses a timeout of 0."""
    raised = None
    timeout = EXIT_TIMEOUT_S
    for producer in open_producers.producers():
        try:
            producer._close_at_exit(timeout)
        except BaseException as error:
            raised = error
            if producer._is_unclosed():
                timeout = 0
                with contextlib.suppress(BaseException):
                    producer._close_at_exit(timeout)
    if raised is not None:
        raise raised


def memory_in_use():
    """Returns the bytes of buffer.memory that records and callbacks of all producers of this process take now.

    It includes memory that a pool keeps for its next batches, and failed records that flush() or close() has still to
    raise. It excludes librdkafka's own memory: some 250 bytes for each record that librdkafka has, a copy of the key,
    and 80 bytes for each header. Together with the records that is at most 10 MiB per broker and 24 MiB per producer.
    A producer that was inherited by a fork counts as 0. Thread-safe and cheap: it reads a few numbers of each producer.
    """
    return sum([producer._memory_in_use() for producer in open_producers.producers()])
