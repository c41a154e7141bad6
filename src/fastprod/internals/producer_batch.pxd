from libc.stdint cimport int8_t, int32_t, int64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.produce_request_result cimport ProduceRequestResult
from fastprod.internals.record cimport fp_record

cdef enum BatchState:
    BATCH_OPEN         # the last of its partition's queue; records may be appended
    BATCH_CLOSED       # waits to be drained
    BATCH_IN_TRANSIT   # handed over; librdkafka reads the arena

# The lists of batches that a batch can be in, each in the order of creation.
cdef enum BatchListKind:
    INCOMPLETE
    LINGERING
    BATCH_LISTS

cdef struct BatchLink:
    ProducerBatch *older
    ProducerBatch *newer

cdef struct BatchList:
    ProducerBatch *oldest
    ProducerBatch *newest

# Records of one partition, in one arena.
cdef struct ProducerBatch:
    # contents: guarded by the accumulator's lock while open, read-only after
    char *arena               # from the pool; ours until the last delivery report
    size_t capacity           # bytes of arena
    size_t used
    size_t wire_size          # estimate of the batch in format v2, its header included
    int32_t count             # records
    int64_t headers           # of all records
    int64_t base_timestamp    # ms, of the first record
    int64_t created_ns        # monotonic
    ProduceRequestResult *result
    # the accumulator's
    BatchState state
    int64_t id             # grows with creation
    void *queue            # PartitionQueue
    ProducerBatch *next    # towards the tail of the queue; later, in the chain that drain() or expire() returned
    BatchLink links[BATCH_LISTS]
    int8_t lingering          # it is in that list
    int8_t incomplete         # it is in that list
    int8_t settled_early      # its records count as settled, though it is incomplete
    int8_t queued             # it counts in its topic's queue_lengths, until librdkafka has all of its records
    # the sender's, once it is in transit
    ProducerBatch *transit_next       # of its partition's
    ProducerBatch *transit_previous
    int32_t submitted     # records that librdkafka was given, or that were given up
    const char *cursor    # where the next of them starts in the arena
    int32_t unreported    # of those, the ones whose delivery report has not come
    int32_t retry_first   # of those, consecutive ones that may be sent again in smaller requests
    int32_t retry_count
    int generation            # of the librdkafka producer that was given records of it last
    int32_t slot              # what its records carry through librdkafka; -1: none
    int32_t leader            # whose window it was charged to
    int64_t cost              # and how much
    int requests_before       # ProduceRequests that the transport had sent when it was handed over
    int8_t expired            # its futures have failed already
    int8_t completed          # its futures have their results

cdef ProducerBatch *batch_new(char *arena, size_t capacity, int32_t partition, int64_t now_ns) noexcept nogil
cdef void batch_free(ProducerBatch *batch, BufferPool pool) noexcept nogil
cdef int batch_fits_arena(ProducerBatch *batch, const fp_record *record) noexcept nogil
cdef int batch_grow(ProducerBatch *batch, size_t capacity, BufferPool pool) noexcept nogil
cdef void batch_move(ProducerBatch *batch, char *arena, size_t capacity, BufferPool pool) noexcept nogil
cdef int32_t batch_records_within(ProducerBatch *batch, size_t limit) noexcept nogil
cdef size_t batch_request_size(const char *start, const char *end, int32_t count) noexcept nogil
cdef void batch_rewind(ProducerBatch *batch, int32_t index) noexcept nogil
cdef int32_t batch_append(ProducerBatch *batch, const fp_record *record, size_t wire_size) noexcept nogil
cdef int batch_append_fast_path(ProducerBatch *batch, const fp_record *record, int64_t limit) noexcept nogil
cdef Py_ssize_t batch_append_run(ProducerBatch *batch, const fp_record *records, const int32_t *partitions,
                                 Py_ssize_t count, int64_t limit) noexcept nogil
cdef list batch_records(const char *arena, int32_t count, int64_t base_timestamp)


cdef inline void batch_list_append(BatchList *batches, ProducerBatch *batch, BatchListKind kind) noexcept nogil:
    batch.links[<int>kind].newer = NULL
    batch.links[<int>kind].older = batches.newest
    if batches.newest is NULL:
        batches.oldest = batch
    else:
        batches.newest.links[<int>kind].newer = batch
    batches.newest = batch


cdef inline void batch_list_remove(BatchList *batches, ProducerBatch *batch, BatchListKind kind) noexcept nogil:
    cdef BatchLink link = batch.links[<int>kind]
    if link.older is NULL:
        batches.oldest = link.newer
    else:
        link.older.links[<int>kind].newer = link.newer
    if link.newer is NULL:
        batches.newest = link.older
    else:
        link.newer.links[<int>kind].older = link.older
