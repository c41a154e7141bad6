"""The core as tests reach it: parts of it that are driven step by step.

setup.py builds this extension, `fastprod_core_access`, in a development checkout and with FASTPROD_TESTS=1. It is in no
wheel.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callback_check cimport check_delivery_callback
from fastprod.internals.client_errors cimport ClientErrors
from fastprod.internals.client_renewal cimport ClientRenewal
from fastprod.internals.delivery_report cimport DeliveryReports, Report, next_report, rejection_report
from fastprod.internals.failed_records cimport FailedRecords
from fastprod.internals.handle cimport Handle, OpenTopic
from fastprod.internals.input cimport checked_timestamp, encode_headers, whole_number
from fastprod.internals.pending_records cimport PendingRecords
from fastprod.internals.produce_request_result cimport (
    CALLBACK_ADDED, DONE_CALLBACK, FASTPROD_SLAB, FORCED, IF_FREE, NOT_PERSISTED, ON_ACKNOWLEDGEMENT, ON_DELIVERY,
    PERSISTED, POSSIBLY_PERSISTED, ProduceRequestResult, Segment, notify_completed, result_add_callback,
    result_complete, result_mark_all_observed, result_mark_observed, result_new, result_record, result_segment,
    result_unref, result_unref_batch, segment_error, wait_completed,
)
from fastprod.internals.in_flight_partition cimport (
    FIRST_RECORD, FIRST_REQUEST, SPLITTING, STEADY, InFlightPartition, batch_is_reported, in_flight_add,
    in_flight_delivered, in_flight_drop_retry, in_flight_init, in_flight_may_retry, in_flight_remove, in_flight_report,
    in_flight_restart, in_flight_retry, in_flight_rewind, in_flight_submit, in_flight_unsubmitted_exceed, phase_limit,
)
from fastprod.internals.incomplete_batches cimport OVERDUE, FlushPoint
from fastprod.internals.metadata_requests cimport MetadataRequests
from fastprod.internals.metadata_updater cimport MetadataUpdater
from fastprod.internals.open_batches cimport CallbackSlot, Placed, RecordAppendResult
from fastprod.internals.partition_pause cimport pause_partition, resume_partition
from fastprod.internals.partition_queue cimport PartitionQueue, Topic
from fastprod.internals.partitioner cimport (
    Partitions, StickyState, sticky_free, sticky_init, sticky_on_new_batch, sticky_partition, sticky_update,
)
from fastprod.internals.producer_batch cimport (
    BATCH_IN_TRANSIT, ProducerBatch, batch_append, batch_append_fast_path, batch_append_run, batch_fits_arena,
    batch_free, batch_grow, batch_move, batch_new, batch_records, batch_records_within, batch_request_size,
    batch_rewind,
)
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.record cimport fp_record, fp_ts_wire, fp_wire_size
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.recreated_topics cimport RecreatedTopics
from fastprod.internals.sender cimport Sender
from fastprod.internals.topic_metadata cimport TopicMetadata
from fastprod.internals.update_request cimport AWAITED, EVERYTHING, UpdateRequest
from fastprod.internals.sync cimport (
    fp_atomic_add, fp_atomic_load, fp_atomic_store, fp_monotonic_ns, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod.internals.transaction_call cimport (
    ABORT_TRANSACTION, BEGIN_TRANSACTION, COMMIT_TRANSACTION, INIT_TRANSACTIONS, SEND_OFFSETS, TransactionCall,
    checked_offsets, free_offsets, set_offsets, transact,
)
from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.declarations cimport rd_kafka_event_t, rd_kafka_topic_partition_list_t

cimport cython

from array import array

from fastprod.internals.partitioner import KINDS

PHASES = {"FIRST_RECORD": FIRST_RECORD, "FIRST_REQUEST": FIRST_REQUEST, "STEADY": STEADY, "SPLITTING": SPLITTING}
CALLBACK_KINDS = {
    "on_delivery": ON_DELIVERY, "on_acknowledgement": ON_ACKNOWLEDGEMENT, "done_callback": DONE_CALLBACK,
}
TRANSACTION_REQUESTS = {
    "init": INIT_TRANSACTIONS, "begin": BEGIN_TRANSACTION, "offsets": SEND_OFFSETS, "commit": COMMIT_TRANSACTION,
    "abort": ABORT_TRANSACTION,
}
RESULTS_PER_SLAB = FASTPROD_SLAB
PERSISTED_NAMES = {PERSISTED: "yes", NOT_PERSISTED: "no", POSSIBLY_PERSISTED: "possibly"}
SENDER_STATES = ("WORKING", "POLLING", "WAKING", "YIELDING", "ENDED")   # as SenderState has them


cdef class ManualPool(BufferPool):
    """A BufferPool whose memory Python code takes and gives back."""

    def allocate_buffer(self, size_t size, max_block_ms=0):
        """A Buffer of size bytes; waits at most max_block_ms."""
        cdef Buffer buffer = Buffer()
        buffer.memory = self.allocate(size, 0, fp_monotonic_ns() + <int64_t>(max_block_ms * 1_000_000))
        buffer.size = size
        buffer.pool = self
        return buffer

    def reserve(self, size_t size, forced=False):
        """Reserves size bytes for callbacks; returns whether they were free."""
        return bool(self.reserve_for_callbacks(size, forced))

    def unreserve(self, size_t size):
        self.release_callbacks(size)


@cython.no_gc_clear   # __dealloc__ gives the memory back to the pool
cdef class Buffer:
    """Memory of a pool as a Python object. It goes back by ``deallocate()``, or when the object is dropped."""
    cdef BufferPool pool
    cdef void *memory
    cdef readonly size_t size

    def deallocate(self):
        if self.memory is not NULL:
            self.pool.deallocate(self.memory, self.size)
            self.memory = NULL

    @property
    def address(self):
        return <size_t>self.memory

    def __dealloc__(self):
        if self.memory is not NULL and self.pool is not None:
            self.pool.deallocate(self.memory, self.size)


cdef class ManualAccumulator(RecordAccumulator):
    """A RecordAccumulator whose batches a test drains and settles itself, by a clock in milliseconds."""
    cdef readonly bint woke   # the last put() would have woken the sender

    @property
    def unsettled_records(self):
        return self.count_unsettled()

    @property
    def total_queue_time_ns(self):
        return self.scheduler.queue_time_ns

    def set_topic(self, str name, leaders):
        """Declares a topic; leaders: a broker id per partition, -1 for none."""
        cdef int32_t[::1] brokers
        cdef Topic *topic = self.find(name)
        brokers = array("i", leaders)
        if topic is NULL:
            topic = self.add_topic(name.encode())
        self.set_partitions(topic, &brokers[0], brokers.shape[0])

    cdef Topic *find(self, str name) except? NULL:
        cdef bytes wanted = name.encode()
        cdef Topic *topic = self.topics.first
        while topic is not NULL and topic.name != wanted:
            topic = topic.next
        return topic

    def refuse_appends(self):
        self.stop_appends()

    def close(self):
        self.close_for_appends()

    def put(self, str topic, bytes value=None, bytes key=None, *, partition=-1, timestamp=0, now_ms=1,
            max_block_ms=0, abort_on_new_batch=False):
        """Appends a record; returns (partition, index in its batch), or None if a new batch would be needed."""
        cdef fp_record record = record_of(value, key, timestamp)
        cdef RecordAppendResult appended
        cdef CallbackSlot callback
        callback.function = callback.future = NULL
        done = self.append(self.find(topic), partition, &record, self.epoch, <int64_t>(now_ms * 1_000_000),
                           fp_monotonic_ns() + <int64_t>(max_block_ms * 1_000_000),
                           &callback, abort_on_new_batch, &appended)
        self.woke = appended.wake
        if not done:
            return None
        appended.result.futures -= 1
        return appended.partition, appended.index

    def put_many(self, str topic, list values, list partitions):
        """Appends records by append_many(); returns (partition, index in its batch) of each that it took."""
        cdef Py_ssize_t count = len(values)
        cdef fp_record *records = <fp_record *>calloc(count + 1, sizeof(fp_record))
        cdef int32_t *chosen = <int32_t *>calloc(count + 1, sizeof(int32_t))
        cdef Placed *placed = <Placed *>calloc(count + 1, sizeof(Placed))
        cdef Py_ssize_t runs = 0
        cdef Py_ssize_t i
        cdef bytes value
        found = []
        try:
            for i in range(count):
                value = values[i]
                records[i].value = value
                records[i].value_len = len(value)
                chosen[i] = partitions[i]
            self.append_many(self.find(topic), records, chosen, count, self.epoch, placed, &runs)
            for i in range(runs):
                placed[i].result.futures -= placed[i].count
                found += [(placed[i].partition, placed[i].index + j) for j in range(placed[i].count)]
        finally:
            free(records)
            free(chosen)
            free(placed)
        return found

    def drain_batches(self, now_ms, limit=1 << 40, bint handed_over=True):
        """What the sender would hand over now, up to limit bytes, as DrainedBatch objects.

        handed_over=False: it waits in transit for an answer to what was handed over before.
        """
        cdef ProducerBatch *chain = self.drain(<int64_t>(now_ms * 1_000_000), limit)
        cdef ProducerBatch *batch = chain
        while batch is not NULL and handed_over:
            batch.submitted = batch.count
            batch.queued = 0
            self.on_submitted(<PartitionQueue *>batch.queue, 1, 0, 0)
            batch = batch.next
        return self.wrap(chain)

    def wait_in_transit(self, str name, int32_t partition, now_ms):
        """A batch that was drained waits for an answer to the one before it."""
        self.on_submitted(self.find(name).queues[partition], 0, 1, <int64_t>(now_ms * 1_000_000))

    def expire_batches(self, now_ms):
        """What has passed delivery.timeout.ms, failed as the sender would; those in transit stay outstanding."""
        return self.wrap(self.expire(<int64_t>(now_ms * 1_000_000), OVERDUE))

    cdef list wrap(self, ProducerBatch *batch):
        cdef ProducerBatch *next_batch
        cdef list batches = []
        while batch is not NULL:
            next_batch = batch.next
            batches.append(wrap_batch(self, batch))
            batch = next_batch
        return batches

    def limit_requests(self, str name, int32_t partition, size_t request_limit):
        """Bytes of a partition that may be in transit; 0: no bound."""
        self.set_request_limit(self.find(name).queues[partition], request_limit)

    def next_pause_ns(self):
        """How long an application that is ahead would pause now; what was closed so far then counts no more."""
        return self.pause_ns()

    def next_wakeup_ms(self, now_ms, next_expiry_ms=0):
        """When the sender would look again, or None if only for an event."""
        until = self.prepare_sleep(<int64_t>(now_ms * 1_000_000), <int64_t>(next_expiry_ms * 1_000_000))
        return None if until == INT64_MAX else until / 1_000_000

    def queue_lengths(self, str name):
        """Batches waiting, per partition, of those that are gone too."""
        cdef Topic *topic = self.find(name)
        return [topic.partitions.queue_lengths[i] for i in range(topic.capacity)]

    def outstanding(self, str name, int32_t partition):
        """Records of a partition that librdkafka has."""
        return self.find(name).queues[partition].in_flight.outstanding

    def random_draws(self, str name):
        """Random numbers drawn for a topic, with sequential_random."""
        return self.find(name).sticky.random.state


cdef class DrainedBatch:
    """A batch that was drained or has expired."""
    cdef ManualAccumulator accumulator
    cdef ProducerBatch *batch
    cdef readonly int partition
    cdef readonly int in_transit

    @property
    def records(self):
        """(key, value, headers, timestamp) of each record."""
        return batch_records(self.batch.arena, self.batch.count, self.batch.base_timestamp)

    @property
    def wire_size(self):
        return self.batch.wire_size

    def settle_records(self):
        """As the sender does before a lone record's future gets its result."""
        self.accumulator.settle_records(self.batch)

    def drop_expired(self):
        """As the sender does when the futures of an expired batch have failed."""
        self.accumulator.drop_expired(self.batch)

    def settle(self):
        """As the sender does when the last delivery report has come."""
        if self.batch is NULL:
            return
        if not self.batch.result.done:
            result_record(self.batch.result, 0, self.batch.count, 0, -1, -1, PERSISTED)
            result_complete(self.batch.result, self.batch.count)
        self.accumulator.settle(self.batch)
        batch_free(self.batch, self.accumulator.pool)
        self.batch = NULL


