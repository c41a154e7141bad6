"""Records in bulk. BulkAppend takes a call's records to the accumulator, BulkFuture is their outcome.

SequenceAppend reads them out of what send_many() was given; bulk/arrow_append.pyx has the one for send_arrow().

Java has no such call. What a record costs here is the copy into its arena: the
loop that appends runs without the GIL and without Python objects.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.list cimport PyList_CheckExact
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.sequence cimport PySequence_Fast_GET_SIZE, PySequence_Fast_ITEMS
from cpython.tuple cimport PyTuple_CheckExact
from libc.stdint cimport INT32_MAX, int32_t, int64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset
from fastprod.internals.record_accumulator cimport RecordAppendResult, CallbackSlot, Placed, RecordAccumulator
from fastprod.internals.future cimport (
    AWAITED, FutureRecordMetadata, Segment, process_generation, register_callback, result_segment,
    result_tell, result_unref, segment_error, wait_completed,
)
from fastprod.internals.input cimport checked_timestamp, encode_headers, refuse_size, shorten, span_of, span_release
from fastprod.internals.producer_metadata cimport ProducerMetadata, TopicMetadata
from fastprod.internals.partitioner cimport key_partitions
from fastprod.internals.record cimport FP_MAX_OVERHEAD, fp_no_headers, fp_prefetch, fp_record, fp_wire_upper_bound
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns, fp_wall_ms
from fastprod.internals.threads cimport next_slice

import itertools
from collections import Counter

from fastprod.internals.future import wait_deadline
from fastprod.errors import BulkDeliveryError, ForkedProducerError, KafkaError, joint_persisted, set_place
from fastprod.librdkafka.loader import describe
from fastprod.records import BulkMetadata

cdef tuple FIELDS = ("values", "keys", "partitions", "timestamps", "headers")
cdef enum:
    FIRST_GAPS = 64      # bytes
    GAP_SIZE = 10        # bytes, of the longest


@cython.final
cdef class BulkFuture:
    """BulkFuture()
