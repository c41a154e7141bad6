"""ProducerBatch: the records of one partition that travel together, in one arena.

Source: org.apache.kafka.clients.producer.internals.ProducerBatch.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.produce_request_result cimport result_unref_batch, result_new
from fastprod.internals.record cimport (
    FP_BATCH_OVERHEAD, fp_arena_size, fp_header, fp_header_read, fp_record, fp_record_read, fp_record_write, fp_ts_wire,
    fp_wire_size,
)

cdef enum:
    MAX_WIRE_FRAMING = 24   # bytes that a record takes in a request beyond those in the arena
    MAX_FRAMING = 26        # bytes a record takes in the arena beyond key, value and headers: flags and four varints


cdef ProducerBatch *batch_new(char *arena, size_t capacity, int32_t partition, int64_t now_ns) noexcept nogil:
    """An open batch, which owns the arena; NULL if there is no memory, then the arena is still the caller's."""
    cdef ProducerBatch *batch = <ProducerBatch *>calloc(1, sizeof(ProducerBatch))
    if batch is NULL:
        return NULL
    batch.result = result_new(partition)
    if batch.result is NULL:
        free(batch)
        return NULL
    batch.arena = arena
    batch.capacity = capacity
    batch.wire_size = FP_BATCH_OVERHEAD
    batch.created_ns = now_ns
    batch.state = BATCH_OPEN
    batch.slot = -1
    return batch


cdef void batch_free(ProducerBatch *batch, BufferPool pool) noexcept nogil:
    """Frees the batch, and gives back its arena and its result if it still has them. No report may be outstanding."""
    if batch.arena is not NULL:
        pool.deallocate(batch.arena, batch.capacity)
    if batch.result is not NULL:
        result_unref_batch(batch.result)
    free(batch)


cdef int batch_fits_arena(ProducerBatch *batch, const fp_record *record) noexcept nogil:
    cdef size_t left = batch.capacity - batch.used
    cdef int64_t delta
    if record.key_len + record.value_len + record.headers_len + MAX_FRAMING <= left:
        return 1
    delta = record.timestamp - batch.base_timestamp if batch.count else 0
    return fp_arena_size(record, delta) <= left


cdef int batch_grow(ProducerBatch *batch, size_t capacity, BufferPool pool) noexcept nogil:
    """Enlarges the arena without waiting; 0 if the pool has no memory, then the batch stays as it is."""
    cdef char *arena
    if not pool.try_reserve(capacity - batch.capacity):
        return 0
    arena = <char *>realloc(batch.arena, capacity)
    if arena is NULL:
        pool.uncharge(capacity - batch.capacity)
        return 0
    batch.arena = arena
    batch.capacity = capacity
    return 1


cdef void batch_move(ProducerBatch *batch, char *arena, size_t capacity, BufferPool pool) noexcept nogil:
    """Moves the records into a larger arena, which the batch owns from then on."""
    memcpy(arena, batch.arena, batch.used)
    pool.deallocate(batch.arena, batch.capacity)
    batch.arena = arena
    batch.capacity = capacity


cdef int32_t batch_append(ProducerBatch *batch, const fp_record *record, size_t wire_size) noexcept nogil:
    """Copies a record in that fits; wire_size: its bytes in format v2. Returns its index."""
    cdef int32_t index = batch.count
    cdef int64_t delta
    if index == 0:
        batch.base_timestamp = record.timestamp
    delta = record.timestamp - batch.base_timestamp
    batch.used = fp_record_write(batch.arena + batch.used, record, delta) - batch.arena
    batch.wire_size += wire_size
    if record.headers is not NULL:
        batch.headers += record.headers_count
    batch.count += 1
    batch.result.futures += 1
    return index


cdef int batch_append_fast_path(ProducerBatch *batch, const fp_record *record, int64_t limit) noexcept nogil:
    """batch_append_run() for one record without headers: 1 if it was copied in."""
    cdef int64_t delta = record.timestamp - batch.base_timestamp
    cdef int64_t wire_size = batch.wire_size + fp_wire_size(record, fp_ts_wire(delta), batch.count)
    if wire_size >= limit or record.key_len + record.value_len + MAX_FRAMING > batch.capacity - batch.used:
        return 0
    batch.used = fp_record_write(batch.arena + batch.used, record, delta) - batch.arena
    batch.wire_size = wire_size
    batch.count += 1
    batch.result.futures += 1
    return 1