cdef DrainedBatch wrap_batch(ManualAccumulator accumulator, ProducerBatch *batch):
    cdef DrainedBatch wrapped = DrainedBatch()
    wrapped.accumulator = accumulator
    wrapped.batch = batch
    wrapped.partition = batch.result.partition
    wrapped.in_transit = batch.state == BATCH_IN_TRANSIT
    return wrapped


cdef class FlushWait:
    """A flush() that waits, from its construction until end()."""
    cdef ManualAccumulator accumulator
    cdef FlushPoint point

    def __cinit__(self, ManualAccumulator accumulator):
        self.accumulator = accumulator
        accumulator.begin_flush(&self.point)

    @property
    def done(self):
        return bool(self.point.done)

    def end(self):
        self.accumulator.end_flush(&self.point)


@cython.no_gc_clear   # __dealloc__ gives the arena back to the pool
cdef class Batch:
    """A batch of its own, in no accumulator."""
    cdef BufferPool pool
    cdef ProducerBatch *batch

    def __cinit__(self, BufferPool pool, size_t capacity):
        cdef void *arena = pool.try_allocate(capacity, 0)
        self.pool = pool
        if arena is NULL:
            raise MemoryError()
        self.batch = batch_new(<char *>arena, capacity, 0, 0)
        if self.batch is NULL:
            pool.deallocate(arena, capacity)
            raise MemoryError()

    def __dealloc__(self):
        if self.batch is not NULL:
            batch_free(self.batch, self.pool)

    def append(self, bytes value, bytes key=None, int64_t timestamp=0):
        """The record's index, or None if the arena has no room for it."""
        cdef fp_record record = record_of(value, key, timestamp)
        cdef int64_t delta = timestamp - self.batch.base_timestamp if self.batch.count else 0
        if not batch_fits_arena(self.batch, &record):
            return None
        index = batch_append(self.batch, &record, fp_wire_size(&record, fp_ts_wire(delta), self.batch.count))
        self.batch.result.futures -= 1
        return index

    def append_fast_path(self, bytes value, bytes key=None, int64_t timestamp=0, *, int64_t limit=1 << 40):
        cdef fp_record record = record_of(value, key, timestamp)
        done = batch_append_fast_path(self.batch, &record, limit)
        self.batch.result.futures -= done
        return bool(done)

    def append_run(self, list records, list partitions, *, int64_t limit=1 << 40):
        """records: (value, key, timestamp) each. Returns how many were appended."""
        cdef Py_ssize_t count = len(records)
        cdef fp_record *run = <fp_record *>calloc(count, sizeof(fp_record))
        cdef int32_t[::1] chosen = array("i", partitions)
        cdef Py_ssize_t i, done
        for i in range(count):
            value, key, timestamp = records[i]
            run[i] = record_of(value, key, timestamp)
        done = batch_append_run(self.batch, run, &chosen[0], count, limit)
        self.batch.result.futures -= <int32_t>done
        free(run)
        return done

    def grow(self, size_t capacity):
        return bool(batch_grow(self.batch, capacity, self.pool))

    def move(self, size_t capacity):
        batch_move(self.batch, <char *>self.pool.try_allocate(capacity, 0), capacity, self.pool)

    def records_within(self, int32_t first, size_t limit):
        """How many records from the first on fit into limit bytes of a request."""
        batch_rewind(self.batch, first)
        return batch_records_within(self.batch, limit)

    def request_size(self, int32_t first, int32_t count):
        cdef const char *start
        batch_rewind(self.batch, first)
        start = self.batch.cursor
        batch_rewind(self.batch, first + count)
        return batch_request_size(start, self.batch.cursor, count)

    @property
    def records(self):
        """(key, value, headers, timestamp) of each record."""
        return batch_records(self.batch.arena, self.batch.count, self.batch.base_timestamp)

    @property
    def wire_size(self):
        return self.batch.wire_size

    @property
    def used(self):
        return self.batch.used

    @property
    def capacity(self):
        return self.batch.capacity