--

    The outcome of the records of one send_many() or send_arrow(), to come: ``result()`` or ``await``.

    Owns shares of the results of their batches, and which of their records are
    whose: a few words per batch, and for records that went to several partitions
    in turn about a byte each. Thread-safe once the call that made it is over.
    """

    def __init__(self):
        raise TypeError("a BulkFuture comes from Producer.send_many() or send_arrow()")

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.run_count):
            if not self.borrows:
                result_unref(self.runs[i].result, -self.runs[i].count)
            free(self.runs[i].gaps)
        free(self.runs)
        free(self.latest)

    cdef int place(self, const Placed *placed) noexcept nogil:
        """Takes over shares of the result of the call's next records; 0 if there is no memory to note them."""
        cdef PlacedRun *run = NULL
        cdef int32_t partition = placed.partition
        cdef int32_t _i
        if not self.room(partition):
            if not self.borrows:
                for _i in range(placed.count):
                    result_unref(placed.result, -1)
            return 0
        if self.latest[partition] >= 0:
            run = &self.runs[self.latest[partition]]
            if run.result is not placed.result or placed.index != run.first + run.count or not note_gaps(
                    run, self.count - run.last_input, placed.count):
                run = NULL
        if run is NULL:
            run = &self.runs[self.run_count]
            memset(run, 0, sizeof(PlacedRun))
            run.result = placed.result
            run.first = placed.index
            run.first_input = self.count
            self.latest[partition] = self.run_count
            self.run_count += 1
        run.count += placed.count
        self.count += placed.count
        run.last_input = self.count - 1
        return 1

    cdef int room(self, int32_t partition) noexcept nogil:
        """Makes room for a run, and for the partition's last one."""
        cdef Py_ssize_t capacity
        cdef PlacedRun *runs
        cdef Py_ssize_t *latest
        cdef int32_t count
        if self.run_count == self.run_capacity:
            capacity = 2 * self.run_capacity + 4
            runs = <PlacedRun *>realloc(self.runs, capacity * sizeof(PlacedRun))
            if runs is NULL:
                return 0
            self.runs = runs
            self.run_capacity = capacity
        if partition >= self.latest_count:
            count = max(partition + 1, 2 * self.latest_count)
            latest = <Py_ssize_t *>realloc(self.latest, count * sizeof(Py_ssize_t))
            if latest is NULL:
                return 0
            self.latest = latest
            memset(latest + self.latest_count, 0xff, (count - self.latest_count) * sizeof(Py_ssize_t))
            self.latest_count = count
        return 1

    cdef int add(self, FutureRecordMetadata future) except -1:
        """The call's next record went through send(). Its future is kept, and its share of the result with it."""
        cdef Placed placed
        placed.result = future.produced
        placed.index = future.index
        placed.partition = future.produced.partition
        placed.count = 1
        if not self.borrows:
            self.borrows = 1
            self.futures = []
        self.futures.append(future)
        if not self.place(&placed):
            raise MemoryError("no memory for a BulkFuture")
        self.size += max(future.key_size, 0) + <int64_t>max(future.value_size, 0)
        return 0

    cdef object tell(self, object error, bint reading):
        """Lets what came out of the call say what it has sent; a user's exception may have no room for that.

        reading: it had begun to read the records.
        """
        set_place(error, self.topic, None)
        self.broken_off = True
        try:
            error.sent = self
            error.index = self.count
            if reading:
                error.add_note(f"It came at index {self.count} of the call; "
                               + ("the records before that were sent." if self.count else "nothing was sent."))
        except Exception:      # Python 3.10 has no notes
            pass

    cdef void forget_latest(self) noexcept:
        """The call is over."""
        free(self.latest)
        self.latest = NULL
        self.latest_count = 0

    cdef Py_ssize_t first_unsettled(self) except? -2:
        """The first run whose batch has not settled, or the number of runs."""
        if self.topic is None:
            raise TypeError("a BulkFuture comes from Producer.send_many() or send_arrow()")
        while self.settled < self.run_count and fp_atomic_load(&self.runs[self.settled].result.done):
            self.settled += 1
        if self.settled < self.run_count and self.runs[self.settled].result.fork_generation != process_generation:
            raise ForkedProducerError("the records were sent before the process forked: ask their future in the parent")
        return self.settled

    def __reduce__(self):
        """None in another process where it is the `sent` of an exception, which could not get there otherwise."""
        if self.broken_off:
            return type(None), ()
        return self.__copy__()

    def __copy__(self):
        raise TypeError("a BulkFuture cannot be copied or pickled: the outcome is told in this process only. Ask it "
                        "here, and pass on what result() or exception() gives")

    def __deepcopy__(self, memo):
        return self if self.broken_off else self.__copy__()

    def done(self):
        """Whether all of them have settled. Asking this is not being told."""
        return self.first_unsettled() == self.run_count

    def result(self, timeout=None):
        """The BulkMetadata; waits at most `timeout` seconds (None: for ever).

        BulkDeliveryError, with the index and the error of each, if some failed; TimeoutError if they have not all
        settled: they are still on their way and can be asked again.
        """
        cdef int64_t deadline = wait_deadline(timeout)
        cdef int64_t until, pause_ns = 0
        cdef Py_ssize_t i
        cdef int done
        cdef PlacedRun *run
        while True:
            i = self.first_unsettled()
            if i == self.run_count:
                break
            until = next_slice(deadline, &pause_ns)
            with nogil:
                done = wait_completed(&self.runs[i].result.done, until)
            if not done and fp_monotonic_ns() >= deadline:
                raise TimeoutError(f"the {self.count} records for {self.topic} were not settled within {timeout} s; "
                                   "they are still on their way")
        failures = self.failures()
        if failures:
            reasons = Counter(describe(error.code) for _, error in failures)
            shown = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common(3))
            index, error = failures[0]
            failed = BulkDeliveryError(
                f"{len(failures)} of {self.count} records for {self.topic} failed: {shown}. "
                f"The first, at index {index}: {error}; .failures has the index and the error of each",
                failures=failures, reasons=reasons, code=error.code,
                retriable=all(error.retriable for _, error in failures),
                fatal=any(error.fatal for _, error in failures),
                persisted=joint_persisted([error.persisted for _, error in failures]))
            if all(error.topic == self.topic for _, error in failures):
                set_place(failed, self.topic, None)
            raise failed
        topics = {self.topic: {}}
        for i in range(self.run_count):
            run = &self.runs[i]
            partitions = topics.setdefault(self.topic_of(run), {})
            first, last = offset_of(run, run.first), offset_of(run, run.first + run.count - 1)
            count, earlier, later = partitions.get(run.result.partition, (0, first, last))
            partitions[run.result.partition] = count + run.count, min(earlier, first), max(later, last)
        metadata = BulkMetadata(self.topic, self.count, self.size, topics.pop(self.topic))
        if topics:
            metadata.other_topics = topics
        return metadata

    def exception(self, timeout=None):
        """The BulkDeliveryError that result() would raise, or None; waits at most `timeout` seconds."""
        try:
            self.result(timeout)
        except BulkDeliveryError as error:
            return error
        return None

    cdef str topic_of(self, const PlacedRun *run):
        """Of its records: an interceptor may have sent them elsewhere than the call said."""
        return (<FutureRecordMetadata>self.futures[run.first_input]).topic if self.borrows else self.topic

    cdef list failures(self):
        """(index, error) of those that failed, by index; they count as told. All have settled."""
        cdef list found = []
        cdef Py_ssize_t i
        cdef int32_t k, at
        cdef int64_t place
        cdef PlacedRun *run
        cdef Segment *segment
        cdef Segment *last
        for i in range(self.run_count):
            run = &self.runs[i]
            if run.result.segment_count == 1 and run.result.segments[0].code == 0:
                continue
            last = NULL
            error = None
            place = run.first_input
            at = 0
            for k in range(run.count):
                if k:
                    place += next_gap(run, &at)
                segment = result_segment(run.result, run.first + k)
                if segment.code == 0:
                    continue
                if segment is not last:
                    last = segment
                    error = segment_error(segment, self.topic_of(run), run.result.partition)
                result_tell(run.result, run.first + k)
                found.append((place, error))
        found.sort(key=lambda failure: failure[0])
        return found

    def __await__(self):
        cdef Py_ssize_t i
        import asyncio
        while True:
            i = self.first_unsettled()
            if i == self.run_count:
                return self.result()
            settled = asyncio.get_running_loop().create_future()
            if register_callback(self.runs[i].result, self.runs[i].first, AWAITED, settled, self):
                yield from settled

    def __repr__(self):
        return f"<BulkFuture {self.topic} of {self.count} records, {'settled' if self.done() else 'pending'}>"


