"""ProducerMetrics: the figures of a producer.

Source: org.apache.kafka.clients.producer.internals.KafkaProducerMetrics and SenderMetricsRegistry, whose names these
are.
"""

from libc.stdint cimport int64_t
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns
from fastprod.internals.transport cimport Transport


cdef class ProducerMetrics:
    """The metrics of one producer since it was made.

    Owns the time of the start and the time spent in flush(). Each other counter belongs to the part that counts, and
    is read without that part's lock: it is a figure of about now, and two of them need not be of the same moment.

    thread: app, with the GIL  lock: none
    """

    def __cinit__(self, BufferPool pool, RecordAccumulator accumulator, Completion completion, Transport transport,
                  Callbacks callbacks):
        self.pool = pool
        self.scheduler = accumulator.scheduler
        self.completion = completion
        self.transport = transport
        self.callbacks = callbacks
        self.started_ns = fp_monotonic_ns()

    cdef void record_flush(self, int64_t duration_ns) noexcept:
        self.flush_ns += duration_ns

    cdef dict values(self):
        """Returns {name: figure}, by Java's names (producer-metrics)."""
        cdef double seconds = max(fp_monotonic_ns() - self.started_ns, <int64_t>1) / 1e9
        cdef unsigned int requests = <unsigned int>fp_atomic_load(&self.transport.requests)
        drained, completion = self.scheduler, self.completion
        return {
            "batch-size-avg": ratio(drained.bytes_drained, drained.batches_drained),
            "batch-size-max": drained.largest_batch,
            "buffer-available-bytes": self.pool.available_memory,
            "buffer-exhausted-total": self.pool.exhausted,
            "buffer-total-bytes": self.pool.total_memory,
            "bufferpool-wait-ratio": self.pool.wait_time_ns / 1e9 / seconds,
            "bufferpool-wait-time-ns-total": self.pool.wait_time_ns,
            "callback-queue-bytes": self.pool.callback_memory,
            "callback-queue-size": self.callbacks.waiting(),
            "flush-time-ns-total": self.flush_ns,
            "record-error-rate": completion.records_failed / seconds,
            "record-error-total": completion.records_failed,
            "record-queue-time-avg": ratio(drained.queue_time_ns / 1e6, drained.batches_drained),
            "record-queue-time-max": drained.longest_queue_time_ns / 1e6,
            "record-send-rate": completion.records_sent / seconds,
            "record-send-total": completion.records_sent,
            "record-size-avg": ratio(drained.bytes_drained, drained.records_drained),
            "records-per-request-avg": ratio(completion.records_sent, requests),
            "request-latency-avg": ratio(completion.latency_us / 1e3, completion.latency_count),
            "request-latency-max": completion.longest_latency_us / 1e3,
            "request-total": requests,
            "waiting-threads": self.pool.queued,
        }


cdef double ratio(double total, double count) noexcept:
    return total / count if count else 0.0
