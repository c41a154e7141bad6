"""ProducerParts: the parts of a producer, made from its configuration."""

cimport cython
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.deferred_cleanup cimport DeferredCleanup
from fastprod.internals.interceptors cimport ProducerInterceptors
from fastprod.internals.metadata_updater cimport MetadataUpdater
from fastprod.internals.pending_records cimport PendingRecords
from fastprod.internals.produce_requests cimport ProduceRequests
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.producer_metrics cimport ProducerMetrics
from fastprod.internals.producer_state cimport ProducerState
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.record_appender cimport RecordAppender
from fastprod.internals.sender cimport Sender
from fastprod.internals.serializers cimport Serializers
from fastprod.internals.token_requests cimport TokenRequests
from fastprod.internals.transaction_manager cimport TransactionManager
from fastprod.internals.transport cimport Transport

import os

from fastprod.internals.in_flight_partition import first_phase
from fastprod.internals.threads import greenlets_run, make_thread, start_threads
from fastprod.internals.tokens import TokenRefresher

cdef enum:
    TOKEN_TIMEOUT_S = 5        # for a token provider that has been called, when a thread does not start


@cython.no_gc_clear                        # a producer that is freed may have to end them
cdef class ProducerParts:
    """What a producer consists of, wired together.

    Owns the parts and their threads. Each part gets what it needs by its constructor, so a part is made after those
    that it uses. The exceptions close circles: the accumulator and the transport wake the sender, and the accumulator
    asks a transaction why it refuses a record.

    Invariant: after start() all threads run, or none does. The end of the parts is ProducerShutdown's.

    thread: app, with the GIL  lock: none
    """

    def __cinit__(self, settings):
        """settings: ProducerConfig. Its secrets are forgotten once librdkafka has them."""
        cdef dict properties = settings.librdkafka
        has_token_provider = settings.sasl_oauthbearer_token_provider is not None
        interceptors = ProducerInterceptors(settings.interceptors) if settings.interceptors else None
        self.pool = BufferPool(settings.buffer_memory, settings.batch_size)
        self.accumulator = self.make_accumulator(settings, properties)
        green = greenlets_run()
        self.callbacks = Callbacks(self.pool, green)
        self.transport = Transport(properties, self.callbacks, has_token_provider)
        settings.forget_secrets()
        self.sender = self.make_sender(settings, properties)
        self.pending = PendingRecords(self.accumulator, self.callbacks, self.sender)
        self.metadata = ProducerMetadata(
            self.transport, self.accumulator, self.sender,
            max_partitions_for_memory=settings.buffer_memory // (2 * settings.batch_size))
        self.updater = self.make_updater(settings, properties)
        if settings.transactional_id:
            self.transactions = TransactionManager(
                self.transport, self.accumulator, self.sender, self.pending, settings.max_block_ms * 1_000_000)
        self.state = ProducerState(self.transport.errors, self.transactions)
        self.appender = self.make_appender(settings, interceptors)
        self.metrics = ProducerMetrics(self.pool, self.accumulator, self.completion, self.transport, self.callbacks)
        self.deferred_cleanup = DeferredCleanup(self.transport, self.sender, self.transactions)
        self.callback_thread = make_thread(
            self.callbacks.run, "fastprod-callbacks", (self.sender.wake_if_overslept,), green=green)
        self.metadata_thread = make_thread(self.updater.run, "fastprod-metadata", (self.deferred_cleanup.clear,))
        if has_token_provider:
            self.tokens = TokenRefresher(TokenRequests(self.transport), settings.sasl_oauthbearer_token_provider)

    cdef RecordAccumulator make_accumulator(self, object settings, dict properties):
        return RecordAccumulator(
            self.pool, batch_size=settings.batch_size,
            linger_ms=max(0, settings.linger_ms - float(properties["linger.ms"])),
            delivery_timeout_ms=settings.delivery_timeout_ms, max_block_ms=settings.max_block_ms,
            max_in_flight=int(properties["max.in.flight.requests.per.connection"]),
            partitioner=settings.partitioner if isinstance(settings.partitioner, str) else "uniform_sticky",
            adaptive=settings.partitioner_adaptive_partitioning_enable,
            availability_timeout_ms=settings.partitioner_availability_timeout_ms,
            sticky_interval_ms=settings.partitioner_sticky_interval_ms,
            first_phase=first_phase(properties["acks"], settings.enable_idempotence),
            seed=int.from_bytes(os.urandom(7), "little"))

    cdef Sender make_sender(self, object settings, dict properties):
        self.completion = Completion(
            self.accumulator, self.pool, self.transport, self.callbacks, transactional=bool(settings.transactional_id),
            # retry.backoff.ms less librdkafka's jitter of 20 % (rd_kafka_retry_msgq)
            first_retry_us=800 * min(int(properties["retry.backoff.ms"]), int(properties["retry.backoff.max.ms"])))
        requests = ProduceRequests(
            self.accumulator, self.transport, self.callbacks, self.completion, properties,
            ordered=settings.enable_idempotence or int(properties["max.in.flight.requests.per.connection"]) == 1,
            idempotent=settings.enable_idempotence)
        return Sender(self.accumulator, self.transport, self.completion, requests,
                      overdue_ns=int(properties["socket.timeout.ms"]) * 1_000_000)

    cdef MetadataUpdater make_updater(self, object settings, dict properties):
        rebootstrap = settings.metadata_recovery_strategy == "rebootstrap"
        return MetadataUpdater(
            self.metadata, self.transport, self.sender, renewable=not settings.transactional_id,
            max_age_ms=settings.metadata_max_age_ms, max_idle_ms=settings.metadata_max_idle_ms,
            backoff_ms=settings.retry_backoff_ms,
            bootstrap_servers=properties["bootstrap.servers"].encode() if rebootstrap else None)

    cdef RecordAppender make_appender(self, object settings, ProducerInterceptors interceptors):
        return RecordAppender(
            self.state, self.accumulator, self.metadata, interceptors,
            Serializers(settings.key_serializer, settings.value_serializer),
            None if isinstance(settings.partitioner, str) else settings.partitioner,
            ignore_keys=settings.partitioner_ignore_keys or settings.partitioner in ("round_robin", "random"),
            max_request_size=settings.max_request_size, buffer_memory=settings.buffer_memory,
            max_block_ms=settings.max_block_ms)

    cdef int start(self) except -1:
        """Starts the threads. If it raises, none runs."""
        try:
            start_threads([part for part in (self.tokens, self.callback_thread, self.metadata_thread) if part])
            self.sender.start()            # last: unlike the others, it does not keep its parts alive
        except BaseException:              # no thread could be started
            if self.tokens is not None:
                self.tokens.close(TOKEN_TIMEOUT_S)
            self.callbacks.close()
            self.metadata.close()
            self.accumulator.closed_error = None    # ends a cycle through the transactions
            raise
        return 0

    cdef object memory_in_use(self):
        """Returns the bytes that records and callbacks take. See fastprod.memory_in_use()."""
        return self.pool.total_memory - self.pool.unallocated_memory + self.completion.failed_records.bytes
