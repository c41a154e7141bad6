"""BulkFuture: the outcome of the records of one send_many() or send_arrow().

Java has no such call.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from fastprod.internals.open_batches cimport Placed
from fastprod.internals.future cimport FutureRecordMetadata
from fastprod.internals.produce_request_result cimport (
    AWAITED, Segment, process_generation, register_callback, result_segment, result_mark_observed, result_unref,
    segment_error, wait_completed,
)
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns
from fastprod.internals.threads cimport next_slice

from collections import Counter

from fastprod.internals.produce_request_result import wait_deadline
from fastprod.errors import BulkDeliveryError, ForkedProducerError
from fastprod.internals.error_codes import joint_persisted, set_place
from fastprod.librdkafka.loader import describe
from fastprod.records import BulkMetadata

cdef enum:
    FIRST_GAPS = 64      # bytes
    GAP_SIZE = 10        # bytes, of the longest


@cython.final
cdef class BulkFuture:
    """BulkFuture()
--

    The outcome of the records of one send_many() or send_arrow(): ``result()`` or ``await``.

    Owns shares of the results of their batches, and the place of each record in the call: a few words per batch, and
    about a byte per record if the records went to several partitions in turn. Thread-safe once the call is over.
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
        """Takes over shares of a result, for the call's next records. Returns 0 if there is no memory for that."""
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
            if run.result is not placed.result or placed.index != run.first + run.count or not add_gaps(
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
        """Makes room for one more run, and for the last run of the partition. Returns 0 if there is no memory."""
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
        """Adds the call's next record, which went through send(). Keeps its future, which owns the share."""
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

    cdef object describe_sent(self, object error, bint reading):
        """Adds what the call has sent to an exception that ended it. A user's exception may have no room for that.

        reading: it had begun to read the records.
        """
        set_place(error, self.topic, None)
        self.ended_call = True
        try:
            error.sent = self
            error.index = self.count
            if reading:
                error.add_note(f"It was raised at index {self.count} of the call; "
                               + ("the records before that were sent." if self.count else "nothing was sent."))
        except Exception:      # Python 3.10 has no notes
            pass

    cdef void forget_latest(self) noexcept:
        """Frees what only a call that is under way needs."""
        free(self.latest)
        self.latest = NULL
        self.latest_count = 0

    cdef Py_ssize_t first_unsettled(self) except? -2:
        """Returns the index of the first run whose batch has not settled, or the number of runs."""
        if self.topic is None:
            raise TypeError("a BulkFuture comes from Producer.send_many() or send_arrow()")
        while self.settled < self.run_count and fp_atomic_load(&self.runs[self.settled].result.done):
            self.settled += 1
        if self.settled < self.run_count and self.runs[self.settled].result.fork_generation != process_generation:
            raise ForkedProducerError(
                "the records were sent before the process forked: only the parent knows their outcome")
        return self.settled

    def __reduce__(self):
        """An exception that ended the call can be pickled: its `sent` becomes None. Otherwise TypeError."""
        if self.ended_call:
            return type(None), ()
        return self.__copy__()

    def __copy__(self):
        raise TypeError("a BulkFuture cannot be copied or pickled: only this process knows the outcome. Call "
                        "result() or exception() here and pass on what they return")

    def __deepcopy__(self, memo):
        return self if self.ended_call else self.__copy__()

    def done(self):
        """Returns whether all records have settled. This does not count as observing the outcome."""
        return self.first_unsettled() == self.run_count

    def result(self, timeout=None):
        """Returns the BulkMetadata. Waits at most `timeout` seconds (None: for ever).

        BulkDeliveryError, with the index and the error of each, if some failed; TimeoutError if they have not all
        settled: they are still on their way and can be asked again.
        """
        self.wait(timeout)
        failures = self.failures()
        if failures:
            raise self.delivery_error(failures)
        return self.metadata()

    def exception(self, timeout=None):
        """Returns the BulkDeliveryError that result() would raise, or None. Waits at most `timeout` seconds."""
        try:
            self.result(timeout)
        except BulkDeliveryError as error:
            return error
        return None

    cdef int wait(self, object timeout) except -1:
        """Waits until all have settled, at most `timeout` seconds (None: for ever); then TimeoutError."""
        cdef int64_t deadline = wait_deadline(timeout)
        cdef int64_t until, pause_ns = 0
        cdef Py_ssize_t i
        cdef int done
        while True:
            i = self.first_unsettled()
            if i == self.run_count:
                return 0
            until = next_slice(deadline, &pause_ns)
            with nogil:
                done = wait_completed(&self.runs[i].result.done, until)
            if not done and fp_monotonic_ns() >= deadline:
                raise TimeoutError(f"the {self.count} records for {self.topic} were not settled within {timeout} s; "
                                   "they are still on their way")

    cdef object metadata(self):
        """The BulkMetadata of records that were all delivered."""
        cdef PlacedRun *run
        cdef Py_ssize_t i
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

    cdef object delivery_error(self, list failures):
        """The BulkDeliveryError for what failures() has found."""
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
        return failed

    cdef str topic_of(self, const PlacedRun *run):
        """Returns the topic of a run's records: an interceptor may have changed it."""
        return (<FutureRecordMetadata>self.futures[run.first_input]).topic if self.borrows else self.topic

    cdef list failures(self):
        """Returns (index, error) of each failed record, by index. They count as observed. All records have settled."""
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
                result_mark_observed(run.result, run.first + k)
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
    """Returns the future of a call that has sent nothing yet. topic: not checked yet."""
    cdef BulkFuture future = <BulkFuture>BulkFuture.__new__(BulkFuture)
    future.topic = str.__str__(topic) if isinstance(topic, str) else ""
    return future


cdef int add_gaps(PlacedRun *run, int64_t gap, int32_t count) noexcept nogil:
    """Stores the distances in the call to the next `count` records: `gap` to the first, 1 to each of the others.

    Returns 0 if there is no memory.
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
    """Returns the offset of a delivered record; -1 if the broker gave none."""
    cdef Segment *segment = result_segment(run.result, index)
    return segment.base_offset + index - segment.first if segment.base_offset >= 0 else -1
