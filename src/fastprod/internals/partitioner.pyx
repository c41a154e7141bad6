"""The partition of a record: murmur2 for keys, sticky for the rest.

Sources: Utils.murmur2 and BuiltInPartitioner (KIP-794) of Kafka's Java client,
its former StickyPartitionCache (KIP-480) and RoundRobinPartitioner.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

cdef extern from "murmur2.h" nogil:
    unsigned int fp_murmur2(const void *data, size_t length) noexcept
    int32_t fp_partition_for_key(const void *key, size_t length, int32_t partitions) noexcept
    void fp_murmur2_many(const unsigned char *const *keys, const unsigned int *sizes, unsigned int *hashes,
                         size_t count) noexcept
    void fp_partitions_for_hashes(unsigned int *hashes, size_t count, int32_t partitions) noexcept

KINDS = {
    "uniform_sticky": UNIFORM_STICKY,
    "sticky": STICKY,
    "timed_sticky": TIMED_STICKY,
    "round_robin": ROUND_ROBIN,
    "random": RANDOM,
}


def murmur2(data not None):
    """Kafka's 32-bit murmur2 of a bytes-like object, signed as in Java (Utils.murmur2)."""
    cdef const unsigned char[::1] view
    if PyBytes_CheckExact(data):   # a view would take four times as long as the hash
        return <int32_t>fp_murmur2(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    view = data
    return <int32_t>fp_murmur2(&view[0] if view.shape[0] else NULL, view.shape[0])


def partition_for_key(key, num_partitions):
    """The partition, from 0 to num_partitions - 1, that Kafka's producers give to a key (bytes-like or str)."""
    cdef const unsigned char[::1] data
    if isinstance(num_partitions, bool) or not isinstance(num_partitions, int):
        raise TypeError(f"num_partitions must be an int, not {type(num_partitions).__name__}")
    if key is None:
        raise TypeError("a null key has no partition of its own: the partitioner chooses one")
    if not 1 <= num_partitions <= INT32_MAX:
        raise ValueError(f"num_partitions is {num_partitions}: it must be 1 to {INT32_MAX}")
    data = key.encode() if isinstance(key, str) else key
    return fp_partition_for_key(&data[0] if data.shape[0] else NULL, data.shape[0], num_partitions)


cdef int32_t key_partition(const char *key, size_t length, int32_t count) noexcept nogil:
    return fp_partition_for_key(key, length, count)


cdef void key_partitions(const unsigned char **keys, const unsigned int *sizes, unsigned int *found, size_t number,
                         int32_t count) noexcept nogil:
    """key_partition() of many keys: faster, because several are hashed at once."""
    fp_murmur2_many(keys, sizes, found, number)
    fp_partitions_for_hashes(found, number, count)


def key_partitions_of(list keys, int32_t count):
    """key_partitions() of up to 256 bytes objects, for tests."""
    cdef const unsigned char *pointers[256]
    cdef unsigned int sizes[256]
    cdef unsigned int found[256]
    cdef bytes key
    cdef Py_ssize_t i
    if len(keys) > 256 or count < 1:
        raise ValueError("up to 256 keys, and a partition at least")
    for i in range(len(keys)):
        key = keys[i]
        pointers[i] = <const unsigned char *><const char *>key
        sizes[i] = len(key)
    key_partitions(pointers, sizes, found, len(keys), count)
    return [found[i] for i in range(len(keys))]


cdef uint64_t draw(Random *random) noexcept nogil:
    cdef uint64_t z
    if random.sequential:
        random.state += 1
        return random.state - 1
    random.state += <uint64_t>0x9e3779b97f4a7c15
    z = random.state
    z = (z ^ (z >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * <uint64_t>0x94d049bb133111eb
    return (z ^ (z >> 31)) >> 1


cdef void sticky_init(StickyState *state, PartitionerKind kind, int adaptive, int64_t stick_bytes,
                      int64_t interval_ns, uint64_t seed, int sequential) noexcept nogil:
    memset(state, 0, sizeof(StickyState))
    state.kind = kind
    state.adaptive = adaptive
    state.stick_bytes = max(stick_bytes, 1)
    state.interval_ns = interval_ns
    state.current = -1
    state.random.state = seed
    state.random.sequential = sequential


cdef void sticky_free(StickyState *state) noexcept nogil:
    free(state.drawn)


cdef int32_t nth_available(Partitions *partitions, int32_t n) noexcept nogil:
    """The n-th available partition; the n-th of all if none is available."""
    cdef int32_t i
    if partitions.available_count in (0, partitions.count):
        return n
    for i in range(partitions.count):
        if partitions.available[i]:
            if n == 0:
                return i
            n -= 1
    return 0   # impossible: available_count counts them


cdef int32_t choices(Partitions *partitions) noexcept nogil:
    return partitions.available_count if partitions.available_count else partitions.count


cdef int32_t pick(StickyState *state, Partitions *partitions) noexcept nogil:
    """BuiltInPartitioner.nextPartition, but more even: without weights it draws without replacement.

    Java draws anew each time, so over k draws a partition gets k/n, give or take the root of that. A shuffled cycle is
    off by one at most.
    """
    cdef int32_t count = partitions.count
    cdef int32_t i
    cdef int64_t weight, total = 0
    cdef int64_t longest = -1, shortest = 0
    if state.adaptive:
        for i in range(count):
            if partitions.available[i]:
                if longest < 0:
                    longest = shortest = partitions.queue_lengths[i]
                longest = max(longest, partitions.queue_lengths[i])
                shortest = min(shortest, partitions.queue_lengths[i])
        if longest > shortest:
            # Weight longest + 1 - length: queues 0 3 1 weigh 4 1 3, and of
            # eight draws four go to the first partition.
            for i in range(count):
                if partitions.available[i]:
                    total += longest + 1 - partitions.queue_lengths[i]
            weight = <int64_t>(draw(&state.random) % <uint64_t>total)
            for i in range(count):
                if partitions.available[i]:
                    weight -= longest + 1 - partitions.queue_lengths[i]
                    if weight < 0:
                        return i
    return pick_evenly(state, partitions)


cdef int32_t draw_one(StickyState *state, Partitions *partitions) noexcept nogil:
    return nth_available(partitions, <int32_t>(draw(&state.random) % <uint64_t>choices(partitions)))


cdef int32_t pick_evenly(StickyState *state, Partitions *partitions) noexcept nogil:
    """Draws a partition; if it was drawn in this cycle already, takes the next one that was not."""
    cdef int32_t i = draw_one(state, partitions)
    cdef int32_t _tried
    cdef unsigned char *grown
    if state.drawn_size < partitions.count:
        grown = <unsigned char *>realloc(state.drawn, partitions.count)
        if grown is NULL:
            return i
        memset(grown + state.drawn_size, 0, partitions.count - state.drawn_size)
        state.drawn = grown
        state.drawn_size = partitions.count
    for _tried in range(partitions.count):
        if not state.drawn[i] and (partitions.available[i] or not partitions.available_count):
            state.drawn[i] = 1
            return i
        i = i + 1 if i + 1 < partitions.count else 0
    memset(state.drawn, 0, state.drawn_size)   # the cycle is complete
    state.drawn[i] = 1
    return i


cdef int32_t sticky_partition(StickyState *state, Partitions *partitions, int64_t now_ns) noexcept nogil:
    """The partition of the next record without a key. lock: the accumulator's"""
    if state.kind == ROUND_ROBIN:
        state.turn += 1
        return nth_available(partitions, <int32_t>((state.turn - 1) % <uint64_t>choices(partitions)))
    if state.kind == RANDOM:
        return draw_one(state, partitions)
    if state.kind == TIMED_STICKY:
        if state.current < 0 or now_ns - state.switched_ns >= state.interval_ns:
            state.current = draw_one(state, partitions)
            state.switched_ns = now_ns
    elif state.current < 0:
        state.current = pick(state, partitions) if state.kind == UNIFORM_STICKY else random_other(state, partitions)
    return state.current


cdef int sticky_update(StickyState *state, Partitions *partitions, int64_t appended, int enable_switch) noexcept nogil:
    """KIP-794: counts bytes, and switches the partition after batch.size of them; returns whether it did.

    A switch waits for the end of a batch (enable_switch), so that no batch is left half full: with linger.ms=500 and
    12 KB per 500 ms, a switch at exactly 16 KB would cut each second batch after 4 KB. Twice batch.size is the limit.
    lock: the accumulator's
    """
    if state.kind != UNIFORM_STICKY:
        return 0
    state.produced_bytes += appended
    if state.produced_bytes >= 2 * state.stick_bytes or enable_switch and state.produced_bytes >= state.stick_bytes:
        state.current = pick(state, partitions)
        state.produced_bytes = 0
        return 1
    return 0


cdef int32_t random_other(StickyState *state, Partitions *partitions) noexcept nogil:
    cdef int32_t n = choices(partitions)
    cdef int32_t chosen
    while True:
        chosen = draw_one(state, partitions)
        if n == 1 or chosen != state.current:
            return chosen


cdef int32_t sticky_on_new_batch(StickyState *state, Partitions *partitions) noexcept nogil:
    """KIP-480: another partition for each new batch. lock: the accumulator's"""
    state.current = random_other(state, partitions)
    return state.current