cdef fp_record record_of(bytes value, bytes key, int64_t timestamp) except *:
    """Points into value and key."""
    cdef fp_record record
    memset(&record, 0, sizeof(record))
    if value is not None:
        record.value = value
        record.value_len = len(value)
    if key is not None:
        record.key = key
        record.key_len = len(key)
    record.timestamp = timestamp
    return record


cdef class StickyPartitioner:
    """One topic's choice of partitions for records without a key, on its own.

    ``sequential_random`` replaces the random numbers by 0, 1, 2, ...
    """
    cdef StickyState state
    cdef Partitions partitions
    cdef object _lengths
    cdef object _available

    def __cinit__(self, kind="uniform_sticky", *, batch_size=16384, adaptive=True, interval_ms=100,
                  seed=0, sequential_random=False):
        sticky_init(&self.state, KINDS[kind], adaptive, batch_size, <int64_t>(interval_ms * 1_000_000),
                    seed, sequential_random)

    def __dealloc__(self):
        sticky_free(&self.state)

    def set_partitions(self, queue_lengths, available=None):
        """queue_lengths: batches waiting per partition; available: a flag per partition, default all."""
        cdef int32_t[::1] lengths
        cdef unsigned char[::1] flags
        lengths = self._lengths = array("i", queue_lengths)
        flags = self._available = bytearray(available if available is not None else b"\1" * len(self._lengths))
        self.partitions.count = len(self._lengths)
        self.partitions.queue_lengths = &lengths[0]
        self.partitions.available = &flags[0]
        self.partitions.available_count = sum(self._available)

    def partition(self, now_ms=0):
        return sticky_partition(&self.state, &self.partitions, <int64_t>(now_ms * 1_000_000))

    def update(self, appended, enable_switch=True):
        return bool(sticky_update(&self.state, &self.partitions, appended, enable_switch))

    def on_new_batch(self):
        return sticky_on_new_batch(&self.state, &self.partitions)

    @property
    def draws(self):
        """Random numbers drawn so far, with sequential_random."""
        return self.state.random.state


