"""Producer: the public class. It checks arguments, builds the parts of a producer, and ends them."""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX, int64_t
from fastprod.bulk.arrow_append cimport append_arrow
from fastprod.bulk.sequence_append cimport append_sequences
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks, unraisable
from fastprod.internals.interceptors cimport ProducerInterceptors
from fastprod.internals.open_producers cimport EXIT_TIMEOUT_S, register_producer, unregister_producer
from fastprod.internals.pending_records cimport PendingRecords
from fastprod.internals.produce_request_result cimport notify_completed, wait_completed
from fastprod.internals.metadata_updater cimport MetadataUpdater
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.producer_metrics cimport ProducerMetrics
from fastprod.internals.producer_state cimport CLOSED, OPEN, SENDER_ENDED, ProducerState
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.record_appender cimport RecordAppender
from fastprod.internals.sender cimport Sender
from fastprod.internals.serializers cimport Serializers
from fastprod.internals.sync cimport fp_atomic_load, fp_atomic_store, fp_monotonic_ns, fp_slice_end
from fastprod.internals.threads cimport Lock, next_slice, thread_ident
from fastprod.internals.token_requests cimport TokenRequests
from fastprod.internals.transaction_manager cimport TransactionManager
from fastprod.internals.transport cimport Transport

import contextlib
import os
import sys
import warnings

from fastprod.config.producer_config import resolve
from fastprod.errors import DeliveryError, KafkaError, TransactionStateError
from fastprod.internals.handle import knows
from fastprod.internals.in_flight_partition import first_phase
from fastprod.internals.logs import logger
from fastprod.internals.produce_request_result import wait_deadline
from fastprod.internals.threads import current, greenlets_run, make_thread, start_threads
from fastprod.internals.tokens import TokenRefresher
from fastprod.internals.transaction_block import transaction
from fastprod.records import ProducerRecord

# The least time of each step of close(), when its timeout is over. A step that takes longer ends in the background.
cdef int64_t STEP_TIMEOUT_NS = 100_000_000
cdef int64_t LOOK_NS = 5_000_000
cdef int64_t GIVE_UP_TIMEOUT_NS = 250_000_000      # of the sender, to fail the pending records
cdef enum:
    TOKEN_TIMEOUT_S = 5        # for a token provider that has been called, when the constructor fails