cdef BulkFuture future_of_call(object topic):
    """That has sent nothing yet. topic: unchecked."""
    cdef BulkFuture future = <BulkFuture>BulkFuture.__new__(BulkFuture)
    future.topic = str.__str__(topic) if isinstance(topic, str) else ""
    return future


cdef int note_gaps(PlacedRun *run, int64_t gap, int32_t count) noexcept nogil:
    """How far the first of the next records is behind the last in the call; the others follow it, without a gap.

    0 if there is no memory.
    """
    cdef unsigned char *grown
    cdef int32_t size
    if run.gaps is NULL and gap == 1:
        return 1
    size = run.gaps_size
    if run.gaps is NULL:
        size = max(<int32_t>FIRST_GAPS, run.count + count + GAP_SIZE)
    elif run.gaps_used + count + GAP_SIZE > size:
        size = 2 * size + count
    if size != run.gaps_size:
        grown = <unsigned char *>realloc(run.gaps, size)
        if grown is NULL:
            return 0
        if run.gaps is NULL:
            run.gaps_used = run.count - 1
            memset(grown, 1, run.gaps_used)
        run.gaps = grown
        run.gaps_size = size
    while gap >= 0x80:
        run.gaps[run.gaps_used] = gap & 0x7f | 0x80
        run.gaps_used += 1
        gap >>= 7
    run.gaps[run.gaps_used] = gap
    run.gaps_used += 1
    memset(run.gaps + run.gaps_used, 1, count - 1)
    run.gaps_used += count - 1
    return 1


cdef int64_t next_gap(PlacedRun *run, int32_t *at) noexcept nogil:
    cdef int64_t gap = 0
    cdef int shift = 0
    if run.gaps is NULL:
        return 1
    while True:
        gap |= <int64_t>(run.gaps[at[0]] & 0x7f) << shift
        shift += 7
        at[0] += 1
        if not run.gaps[at[0] - 1] & 0x80:
            return gap


cdef int64_t offset_of(PlacedRun *run, int32_t index) noexcept nogil:
    """The offset of a delivered record, -1 if the broker gave none."""
    cdef Segment *segment = result_segment(run.result, index)
    return segment.base_offset + index - segment.first if segment.base_offset >= 0 else -1


