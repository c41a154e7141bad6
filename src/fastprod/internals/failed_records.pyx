"""FailedRecords: failures that the program has not observed, for flush() and close() to raise."""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport strdup
from fastprod.internals.produce_request_result cimport (
    Segment, persisted_word, result_unref_batch, result_segment, result_mark_all_observed, result_is_observed,
    segment_error,
)
from fastprod.internals.producer_batch cimport ProducerBatch, batch_records
from fastprod.internals.sync cimport fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock
from fastprod.librdkafka.codes cimport CRIT_SYS_RESOURCE

from fastprod.errors import DeliveryError, FailedRecord
from fastprod.internals.error_codes import for_several
from fastprod.librdkafka.loader import describe
from fastprod.records import ProducerRecord


cdef void free_batch(FailedBatch *kept) noexcept nogil:
    result_unref_batch(kept.result)
    free(kept.arena)
    free(kept.topic)
    free(kept)


cdef void free_chain(FailedBatch *kept, bint observed) noexcept nogil:
    """Frees batches that are chained by next. observed: the program has seen their failures."""
    cdef FailedBatch *next_kept
    while kept is not NULL:
        next_kept = kept.next
        if observed:
            result_mark_all_observed(kept.result)
        free_batch(kept)
        kept = next_kept


cdef class FailedRecords:
    """The unobserved failures of one producer, in the order in which their batches failed.

    Owns the results and arenas of these batches. The arenas are outside the buffer pool, so that failures which the
    program never looks at do not stop send(). Together they take at most `limit` bytes; beyond that, only outcomes
    are kept. Where there is no memory for an outcome, the record is counted.

    The sender adds batches, an application thread takes them all. The lock is a leaf. It guards the list: a batch in
    it does not change, except that observers lower its result's `unobserved`.
    """

    def __cinit__(self, size_t limit):
        fp_mutex_init(&self.lock)
        self.limit = limit

    def __dealloc__(self):
        free_chain(self.first, False)
        fp_mutex_destroy(&self.lock)

    cdef void keep(self, ProducerBatch *batch, const char *topic, char *arena) noexcept nogil:
        """Takes over the result of a batch that failed, and its records in arena, which malloc() made.

        arena: NULL if the records are not to be kept. thread: any  lock: sender_lock
        """
        cdef FailedBatch *kept = <FailedBatch *>malloc(sizeof(FailedBatch))
        if kept is NULL:
            fp_mutex_lock(&self.lock)
            self.unkept += batch.result.unobserved
            fp_mutex_unlock(&self.lock)
            free(arena)
            return
        kept.result = batch.result
        batch.result = NULL
        kept.topic = strdup(topic)
        kept.arena = arena
        kept.used = batch.used
        kept.base_timestamp = batch.base_timestamp
        kept.count = batch.count
        kept.next = NULL
        fp_mutex_lock(&self.lock)
        self.prune()
        self.append(kept)
        fp_mutex_unlock(&self.lock)

    cdef void append(self, FailedBatch *kept) noexcept nogil:
        """Adds a batch at the end, without its records if they exceed the limit. lock: held"""
        cdef char *trimmed
        if kept.arena is NULL or self.bytes + kept.used > self.limit:
            free(kept.arena)
            kept.arena = NULL
            kept.used = 0
        else:
            trimmed = <char *>realloc(kept.arena, max(kept.used, <size_t>1))
            if trimmed is not NULL:
                kept.arena = trimmed
        self.bytes += kept.used
        if self.last is NULL:
            self.first = kept
        else:
            self.last.next = kept
        self.last = kept

    cdef void prune(self) noexcept nogil:
        """Frees batches at the front whose failures were observed meanwhile. lock: held"""
        cdef FailedBatch *kept
        while self.first is not NULL and self.first.result.unobserved == 0:
            kept = self.first
            self.first = kept.next
            if self.first is NULL:
                self.last = NULL
            self.bytes -= kept.used
            free_batch(kept)

    cdef FailedBatch *detach(self) noexcept nogil:
        """Returns all batches, chained by next. The caller owns them. thread: any  lock: none"""
        cdef FailedBatch *first
        fp_mutex_lock(&self.lock)
        first = self.first
        self.first = self.last = NULL
        self.bytes = 0
        fp_mutex_unlock(&self.lock)
        return first

    cdef void attach(self, FailedBatch *first) noexcept nogil:
        """Puts detached batches back at the front. thread: any  lock: none"""
        cdef FailedBatch *last = first
        cdef size_t size
        if first is NULL:
            return
        size = first.used
        while last.next is not NULL:
            last = last.next
            size += last.used
        fp_mutex_lock(&self.lock)
        last.next = self.first
        if self.first is NULL:
            self.last = last
        self.first = first
        self.bytes += size
        fp_mutex_unlock(&self.lock)

    cdef void discard(self) noexcept nogil:
        """Drops all failures: an aborted transaction implies them. thread: app  lock: none"""
        fp_mutex_lock(&self.lock)
        self.unkept = 0
        fp_mutex_unlock(&self.lock)
        free_chain(self.detach(), True)

    def take(self):
        """Returns all unobserved failures, which then count as observed. thread: app, with the GIL

        (count, {reason: count}, [FailedRecord, ...], {(code, persisted), ...})
        """
        cdef FailedBatch *first = self.detach()
        cdef FailedBatch *kept = first
        cdef dict reasons = {}
        cdef list records = []
        cdef set kinds = set()
        try:
            while kept is not NULL:
                add_failures(kept, reasons, records, kinds)
                kept = kept.next
        except BaseException:      # an interrupt, or no memory: the next call reports them
            self.attach(first)
            raise
        free_chain(first, True)
        fp_mutex_lock(&self.lock)
        unkept, self.unkept = self.unkept, 0
        fp_mutex_unlock(&self.lock)
        if unkept:
            reasons["there was no memory to keep the reason"] = unkept
            kinds.add((CRIT_SYS_RESOURCE, "possibly"))
        return sum(reasons.values()), reasons, records, kinds

    cdef object raise_all(self, str preface=""):
        """Raises a DeliveryError with all unobserved failures, if there are any, or if a preface is given.

        thread: app, with the GIL
        """
        count, reasons, records, kinds = self.take()
        if not count:
            if preface:
                raise DeliveryError(preface + "their futures and callbacks carry the errors", count=0)
            return
        listed = "; ".join(f"{n} x {reason}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))
        kept = "they are in .records" if len(records) == count else (
            f"{len(records)} of them, as many as fit into a quarter of buffer.memory, are in .records")
        raise for_several(
            f"{preface}{count} record{'s' if count > 1 else ''} failed, and nothing observed it: {listed}; {kept}. "
            "Pass on_delivery or ask the futures to handle each failure",
            kinds, reasons=reasons, records=records)


cdef int add_failures(FailedBatch *kept, dict reasons, list records, set kinds) except -1:
    """Adds a batch's unobserved failures to what FailedRecords.take() returns."""
    cdef Segment *segment
    cdef int32_t i
    topic = (<bytes>kept.topic).decode() if kept.topic is not NULL else ""
    contents = batch_records(kept.arena, kept.count, kept.base_timestamp) if kept.arena is not NULL else None
    for i in range(kept.count):
        segment = result_segment(kept.result, i)
        if segment.code == 0 or result_is_observed(kept.result, i):
            continue
        reason = describe(segment.code)
        reasons[reason] = reasons.get(reason, 0) + 1
        kinds.add((segment.code, persisted_word(segment.persisted)))
        if contents is not None:
            key, value, headers, timestamp = contents[i]
            error = segment_error(segment, topic, kept.result.partition)
            error.record = ProducerRecord(topic, value, key, kept.result.partition, timestamp, headers)
            records.append(FailedRecord(topic, kept.result.partition, key, value, headers, timestamp, error))
    return 0