@cython.no_gc_clear   # __dealloc__ needs the results
cdef class FailedBatches:
    """FailedRecords to which a test adds batches itself."""
    cdef FailedRecords failed
    cdef BufferPool pool
    cdef list results        # addresses, a reference each

    def __cinit__(self, size_t limit=1 << 20):
        self.failed = FailedRecords(limit)
        self.pool = BufferPool(1 << 20, 1 << 10)
        self.results = []

    def __dealloc__(self):
        for address in self.results:
            result_unref(<ProduceRequestResult *><uintptr_t>address, -1)

    def keep(self, list values, *, str topic="t", codes=None, bint with_records=True):
        """Keeps a batch of partition 0, codes: an error code for each value, 0 for one that was delivered.

        Returns its number for observe().
        """
        cdef fp_record record
        cdef bytes value
        cdef ProducerBatch *batch = batch_new(<char *>malloc(4096), 4096, 0, 0)
        cdef char *arena = batch.arena
        for i, value in enumerate(values):
            memset(&record, 0, sizeof(record))
            record.value = value
            record.value_len = len(value)
            batch_append(batch, &record, len(value))
            result_record(batch.result, i, 1, codes[i] if codes else 87, -1, -1, NOT_PERSISTED)
        result_complete(batch.result, batch.count)
        batch.result.futures = 1   # the reference that self.results has
        batch.arena = NULL
        self.results.append(<uintptr_t>batch.result)
        if not with_records:
            free(arena)
            arena = NULL
        self.failed.keep(batch, topic.encode(), arena)
        batch_free(batch, self.pool)
        return len(self.results) - 1

    def observe(self, number, index):
        """The program sees the failure of a record."""
        result_mark_observed(<ProduceRequestResult *><uintptr_t>self.results[number], index)

    def take(self):
        return self.failed.take()

    def raise_all(self, preface=""):
        self.failed.raise_all(preface)

    def discard(self):
        self.failed.discard()

    @property
    def bytes(self):
        return self.failed.bytes