cdef class Column:
    """What a call gave for one field: one for all, or one for each record."""

    def __init__(self, given, str name, bint may_be_one):
        if given is None and name != "values" or may_be_one and is_one(given, name):
            self.scalar = given
        elif isinstance(given, (list, tuple)):
            self.items = given if type(given) in (list, tuple) else iter(given)
        elif isinstance(given, (str, bytes, bytearray, memoryview)) or is_mapping(given) or (
                not hasattr(given, "__iter__")):
            raise TypeError(f"{name} must be a sequence or iterable, an item for each record, not "
                            f"{type(given).__name__}: {shorten(given)}")
        else:
            self.items = iter(given)

    def __dealloc__(self):
        self.unref()

    cdef int take(self, Py_ssize_t most) except -1:
        """Takes the next items, as many as there are or `most`; what an iterator raised instead is kept as `error`."""
        cdef Py_ssize_t i, count
        cdef PyObject **items
        if PyList_CheckExact(self.items) or PyTuple_CheckExact(self.items):
            items = PySequence_Fast_ITEMS(self.items)
            # Of a list that has become shorter there may be less than nothing.
            count = min(most, PySequence_Fast_GET_SIZE(self.items) - self.at)
            for i in range(count):
                fp_prefetch(items[self.at + min(i + 8, count - 1)])
                self.taken[i] = items[self.at + i]
                Py_INCREF(<object>self.taken[i])
            self.count = max(count, <Py_ssize_t>0)
            self.at += self.count
        elif self.items is not None:
            try:
                for item in itertools.islice(self.items, most):
                    Py_INCREF(item)
                    self.taken[self.count] = <PyObject *>item
                    self.count += 1
            except BaseException as error:
                self.error = error
        return 0

    cdef PyObject *item(self, Py_ssize_t i) noexcept:
        return <PyObject *>self.scalar if self.items is None else self.taken[i]

    cdef void unref(self) noexcept:
        while self.count:
            self.count -= 1
            Py_DECREF(<object>self.taken[self.count])


cdef bint is_mapping(object given) except -1:
    """Or a data frame, which gives the names of its columns. A column of pandas has items too, and one dimension."""
    return hasattr(given, "items") and getattr(given, "ndim", None) != 1


cdef bint is_one(object given, str name) except -1:
    """Whether a field's value is one for all records."""
    if name != "headers":
        return not hasattr(given, "__iter__")
    if is_mapping(given):
        return True
    if not isinstance(given, (list, tuple)):
        return False
    if not given:
        return True
    # Pairs (str, value), or a list for each record, which may be empty or None.
    first = given[0]
    if isinstance(first, str):
        raise TypeError(f"headers are pairs, as in headers=[(name, value)], not {shorten(given)}")
    if not isinstance(first, (list, tuple)) or len(first) != 2:
        return False
    if isinstance(first[0], bytes):
        raise TypeError(f"a header's name must be str, not bytes: {shorten(first[0])}")
    return isinstance(first[0], str)