@cython.no_gc_clear                        # __dealloc__() may need the parts
cdef class Producer:
    """Producer(config=None, **keywords)
--

    Sends records to Kafka. Thread-safe: one producer serves all threads of a process.

    config: a mapping of Java's option names ("linger.ms"). Keywords are the same names with underscores (linger_ms=).
    docs/options.md has the table. A wrong option raises ConfigError.

    Owns a sender thread, a callback thread and a metadata thread. close() ends them. In a forked child every call
    raises ForkedProducerError.

    A subclass with its own __init__() must call super().__init__(). One with its own __del__() must call
    super().__del__().
    """

    cdef object __weakref__
    cdef readonly object config            # ProducerConfig
    cdef BufferPool pool
    cdef RecordAccumulator accumulator
    cdef Transport transport
    cdef Callbacks callbacks
    cdef Sender sender
    cdef PendingRecords pending
    cdef TransactionManager transactions   # None without a transactional.id
    cdef ProducerMetadata metadata
    cdef MetadataUpdater updater
    cdef object tokens                     # TokenRefresher, or None without a provider
    cdef object callback_thread
    cdef object metadata_thread
    cdef DeferredCleanup deferred_cleanup                   # of the parts that end after all others
    cdef Lock close_lock
    cdef int64_t close_deadline   # of close(), or an earlier one of a close() in its signal handler
    cdef list closable            # parts of the user that close() closes last
    cdef ProducerState state
    cdef RecordAppender appender           # None until __init__() has run to its end
    cdef ProducerMetrics figures

    def __cinit__(self, *arguments, **keywords):
        if type(self) is Producer and not arguments and not keywords:
            resolve(None, {}, knows, None)     # raises ConfigError: options are required

    @cython.embedsignature(False)          # the text signature is here, for inspect and unittest.mock
    def __init__(self, config=None, **keywords):
        """__init__($self, config=None, **keywords)
--

        See the class.
        """
        if self.appender is not None:
            raise RuntimeError("__init__() was called before: make another producer instead")
        if config is not None and not hasattr(config, "items"):
            raise TypeError(f"config must be a mapping of option names to values, not {type(config).__name__}")
        self.close_lock = Lock()
        self.config = settings = resolve(
            config, keywords, knows, lambda message, **_: warnings.warn(message, stacklevel=2))
        properties = settings.librdkafka
        max_in_flight = int(properties["max.in.flight.requests.per.connection"])
        named = isinstance(settings.partitioner, str)
        partitioner = None if named else settings.partitioner
        if partitioner is not None and hasattr(partitioner, "configure"):
            partitioner.configure(dict(config or {}, **keywords))
        serializers = Serializers(settings.key_serializer, settings.value_serializer)
        interceptors = ProducerInterceptors(settings.interceptors) if settings.interceptors else None
        self.closable = [part for part in (partitioner, *settings.interceptors) if hasattr(part, "close")]
        self.pool = BufferPool(settings.buffer_memory, settings.batch_size)
        self.accumulator = RecordAccumulator(
            self.pool, batch_size=settings.batch_size,
            linger_ms=max(0, settings.linger_ms - float(properties["linger.ms"])),
            delivery_timeout_ms=settings.delivery_timeout_ms, max_block_ms=settings.max_block_ms,
            max_in_flight=max_in_flight,
            partitioner=settings.partitioner if named else "uniform_sticky",
            adaptive=settings.partitioner_adaptive_partitioning_enable,
            availability_timeout_ms=settings.partitioner_availability_timeout_ms,
            sticky_interval_ms=settings.partitioner_sticky_interval_ms,
            first_phase=first_phase(properties["acks"], settings.enable_idempotence),
            seed=int.from_bytes(os.urandom(7), "little"))
        self.callbacks = Callbacks(self.pool)
        self.transport = Transport(
            properties, self.callbacks, settings.sasl_oauthbearer_token_provider is not None)
        settings.forget_secrets()
        self.sender = Sender(self.accumulator, self.pool, self.transport, self.callbacks)
        self.pending = PendingRecords(self.accumulator, self.callbacks, self.sender)
        self.metadata = ProducerMetadata(
            self.transport, self.accumulator, self.sender,
            max_partitions_for_memory=settings.buffer_memory // (2 * settings.batch_size))
        self.updater = MetadataUpdater(
            self.metadata, self.transport, self.sender, renewable=not settings.transactional_id,
            max_age_ms=settings.metadata_max_age_ms, max_idle_ms=settings.metadata_max_idle_ms,
            backoff_ms=settings.retry_backoff_ms,
            bootstrap_servers=properties["bootstrap.servers"].encode()
            if settings.metadata_recovery_strategy == "rebootstrap" else None)
        if settings.enable_idempotence or max_in_flight == 1:
            self.sender.requests.keep_order(properties, settings.enable_idempotence)
        # retry.backoff.ms less librdkafka's jitter of 20 % (rd_kafka_retry_msgq)
        self.sender.completion.first_retry_us = 800 * min(
            int(properties[name]) for name in ("retry.backoff.ms", "retry.backoff.max.ms"))
        self.sender.overdue_ns = int(properties["socket.timeout.ms"]) * 1_000_000
        if settings.transactional_id:
            self.transactions = TransactionManager(
                self.transport, self.accumulator, self.sender, self.pending, settings.max_block_ms * 1_000_000)
        self.deferred_cleanup = DeferredCleanup(self.transport, self.sender, self.transactions)
        green = greenlets_run()
        self.callbacks.green_thread = thread_ident() if green else 0
        self.callback_thread = make_thread(self.callbacks.run, "fastprod-callbacks", green=green)
        self.metadata_thread = make_thread(self.updater.run, "fastprod-metadata", (self.deferred_cleanup.clear,))
        self.figures = ProducerMetrics(
            self.pool, self.accumulator, self.sender.completion, self.transport, self.callbacks)
        self.state = ProducerState(self.transport.errors, self.transactions)
        appender = RecordAppender(
            self.state, self.accumulator, self.metadata, interceptors, serializers, partitioner,
            ignore_keys=settings.partitioner_ignore_keys or settings.partitioner in ("round_robin", "random"),
            max_request_size=settings.max_request_size, buffer_memory=settings.buffer_memory,
            max_block_ms=settings.max_block_ms)
        register_producer(self)
        if settings.sasl_oauthbearer_token_provider is not None:
            self.tokens = TokenRefresher(TokenRequests(self.transport), settings.sasl_oauthbearer_token_provider)
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
        self.appender = appender

    # Sending

    def send(self, topic, value=None, key=None, *, partition=None, timestamp=None, headers=None, on_delivery=None):
        """Sends a record and returns its FutureRecordMetadata at once.

        topic: the name; or a ProducerRecord, and no other argument but on_delivery. value, key: bytes-like, str (sent
        as UTF-8), None, or any object that the serializers take. partition: a number, or None to let the partitioner
        choose. timestamp: ms since the epoch, None for now. headers: a mapping, or pairs, of str to a value.
        on_delivery(metadata_or_None, error_or_None): the callback thread calls it once. The calls are in order within
        a partition, except that a record that expires before it is handed to librdkafka may come earlier. error.topic
        and error.partition name the record's destination. It is not called if send() raises.

        Blocks for at most max.block.ms in all, while the topic is not known yet (MetadataTimeoutError,
        UnknownTopicOrPartitionError), or while buffer.memory is full of pending records and of callbacks that have
        not run (BufferExhaustedError). It pauses an application that is far ahead of the brokers for up to 0.2 ms at a
        time. A wrong record raises TypeError, ValueError, SerializationError or RecordTooLargeError. After any error
        the record was not accepted, and the producer works on.
        """
        if type(topic) is not str and isinstance(topic, ProducerRecord):
            if not (value is None and key is None and partition is None and timestamp is None and headers is None):
                raise TypeError("send() takes a ProducerRecord, or a topic with value, key, ..., but not both")
            self.check_made()
            return self.appender.send(
                topic.topic, topic.value, topic.key, topic.partition, topic.timestamp, topic.headers, on_delivery)
        if self.appender is None:
            self.check_made()
        if PyBytes_CheckExact(value) and partition is None and timestamp is None and headers is None and (
                on_delivery is None and (key is None or PyBytes_CheckExact(key))) and self.appender.no_hooks:
            future = self.appender.send_bare(topic, value, key)
            if future is not None:
                return future
        return self.appender.send(topic, value, key, partition, timestamp, headers, on_delivery)

    def send_many(self, topic, values, keys=None, *, partitions=None, timestamps=None, headers=None):
        """Sends a record for each value and returns one BulkFuture, which costs memory per batch and not per record.

        values, keys: sequences or iterables of equal length, of objects as send() takes them. A generator is consumed
        as fast as buffer.memory takes its records. partitions, timestamps, headers: one for all records, or a sequence
        or iterable with one for each; None means the same as in send().

        Blocks and raises as send() does. It also raises any exception of a generator. After an error, the records
        before the failing one have been sent: error.index is their number, and error.sent their BulkFuture, unless the
        exception takes no attributes. After Ctrl-C in a generator it does not wait for memory, so some records that
        the generator gave may not have been sent.
        """
        self.check_made()
        return append_sequences(self.appender, topic, values, keys, partitions, timestamps, headers)

    def send_arrow(self, topic, data, *, value="value", key=None, partition=None, timestamp=None, headers=None):
        """Sends a record for each row of Arrow data and returns one BulkFuture, which costs memory per batch.

        data: an object with __arrow_c_stream__ or __arrow_c_array__: tables, record batches, readers and data frames
        of pyarrow, Polars, pandas and DuckDB. Data that is a single column holds the values. value, key: the names of
        string or binary columns, also large, view, fixed-size or dictionary-encoded. A null value is a tombstone, and
        a null key sends no key. partition: the name of an integer column, or one number for all records; null lets the
        partitioner choose. timestamp: the name of a column of int64 ms or of timestamps, or ms for all records; null
        means now. headers: a mapping, or pairs, of a header's name to a column's name, or to bytes or None for all
        records; or the name of one map or list<struct> column that holds all headers.

        A stream is read as fast as buffer.memory takes its records. Blocks and raises as send_many() does, with
        error.index and error.sent. It also raises ValueError for a missing column, TypeError for a column of another
        type, and OSError if the stream fails. Ctrl-C has to wait until the stream has computed its next batch.
        """
        self.check_made()
        return append_arrow(self.appender, topic, data, value, key, partition, timestamp, headers)

    @cython.final
    cdef int check_made(self) except -1:
        if self.appender is None:
            raise RuntimeError("this producer is not initialized: its __init__() did not run to its end. A subclass "
                               "with its own __init__() must call super().__init__(...) first")
        return 0

    @cython.final
    cdef int check_open(self) except -1:
        self.check_made()
        return self.state.check_open()

    # Waiting

    def flush(self, timeout=None):
        """Sends all pending records now, and returns when they have settled and their callbacks have run.

        timeout: seconds, or None for no limit. TimeoutError: the time is over, and the records are still on their way.
        DeliveryError: some records failed, and nothing has observed it; it holds the records.
        """
        deadline = wait_deadline(timeout)
        self.check_open()
        self.refuse_in_callback("flush")
        started = fp_monotonic_ns()
        try:
            if not self.pending.wait_settled(deadline):
                raise TimeoutError(f"{self.pending.unfinished()} after {timeout} s; they are still on their way")
        finally:
            self.figures.record_flush(fp_monotonic_ns() - started)
        self.sender.completion.failed_records.raise_all()

    @cython.final
    cdef int refuse_in_callback(self, str name) except -1:
        if current() == self.callbacks.thread_id:
            raise RuntimeError(f"{name}() in a callback would wait for that callback: call it from another thread")

    def wait_ready(self, timeout=None):
        """Returns once a broker has answered. So the address works, and the credentials are valid.

        timeout: seconds, or None for no limit. AuthenticationError: the brokers refuse the credentials, or one side
        refuses the other's certificate. MetadataTimeoutError, which is a TimeoutError: the time is over; it names the
        last error.
        """
        wait_deadline(timeout)             # checks it
        self.check_open()
        self.metadata.ready(float("inf") if timeout is None else timeout)

    def purge(self):
        """Fails all pending records now, those sent meanwhile too, and returns when all have failed.

        Each fails with a DeliveryError. Its `persisted` is "possibly" if the record may have been written. The next
        flush() raises those that nothing has observed. The producer works on. TransactionStateError: the producer has
        a transactional.id; call abort_transaction() instead.
        """
        self.check_open()
        self.refuse_in_callback("purge")
        if self.transactions is not None:
            raise TransactionStateError("purge() would leave part of a transaction: call abort_transaction() instead")
        self.pending.purge()

    def close(self, timeout=None):
        """Sends all pending records, waits for them, and ends the threads. Idempotent.

        timeout: seconds, or None for no limit but delivery.timeout.ms. Records that are still pending then fail.
        DeliveryError: some records failed, and nothing has observed it; it holds the records. A signal handler may
        call it. If the handler interrupts close() in the same thread, the inner call returns at once, and the outer
        one goes on until the earlier of both deadlines. RuntimeError: the handler has interrupted a call of the
        transaction.
        """
        deadline = wait_deadline(timeout)
        if self.appender is None:          # __init__() has raised, or was never called
            return
        self.state.check_fork()
        self.refuse_in_callback("close")
        if current() == self.metadata.thread_id:   # in a finalizer that the garbage collector runs there
            raise RuntimeError("close() on the metadata thread would wait for that thread: call it from another thread")
        if self.close_lock.waits_for_itself():
            self.close_deadline = min(self.close_deadline, deadline)
            return
        if self.transactions is not None:
            self.transactions.refuse_nested()
        self.state.closing = True
        if not self.close_lock.acquire(deadline):
            self.close_deadline = min(self.close_deadline, deadline)   # of another thread, which has more time
            if self.state.lifecycle == OPEN:
                self.accumulator.close_for_appends()
                self.sender.abort()
            self.close_lock.acquire(INT64_MAX)
        self.close_deadline = deadline
        started = fp_monotonic_ns()
        try:
            left = self.shut() if self.state.lifecycle != CLOSED else 0
        finally:
            self.close_lock.release()
        if timeout is None:
            timeout = f"{(fp_monotonic_ns() - started) / 1e9:.1f}"
        closable, self.closable = self.closable, []
        try:
            with contextlib.ExitStack() as parts:      # closes each, even if closing one raises
                for part in reversed(closable):
                    parts.callback(part.close)
        finally:                                       # lost records matter more than an error of a part
            self.sender.completion.failed_records.raise_all(
                f"close() gave up {left} records after {timeout} s; " if left else "")

    @cython.final
    cdef object shut(self):
        """Ends the parts, in the order of their dependence. Returns how many pending records it failed.

        After an interrupt it can be called again.
        """
        settled = True
        left = 0
        if self.state.lifecycle == OPEN:
            if self.transactions is not None:
                self.transactions.close(self.close_deadline)
            self.accumulator.close_for_appends()
            while True:                    # in slices, since the deadline may come nearer meanwhile
                settled = self.pending.wait_settled(fp_slice_end(self.close_deadline))
                if settled or fp_monotonic_ns() >= self.close_deadline:
                    break
            left = 0 if settled else self.accumulator.unsettled
            self.pool.close()
            if settled:
                self.sender.stop()
            else:
                self.sender.abort()
            # These records fail soon, though librdkafka may still hold them.
            while self.accumulator.count_unsettled() and not fp_atomic_load(&self.sender.finished):
                self.wait_closing(&self.sender.finished, LOOK_NS)
            self.wait_closing(&self.sender.finished, GIVE_UP_TIMEOUT_NS)
            self.state.lifecycle = SENDER_ENDED    # only the sender uses the transport from here on
        if sys.is_finalizing():            # an interpreter that ends runs no other Python thread
            self.state.lifecycle = CLOSED
            return left
        self.callbacks.close()
        if self.callbacks.can_be_awaited():
            self.wait_closing(&self.callbacks.ended, GIVE_UP_TIMEOUT_NS)
        if self.tokens is not None:
            self.tokens.close(max(self.close_deadline - fp_monotonic_ns(), STEP_TIMEOUT_NS) / 1e9)
            self.tokens = None             # its queue may be gone when this is called again
        self.metadata.close()
        self.wait_closing(&self.deferred_cleanup.cleared, STEP_TIMEOUT_NS)
        # A join() that a signal interrupts marks the thread as ended. So wait for the end of its work first.
        if fp_atomic_load(&self.callbacks.ended):
            self.callback_thread.join()
        if fp_atomic_load(&self.deferred_cleanup.cleared):
            self.metadata_thread.join()
        self.state.lifecycle = CLOSED
        unregister_producer(self)
        return left

    @cython.final
    cdef int wait_closing(self, int *done, int64_t grace_ns) except -1:
        """Waits until *done is set or the deadline of close() has passed. A signal handler may bring it forward.

        grace_ns: the wait takes at least so long, if *done is not set.
        """
        cdef int64_t least = fp_monotonic_ns() + grace_ns
        cdef int64_t until, pause_ns = 0
        cdef int ended = 0
        while not ended and fp_monotonic_ns() < max(least, self.close_deadline):
            until = next_slice(max(least, self.close_deadline), &pause_ns)
            with nogil:
                ended = wait_completed(done, until)
        return 0

    def _close_at_exit(self, timeout=EXIT_TIMEOUT_S):
        """Closes a producer that was left open, within a bounded time. Reports lost records on stderr."""
        if not Producer._is_unclosed(self):
            return
        try:
            Producer.close(self, timeout)  # that of a subclass may take other arguments
        except DeliveryError as error:
            print(f"fastprod: a producer ended without close(): {error}", file=sys.stderr)

    def __enter__(self):
        self.check_open()
        return self

    def __exit__(self, exc_type, exc, traceback):
        """Closes. An exception of the block goes on; if close() finds lost records, they are a note on it."""
        if self.appender is None or self.state.is_inherited():
            return
        try:
            self.close()
        except KafkaError as error:
            if exc is None:
                raise
            logger().error("the producer was closed by %r, and %s", exc, error)
            if hasattr(exc, "add_note"):   # since Python 3.11
                exc.add_note(f"close() found that {error}")

    def __del__(self):
        """Closes a producer that was dropped without close(): its threads work on parts that would be freed."""
        if not Producer._is_unclosed(self):
            return
        try:
            warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, source=self)
        finally:                           # the warning may be an exception (-W error)
            try:
                if current() not in (self.callbacks.thread_id, self.metadata.thread_id):
                    self._close_at_exit()
            finally:                       # a signal handler may raise in that, too
                if self.state.lifecycle != CLOSED and not sys.is_finalizing():
                    make_thread(self._close_at_exit, "fastprod-close", daemon=False).start()

    def __dealloc__(self):
        """Closes a producer that __del__() left open: a subclass may not call it, and Python calls it once per object.

        Nothing may keep a reference to self, because it is freed after this.
        """
        if self.appender is not None and self.state.is_unclosed():
            try:
                self.close_dropped()
            except BaseException as error:
                unraisable(error, None)

    @cython.final
    cdef int close_dropped(self) except -1:
        unregister_producer(self)
        self.state.closing = True
        self.close_deadline = fp_monotonic_ns() + EXIT_TIMEOUT_S * <int64_t>1_000_000_000
        try:
            warnings.warn("a producer was dropped without close(), and its class has a __del__() that does not call "
                          "super().__del__()", ResourceWarning)
        finally:                           # the warning may be an exception (-W error)
            try:
                if current() not in (self.callbacks.thread_id, self.metadata.thread_id):
                    self.shut()
            finally:
                if self.state.lifecycle != CLOSED:   # its thread still uses the parts
                    Py_INCREF(self.sender)
        try:
            self.sender.completion.failed_records.raise_all()
        except DeliveryError as error:
            print(f"fastprod: a producer ended without close(): {error}", file=sys.stderr)
        return 0

    # Transactions

    def init_transactions(self, timeout=None):
        """Fences older producers of this transactional.id and ends their open transactions. Called once, first.

        timeout: seconds, None for max.block.ms. TimeoutError: the time is over; call it again. FencedError and other
        fatal errors: this producer cannot be used.
        """
        self.need_transactions("init_transactions").init(timeout)

    def begin_transaction(self):
        """Opens a transaction: the records sent from now on are committed or aborted together."""
        self.need_transactions("begin_transaction").begin()

    def send_offsets_to_transaction(self, offsets, group_metadata):
        """Makes consumed offsets part of the transaction: they are committed with it, or not at all.

        offsets: confluent_kafka.TopicPartition objects, or a mapping of (topic, partition) to offset; each is the
        offset of the next record to consume. group_metadata: the return value of consumer.consumer_group_metadata().
        The consumer needs enable.auto.commit=false.

        Blocks up to max.block.ms. After any error but TypeError, ValueError and TransactionStateError, the transaction
        must be aborted.
        """
        self.need_transactions("send_offsets_to_transaction").send_offsets(offsets, group_metadata)

    def commit_transaction(self, timeout=None):
        """Sends all pending records, waits for them and their callbacks, and commits.

        timeout: seconds, None for max.block.ms. TimeoutError: the time is over and the outcome is open; call it again.
        If a record failed or the broker refuses, it raises that error with `abortable` set: nothing was committed, and
        abort_transaction() must be called. FencedError: another producer took over.
        """
        self.need_transactions("commit_transaction").commit(timeout)

    def abort_transaction(self, timeout=None):
        """Drops the records of the transaction that were not sent, waits for those on their way, and aborts.

        The futures of dropped records fail with persisted "no". flush() and close() do not raise for them.
        timeout: seconds, None for max.block.ms. TimeoutError: the time is over; call it again.
        """
        self.need_transactions("abort_transaction").abort(timeout)

    def transaction(self):
        """A context manager for one transaction. Its end commits; an exception aborts and goes on."""
        return transaction(self)

    @cython.final
    cdef TransactionManager need_transactions(self, str name):
        self.check_open()
        self.refuse_in_callback(name)
        if self.transactions is None:
            raise TransactionStateError(f"{name}() needs a producer with a transactional.id")
        return self.transactions

    # Looking

    def partitions_for(self, topic):
        """Returns the topic's partitions, as PartitionInfo. Waits for metadata up to max.block.ms if it has none."""
        self.check_open()
        return self.metadata.partitions_of(self.appender.topic_metadata(topic, self.appender.block_deadline()))

    def __len__(self):
        """The number of records that were sent and have not settled."""
        self.check_made()
        return self.accumulator.unsettled

    def __bool__(self):
        return True

    @property
    def buffer_available(self):
        """Bytes of buffer.memory that are free."""
        self.check_made()
        self.state.check_fork()
        return self.pool.available_memory

    def _is_unclosed(self):
        """Whether _close_at_exit() has something to do."""
        return self.appender is not None and self.state.is_unclosed()

    def _memory_in_use(self):
        if not Producer._is_unclosed(self):
            return 0
        return self.pool.total_memory - self.pool.unallocated_memory + self.sender.completion.failed_records.bytes

    def metrics(self):
        """Returns the figures of this producer since it was made, by Java's metric names (producer-metrics).

        Sizes are in bytes, rates per second, and -avg and -max times in ms, unless the name says ns. Requests are
        ProduceRequests, with each repetition. callback-queue-size: callbacks of settled records that have not run.
        callback-queue-bytes: the part of buffer.memory that all registered callbacks take.
        """
        self.check_made()
        self.state.check_fork()
        return self.figures.values()

    def __reduce__(self):
        raise TypeError("a Producer cannot be copied or pickled: share one among threads, and make one in each process")

    def __repr__(self):
        if self.appender is None:
            return f"<fastprod.{type(self).__name__} not initialized>"
        state = "closed" if self.state.lifecycle != OPEN else f"{self.accumulator.unsettled} records pending"
        return f"<fastprod.{type(self).__name__} {self.config.bootstrap_servers} {state}>"


cdef class DeferredCleanup:
    """Ends what may outlast close(): the librdkafka producer, and calls of it that cannot be interrupted.

    The metadata thread runs clear() last, because it may be in such a call itself. So close() keeps its timeout, and no
    thread uses the librdkafka producer when it is destroyed. Owns the sender until then: a late answer wakes it.
    """
    cdef Transport transport
    cdef Sender sender
    cdef TransactionManager transactions
    cdef int cleared                       # atomic

    def __init__(self, Transport transport, Sender sender, TransactionManager transactions):
        self.transport = transport
        self.sender = sender
        self.transactions = transactions

    def clear(self):
        if self.transactions is not None:
            self.transactions.end()
        self.sender.join()
        self.transport.close()
        fp_atomic_store(&self.cleared, 1)
        notify_completed()