cdef class InFlight:
    """An InFlightPartition whose batches, known by their numbers, a test makes, submits and reports itself."""
    cdef InFlightPartition flight
    cdef BufferPool pool
    cdef list batches        # addresses; 0: removed

    def __cinit__(self, str phase="FIRST_RECORD"):
        in_flight_init(&self.flight, PHASES[phase])
        self.pool = BufferPool(1 << 30, 1 << 10)
        self.batches = []

    def __dealloc__(self):
        for address in self.batches:
            if address:
                batch_free(<ProducerBatch *><uintptr_t>address, self.pool)

    cdef ProducerBatch *batch(self, number) except NULL:
        return <ProducerBatch *><uintptr_t>self.batches[number]

    cdef object number(self, ProducerBatch *batch):
        return None if batch is NULL else self.batches.index(<uintptr_t>batch)

    def add(self, int count, int size=100):
        """Adds a batch of records with values of `size` bytes."""
        cdef fp_record record
        cdef ProducerBatch *batch
        cdef bytes value = bytes(size)
        cdef size_t capacity = count * (size + 30)
        self.pool.try_reserve(capacity)
        batch = batch_new(<char *>malloc(capacity), capacity, 0, 0)
        memset(&record, 0, sizeof(record))
        record.value = value
        record.value_len = size
        for _ in range(count):
            batch_append(batch, &record, size)
        batch.result.futures = 0
        batch.state = BATCH_IN_TRANSIT
        in_flight_add(&self.flight, batch)
        self.batches.append(<uintptr_t>batch)
        return len(self.batches) - 1

    def submit(self, number, int count):
        in_flight_submit(&self.flight, self.batch(number), count)

    def deliver(self, number, int count):
        """Whether the limit may have changed."""
        in_flight_report(&self.flight, self.batch(number), count)
        return bool(in_flight_delivered(&self.flight))

    def refuse(self, number, int first, int count, int code):
        """Reports records as refused; whether they are kept to be submitted again."""
        in_flight_report(&self.flight, self.batch(number), count)
        if not in_flight_may_retry(&self.flight, self.batch(number), first, code):
            return False
        in_flight_retry(&self.flight, self.batch(number), first, count, code)
        return True

    def rewind(self):
        return bool(in_flight_rewind(&self.flight))

    def restart(self, str phase):
        return bool(in_flight_restart(&self.flight, PHASES[phase]))

    def drop_retry(self, number):
        in_flight_drop_retry(&self.flight, self.batch(number))

    def remove(self, number):
        in_flight_remove(&self.flight, self.batch(number))
        batch_free(self.batch(number), self.pool)
        self.batches[number] = 0

    def is_reported(self, number):
        return bool(batch_is_reported(self.batch(number)))

    def submitted(self, number):
        return self.batch(number).submitted

    def unsubmitted_exceed(self, int limit):
        return bool(in_flight_unsubmitted_exceed(&self.flight, limit))

    @property
    def phase(self):
        return next(name for name, phase in PHASES.items() if phase == self.flight.phase)

    @property
    def limit(self):
        return phase_limit(self.flight.phase, self.flight.split_limit)

    @property
    def outstanding(self):
        return self.flight.outstanding

    @property
    def single_record_request(self):
        return bool(self.flight.single_record_request)

    @property
    def next_to_submit(self):
        return self.number(self.flight.unsubmitted)

    @property
    def first_refused(self):
        return self.number(self.flight.refused)

    @property
    def in_transit(self):
        """Numbers of the batches, forwards; they are the same backwards."""
        cdef ProducerBatch *batch = self.flight.first
        forwards, backwards = [], []
        while batch is not NULL:
            forwards.append(self.number(batch))
            batch = batch.transit_next
        batch = self.flight.last
        while batch is not NULL:
            backwards.insert(0, self.number(batch))
            batch = batch.transit_previous
        assert forwards == backwards
        return forwards


