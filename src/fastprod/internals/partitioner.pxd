from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum PartitionerKind:
    UNIFORM_STICKY     # KIP-794
    STICKY             # KIP-480
    TIMED_STICKY
    ROUND_ROBIN
    RANDOM

# splitmix64, or for tests 0, 1, 2, ...
cdef struct Random:
    uint64_t state
    int sequential

# The partitions of a topic, which owns the arrays.
cdef struct Partitions:
    int32_t count
    int32_t *queue_lengths       # batches waiting, per partition
    unsigned char *available     # per partition: it has a leader that takes data
    int32_t available_count

# Where the records of a topic go that have no key. Guarded by the accumulator's lock.
cdef struct StickyState:
    PartitionerKind kind
    int adaptive                 # weight by queue length, KIP-794
    int32_t current              # partition, -1: none yet
    int64_t produced_bytes       # to it since it was chosen, batch headers included
    int64_t stick_bytes          # batch.size
    int64_t interval_ns          # timed sticky: how long a partition is kept
    int64_t switched_ns          # timed sticky: when it was chosen, monotonic
    uint64_t turn                # round robin
    unsigned char *drawn         # per partition: it was drawn in this cycle
    int32_t drawn_size
    Random random

cdef void sticky_init(StickyState *state, PartitionerKind kind, int adaptive, int64_t stick_bytes,
                      int64_t interval_ns, uint64_t seed, int sequential) noexcept nogil
cdef void sticky_free(StickyState *state) noexcept nogil
cdef int32_t sticky_partition(StickyState *state, Partitions *partitions, int64_t now_ns) noexcept nogil
cdef int sticky_update(StickyState *state, Partitions *partitions, int64_t appended, int enable_switch) noexcept nogil
cdef int32_t sticky_on_new_batch(StickyState *state, Partitions *partitions) noexcept nogil
cdef int32_t key_partition(const char *key, size_t length, int32_t count) noexcept nogil
cdef void key_partitions(const unsigned char **keys, const unsigned int *sizes, unsigned int *found, size_t number,
                         int32_t count) noexcept nogil
