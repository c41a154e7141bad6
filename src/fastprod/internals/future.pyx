"""ProduceRequestResult, one per batch, and FutureRecordMetadata, one per record.

Source: org.apache.kafka.clients.producer.internals.ProduceRequestResult and
FutureRecordMetadata: a future is a pointer to the batch's result and an index.
"""

cimport cython
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, int8_t, int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.sync cimport (
    fp_atomic_add, fp_atomic_load, fp_atomic_store, fp_cond, fp_cond_broadcast, fp_cond_init, fp_cond_wait_until,
    fp_monotonic_ns, fp_mutex, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod.internals.threads cimport next_slice

import re
from functools import partial
from types import CodeType

from fastprod.errors import ForkedProducerError, for_delivery
from fastprod.librdkafka.loader import describe
from fastprod.records import RecordMetadata

cdef extern from *:
    """
    #define FASTPROD_CO_COROUTINE 0x0080
    """
    enum:
        FASTPROD_CO_COROUTINE

cdef extern from "Python.h":
    bint PyFunction_Check(object)
    PyObject *PyFunction_GetCode(object)
    bint PyMethod_Check(object)
    PyObject *PyMethod_GET_FUNCTION(object)

cdef extern from "pthread.h":
    int pthread_atfork(void (*)() noexcept nogil, void (*)() noexcept nogil, void (*)() noexcept nogil) noexcept

cdef tuple PERSISTED_WORDS = ("no", "possibly", "yes")
cdef enum:
    CRIT_SYS_RESOURCE = -194   # librdkafka's, for want of memory
    MAX_CHECKED = 256

# Names of a parameter that takes an error: err, error_or_none, kafkaError, _exc; but not message_or_error.
names_error = re.compile(
    r"(?!.*(?:meta|msg|message|record|result|outcome|success))(?:.*_)?(?:kafka)?"
    r"(?:e|err|error|ex|exc|exception|failure)(?:_or_none)?_*", re.IGNORECASE).fullmatch
cdef dict checked_codes = {}   # id of a function's code -> (the code, how many arguments are bound); callbacks' so far

# One lock and one condition for every result of the process. A condition per
# batch would cost more than the batches of an idle producer are worth, and
# whoever waits for a result would have to keep its producer alive.
# Nothing but a buffer pool's lock is taken while it is held.
cdef fp_mutex completion_lock
cdef fp_cond completed
cdef int waiters = 0
# Results do not each have memory of malloc's own. One lasts as long as a future
# of its batch, while librdkafka allocates and frees a message for each record:
# among those it would be an island, and after some thousand batches the free
# memory between the islands lies in pieces. Messages that follow each other are
# then far apart, and every look at the next one is a cache miss.
cdef ResultSlab *slabs = NULL      # that have a free place
fp_mutex_init(&completion_lock)
fp_cond_init(&completed)


cdef void after_fork_in_child() noexcept nogil:
    # C calls it, since not every fork is Python's: uWSGI's is not.
    #
    # The parent's threads may have held the lock or waited for the condition;
    # they are not here to let go of either. Nor to finish with the slabs, which
    # stay as they are: results of the parent are not given back.
    global waiters, process_generation, slabs
    fp_mutex_init(&completion_lock)
    fp_cond_init(&completed)
    waiters = 0
    slabs = NULL
    process_generation += 1


if pthread_atfork(NULL, NULL, after_fork_in_child):
    raise MemoryError("no memory for what a fork needs")


cdef void slab_join(ResultSlab *slab) noexcept nogil:
    global slabs
    slab.previous = NULL
    slab.next = slabs
    if slabs is not NULL:
        slabs.previous = slab
    slabs = slab


cdef void slab_leave(ResultSlab *slab) noexcept nogil:
    global slabs
    if slab.previous is NULL:
        slabs = slab.next
    else:
        slab.previous.next = slab.next
    if slab.next is not NULL:
        slab.next.previous = slab.previous


cdef ResultSlab *slab_new() noexcept nogil:
    """An empty one, in the list; NULL if there is no memory. lock: completion"""
    cdef ResultSlab *slab = <ResultSlab *>malloc(sizeof(ResultSlab))
    cdef int32_t i
    if slab is not NULL:
        slab.taken = 0
        slab.free = NULL
        for i in range(FASTPROD_SLAB):
            slab.places[i].next = slab.free
            slab.free = &slab.places[i]
        slab_join(slab)
    return slab


cdef ProduceRequestResult *slab_take() noexcept nogil:
    """Room for a result, cleared; NULL if there is no memory. lock: any but a leaf"""
    cdef ResultSlab *slab
    cdef ProduceRequestResult *result = NULL
    fp_mutex_lock(&completion_lock)
    slab = slabs if slabs is not NULL else slab_new()
    if slab is not NULL:
        result = slab.free
        slab.free = result.next
        slab.taken += 1
        if slab.free is NULL:
            slab_leave(slab)
    fp_mutex_unlock(&completion_lock)
    if result is not NULL:
        memset(result, 0, sizeof(ProduceRequestResult))
        result.slab = slab
    return result


cdef void slab_give_back(ProduceRequestResult *result) noexcept nogil:
    """Takes the room back, and frees a slab that nothing is left in. lock: any but a leaf"""
    cdef ResultSlab *slab = result.slab
    cdef ResultSlab *empty = NULL
    fp_mutex_lock(&completion_lock)
    if result.fork_generation == process_generation:
        if slab.free is NULL:
            slab_join(slab)
        result.next = slab.free
        slab.free = result
        slab.taken -= 1
        if slab.taken == 0:
            slab_leave(slab)
            empty = slab
    fp_mutex_unlock(&completion_lock)
    free(empty)


cdef ProduceRequestResult *result_new(int32_t partition) noexcept nogil:
    cdef ProduceRequestResult *result = slab_take()
    if result is not NULL:
        result.partition = partition
        result.segments = &result.inline_segment
        result.segment_capacity = 1
        result.fork_generation = process_generation
    return result


cdef void result_unref(ProduceRequestResult *result, int32_t amount) noexcept nogil:
    # Each future is counted when it dies and not when it is made: `futures` is
    # kept under the lock that appending holds anyway, so a record costs one
    # atomic operation. The balance is below zero until the batch lets go, so
    # only the last one out can bring it to zero.
    if fp_atomic_add(&result.balance, amount) == 0:
        if result.segments is not &result.inline_segment:
            free(result.segments)
        free(result.observed)
        free(result.callbacks)
        slab_give_back(result)


cdef void result_let_go(ProduceRequestResult *result) noexcept nogil:
    """The batch is done with it. thread: any  lock: none"""
    result_unref(result, result.futures)


cdef void result_record(ProduceRequestResult *result, int32_t index, int32_t count, int32_t code, int64_t offset,
                        int64_t timestamp, int8_t persisted) noexcept nogil:
    """Notes the outcome of consecutive records. thread: any  lock: sender_lock

    Records come in order but for rare cases, which cost a segment each. If there is no memory for one, all
    records of the batch fail as possibly persisted: a failure must not pass for the success of a neighbour.
    """
    cdef Segment *last
    cdef Segment *grown
    cdef size_t capacity
    if result.segment_count > 0:
        if result.unknown:
            return
        last = &result.segments[result.segment_count - 1]
        if (last.code == code and last.persisted == persisted and last.timestamp == timestamp and
                index == result.recorded_end and
                offset == (last.base_offset + index - last.first if last.base_offset >= 0 else -1)):
            result.recorded_end = index + count
            return
    if result.segment_count == result.segment_capacity:
        capacity = 4 * <size_t>max(result.segment_capacity, 1)
        if result.segments is &result.inline_segment:
            grown = <Segment *>malloc(capacity * sizeof(Segment))
            if grown is not NULL:
                grown[0] = result.inline_segment
        else:
            grown = <Segment *>realloc(result.segments, capacity * sizeof(Segment))
        if grown is NULL:
            result.unknown = 1
            result.segment_count = 0   # there is room for one segment in any case
            index, code, offset, timestamp, persisted = 0, CRIT_SYS_RESOURCE, -1, -1, POSSIBLY_PERSISTED
        else:
            result.segments = grown
            result.segment_capacity = <int32_t>capacity
    last = &result.segments[result.segment_count]
    last.first = index
    last.code = code
    last.base_offset = offset
    last.timestamp = timestamp
    last.persisted = persisted
    result.segment_count += 1
    result.recorded_end = index + count


cdef Segment *result_segment(ProduceRequestResult *result, int32_t index) noexcept nogil:
    """The segment that covers a record: the one that starts nearest before it."""
    cdef Segment *best = NULL
    cdef int32_t i
    for i in range(result.segment_count):
        if result.segments[i].first <= index and (best is NULL or result.segments[i].first >= best.first):
            best = &result.segments[i]
    return best


cdef object segment_error(Segment *segment, str topic, int32_t partition):
    """What the records of the segment failed with, or None. A new exception for each reader: a shared one would
    gather everyone's traceback."""
    if segment.code == 0:
        return None
    return for_delivery(segment.code, describe(segment.code), persisted_word(segment.persisted), topic, partition)


cdef str persisted_word(int8_t persisted):
    return PERSISTED_WORDS[persisted]


cdef int result_was_told(ProduceRequestResult *result, int32_t index) noexcept nogil:
    return index // 8 < result.observed_bytes and result.observed[index // 8] >> (index % 8) & 1


cdef int set_told(ProduceRequestResult *result, int32_t index) noexcept nogil:
    """Sets the record's bit; whether it was clear. lock: completion"""
    cdef int32_t size = index // 8 + 1
    cdef unsigned char *grown
    if result_was_told(result, index):
        return 0
    if size > result.observed_bytes:
        size = max(size, 2 * result.observed_bytes)
        grown = <unsigned char *>realloc(result.observed, size)
        if grown is NULL:
            return 0   # the failure is then reported once more than needed
        memset(grown + result.observed_bytes, 0, size - result.observed_bytes)
        result.observed = grown
        result.observed_bytes = size
    result.observed[index // 8] |= 1 << (index % 8)
    return 1


cdef void result_tell(ProduceRequestResult *result, int32_t index) noexcept nogil:
    """Somebody is told what became of a record, or will be. thread: any  lock: none"""
    cdef Segment *segment
    fp_mutex_lock(&completion_lock)
    if set_told(result, index) and result.done:
        segment = result_segment(result, index)
        if segment is not NULL and segment.code and result.unobserved > 0:
            result.unobserved -= 1
    fp_mutex_unlock(&completion_lock)


cdef void result_tell_all(ProduceRequestResult *result) noexcept nogil:
    """flush() or close() has told of every failure in it."""
    fp_mutex_lock(&completion_lock)
    result.unobserved = 0
    fp_mutex_unlock(&completion_lock)


cdef AddedCallback result_callback_room(ProduceRequestResult *result, Reservation reservation) noexcept nogil:
    """Makes room for one more callback, and reserves buffer.memory with it. lock: completion"""
    cdef int32_t more = FIRST_CALLBACKS
    cdef Callback *grown
    if reservation != GIVEN:
        if result.callback_count < result.callback_capacity:
            return CALLBACK_ADDED
        more += result.callback_capacity // 4
        if result.pool is not NULL and not (<BufferPool>result.pool).reserve_for_callbacks(
                more * CALLBACK_COST, reservation == FORCED):
            return NOTHING_RESERVED
    grown = <Callback *>realloc(result.callbacks, (result.callback_capacity + more) * sizeof(Callback))
    if grown is NULL:
        if reservation != GIVEN and result.pool is not NULL:
            (<BufferPool>result.pool).release_callbacks(more * CALLBACK_COST)
        return NOT_ALLOCATED
    result.callbacks = grown
    result.callback_capacity += more
    return CALLBACK_ADDED


cdef AddedCallback result_add_callback(ProduceRequestResult *result, int32_t index, CallbackKind kind, void *function,
                                       void *future, Reservation reservation) noexcept nogil:
    """Takes over both references, and a reservation that is GIVEN, if it returns CALLBACK_ADDED.

    The batch completes either before, and the caller runs the callback itself,
    or after, and finds it in the list: both happen under the completion lock.
    """
    cdef AddedCallback added = DONE_ALREADY
    fp_mutex_lock(&completion_lock)
    if not result.done:
        added = result_callback_room(result, reservation)
        if added == CALLBACK_ADDED:
            result.callbacks[result.callback_count].kind = kind
            result.callbacks[result.callback_count].function = function
            result.callbacks[result.callback_count].future = future
            result.callback_count += 1
            if kind in (ON_DELIVERY, DONE_CALLBACK):
                set_told(result, index)
    fp_mutex_unlock(&completion_lock)
    return added


cdef int result_complete(ProduceRequestResult *result, int32_t count) noexcept nogil:
    """Makes the outcome known; once. Returns the number of its callbacks. thread: any  lock: sender_lock"""
    cdef Segment *segment
    cdef int32_t i
    cdef int callbacks, waited_for
    fp_mutex_lock(&completion_lock)
    result.count = count
    for i in range(result.segment_count):
        if result.segments[i].code:
            break
    else:
        i = -1
    if i >= 0:
        for i in range(count):
            segment = result_segment(result, i)
            if segment.code and not result_was_told(result, i):
                result.unobserved += 1
    callbacks = result.callback_count
    fp_atomic_store(&result.done, 1)
    waited_for = waiters
    fp_mutex_unlock(&completion_lock)
    # Outside the lock: whoever wakes takes it first thing.
    if waited_for:
        fp_cond_broadcast(&completed)
    return callbacks


cdef int wait_completed(int *done, int64_t until_ns) noexcept nogil:
    """Waits until *done or until_ns, whichever first; *done is written under notify_completed or result_complete."""
    global waiters
    fp_mutex_lock(&completion_lock)
    waiters += 1
    while not fp_atomic_load(done):
        if fp_cond_wait_until(&completed, &completion_lock, until_ns):
            break
    waiters -= 1
    fp_mutex_unlock(&completion_lock)
    return fp_atomic_load(done)


cdef void notify_completed() noexcept nogil:
    """Wakes whoever waits for something that has just been stored. lock: none"""
    cdef int waited_for
    fp_mutex_lock(&completion_lock)
    waited_for = waiters
    fp_mutex_unlock(&completion_lock)
    if waited_for:
        fp_cond_broadcast(&completed)


def wait_deadline(timeout):
    """The monotonic nanosecond at which a wait of `timeout` seconds ends; None waits for ever."""
    if timeout is None:
        return INT64_MAX
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is seconds or None, not {type(timeout).__name__}: {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout!r}: it must be 0 or more seconds, or None")
    return fp_monotonic_ns() + int(min(timeout, 1e9) * 1_000_000_000)


cdef int check_callback(object function, str what) except -1:
    if not callable(function):
        raise TypeError(f"{what} must be callable, not {type(function).__name__}: {function!r:.60}")
    _, code, _ = code_of(function)
    if code is not None and code.co_flags & FASTPROD_CO_COROUTINE:
        raise TypeError(f"{what} is a coroutine function, which nobody would await: await the future instead")
    return 0


cdef tuple code_of(object function):
    """What is called in the end, its code, and how many arguments it is given besides; code is None for what has none.

    A functools.partial and a bound method have a function, an object has its class's __call__.
    """
    cdef Py_ssize_t bound = 0
    while True:
        if isinstance(function, partial):
            bound += len(function.args)
            function = function.func
        elif PyMethod_Check(function):
            bound += 1
            function = <object>PyMethod_GET_FUNCTION(function)
        else:
            break
    code = getattr(function, "__code__", None)
    if code is None and not isinstance(function, type):
        bound += 1
        function = type(function).__call__
        code = getattr(function, "__code__", None)
    return function, code if isinstance(code, CodeType) else None, bound


cdef int check_order(object function, str what) except -1:
    """TypeError if the names of its parameters say that it expects the error first, as (err, msg) does."""
    function, code, bound = code_of(function)
    while code is not None and code.co_argcount == 0 and hasattr(function, "__wrapped__"):
        function, code, _ = code_of(function.__wrapped__)   # of a decorator's (*args)
    if code is None:
        return 0
    names = code.co_varnames[bound:code.co_argcount]
    if names and names_error(names[0]) and not (len(names) > 1 and names_error(names[1])):
        raise TypeError(
            f"{what} is called with (metadata, error), one of which is None, but its first parameter is named "
            f"{names[0]!r}: exchange the two. confluent-kafka has the error first, fastprod the metadata")
    return 0


cdef int check_delivery_callback(object function) except -1:
    """TypeError unless function(metadata, error) may be called. Records mostly share the function or its code."""
    cdef object inner = function
    cdef Py_ssize_t bound = 0
    cdef PyObject *known
    if PyMethod_Check(inner):
        inner = <object>PyMethod_GET_FUNCTION(inner)
        bound = 1
    if PyFunction_Check(inner):
        code = <object>PyFunction_GetCode(inner)
    else:
        _, code, bound = code_of(function)
    if code is not None:
        known = PyDict_GetItem(checked_codes, <uintptr_t><PyObject *>code)
        if known is not NULL and (<tuple>known)[1] == bound:
            return 0
    check_callback(function, "on_delivery")
    check_order(function, "on_delivery")
    if code is not None and not hasattr(inner, "__wrapped__"):
        if len(checked_codes) >= MAX_CHECKED:
            checked_codes.clear()
        checked_codes[<uintptr_t><PyObject *>code] = code, bound
    return 0
cdef int register_callback(ProduceRequestResult *result, int32_t index, CallbackKind kind, object function,
                           object future) except -1:
    """For a record that was sent before; whether the callback will be called. 0: the record has settled already."""
    cdef AddedCallback added
    Py_INCREF(function)
    Py_INCREF(future)
    added = result_add_callback(result, index, kind, <PyObject *>function, <PyObject *>future, FORCED)
    if added != CALLBACK_ADDED:
        Py_DECREF(function)
        Py_DECREF(future)
    if added == NOT_ALLOCATED:
        raise MemoryError("no memory for a callback")
    return added == CALLBACK_ADDED


@cython.final
@cython.freelist(1024)
cdef class FutureRecordMetadata:
    """FutureRecordMetadata()
--

    The outcome of one record, to come: ``result()``, ``await``, or a callback.

    Owns a share of its batch's ProduceRequestResult. It settles when the whole batch
    has settled. Thread-safe. Who gets an answer from it (result, exception, await)
    or leaves a callback counts as told: flush() and close() do not raise for the
    record then.
    """

    def __init__(self):
        raise TypeError("a FutureRecordMetadata comes from Producer.send()")

    def __dealloc__(self):
        if self.produced is not NULL:
            result_unref(self.produced, -1)

    cdef void mark_observed(self) noexcept:
        result_tell(self.produced, self.index)

    cdef int settled(self) except -1:
        if self.produced is NULL:
            raise TypeError("a FutureRecordMetadata comes from Producer.send()")
        return fp_atomic_load(&self.produced.done)

    cdef int wait(self, object timeout) except -1:
        """Returns once the record has settled; TimeoutError if that takes longer than timeout seconds."""
        cdef int64_t deadline, until, pause_ns = 0
        cdef int done
        if self.settled():
            return 0
        self.refuse_in_child()
        deadline = wait_deadline(timeout)
        while True:
            until = next_slice(deadline, &pause_ns)
            with nogil:
                done = wait_completed(&self.produced.done, until)
            if done:
                return 0
            if fp_monotonic_ns() >= deadline:
                raise TimeoutError(
                    f"the record for {self.topic} was not settled within {timeout} s; it is still on its way")

    cdef object metadata(self):
        cdef Segment *segment = result_segment(self.produced, self.index)
        return RecordMetadata(
            self.topic, self.produced.partition,
            segment.base_offset + self.index - segment.first if segment.base_offset >= 0 else -1,
            self.timestamp if segment.timestamp < 0 else segment.timestamp,
            self.key_size, self.value_size)

    cdef object error(self):
        return segment_error(result_segment(self.produced, self.index), self.topic, self.produced.partition)

    def result(self, timeout=None):
        """The RecordMetadata; waits at most `timeout` seconds (None: for ever).

        Raises what the record failed with, or TimeoutError: then it is still on its way and can be asked again.
        """
        self.wait(timeout)
        error = self.exception(0)
        if error is not None:
            raise error
        return self.metadata()

    get = result

    def exception(self, timeout=None):
        """What the record failed with, or None; waits at most `timeout` seconds (None: for ever)."""
        self.wait(timeout)
        if result_segment(self.produced, self.index).code == 0:
            return None
        self.mark_observed()
        return self.error()

    def done(self):
        """Whether the record has settled. Asking this is not being told."""
        return bool(self.settled())

    def add_done_callback(self, function):
        """Calls function(future) once the record has settled, from the producer's callback thread.

        At once and from the caller's thread if it has settled already.
        """
        check_callback(function, "a done callback")
        if getattr(function, "__module__", None) == "asyncio.tasks":   # asyncio.wait()'s: it would not wake the loop
            raise TypeError("asyncio.wait() takes asyncio's futures alone: give it asyncio.ensure_future(future)")
        if not self.register(DONE_CALLBACK, function):
            self.mark_observed()
            function(self)

    def __reduce__(self):
        raise TypeError("a FutureRecordMetadata cannot be copied or pickled: the outcome is told in this process only. "
                        "Ask it here, and pass on what result() or exception() gives")

    cdef int refuse_in_child(self) except -1:
        if not self.settled() and self.produced.fork_generation != process_generation:
            raise ForkedProducerError("the record was sent before the process forked: ask its future in the parent")
        return 0

    cdef int register(self, CallbackKind kind, object function) except -1:
        """Whether the callback will be called; 0: the record has settled already."""
        self.refuse_in_child()
        return register_callback(self.produced, self.index, kind, function, self)

    def __await__(self):
        if not self.done():
            import asyncio
            settled = asyncio.get_running_loop().create_future()
            # Not told by this: the await may be cancelled. result() tells.
            if self.register(AWAITED, settled):
                yield from settled
        return self.result()

    def __repr__(self):
        state = "pending"
        if self.done():
            error = self.error()
            state = repr(self.metadata()) if error is None else repr(error)
        return f"<FutureRecordMetadata {self.topic} {state}>"