cdef class ManualSender(Sender):
    """A Sender without a thread: a test makes the thread's moves itself."""

    @property
    def thread_state(self):
        return SENDER_STATES[fp_atomic_load(&self.state)]

    @property
    def delivered(self):
        return self.completion.records_sent

    @property
    def failed(self):
        return self.completion.records_failed

    @property
    def in_transit(self):
        return self.completion.transit_count

    def persisted(self, int code, str said, *, int requests=0, int64_t latency_us=-1):
        """Whether a record that failed is in the log, of which librdkafka says that; requests: sent since the drain."""
        cdef ProducerBatch batch
        cdef Report report
        memset(&batch, 0, sizeof(batch))
        batch.requests_before = fp_atomic_load(&self.transport.requests) - requests
        rejection_report(&report, 0, 0, 1, code)
        report.latency_us = latency_us
        report.persisted = next(number for number, name in PERSISTED_NAMES.items() if name == said)
        return PERSISTED_NAMES[self.completion.persisted(&batch, &report)]

    def topics_older_than(self, double seconds):
        return sorted(self.slow_topics(<int64_t>(seconds * 1e9)))

    def do_step(self, int64_t limit=1 << 20):
        """Whether there was anything to do."""
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            done = self.step(limit)
            fp_mutex_unlock(&self.sender_lock)
        return bool(done)

    def check_sleep(self, bint overslept):
        """Lets a poll that is under way be too late, or not, and looks after it. Returns the thread's state."""
        cdef int64_t until_ns = 0
        if not overslept:
            until_ns = fp_monotonic_ns() + 3_600_000_000_000
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            self.polls_until_ns = until_ns
            fp_mutex_unlock(&self.sender_lock)
        self.wake_if_overslept()
        return SENDER_STATES[fp_atomic_load(<const int *>&self.state)]

    def do_poll(self):
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            self.next_expiry_ns = fp_monotonic_ns() + 1_000_000_000
            self.poll()
            fp_mutex_unlock(&self.sender_lock)

    def do_yield(self):
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            self.next_expiry_ns = fp_monotonic_ns() + 1_000_000_000
            self.yield_to_app()
            fp_mutex_unlock(&self.sender_lock)

    def do_assist(self):
        with nogil:
            self.assist()

    def pretend(self, str state):
        """Sets the state, as if the sender thread were in it."""
        fp_mutex_lock(&self.sender_lock)
        fp_atomic_store(&self.state, SENDER_STATES.index(state))
        fp_mutex_unlock(&self.sender_lock)

    def wake(self):
        """Returns the state right after it."""
        with nogil:
            fp_mutex_lock(&self.sender_lock)
            self.wake_thread()
            state = fp_atomic_load(&self.state)
            fp_mutex_unlock(&self.sender_lock)
        return SENDER_STATES[state]


cdef class ManualRecreatedTopics(RecreatedTopics):
    """A RecreatedTopics that a test gives lines of librdkafka's log."""

    def read(self, bytes line):
        self.read_line(line)

    def names(self):
        return self.take()


def check_on_delivery(function):
    """Raises TypeError if send() would not take it as on_delivery."""
    check_delivery_callback(function)


def headers_of(headers, size_t limit=1 << 20):
    """(how many headers there are, their bytes in record format v2)."""
    cdef int32_t count
    cdef size_t wire
    encode_headers(headers, limit, &count, &wire)
    return count, wire


def timestamp_of(given):
    return checked_timestamp(given)


def whole_number_of(given):
    return whole_number(given, "it must be an int")


cdef class ManualClientErrors(ClientErrors):
    """ClientErrors that a test records itself."""

    def add(self, int code, bytes text, fatal=False):
        self.record(code, text, fatal)

    @property
    def fatal(self):
        """The code of the fatal error, or 0."""
        return fp_atomic_load(&self.fatal_code)


cdef class Result:
    """A ProduceRequestResult without a batch: a test records the outcomes of its records."""
    cdef ProduceRequestResult *result
    cdef BufferPool pool

    def __cinit__(self, int32_t partition=0, BufferPool pool=None):
        self.result = result_new(partition)
        if self.result is NULL:
            raise MemoryError()
        self.pool = pool
        self.result.pool = <void *>pool if pool is not None else NULL

    def __dealloc__(self):
        if self.result is not NULL:
            result_unref_batch(self.result)

    @property
    def address(self):
        return <uintptr_t>self.result

    def record(self, int32_t index, int32_t count, *, int32_t code=0, int64_t offset=-1, int64_t timestamp=-1):
        result_record(self.result, index, count, code, offset, timestamp, NOT_PERSISTED if code else PERSISTED)

    def complete(self, int32_t count):
        """How many callbacks there are to run."""
        return result_complete(self.result, count)

    def outcome(self, int32_t index):
        """(code, offset) of a record."""
        cdef Segment *segment = result_segment(self.result, index)
        return segment.code, segment.base_offset + index - segment.first if segment.base_offset >= 0 else -1

    def error(self, int32_t index):
        return segment_error(result_segment(self.result, index), "t", self.result.partition)

    def observe(self, int32_t index):
        result_mark_observed(self.result, index)

    def observe_all(self):
        result_mark_all_observed(self.result)

    def add_callback(self, int32_t index, str kind="on_delivery", *, forced=False):
        """Whether it was added. It is never called."""
        return result_add_callback(self.result, index, CALLBACK_KINDS[kind], NULL, NULL,
                                   FORCED if forced else IF_FREE) == CALLBACK_ADDED

    def wait(self, int64_t until_ns):
        """Whether it is complete by then."""
        with nogil:
            done = wait_completed(&self.result.done, until_ns)
        return bool(done)

    @property
    def segments(self):
        return self.result.segment_count

    @property
    def unobserved(self):
        return self.result.unobserved