cdef class BulkAppend:
    """Appends records of one call, a chunk at a time: whoever derives from it fills the arrays.

    Owns the arrays of a chunk. Used by one thread.
    """

    def __cinit__(self, BulkFuture future, TopicMetadata entry, RecordAccumulator accumulator, int epoch,
                  ProducerMetadata metadata, int64_t max_block_ns, size_t largest_record, str size_limit,
                  bint ignore_keys):
        self.future = future
        self.entry = entry
        self.accumulator = accumulator
        self.epoch = epoch
        self.metadata = metadata
        self.max_block_ns = max_block_ns
        self.largest_record = largest_record
        self.size_limit = size_limit
        self.ignore_keys = ignore_keys
        self.records = <fp_record *>malloc(CHUNK * sizeof(fp_record))
        self.partitions = <int32_t *>malloc(CHUNK * sizeof(int32_t))
        self.placed = <Placed *>malloc(CHUNK * sizeof(Placed))
        if self.records is NULL or self.partitions is NULL or self.placed is NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.records)
        free(self.partitions)
        free(self.placed)

    cdef int append(self, Py_ssize_t count, bint wait) except -1:
        """Appends the chunk's first `count` records, or those for which it need not wait; Ctrl-C comes out of it."""
        cdef Py_ssize_t done
        with nogil:
            self.place_keys(count)
            done = self.append_ready(0, count)
        return self.append_rest(done, count) if wait else 0

    cdef void place_keys(self, Py_ssize_t count) noexcept nogil:
        """Chooses the partitions of those that have a key and no partition."""
        cdef const unsigned char *keys[CHUNK]
        cdef unsigned int sizes[CHUNK]
        cdef unsigned int found[CHUNK]
        cdef int32_t places[CHUNK]
        cdef Py_ssize_t i, number = 0
        if self.ignore_keys:
            return
        for i in range(count):
            if self.partitions[i] < 0 and self.records[i].key is not NULL:
                keys[number] = <const unsigned char *>self.records[i].key
                sizes[number] = <unsigned int>self.records[i].key_len
                places[number] = <int32_t>i
                number += 1
        if number == 0:
            return
        key_partitions(keys, sizes, found, number, fp_atomic_load(<const int *>&self.entry.partitions))
        for i in range(number):
            self.partitions[places[i]] = <int32_t>found[i]

    cdef Py_ssize_t append_ready(self, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
        """Appends records from the first on, up to one that cannot be at once; which one that is, or count."""
        cdef Py_ssize_t runs, i
        cdef int64_t size = 0
        cdef Py_ssize_t end = first + self.accumulator.append_many(
            self.entry.topic, self.records + first, self.partitions + first, count - first, self.epoch,
            self.placed, &runs)
        for i in range(runs):
            if not self.future.place(&self.placed[i]):
                self.unnoted = 1
        for i in range(first, end):
            size += self.records[i].key_len + self.records[i].value_len
        self.future.size += size
        return end

    cdef int append_rest(self, Py_ssize_t first, Py_ssize_t count) except -1:
        """Appends records from the first on, which may have to wait for memory."""
        while True:
            if first < count and not self.unnoted:
                self.append_one(first)
                first += 1
            if self.unnoted:
                raise MemoryError("no memory for a BulkFuture")
            PyErr_CheckSignals()
            if first == count:
                return 0
            with nogil:
                first = self.append_ready(first, count)

    cdef int append_one(self, Py_ssize_t i) except -1:
        """Appends a record that has to wait for memory; what append_many() was refused is raised from here."""
        cdef CallbackSlot callback
        cdef RecordAppendResult appended
        cdef Placed placed
        callback.function = NULL
        try:
            self.accumulator.append(self.entry.topic, self.partitions[i], &self.records[i], self.epoch, 0, 0,
                                    &callback, 0, &appended)
        except KafkaError as error:
            set_place(error, self.entry.name, self.partitions[i])
            raise
        placed.result = appended.result
        placed.index = appended.index
        placed.partition = appended.partition
        placed.count = 1
        if not self.future.place(&placed):
            self.unnoted = 1
        self.future.size += self.records[i].key_len + self.records[i].value_len
        return 0


cdef class SequenceAppend(BulkAppend):
    """Appends the records of one send_many().

    Holds what the chunk's records point at while it is appended.
    """

    def __cinit__(self, *_):
        self.refs = []
        self.spans = <Span *>malloc(2 * CHUNK * sizeof(Span))
        if self.spans is NULL:
            raise MemoryError()

    def __dealloc__(self):
        self.release_spans()
        free(self.spans)

    def read_from(self, values, keys, partitions, timestamps, headers):
        """Columns that have what the call was given."""
        self.values, self.keys, self.record_partitions = values, keys, partitions
        self.timestamps, self.headers = timestamps, headers
        self.columns = values, keys, partitions, timestamps, headers   # in the order of FIELDS
        self.fast_path = all(column.items is None and column.scalar is None
                             for column in (self.record_partitions, self.timestamps, self.headers))
        if self.keys.items is None and self.keys.scalar is None:
            self.ignore_keys = True

    cdef Py_ssize_t take(self) except -1:
        """Takes the next chunk's items from the columns; how many records they are, 0 after the last.

        What a column raises is raised once there are no records before it; until then it is kept as `error`.
        """
        cdef Column column
        cdef Py_ssize_t count = CHUNK
        if self.error is not None:
            raise self.error
        for column in self.columns:
            column.take(count)
            if column.error is not None:
                if self.error is None or isinstance(self.error, Exception):   # Ctrl-C is not forgotten
                    self.error = column.error
                count = column.count       # of the columns behind it no more is needed
        for column, name in zip(self.columns, FIELDS):
            if column.items is not None and column.count != self.values.count and self.error is None:
                number = "fewer" if column.count < self.values.count else "more"
                raise ValueError("send_many() takes as many keys, partitions, timestamps and headers as there are "
                                 f"values; of {name} there are {number}")
            if column.items is not None:
                count = min(count, column.count)
        if count == 0 and self.error is not None:
            raise self.error
        return count

    cdef int append_taken(self, Py_ssize_t count) except -1:
        """Appends the chunk; if a record is wrong, those before it. Raises what ended the chunk.

        Ctrl-C waits for no memory: of the records before it those are appended for which there is some.
        """
        cdef Py_ssize_t i = 0
        cdef int64_t now_ms = fp_wall_ms()
        try:
            while True:
                if self.fast_path:
                    i = self.read_bare(i, count, now_ms)
                if i == count:
                    break
                self.read(i, now_ms)
                i += 1
            if self.error is not None:
                raise self.error
        except BaseException as error:
            if i < count:
                set_place(error, self.entry.name, <object>self.record_partitions.item(i))
            self.append(i, isinstance(error, Exception))
            raise
        return self.append(count, True)

    cdef Py_ssize_t read_bare(self, Py_ssize_t first, Py_ssize_t count, int64_t now_ms) noexcept:
        """read() for what most records are, bytes, from the first on; which is the first that is not, or count."""
        cdef fp_record *record
        cdef PyObject **values = self.values.taken
        cdef PyObject **keys = NULL if self.keys.items is None else self.keys.taken
        cdef PyObject *key = <PyObject *>self.keys.scalar
        cdef Py_ssize_t i
        for i in range(first, count):
            record = &self.records[i]
            if not PyBytes_CheckExact(<object>values[i]):
                return i
            if keys is not NULL:
                key = keys[i]
            record.key = NULL
            record.key_len = 0
            if key is not <PyObject *>None:
                if not PyBytes_CheckExact(<object>key):
                    return i
                record.key = PyBytes_AS_STRING(<object>key)
                record.key_len = PyBytes_GET_SIZE(<object>key)
            record.value = PyBytes_AS_STRING(<object>values[i])
            record.value_len = PyBytes_GET_SIZE(<object>values[i])
            fp_no_headers(record)
            record.timed = 0
            record.timestamp = now_ms
            self.partitions[i] = -1
            if record.key_len + record.value_len + FP_MAX_OVERHEAD > self.largest_record:
                return i
        return count

    cdef int read(self, Py_ssize_t i, int64_t now_ms) except -1:
        """Points the chunk's record i at what is to be copied."""
        cdef fp_record *record = &self.records[i]
        cdef bytes encoded
        cdef int64_t deadline = 0
        cdef size_t size
        cdef object partition = <object>self.record_partitions.item(i)
        cdef object timestamp = <object>self.timestamps.item(i)
        cdef object headers = <object>self.headers.item(i)
        self.point(<object>self.values.item(i), &record.value, &record.value_len, "value")
        self.point(<object>self.keys.item(i), &record.key, &record.key_len, "key")
        fp_no_headers(record)
        if headers is not None:
            encoded = encode_headers(
                headers, self.largest_record, &record.headers_count, &record.headers_wire)
            if record.headers_count:
                self.refs.append(encoded)
                record.headers = encoded
                record.headers_len = len(encoded)
        record.timed = timestamp is not None
        record.timestamp = now_ms if timestamp is None else checked_timestamp(timestamp)
        self.partitions[i] = -1
        if partition is not None:
            self.partitions[i] = self.metadata.checked_partition(self.entry, partition, &deadline, self.max_block_ns)
        size = fp_wire_upper_bound(record)
        if size > self.largest_record:
            refuse_size(self.entry.name, size, self.largest_record, self.size_limit)
        return 0

    cdef int point(self, object value, const char **data, size_t *size, str what) except -1:
        cdef Span *span
        if PyBytes_CheckExact(value) and PyBytes_GET_SIZE(value) <= INT32_MAX:
            data[0] = PyBytes_AS_STRING(value)
            size[0] = PyBytes_GET_SIZE(value)
            return 0
        span = &self.spans[self.span_count]
        span_of(value, span, what)
        data[0] = span.data
        size[0] = span.size
        self.span_count += span.viewed
        return 0

    cdef void unref(self) noexcept:
        """Of the chunk."""
        cdef Column column
        for column in self.columns:
            column.unref()
        self.release_spans()
        self.refs.clear()

    cdef void release_spans(self) noexcept:
        cdef Py_ssize_t i
        for i in range(self.span_count):
            span_release(&self.spans[i])
        self.span_count = 0
