"""ProduceRequestResult: the outcome of one batch, which the futures of its records share.

Source: org.apache.kafka.clients.producer.internals.ProduceRequestResult.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, int8_t, int32_t, int64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.sync cimport (
    fp_atomic_add, fp_atomic_load, fp_atomic_store, fp_cond, fp_cond_broadcast, fp_cond_init, fp_cond_wait_until,
    fp_monotonic_ns, fp_mutex, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod.librdkafka.codes cimport CRIT_SYS_RESOURCE

from fastprod.internals.error_codes import for_delivery
from fastprod.librdkafka.loader import describe

cdef extern from "pthread.h":
    int pthread_atfork(void (*)() noexcept nogil, void (*)() noexcept nogil, void (*)() noexcept nogil) noexcept

cdef tuple PERSISTED_WORDS = ("no", "possibly", "yes")

# One lock and one condition serve every result of the process. A condition per batch would cost more than an idle
# producer's batches, and a thread that waits for a result would have to keep its producer alive.
# Lock order: only a buffer pool's lock is taken while this one is held.
cdef fp_mutex completion_lock
cdef fp_cond completed
cdef int waiters = 0
# Results live in slabs and not in blocks of malloc(). A result lasts as long as a future of its batch, while librdkafka
# allocates and frees a message for each record. Single blocks among those would fragment the free memory: after some
# thousand batches consecutive messages would lie far apart, and each would be a cache miss.
cdef ResultSlab *slabs = NULL      # those with a free place
fp_mutex_init(&completion_lock)
fp_cond_init(&completed)


cdef void after_fork_in_child() noexcept nogil:
    # Registered with pthread_atfork(), because not every fork is Python's: uWSGI forks in C.
    #
    # A thread of the parent may have held the lock or waited for the condition. It does not exist in the child and will
    # not release them, so both are made anew. It may also have been changing the slabs. So they are left as they are:
    # the parent's results are never returned.
    global waiters, process_generation, slabs
    fp_mutex_init(&completion_lock)
    fp_cond_init(&completed)
    waiters = 0
    slabs = NULL
    process_generation += 1


if pthread_atfork(NULL, NULL, after_fork_in_child):
    raise MemoryError("no memory to register the fork handler")


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
    """Returns an empty slab, which is in the list; NULL if there is no memory. lock: completion"""
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
    """Returns cleared memory for a result; NULL if there is none. lock: any but a leaf"""
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
    """Returns the memory of a result to its slab, and frees the slab if it is empty. lock: any but a leaf"""
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
    # A future is counted when it dies, not when it is made: `futures` is kept under the lock that append() holds
    # anyway. So a record costs one atomic operation. The balance is negative until the batch drops its reference, so
    # only the last one to leave brings it to zero.
    if fp_atomic_add(&result.balance, amount) == 0:
        if result.segments is not &result.inline_segment:
            free(result.segments)
        free(result.observed)
        free(result.callbacks)
        slab_give_back(result)


cdef void result_unref_batch(ProduceRequestResult *result) noexcept nogil:
    """Drops the batch's reference. thread: any  lock: none"""
    result_unref(result, result.futures)


cdef void result_record(ProduceRequestResult *result, int32_t index, int32_t count, int32_t code, int64_t offset,
                        int64_t timestamp, int8_t persisted) noexcept nogil:
    """Records the outcome of consecutive records. thread: any  lock: sender_lock

    Records mostly come in order. One that does not costs a segment. If there is no memory for it, all records of the
    batch fail as possibly persisted: a failure must not be taken for the success of a neighbour.
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
    """Returns the segment of a record: the one that starts nearest before it."""
    cdef Segment *best = NULL
    cdef int32_t i
    for i in range(result.segment_count):
        if result.segments[i].first <= index and (best is NULL or result.segments[i].first >= best.first):
            best = &result.segments[i]
    return best


cdef object segment_error(Segment *segment, str topic, int32_t partition):
    """Returns the error of a segment's records, or None. It is new each time: a shared exception would collect the
    tracebacks of all readers."""
    if segment.code == 0:
        return None
    return for_delivery(segment.code, describe(segment.code), persisted_word(segment.persisted), topic, partition)


cdef str persisted_word(int8_t persisted):
    return PERSISTED_WORDS[persisted]


cdef int result_is_observed(ProduceRequestResult *result, int32_t index) noexcept nogil:
    return index // 8 < result.observed_bytes and result.observed[index // 8] >> (index % 8) & 1


cdef int set_observed(ProduceRequestResult *result, int32_t index) noexcept nogil:
    """Sets the record's bit. Returns whether it was clear. lock: completion"""
    cdef int32_t size = index // 8 + 1
    cdef unsigned char *grown
    if result_is_observed(result, index):
        return 0
    if size > result.observed_bytes:
        size = max(size, 2 * result.observed_bytes)
        grown = <unsigned char *>realloc(result.observed, size)
        if grown is NULL:
            return 0   # flush() then reports the failure once more than needed
        memset(grown + result.observed_bytes, 0, size - result.observed_bytes)
        result.observed = grown
        result.observed_bytes = size
    result.observed[index // 8] |= 1 << (index % 8)
    return 1


cdef void result_mark_observed(ProduceRequestResult *result, int32_t index) noexcept nogil:
    """The application observes a record's outcome, or will by a callback. thread: any  lock: none"""
    cdef Segment *segment
    fp_mutex_lock(&completion_lock)
    if set_observed(result, index) and result.done:
        segment = result_segment(result, index)
        if segment is not NULL and segment.code and result.unobserved > 0:
            result.unobserved -= 1
    fp_mutex_unlock(&completion_lock)


cdef void result_mark_all_observed(ProduceRequestResult *result) noexcept nogil:
    """flush() or close() has raised every failure of the result. thread: any  lock: none"""
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
                set_observed(result, index)
    fp_mutex_unlock(&completion_lock)
    return added


cdef int result_complete(ProduceRequestResult *result, int32_t count) noexcept nogil:
    """Publishes the outcome. Called once. Returns the number of callbacks. thread: any  lock: sender_lock"""
    cdef Segment *segment
    cdef int32_t i
    cdef int callbacks, had_waiters
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
            if segment.code and not result_is_observed(result, i):
                result.unobserved += 1
    callbacks = result.callback_count
    fp_atomic_store(&result.done, 1)
    had_waiters = waiters
    fp_mutex_unlock(&completion_lock)
    # Outside the lock, because a thread that wakes takes it first.
    if had_waiters:
        fp_cond_broadcast(&completed)
    return callbacks


cdef int wait_completed(int *done, int64_t until_ns) noexcept nogil:
    """Waits until *done is set or until_ns has come. Each store of *done is followed by notify_completed()."""
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
    """Wakes the threads in wait_completed(), after a store. lock: none"""
    cdef int had_waiters
    fp_mutex_lock(&completion_lock)
    had_waiters = waiters
    fp_mutex_unlock(&completion_lock)
    if had_waiters:
        fp_cond_broadcast(&completed)


cdef int register_callback(ProduceRequestResult *result, int32_t index, CallbackKind kind, object function,
                           object future) except -1:
    """Adds a callback to a sent record. Returns whether it will be called: not if the record has settled."""
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


def wait_deadline(timeout):
    """Returns the monotonic nanosecond at which a wait of `timeout` seconds ends. None waits for ever."""
    if timeout is None:
        return INT64_MAX
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be seconds or None, not {type(timeout).__name__}: {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be 0 or more seconds, or None, not {timeout!r}")
    return fp_monotonic_ns() + int(min(timeout, 1e9) * 1_000_000_000)