cdef class Flag:
    """A flag that threads wait for as they wait for results."""
    cdef int value

    def set(self):
        fp_atomic_store(&self.value, 1)
        notify_completed()

    def wait(self, int64_t until_ns):
        """Whether it is set by then."""
        with nogil:
            done = wait_completed(&self.value, until_ns)
        return bool(done)


def offsets_of(offsets):
    """(topic, partition, offset, leader epoch, metadata) of each offset, as librdkafka gets them."""
    return checked_offsets(offsets)


def read_group(bytes group):
    """Raises ValueError if send_offsets_to_transaction() would not take it as the group's metadata."""
    cdef TransactionCall call
    memset(&call, 0, sizeof(call))
    try:
        set_offsets(&call, [], group)
    finally:
        free_offsets(&call)


def call_transaction(Transport transport, str request, int timeout_ms=0, *, offsets=None, bytes group=None):
    """Makes a call; returns librdkafka's answer (code, fatal, retriable, abortable, text)."""
    cdef TransactionCall call
    memset(&call, 0, sizeof(call))
    call.code = call.fatal = call.retriable = call.abortable = 1   # the answer to an earlier call
    call.text[0] = b"x"
    call.request = TRANSACTION_REQUESTS[request]
    call.timeout_ms = timeout_ms
    try:
        if offsets is not None:
            set_offsets(&call, checked_offsets(offsets), group)
        with nogil:
            transact(transport.rk, &call)
    finally:
        free_offsets(&call)
    return call.code, bool(call.fatal), bool(call.retriable), bool(call.abortable), call.text.decode()


WANTED = {AWAITED: "AWAITED", EVERYTHING: "EVERYTHING", 0: None}


cdef class ManualUpdateRequest(UpdateRequest):
    """An UpdateRequest that Python code makes and waits for."""

    def ask(self, str what):
        self.request({name: number for number, name in WANTED.items()}[what])

    def wait(self, double seconds=0):
        """What was asked for, by its name; None: nothing until then."""
        return WANTED[self.wait_requested(fp_monotonic_ns() + <int64_t>(seconds * 1e9))]

    def wait_until_closed(self, double seconds):
        self.wait_closed(fp_monotonic_ns() + <int64_t>(seconds * 1e9))
        return bool(self.closed)

    def end(self):
        self.close()


cdef void count_acknowledgement(void *transport, const Report *report) noexcept nogil:
    fp_atomic_add(<int32_t *>&(<ManualTransport>transport).early, 1)


cdef class ManualTransport(Transport):
    """A Transport with one topic, whose batches a test makes, hands over and has reported itself."""
    cdef OpenTopic *opened
    cdef rd_kafka_topic_partition_list_t *paused
    cdef BufferPool pool
    cdef list batches             # addresses
    cdef readonly list reports    # (batch's number, first, count, code, offset) each
    cdef readonly list timestamps  # of those reports
    cdef int early                # reports of lone records, by librdkafka's threads

    def __cinit__(self, *arguments, **keywords):
        self.pool = BufferPool(1 << 30, 1 << 10)
        self.batches = []
        self.reports = []
        self.timestamps = []
        self.acknowledged = count_acknowledgement
        self.receiver = <void *>self

    def __dealloc__(self):
        self.end_all()            # it reads the arenas
        for address in self.batches or ():
            batch_free(<ProducerBatch *><uintptr_t>address, self.pool)

    def open(self, str name):
        """The topic of what is handed over from now on, with the current librdkafka producer."""
        self.opened = self.open_topic(name.encode())

    def hand(self, list values, int64_t timestamp, *, int32_t partition=0, timed=False):
        """Hands over a batch; timed: whether its timestamp was given, or that of each record. Returns its number."""
        cdef fp_record record
        cdef size_t capacity = sum(len(value) + 40 for value in values)
        cdef ProducerBatch *batch
        cdef Report refused
        cdef int32_t first = 0
        self.pool.try_reserve(capacity)
        batch = batch_new(<char *>malloc(capacity), capacity, partition, 0)
        for i, value in enumerate(values):
            record = record_of(value, None, timestamp)
            record.timed = timed[i] if isinstance(timed, list) else timed
            batch_append(batch, &record, len(value))
        batch.result.futures = 0
        batch.slot = <int32_t>len(self.batches)
        batch_rewind(batch, 0)
        self.batches.append(<uintptr_t>batch)
        while first < batch.count:
            first += self.hand_over(self.opened, batch, first, batch.count - first)
            while self.next_rejected(&refused):
                self.keep(&refused)
        return batch.slot

    cdef int keep(self, const Report *report) except -1:
        self.reports.append((report.slot, report.first, report.count, report.code, report.offset))
        self.timestamps.append(report.timestamp)

    cdef bint serve(self, rd_kafka_event_t *event) except -1:
        """Serves the event, if there is one; returns whether there is."""
        cdef DeliveryReports reports
        cdef Report report
        if event is NULL:
            return False
        if self.open_event(event, &reports, 0):
            while next_report(&reports, &report):
                self.keep(&report)
        self.close_event(&reports)
        return True

    def serve_one(self, int timeout_ms):
        """Serves an event; whether one came within that time."""
        cdef rd_kafka_event_t *event
        with nogil:
            event = self.next_event(timeout_ms)
        return self.serve(event)

    def pause(self, str name, int32_t partition):
        """Whether the partition is known, and is paused now."""
        self.paused = pause_partition(self.opened, name.encode(), partition)
        return self.paused is not NULL

    def resume(self, int32_t partition):
        resume_partition(self.paused, self.opened, partition)

    def do_wake(self):
        self.wake()

    def do_purge(self):
        with nogil:
            self.purge(1)

    def do_switch_over(self):
        self.switch_over()

    def read_log(self, bytes line):
        """As if librdkafka had logged the line."""
        self.recreated_topics.read_line(line)

    def serve_retired(self, int timeout_ms):
        """serve_one(), of the retired librdkafka producer."""
        cdef rd_kafka_event_t *event
        with nogil:
            event = self.next_of(self.retired.queue, timeout_ms)
        return self.serve(event)

    def end_retired(self):
        """Whether there was a retired librdkafka producer."""
        cdef Handle taken
        self.take_retired(&taken)
        found = taken.rk is not NULL
        self.end(&taken)
        return found

    @property
    def reported(self):
        """How many records are reported."""
        return sum(count for _, _, count, _, _ in self.reports)

    @property
    def early_reports(self):
        return fp_atomic_load(&self.early)

    @property
    def produce_requests(self):
        return fp_atomic_load(<const int *>&self.requests)

    @property
    def number(self):
        """The current librdkafka producer's."""
        return self.generation


