"""Producer: the public class. What it does is in its parts: see internals/producer_parts.pyx."""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact
from fastprod.bulk.arrow_append cimport append_arrow
from fastprod.bulk.sequence_append cimport append_sequences
from fastprod.internals.callbacks cimport unraisable
from fastprod.internals.open_producers cimport EXIT_TIMEOUT_S, register_producer, unregister_producer
from fastprod.internals.producer_parts cimport ProducerParts
from fastprod.internals.producer_shutdown cimport ProducerShutdown
from fastprod.internals.producer_state cimport OPEN
from fastprod.internals.record_appender cimport RecordAppender
from fastprod.internals.sync cimport fp_monotonic_ns
from fastprod.internals.transaction_manager cimport TransactionManager

import sys
import warnings

from fastprod.config.producer_config import resolve
from fastprod.errors import DeliveryError, KafkaError, TransactionStateError
from fastprod.internals.handle import knows
from fastprod.internals.logs import logger
from fastprod.internals.produce_request_result import wait_deadline
from fastprod.internals.threads import make_thread
from fastprod.internals.transaction_block import transaction
from fastprod.records import ProducerRecord


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
    cdef ProducerParts parts               # None until __init__() has run to its end, as are the next two
    cdef ProducerShutdown shutdown
    cdef RecordAppender appender           # that of `parts`

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
        self.config = settings = resolve(
            config, keywords, knows, lambda message, **_: warnings.warn(message, stacklevel=2))
        partitioner = None if isinstance(settings.partitioner, str) else settings.partitioner
        if hasattr(partitioner, "configure"):
            partitioner.configure(dict(config or {}, **keywords))
        parts = ProducerParts(settings)
        shutdown = ProducerShutdown(parts, (partitioner, *settings.interceptors))
        register_producer(self)
        parts.start()
        self.parts, self.shutdown, self.appender = parts, shutdown, parts.appender

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
        self.check_made()
        if PyBytes_CheckExact(value) and partition is None and timestamp is None and headers is None and (
                on_delivery is None and (key is None or PyBytes_CheckExact(key))) and self.appender.no_hooks:
            future = self.appender.send_fast_path(topic, value, key)
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
        return self.parts.state.check_open()

    # Waiting

    def flush(self, timeout=None):
        """Sends all pending records now, and returns when they have settled and their callbacks have run.

        timeout: seconds, or None for no limit. TimeoutError: the time is over, and the records are still on their way.
        DeliveryError: some records failed, and nothing has observed it; it holds the records.
        """
        deadline = wait_deadline(timeout)
        self.check_open()
        self.parts.callbacks.refuse_wait("flush")
        started = fp_monotonic_ns()
        try:
            if not self.parts.pending.wait_settled(deadline):
                raise TimeoutError(f"{self.parts.pending.unfinished()} after {timeout} s; they are still on their way")
        finally:
            self.parts.metrics.record_flush(fp_monotonic_ns() - started)
        self.parts.completion.failed_records.raise_all()

    def wait_ready(self, timeout=None):
        """Returns once a broker has answered. So the address works, and the credentials are valid.

        timeout: seconds, or None for no limit. AuthenticationError: the brokers refuse the credentials, or one side
        refuses the other's certificate. MetadataTimeoutError, which is a TimeoutError: the time is over; it names the
        last error.
        """
        wait_deadline(timeout)             # checks it
        self.check_open()
        self.parts.metadata.ready(float("inf") if timeout is None else timeout)

    def purge(self):
        """Fails all pending records now, those sent meanwhile too, and returns when all have failed.

        Each fails with a DeliveryError. Its `persisted` is "possibly" if the record may have been written. The next
        flush() raises those that nothing has observed. The producer works on. TransactionStateError: the producer has
        a transactional.id; call abort_transaction() instead.
        """
        self.check_open()
        self.parts.callbacks.refuse_wait("purge")
        if self.parts.transactions is not None:
            raise TransactionStateError("purge() would leave part of a transaction: call abort_transaction() instead")
        self.parts.pending.purge()

    def close(self, timeout=None):
        """Sends all pending records, waits for them, and ends the threads. Idempotent.

        timeout: seconds, or None for no limit but delivery.timeout.ms. Records that are still pending then fail.
        DeliveryError: some records failed, and nothing has observed it; it holds the records. A signal handler may
        call it. If the handler interrupts close() in the same thread, the inner call returns at once, and the outer
        one goes on until the earlier of both deadlines. RuntimeError: the handler has interrupted a call of the
        transaction.
        """
        deadline = wait_deadline(timeout)
        if self.appender is not None:      # otherwise __init__() has raised, or was never called
            self.shutdown.close(deadline, timeout)

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
        if self.appender is None or self.parts.state.is_inherited():
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
                if not self.shutdown.on_own_thread():
                    self._close_at_exit()
            finally:                       # a signal handler may raise in that, too
                if self.parts.state.is_unclosed() and not sys.is_finalizing():
                    make_thread(self._close_at_exit, "fastprod-close", daemon=False).start()

    def __dealloc__(self):
        """Closes a producer that __del__() left open: a subclass may not call it, and Python calls it once per object.

        Nothing may keep a reference to self, because it is freed after this.
        """
        if self.appender is not None and self.parts.state.is_unclosed():
            try:
                unregister_producer(self)
                self.shutdown.close_dropped()
            except BaseException as error:
                unraisable(error, None)

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
        self.parts.callbacks.refuse_wait(name)
        if self.parts.transactions is None:
            raise TransactionStateError(f"{name}() needs a producer with a transactional.id")
        return self.parts.transactions

    # Looking

    def partitions_for(self, topic):
        """Returns the topic's partitions, as PartitionInfo. Waits for metadata up to max.block.ms if it has none."""
        self.check_open()
        return self.parts.metadata.partitions_of(self.appender.topic_metadata(topic, self.appender.block_deadline()))

    def __len__(self):
        """The number of records that were sent and have not settled."""
        self.check_made()
        return self.parts.accumulator.unsettled

    def __bool__(self):
        return True

    @property
    def buffer_available(self):
        """Bytes of buffer.memory that are free."""
        self.check_made()
        self.parts.state.check_fork()
        return self.parts.pool.available_memory

    def _is_unclosed(self):
        """Whether _close_at_exit() has something to do."""
        return self.appender is not None and self.parts.state.is_unclosed()

    def _memory_in_use(self):
        if not Producer._is_unclosed(self):
            return 0
        return self.parts.memory_in_use()

    def metrics(self):
        """Returns the figures of this producer since it was made, by Java's metric names (producer-metrics).

        Sizes are in bytes, rates per second, and -avg and -max times in ms, unless the name says ns. Requests are
        ProduceRequests, with each repetition. callback-queue-size: callbacks of settled records that have not run.
        callback-queue-bytes: the part of buffer.memory that all registered callbacks take.
        """
        self.check_made()
        self.parts.state.check_fork()
        return self.parts.metrics.values()

    def __reduce__(self):
        raise TypeError("a Producer cannot be copied or pickled: share one among threads, and make one in each process")

    def __repr__(self):
        if self.appender is None:
            return f"<fastprod.{type(self).__name__} not initialized>"
        pending = f"{self.parts.accumulator.unsettled} records pending"
        state = pending if self.parts.state.lifecycle == OPEN else "closed"
        return f"<fastprod.{type(self).__name__} {self.config.bootstrap_servers} {state}>"