cdef Py_ssize_t batch_append_run(ProducerBatch *batch, const fp_record *records, const int32_t *partitions,
                                 Py_ssize_t count, int64_t limit) noexcept nogil:
    """Copies in the first records that go to partitions[0], while the batch stays below `limit` bytes; how many.

    The batch has records already. Stops before a record that has headers or may not fit into the arena.
    """
    cdef const fp_record *record
    cdef char *end = batch.arena + batch.used
    cdef char *max_end = batch.arena + batch.capacity - MAX_FRAMING
    cdef int32_t partition = partitions[0]
    cdef int32_t index = batch.count
    cdef int64_t base_timestamp = batch.base_timestamp
    cdef int64_t timestamp = base_timestamp   # of the record before, as most have the same
    cdef size_t ts_wire = fp_ts_wire(0)
    cdef int64_t wire_size = batch.wire_size
    cdef int64_t size
    cdef Py_ssize_t i
    for i in range(count):
        record = &records[i]
        if partitions[i] != partition or record.headers is not NULL:
            break
        if record.timestamp != timestamp:
            timestamp = record.timestamp
            ts_wire = fp_ts_wire(timestamp - base_timestamp)
        size = fp_wire_size(record, ts_wire, index + <int32_t>i)
        if wire_size + size >= limit or <int64_t>(record.key_len + record.value_len) > max_end - end:
            break
        end = fp_record_write(end, record, timestamp - base_timestamp)
        wire_size += size
    else:
        i = count
    batch.used = end - batch.arena
    batch.wire_size = wire_size
    batch.count += <int32_t>i
    batch.result.futures += <int32_t>i
    return i


cdef int32_t batch_records_within(ProducerBatch *batch, size_t limit) noexcept nogil:
    """How many records from the cursor on fit into `limit` bytes of a request, wherever in it they begin."""
    cdef fp_record record
    cdef const char *p = batch.cursor
    cdef int32_t count = batch.count - batch.submitted
    if batch_request_size(p, batch.arena + batch.used, count) <= limit:
        return count
    count = 0
    while batch.submitted + count < batch.count:
        p = fp_record_read(p, &record, batch.base_timestamp)
        if batch_request_size(batch.cursor, p, count + 1) > limit:
            break
        count += 1
    return count


cdef size_t batch_request_size(const char *start, const char *end, int32_t count) noexcept nogil:
    """The most bytes that `count` records take in a request, which lie from start to end in an arena."""
    return <size_t>(end - start) + <size_t>count * MAX_WIRE_FRAMING


cdef void batch_rewind(ProducerBatch *batch, int32_t index) noexcept nogil:
    """Moves the cursor back to a record, to hand it and what follows over again."""
    cdef fp_record record
    cdef int32_t _i
    batch.submitted = index
    batch.cursor = batch.arena
    for _i in range(index):
        batch.cursor = fp_record_read(batch.cursor, &record, batch.base_timestamp)


cdef list batch_records(const char *arena, int32_t count, int64_t base_timestamp):
    """(key, value, headers, timestamp) of each record, as Python objects: for failed records and for tests."""
    cdef fp_record record
    cdef const char *p = arena
    cdef list records = []
    cdef int32_t _i
    for _i in range(count):
        p = fp_record_read(p, &record, base_timestamp)
        records.append((
            record.key[:record.key_len] if record.key is not NULL else None,
            record.value[:record.value_len] if record.value is not NULL else None,
            decode_headers(record.headers, record.headers_len),
            record.timestamp))
    return records


cdef list decode_headers(const char *p, size_t length):
    """Names are checked when they are sent. Should one be no UTF-8 all the same, a failure must still be reported."""
    cdef const char *end = p + length
    cdef fp_header header
    cdef list headers = []
    while p < end:
        p = fp_header_read(p, &header)
        headers.append((header.name[:header.name_len].decode("utf-8", "backslashreplace"),
                        header.value[:header.value_len] if header.value is not NULL else None))
    return headers