cdef class ManualMetadataRequests(MetadataRequests):
    """MetadataRequests whose preparation of the next librdkafka producer a test makes itself."""

    def do_prepare(self, list names):
        """0, or the code of the error."""
        return self.prepare(names)


cdef class ManualPendingRecords(PendingRecords):
    """PendingRecords that Python code waits for."""

    def wait(self, seconds):
        """Whether the records appended so far have settled within that time."""
        return bool(self.wait_settled(fp_monotonic_ns() + <int64_t>(seconds * 1_000_000_000)))


cdef class ManualProducerMetadata(ProducerMetadata):
    """ProducerMetadata that a test gives answers itself."""

    def add(self, str name):
        """The topic's TopicMetadata, which keeps the topic."""
        return self.entry(name)

    def learn(self, dict found):
        """Takes an answer; returns the names of the topics whose partitions were not known before."""
        return [(<TopicMetadata>entry).name for entry in self.update(found)]

    def await_answer(self, str name):
        """As a thread does that waits for the topic."""
        self.awaited.add(name)

    def set_unused(self, str name, seconds):
        """The topic was used last so long ago."""
        cdef TopicMetadata entry = self.topics[name]
        entry.used_ns = entry.topic.used_ns = fp_monotonic_ns() - <int64_t>(seconds * 1e9)

    def forget_unused(self, seconds):
        """Names of the topics that were not used for so long, and are forgotten now."""
        return self.sweep(fp_monotonic_ns() - <int64_t>(seconds * 1e9))

    def expect_recreated(self, str name):
        (<TopicMetadata>self.topics[name]).anew = True

    def take_doubt(self):
        """Whether the answers since the last call left anything open."""
        doubtful, self.doubtful = self.doubtful, False
        return bool(doubtful)

    @property
    def names(self):
        return sorted(self.topics)

    @property
    def partitions(self):
        """Of all topics."""
        return self.known_partitions

    @property
    def without_leader(self):
        return self.leaderless


cdef class ManualMetadataUpdater(MetadataUpdater):
    """A MetadataUpdater without a thread."""

    def names(self, str requested=None, *, due=False, all_due=False):
        """The topics that it would ask for; due, all_due: whether the time of the next request has come."""
        now = fp_monotonic_ns()
        self.next_ask_ns = now if due else INT64_MAX
        self.next_full_ns = now if all_due else INT64_MAX
        return sorted(self.names_to_ask({name: number for number, name in WANTED.items()}[requested]), key=str)

    def do_ask(self, list names):
        """Whether the brokers answered."""
        return self.ask(names)

    def next_request_s(self):
        return self.timeout()


cdef class ManualClientRenewal(ClientRenewal):
    """A ClientRenewal that a test drives."""

    def open(self, list names):
        """The librdkafka producer learns of topics that the metadata knows."""
        self.count_opened(names)
        self.count_known([self.metadata.topics[name] for name in names])

    def find_stranded(self):
        """Names of the topics that were created again, and to which librdkafka cannot deliver."""
        self.check_recreated()
        return [(<TopicMetadata>entry).name for entry in self.stranded]

    def due(self, *, after_s=0):
        return self.is_due(fp_monotonic_ns() + after_s * 1_000_000_000)

    def do_renew(self):
        """Whether topics were created again."""
        return self.renew()
