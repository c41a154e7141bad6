"""Producer: checks what it is given, wires the parts, and is what users hold."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, int32_t, int64_t
from fastprod.internals.drain_scheduler cimport DrainScheduler
from fastprod.internals.open_batches cimport CallbackSlot, RecordAppendResult
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.bulk.arrow_append cimport ArrowAppend, check_arrow, check_headers
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.bulk.bulk_future cimport BulkFuture, future_of_call
from fastprod.bulk.sequence_append cimport Column, SequenceAppend
from fastprod.internals.callbacks cimport Callbacks, unraisable
from fastprod.internals.completion cimport Completion
from fastprod.internals.callback_check cimport check_callback, check_delivery_callback, check_order
from fastprod.internals.future cimport FutureRecordMetadata
from fastprod.internals.produce_request_result cimport (
    ON_ACKNOWLEDGEMENT, ON_DELIVERY, process_generation, notify_completed, wait_completed,
)
from fastprod.internals.input cimport (
    Span, checked_timestamp, encode_headers, refuse_size, shorten, span_of, span_release,
)
from fastprod.internals.pending_records cimport PendingRecords
from fastprod.internals.metadata_requests cimport MetadataRequests
from fastprod.internals.producer_metadata cimport ProducerMetadata, TopicMetadata
from fastprod.internals.partitioner cimport key_partition
from fastprod.internals.record cimport FP_MAX_OVERHEAD, fp_no_headers, fp_record, fp_wire_upper_bound
from fastprod.internals.sender cimport Sender
from fastprod.internals.sync cimport (
    fp_atomic_load, fp_atomic_store, fp_monotonic_ns, fp_slice_end, fp_wall_clock, fp_wall_clock_ms,
)
from fastprod.internals.threads cimport Lock, next_slice, thread_ident
from fastprod.internals.transaction_manager cimport TransactionManager
from fastprod.internals.token_requests cimport TokenRequests
from fastprod.internals.transport cimport Transport

import atexit
import contextlib
import os
import sys
import time
import warnings
import weakref

from fastprod.internals.produce_request_result import wait_deadline
from fastprod.internals.in_flight_partition import first_phase
from fastprod.internals.threads import current, greenlets_run, make_thread, start_threads
from fastprod.internals.transaction_manager import transaction
from fastprod.internals.handle import knows
from fastprod.config.producer_config import resolve
from fastprod.errors import (
    ConfigError, DeliveryError, ForkedProducerError, KafkaError, ProducerClosedError, SerializationError,
    TransactionStateError,
)
from fastprod.internals.error_codes import for_several, set_place
from fastprod.internals.logs import logger
from fastprod.records import ProducerRecord
from fastprod.internals.tokens import TokenRefresher

# What close() grants each of its steps when its time is over: what takes longer ends in the background.
cdef int64_t STEP_TIMEOUT_NS = 100_000_000
cdef int64_t LOOK_NS = 5_000_000
cdef int64_t GIVE_UP_TIMEOUT_NS = 250_000_000      # to the sender, which gives up what has not settled
cdef enum:
    TOPIC_NAME_LIMIT = 249     # characters: org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH
    TOKEN_TIMEOUT_S = 5        # what a constructor that fails grants a token provider that has been called
    EXIT_TIMEOUT_S = 30        # what an interpreter that exits without close() grants the records

_open_producers = weakref.WeakValueDictionary()   # by id(): unlike a WeakSet's, its refs can be listed in one step


cdef list open_producers():
    return [producer for producer in [ref() for ref in _open_producers.valuerefs()] if producer is not None]


@atexit.register
def _close_at_exit():
    """Closes what was left open. Each, whatever comes out of another's; Ctrl-C ends the patience with all."""
    cdef Producer producer
    raised = None
    timeout = EXIT_TIMEOUT_S
    for producer in open_producers():
        try:
            producer._close_at_exit(timeout)
        except BaseException as error:
            raised = error
            if producer.unclosed:
                timeout = 0
                with contextlib.suppress(BaseException):
                    producer._close_at_exit(timeout)
    if raised is not None:
        raise raised


def memory_in_use():
    """Bytes of buffer.memory that the records and callbacks of all producers of this process take now.

    Memory that a pool keeps for its next batches counts too, and so do failed records that wait for flush() or close()
    to raise them. Not counted is what librdkafka allocates: some 250 bytes, its copy of the key, and 80 bytes for each
    header, of a record that it holds; with the records themselves that is at most 10 MiB per broker, and 24 MiB per
    producer. One that was inherited by a fork counts nothing here. Thread-safe, and cheap: it reads a few numbers of
    each producer.
    """
    cdef Producer producer
    total = 0
    for producer in open_producers():
        if producer.fork_generation == process_generation and producer.unclosed:
            total += producer.memory_in_use()
    return total


cdef int closed_with_process = -1          # `forks` of the process whose end _close_at_exit() is told of


cdef int close_with_process() except -1:
    """multiprocessing's forked children end without atexit, but run its own finalizers."""
    global closed_with_process
    util = sys.modules.get("multiprocessing.util")
    if util is not None and closed_with_process != process_generation:
        util.Finalize(None, _close_at_exit, exitpriority=0)
        closed_with_process = process_generation
    return 0


cdef object serialize(object serializer, str topic, object value, str what):
    try:
        function = getattr(serializer, "serialize", None)
        given = serializer(value) if function is None else function(topic, value)
    except Exception as error:
        raise SerializationError(
            f"the {what}_serializer failed on {shorten(value)} for {topic!r}: {type(error).__name__}: {error}"
        ) from error
    if given is not None and not isinstance(given, (bytes, str, bytearray, memoryview)):
        raise SerializationError(
            f"the {what}_serializer must give bytes, bytearray, memoryview, str or None, but gave "
            f"{type(given).__name__} for {topic!r}: {shorten(given)}")
    return given


@cython.no_gc_clear                        # __dealloc__() may need the parts
cdef class Producer:
    """Producer(config=None, **keywords)
--

    Sends records to Kafka. Thread-safe, and meant to be the only one of its process.

    config: Java's names ("linger.ms") or, as keywords, the same with underscores
    (linger_ms=); docs/options.md has the table. A wrong option raises ConfigError.

    Owns a sender thread, a callback thread and a metadata thread, all of which
    close() ends. In a forked child every call raises ForkedProducerError.

    It can be derived from. A subclass with an __init__() of its own calls super().__init__(), and one with a __del__()
    calls super().__del__().
    """

    cdef object __weakref__
    cdef bint made                         # __init__() has run to its end
    cdef readonly object config            # ProducerConfig
    cdef BufferPool pool
    cdef RecordAccumulator accumulator
    cdef Transport transport
    cdef Callbacks callbacks
    cdef Sender sender
    cdef PendingRecords pending
    cdef TransactionManager transactions   # None without a transactional.id
    cdef ProducerMetadata metadata
    cdef object tokens                     # TokenRefresher, or None without a provider
    cdef object callback_thread
    cdef object metadata_thread
    cdef DeferredCleanup deferred_cleanup                   # what the metadata thread ends, after all others
    cdef Lock close_lock
    cdef int64_t close_deadline   # its own, or an earlier one of its signal handler's
    cdef list closable            # the user's parts that are to be closed at the end
    cdef int fork_generation      # `process_generation` when it was made
    cdef bint closing
    cdef bint open                         # everything is there, and the sender has not ended
    cdef bint unclosed                     # close() has something to do; it outlasts `open` where that was interrupted
    cdef bint ignore_keys
    cdef bint no_hooks           # no serializers, interceptors or user's partitioner
    cdef size_t largest_record   # bytes: the lesser of max.request.size and buffer.memory
    cdef str size_limit          # which of them that is
    cdef int64_t max_block_ns
    cdef object partitioner                # the user's, or None
    cdef object key_serializer
    cdef object value_serializer
    cdef tuple interceptors
    cdef fp_wall_clock clock               # guarded by the GIL
    cdef TopicMetadata last_topic          # of the last send(), which is mostly the next one's too
    cdef object started                    # time.monotonic()
    cdef int64_t flush_ns

    def __cinit__(self, *arguments, **keywords):
        if type(self) is Producer and not arguments and not keywords:
            resolve(None, {}, knows, None)     # raises: a producer cannot be without options

    @cython.embedsignature(False)          # the text signature is here, for inspect and unittest.mock
    def __init__(self, config=None, **keywords):
        """__init__($self, config=None, **keywords)
--

        See the class.
        """
        if self.made:
            raise RuntimeError("this producer was made before: its __init__() is called once")
        if config is not None and not hasattr(config, "items"):
            raise TypeError(f"config must be a mapping of option names to values, not {type(config).__name__}")
        self.fork_generation = process_generation
        self.close_lock = Lock()
        self.config = settings = resolve(
            config, keywords, knows, lambda message, **_: warnings.warn(message, stacklevel=2))
        properties = settings.librdkafka
        max_in_flight = int(properties["max.in.flight.requests.per.connection"])
        named = isinstance(settings.partitioner, str)
        self.partitioner = None if named else settings.partitioner
        if self.partitioner is not None and hasattr(self.partitioner, "configure"):
            self.partitioner.configure(dict(config or {}, **keywords))
        self.ignore_keys = settings.partitioner_ignore_keys or settings.partitioner in ("round_robin", "random")
        self.key_serializer = settings.key_serializer
        self.value_serializer = settings.value_serializer
        self.interceptors = tuple(settings.interceptors)
        for interceptor in self.interceptors:
            check_interceptor(interceptor)
        self.closable = [part for part in (self.partitioner, *self.interceptors) if hasattr(part, "close")]
        self.no_hooks = (self.partitioner is None and self.key_serializer is None
                         and self.value_serializer is None and not self.interceptors)
        self.largest_record = min(settings.max_request_size, settings.buffer_memory)
        self.size_limit = "buffer.memory" if self.largest_record < settings.max_request_size else "max.request.size"
        self.max_block_ns = settings.max_block_ms * 1_000_000
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
            self.transport, self.accumulator, sender=self.sender, renewable=not settings.transactional_id,
            max_age_ms=settings.metadata_max_age_ms, max_idle_ms=settings.metadata_max_idle_ms,
            backoff_ms=settings.retry_backoff_ms,
            max_partitions_for_memory=settings.buffer_memory // (2 * settings.batch_size),
            bootstrap_servers=properties["bootstrap.servers"].encode()
            if settings.metadata_recovery_strategy == "rebootstrap" else None)
        self.callbacks.on_refresh = self.metadata.want
        if settings.enable_idempotence or max_in_flight == 1:
            self.sender.requests.keep_order(properties, settings.enable_idempotence)
        # retry.backoff.ms less librdkafka's jitter of 20 % (rd_kafka_retry_msgq)
        self.sender.completion.first_retry_us = 800 * min(
            int(properties[name]) for name in ("retry.backoff.ms", "retry.backoff.max.ms"))
        self.sender.overdue_ns = int(properties["socket.timeout.ms"]) * 1_000_000
        if settings.transactional_id:
            self.transactions = TransactionManager(
                self.transport, self.accumulator, self.sender, self.pending, self.max_block_ns)
        self.deferred_cleanup = DeferredCleanup(
            self.transport, self.sender, self.metadata.requests, self.transactions)
        green = greenlets_run()
        self.callbacks.green_thread = thread_ident() if green else 0
        self.callback_thread = make_thread(self.callbacks.run, "fastprod-callbacks", green=green)
        self.metadata_thread = make_thread(self.metadata.run, "fastprod-metadata", (self.deferred_cleanup.clear,))
        self.started = time.monotonic()
        _open_producers[id(self)] = self
        close_with_process()
        if settings.sasl_oauthbearer_token_provider is not None:
            self.tokens = TokenRefresher(TokenRequests(self.transport), settings.sasl_oauthbearer_token_provider)
        try:
            start_threads([part for part in (self.tokens, self.callback_thread, self.metadata_thread) if part])
            self.sender.start()            # last: it does not keep alive what it works on, as the others do
        except BaseException:              # no thread to be had
            if self.tokens is not None:
                self.tokens.close(TOKEN_TIMEOUT_S)
            self.callbacks.close()
            self.metadata.close()
            self.accumulator.closed_error = None    # ends a cycle through the transactions
            raise
        self.open = self.unclosed = self.made = True

    # Sending

    def send(self, topic, value=None, key=None, *, partition=None, timestamp=None, headers=None, on_delivery=None):
        """Sends a record; returns its FutureRecordMetadata at once.

        topic: name, or a ProducerRecord and nothing else but on_delivery. value, key: bytes-like, str (as
        UTF-8), None, or what the serializers take. partition: number, or None to let the partitioner choose.
        timestamp: ms since the epoch, None for now. headers: pairs of str and what a value may be, or a mapping.
        on_delivery(metadata_or_None, error_or_None): called once from the callback thread, in order within a
        partition but for what was given up before it was handed to librdkafka. error.topic and error.partition tell
        where the record was meant to go. It is not called if send() raises.

        Blocks while the topic is not known yet or buffer.memory is full, of records not yet acknowledged or of
        callbacks that have not run, at most max.block.ms in all:
        MetadataTimeoutError, UnknownTopicOrPartitionError, BufferExhaustedError. An application far ahead of
        the brokers is paused for up to 0.2 ms at a time. What is wrong with the
        record itself is a TypeError, ValueError, SerializationError or RecordTooLargeError. Whatever it
        raises, the record was not taken and the producer works on.
        """
        if type(topic) is not str and isinstance(topic, ProducerRecord):
            if not (value is None and key is None and partition is None and timestamp is None and headers is None):
                raise TypeError("send() takes a ProducerRecord, or a topic with value, key, ..., but not both")
            return self.send_fields(
                topic.topic, topic.value, topic.key, topic.partition, topic.timestamp, topic.headers, on_delivery)
        if PyBytes_CheckExact(value) and partition is None and timestamp is None and headers is None and (
                on_delivery is None and (key is None or PyBytes_CheckExact(key))) and (
                self.no_hooks and self.open and self.fork_generation == process_generation):
            future = self.send_bare(topic, value, key)
            if future is not None:
                return future
        return self.send_fields(topic, value, key, partition, timestamp, headers, on_delivery)

    @cython.final
    cdef FutureRecordMetadata send_fields(self, object topic, object value, object key, object partition,
                                          object timestamp, object headers, object on_delivery):
        try:
            self.check_open()
            if on_delivery is not None:
                check_delivery_callback(on_delivery)
            if self.no_hooks:
                return self.send_serialized(topic, value, key, partition, timestamp, headers, on_delivery, None)
        except KafkaError as error:
            set_place(error, topic, partition)
            raise
        return self.send_through(topic, value, key, partition, timestamp, headers, on_delivery)

    @cython.final
    cdef FutureRecordMetadata send_bare(self, object topic, object value, object key):
        """send_fields() in the common case, of bytes for the topic of the last record and for an open batch.

        None in all others, and then the record was not taken.
        """
        cdef TopicMetadata entry = self.last_topic
        cdef FutureRecordMetadata future
        cdef fp_record record
        cdef RecordAppendResult appended
        cdef int32_t partition = -1
        if entry is None or topic is not entry.name or self.transport.errors.fatal_code:
            return None
        record.value = PyBytes_AS_STRING(value)
        record.value_len = PyBytes_GET_SIZE(value)
        record.key = NULL
        record.key_len = 0
        if key is not None:
            record.key = PyBytes_AS_STRING(key)
            record.key_len = PyBytes_GET_SIZE(key)
        if record.key_len + record.value_len + FP_MAX_OVERHEAD > self.largest_record:
            return None
        fp_no_headers(&record)
        record.timed = 0
        record.timestamp = fp_wall_clock_ms(&self.clock)
        if record.key is not NULL and not self.ignore_keys:
            partition = key_partition(record.key, record.key_len, entry.partitions)
        future = <FutureRecordMetadata>FutureRecordMetadata.__new__(FutureRecordMetadata)
        if not self.accumulator.append_bare(entry.topic, partition, &record, &appended):
            return None
        future.topic = entry.name
        future.timestamp = record.timestamp
        future.key_size = <int32_t>record.key_len if record.key is not NULL else -1
        future.value_size = <int32_t>record.value_len
        future.produced = appended.result
        future.index = appended.index
        return future

    @cython.final
    cdef FutureRecordMetadata send_serialized(self, object topic, object value, object key, object partition,
                                              object timestamp, object headers, object on_delivery, object original):
        """original: (key, value) before they were serialized, for the user's partitioner; None without one."""
        cdef int epoch = fp_atomic_load(&self.accumulator.epoch)
        cdef TopicMetadata entry = self.last_topic
        cdef FutureRecordMetadata future
        cdef fp_record record
        cdef Span value_span, key_span
        cdef RecordAppendResult appended
        cdef int32_t chosen = -1
        cdef int64_t deadline = 0
        cdef bytes encoded_headers
        cdef size_t size
        if entry is None or topic is not entry.name or self.transport.errors.fatal_code:
            deadline = self.block_deadline()
            entry = self.topic_metadata(topic, deadline)
        record.timed = timestamp is not None
        record.timestamp = fp_wall_clock_ms(&self.clock) if timestamp is None else checked_timestamp(timestamp)
        fp_no_headers(&record)
        if headers is not None:
            encoded_headers = encode_headers(
                headers, self.largest_record, &record.headers_count, &record.headers_wire)
            if record.headers_count:
                record.headers = encoded_headers
                record.headers_len = len(encoded_headers)
        if partition is not None:
            chosen = self.metadata.checked_partition(entry, partition, &deadline, self.max_block_ns)
        value_span.viewed = key_span.viewed = 0
        try:
            span_of(value, &value_span, "value")
            span_of(key, &key_span, "key")
            record.value, record.value_len = value_span.data, value_span.size
            record.key, record.key_len = key_span.data, key_span.size
            size = fp_wire_upper_bound(&record)
            if size > self.largest_record:
                refuse_size(entry.name, size, self.largest_record, self.size_limit)
            future = <FutureRecordMetadata>FutureRecordMetadata.__new__(FutureRecordMetadata)
            future.topic = entry.name
            future.timestamp = record.timestamp
            future.key_size = <int32_t>record.key_len if record.key is not NULL else -1
            future.value_size = <int32_t>record.value_len if record.value is not NULL else -1
            if chosen < 0:
                if original is not None:
                    return self.send_partitioned(entry, &record, future, original, on_delivery, epoch, deadline)
                if record.key is not NULL and not self.ignore_keys:
                    chosen = key_partition(record.key, record.key_len, entry.partitions)
            self.append(entry, chosen, &record, future, on_delivery, epoch, deadline, 0, &appended)
        finally:
            span_release(&value_span)
            span_release(&key_span)
        self.last_topic = entry
        return future

    def send_many(self, topic, values, keys=None, *, partitions=None, timestamps=None, headers=None):
        """Sends a record for each of values; returns a BulkFuture at once, which costs memory per batch.

        values, keys: sequences or iterables of what send() takes, of equal length; a generator is consumed as
        buffer.memory takes its records. partitions, timestamps, headers: one for all, or as many as there are
        values; None in them is as in send().

        Blocks and raises as send() does, and what a generator raises. If it raises, the records before the one that
        was wrong, for which there was no memory, or which the generator did not give, have been sent: error.index
        tells how many they are, error.sent is their BulkFuture; an exception that takes no attributes goes without.
        Ctrl-C in a generator waits for nothing: some of what that gave may not have been sent.
        """
        cdef BulkFuture future = future_of_call(topic)
        cdef SequenceAppend append = None
        cdef int epoch = fp_atomic_load(&self.accumulator.epoch)
        cdef Py_ssize_t count, i
        try:
            self.check_open()
            columns = (Column(values, "values", False), Column(keys, "keys", False),
                       Column(partitions, "partitions", True), Column(timestamps, "timestamps", True),
                       Column(headers, "headers", True))
            lengths = {name: len(given)
                       for name, given in (("values", values), ("keys", keys), ("partitions", partitions),
                                           ("timestamps", timestamps)) if hasattr(given, "__len__")}
            if len(set(lengths.values())) > 1:
                raise ValueError("send_many() takes sequences of equal length, not "
                                 + " and ".join(f"{length} {name}" for name, length in lengths.items()))
            entry = self.topic_metadata(topic, self.block_deadline())
            append = SequenceAppend(future, entry, self.accumulator, epoch, self.metadata, self.max_block_ns,
                                    self.largest_record, self.size_limit, self.ignore_keys)
            append.read_from(*columns)
            while True:
                self.check_sending(epoch)
                count = append.take()
                if count == 0:
                    return future
                if self.no_hooks:
                    append.append_taken(count)
                elif append.error is None or isinstance(append.error, Exception):   # Ctrl-C does not wait for the rest
                    for i in range(count):
                        self.check_sending(epoch)
                        future.add(self.send_through(
                            topic, <object>append.values.item(i), <object>append.keys.item(i),
                            <object>append.record_partitions.item(i), <object>append.timestamps.item(i),
                            <object>append.headers.item(i), None))
                    give_way()
                append.unref()
        except BaseException as error:
            future.describe_sent(error, append is not None)
            raise
        finally:
            future.forget_latest()

    def send_arrow(self, topic, data, *, value="value", key=None, partition=None, timestamp=None, headers=None):
        """Sends a record for each row of Arrow data; returns a BulkFuture at once, which costs memory per batch.

        data: what has __arrow_c_stream__ or __arrow_c_array__: tables, record batches, readers of them, data frames of
        pyarrow, Polars, pandas, DuckDB. value, key: names of string or binary columns, also large, view, fixed-size or
        dictionary-encoded; a null value is a tombstone, a null key no key. partition: the name of an integer column, or
        one number for all; null lets the partitioner choose. timestamp: the name of a column of int64 ms or of
        timestamps, or ms for all; null is now. headers: a mapping or pairs of a header's name to a column's, or to
        bytes or None for all; or the name of a map or list<struct> column with all of them. Data that is a single
        column holds the values.

        A stream is read as buffer.memory takes its records. Blocks and raises as send_many() does, with error.index
        and error.sent. ValueError too for a column that is not there, TypeError for one of another type, OSError if
        the stream fails. Ctrl-C waits for a stream that computes its next batch.
        """
        cdef BulkFuture future = future_of_call(topic)
        cdef ArrowAppend append = None
        cdef int epoch = fp_atomic_load(&self.accumulator.epoch)
        cdef Py_ssize_t count, i
        try:
            self.check_open()
            check_arrow(data, value, key, partition, timestamp)
            headers = check_headers(headers)
            entry = self.topic_metadata(topic, self.block_deadline())
            append = ArrowAppend(future, entry, self.accumulator, epoch, self.metadata, self.max_block_ns,
                                 self.largest_record, self.size_limit, self.ignore_keys)
            append.open(data, value, key, partition, timestamp, headers)
            while True:
                self.check_sending(epoch)
                if self.no_hooks:
                    if not append.send():
                        return future
                    continue
                count = append.read()
                if not count:
                    return future
                for i in range(count):
                    self.check_sending(epoch)
                    one_value, one_key, one_partition, one_timestamp, one_headers = append.record(i)
                    future.add(self.send_through(topic, one_value, one_key, one_partition, one_timestamp, one_headers,
                                                 None))
                give_way()
        except BaseException as error:
            future.describe_sent(error, append is not None)
            raise
        finally:
            if append is not None:
                append.data.release()
            future.forget_latest()

    @cython.final
    cdef int append(self, TopicMetadata entry, int32_t partition, fp_record *record, FutureRecordMetadata future,
                    object on_delivery, int epoch, int64_t deadline, int abort_on_new_batch,
                    RecordAppendResult *appended) except -1:
        """Appends and binds the future; 0 if abort_on_new_batch and a new batch would be needed."""
        cdef CallbackSlot callback
        cdef int done
        callback.function = NULL
        if on_delivery is not None:
            # The batch takes these references over, or leaves function set.
            callback.kind = ON_DELIVERY
            if type(on_delivery) is Acknowledgement and (<Acknowledgement>on_delivery).on_delivery is None:
                callback.kind = ON_ACKNOWLEDGEMENT
            callback.function = <PyObject *>on_delivery
            callback.future = <PyObject *>future
            Py_INCREF(on_delivery)
            Py_INCREF(future)
        try:
            done = self.accumulator.append(entry.topic, partition, record, epoch, 0, deadline,
                                           &callback, abort_on_new_batch, appended)
        finally:
            if callback.function is not NULL:
                Py_DECREF(on_delivery)
                Py_DECREF(future)
        if done:
            future.produced = appended.result
            future.index = appended.index
            # Only now may the GIL be let go: once it is, the batch can settle,
            # and the callback thread reads the future that was just bound.
            if appended.backlog_high:
                with nogil:
                    self.accumulator.assist(self.accumulator.wake_argument)
        return done

    @cython.final
    cdef FutureRecordMetadata send_partitioned(self, TopicMetadata entry, fp_record *record,
                                               FutureRecordMetadata future, tuple original, object on_delivery,
                                               int epoch, int64_t deadline):
        """Lets the user's partitioner choose: org.apache.kafka.clients.producer.Partitioner."""
        cdef RecordAppendResult appended
        cdef bytes key_bytes = record.key[:record.key_len] if record.key is not NULL else None
        cdef bytes value_bytes = record.value[:record.value_len] if record.value is not NULL else None
        cdef int32_t chosen
        cluster = self.metadata.cluster()
        on_new_batch = getattr(self.partitioner, "on_new_batch", None)
        chosen = self.ask_partitioner(entry, original, key_bytes, value_bytes, cluster)
        if not self.append(entry, chosen, record, future, on_delivery, epoch, deadline, on_new_batch is not None,
                           &appended):
            on_new_batch(entry.name, cluster, chosen)
            chosen = self.ask_partitioner(entry, original, key_bytes, value_bytes, cluster)
            self.append(entry, chosen, record, future, on_delivery, epoch, deadline, 0, &appended)
        return future

    @cython.final
    cdef int32_t ask_partitioner(self, TopicMetadata entry, tuple original, bytes key_bytes, bytes value_bytes,
                                 object cluster) except -1:
        key, value = original
        chosen = self.partitioner.partition(entry.name, key, key_bytes, value, value_bytes, cluster)
        if isinstance(chosen, bool) or not hasattr(chosen, "__index__") or not 0 <= chosen < entry.partitions:
            raise ValueError(f"the partitioner chose {shorten(chosen)} for {entry.name!r}, which has the partitions "
                             f"0 to {entry.partitions - 1}")
        return chosen

    @cython.final
    cdef FutureRecordMetadata send_through(self, object topic, object value, object key, object partition,
                                           object timestamp, object headers, object on_delivery):
        """The way with serializers, interceptors or a user's partitioner.

        A record that is refused after on_send() is told of by on_acknowledgement(), as in Java: KafkaProducer.doSend.
        """
        cdef Py_ssize_t asked = 0          # interceptors that have had the record
        try:
            if self.interceptors:
                if hasattr(headers, "copy"):   # they may change them; they are the caller's, perhaps of other records
                    headers = headers.copy()
                record = ProducerRecord(topic, value, key, partition, timestamp, headers)
                for interceptor in self.interceptors:
                    if hasattr(interceptor, "on_send"):
                        record = interceptor.on_send(record)
                        if type(record) is not ProducerRecord:
                            raise TypeError(f"{type(interceptor).__name__}.on_send must return a ProducerRecord, "
                                            f"not {shorten(record)}")
                        topic, partition = record.topic, record.partition
                    asked += 1
                value, key, timestamp, headers = record.value, record.key, record.timestamp, record.headers
                on_delivery = Acknowledgement(self.interceptors, on_delivery)
            check_topic(topic)
            original = (key, value) if self.partitioner is not None else None
            if self.key_serializer is not None and key is not None:
                key = serialize(self.key_serializer, topic, key, "key")
            if self.value_serializer is not None and value is not None:
                value = serialize(self.value_serializer, topic, value, "value")
            return self.send_serialized(topic, value, key, partition, timestamp, headers, on_delivery, original)
        except BaseException as error:
            set_place(error, topic, partition)
            if asked:
                Acknowledgement(self.interceptors[:asked], None)(None, error)
            raise

    @cython.final
    cdef int64_t block_deadline(self) noexcept:
        return fp_monotonic_ns() + self.max_block_ns

    @cython.final
    cdef TopicMetadata topic_metadata(self, object topic, int64_t deadline):
        if type(topic) is not str or topic not in self.metadata.topics:
            check_topic(topic)
            topic = str.__str__(topic)     # of an enum, its value
        try:
            if self.transport.errors.fatal_code:
                self.raise_if_unusable()
            return self.metadata.topic(topic, max(0, deadline - fp_monotonic_ns()) / 1e9)
        except KafkaError as error:
            set_place(error, topic, None)
            raise

    @cython.final
    cdef int check_open(self) except -1:
        if not self.open or self.fork_generation != process_generation:
            self.raise_if_unusable()
        return 0

    @cython.final
    cdef int check_sending(self, int epoch) except -1:
        """For a call in between: whether it may go on. epoch: the accumulator's, when the call began."""
        if self.transport.errors.fatal_code or not self.open:
            self.raise_if_unusable()
        if epoch != fp_atomic_load(&self.accumulator.epoch):
            raise self.transactions.closed_error()
        return 0

    @cython.final
    cdef int check_made(self) except -1:
        if not self.made:
            raise RuntimeError("this producer was not made: its __init__() did not run to its end. A subclass with an "
                               "__init__() of its own calls super().__init__(...) first")
        return 0

    @cython.final
    cdef object raise_if_unusable(self):
        self.check_made()
        if self.fork_generation != process_generation:
            raise ForkedProducerError(
                "this producer was made before the process forked, and its threads stayed in the parent: "
                "make a new Producer in the child")
        if not self.open or self.closing:
            raise ProducerClosedError("the producer is closed: make a new one")
        code = self.transport.errors.fatal_code
        if code and self.transactions is not None:
            raise self.transactions.closed_error()
        if code:
            raise KafkaError(f"the producer met an error it cannot go on from: {self.transport.errors.fatal_reason}; "
                             "close it and make a new one", code=code, fatal=True)

    # Waiting

    def flush(self, timeout=None):
        """Returns when every record sent before has settled and its callbacks have run.

        Cuts linger.ms short. timeout: seconds, None for as long as it takes; TimeoutError when it has passed,
        and nothing is lost by that. DeliveryError, with the records, if some failed and nobody had been told.
        """
        deadline = wait_deadline(timeout)
        self.check_open()
        self.refuse_in_callback("flush")
        started = fp_monotonic_ns()
        try:
            if not self.pending.wait_settled(deadline):
                raise TimeoutError(f"{self.pending.unfinished()} after {timeout} s; they are still on their way")
        finally:
            self.flush_ns += fp_monotonic_ns() - started
        self.raise_failed()

    @cython.final
    cdef object raise_failed(self, str preface=""):
        count, reasons, records, kinds = self.sender.completion.failed_records.take()
        if not count:
            if preface:
                raise DeliveryError(preface + "whoever asked for their outcome has been told", count=0)
            return
        listed = "; ".join(f"{n} x {reason}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))
        kept = "they are in .records" if len(records) == count else (
            f"{len(records)} of them, as many as a quarter of buffer.memory holds, are in .records")
        raise for_several(
            f"{preface}{count} record{'s' if count > 1 else ''} failed and nobody had been told: {listed}; {kept}. "
            "Give on_delivery or ask the futures to handle failures one by one",
            kinds, reasons=reasons, records=records)

    @cython.final
    cdef int refuse_in_callback(self, str name) except -1:
        if current() == self.callbacks.thread_id:
            raise RuntimeError(f"{name}() would wait for the very callback that calls it: call it from another thread")

    def wait_ready(self, timeout=None):
        """Returns once a broker has answered, which it does when the credentials are good.

        timeout: seconds, None for as long as it takes. AuthenticationError as soon as the brokers refuse the
        credentials, or one side the other's certificate; MetadataTimeoutError, a TimeoutError, naming the last
        error, after timeout seconds.
        """
        wait_deadline(timeout)             # checks it
        self.check_open()
        self.metadata.ready(float("inf") if timeout is None else timeout)

    def purge(self):
        """Gives up every record that has not settled, those sent meanwhile too, and returns when all have failed.

        Each fails with DeliveryError, of which the next flush() tells if nobody else has been told: `persisted` is
        "possibly" for what may have been under way. The producer works on. TransactionStateError with a
        transactional.id: abort_transaction() is the way there.
        """
        self.check_open()
        self.refuse_in_callback("purge")
        if self.transactions is not None:
            raise TransactionStateError("purge() would leave a transaction half done: call abort_transaction()")
        self.pending.purge()

    def close(self, timeout=None):
        """Sends what is left, waits for it, and ends the threads. Idempotent.

        timeout: seconds, None for as long as it takes (delivery.timeout.ms bounds it). What has not settled by
        then is given up. DeliveryError, with the records, if some failed or were given up and nobody had been
        told. In a signal handler that interrupts this thread's own close() it returns at once: that one goes on after
        the handler, until the earlier of both deadlines. RuntimeError where it interrupts a call of the transaction.
        """
        deadline = wait_deadline(timeout)
        if not self.made:                  # __init__() has raised, or was never called
            return
        if self.fork_generation != process_generation:
            self.raise_if_unusable()
        self.refuse_in_callback("close")
        if current() == self.metadata.thread_id:   # in a finalizer that the garbage collector runs there
            raise RuntimeError("close() would wait for the very thread it is called on: call it from another one")
        if self.close_lock.waits_for_itself():
            self.close_deadline = min(self.close_deadline, deadline)
            return
        if self.transactions is not None:
            self.transactions.refuse_nested()
        self.closing = True
        if not self.close_lock.acquire(deadline):
            self.close_deadline = min(self.close_deadline, deadline)   # of another thread, with more patience
            if self.open:
                self.accumulator.close_for_appends()
                self.sender.abort()
            self.close_lock.acquire(INT64_MAX)
        self.close_deadline = deadline
        started = fp_monotonic_ns()
        try:
            left = self.shut() if self.unclosed else 0
        finally:
            self.close_lock.release()
        if timeout is None:
            timeout = f"{(fp_monotonic_ns() - started) / 1e9:.1f}"
        closable, self.closable = self.closable, []
        try:
            with contextlib.ExitStack() as parts:      # each of them, whatever comes out of another's
                for part in reversed(closable):
                    parts.callback(part.close)
        finally:                                       # what was lost weighs more than that
            self.raise_failed(f"close() gave up {left} records after {timeout} s; " if left else "")

    @cython.final
    cdef object shut(self):
        """Ends everything, in the order in which the parts depend on each other; how many records were given up.

        Whoever is interrupted here can call it again.
        """
        settled = True
        left = 0
        if self.open:
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
            # What was given up fails soon, whatever librdkafka still holds.
            while self.accumulator.count_unsettled() and not fp_atomic_load(&self.sender.finished):
                self.wait_closing(&self.sender.finished, LOOK_NS)
            self.wait_closing(&self.sender.finished, GIVE_UP_TIMEOUT_NS)
            self.open = False              # but for the sender, nobody touches the transport any more
        if sys.is_finalizing():            # an interpreter that ends runs no Python code of other threads any more
            self.unclosed = False
            return left
        self.callbacks.close()
        if self.callbacks.can_be_awaited():
            self.wait_closing(&self.callbacks.ended, GIVE_UP_TIMEOUT_NS)
        if self.tokens is not None:
            self.tokens.close(max(self.close_deadline - fp_monotonic_ns(), STEP_TIMEOUT_NS) / 1e9)
            self.tokens = None             # its queue may be gone when this is called again
        self.metadata.close()
        self.wait_closing(&self.deferred_cleanup.cleared, STEP_TIMEOUT_NS)
        # A join() that a signal ends takes the thread for ended, so what it does must have been waited for before.
        if fp_atomic_load(&self.callbacks.ended):
            self.callback_thread.join()
        if fp_atomic_load(&self.deferred_cleanup.cleared):
            self.metadata_thread.join()
        self.unclosed = False
        _open_producers.pop(id(self), None)
        return left

    @cython.final
    cdef int wait_closing(self, int *done, int64_t grace_ns) except -1:
        """Waits until *done, or the time of close() is over, which a signal handler's may shorten.

        grace_ns: the least time that the wait is given.
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
        """For who forgot close(): flushes for a bounded time, and says so on stderr if that fails."""
        if not self.unclosed or self.fork_generation != process_generation:
            return
        try:
            Producer.close(self, timeout)  # a subclass's may take other arguments
        except DeliveryError as error:
            print(f"fastprod: a producer ended without close(): {error}", file=sys.stderr)

    def __enter__(self):
        self.check_open()
        return self

    def __exit__(self, exc_type, exc, traceback):
        """Closes. What came out of the block is what goes on: records that close() finds lost are a note on it."""
        if self.fork_generation != process_generation:
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
        """A producer dropped without close() is closed here: its thread works on parts that would be freed."""
        if not self.unclosed or self.fork_generation != process_generation:
            return
        try:
            warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, source=self)
        finally:                           # the warning may be an exception (-W error)
            try:
                if current() not in (self.callbacks.thread_id, self.metadata.thread_id):
                    self._close_at_exit()
            finally:                       # and a signal handler's can come out of that
                if self.unclosed and not sys.is_finalizing():
                    make_thread(self._close_at_exit, "fastprod-close", daemon=False).start()

    def __dealloc__(self):
        """Closes what __del__() left open: a subclass's need not call it, and what came back to life has had its call.

        Nothing may keep a reference to self: what it is, is freed behind this.
        """
        if self.unclosed and self.fork_generation == process_generation:
            try:
                self.close_dropped()
            except BaseException as error:
                unraisable(error, None)

    @cython.final
    cdef int close_dropped(self) except -1:
        _open_producers.pop(id(self), None)
        self.closing = True
        self.close_deadline = fp_monotonic_ns() + EXIT_TIMEOUT_S * <int64_t>1_000_000_000
        try:
            warnings.warn("a producer was dropped without close(), and its class has a __del__() that does not call "
                          "super().__del__()", ResourceWarning)
        finally:                           # the warning may be an exception (-W error)
            try:
                if current() not in (self.callbacks.thread_id, self.metadata.thread_id):
                    self.shut()
            finally:
                if self.unclosed:          # its thread goes on with its parts
                    Py_INCREF(self.sender)
        try:
            self.raise_failed()
        except DeliveryError as error:
            print(f"fastprod: a producer ended without close(): {error}", file=sys.stderr)
        return 0

    # Transactions

    def init_transactions(self, timeout=None):
        """Fences older producers of this transactional.id and ends what they left open; once, before all else.

        timeout: seconds, None for max.block.ms. TimeoutError when it has passed: call it again. FencedError and
        other fatal errors: this producer cannot be used.
        """
        self.need_transactions("init_transactions").init(timeout)

    def begin_transaction(self):
        """Opens a transaction: what is sent from here on is committed or aborted together."""
        self.need_transactions("begin_transaction").begin()

    def send_offsets_to_transaction(self, offsets, group_metadata):
        """Makes consumed offsets part of the transaction: they are committed with it, or not at all.

        offsets: confluent_kafka.TopicPartition objects, or a mapping of (topic, partition) to offset; each is the
        offset of the next record to consume. group_metadata: what consumer.consumer_group_metadata() gives. The
        consumer needs enable.auto.commit=false.

        Blocks up to max.block.ms. Whatever it raises but TypeError, ValueError and TransactionStateError, the
        transaction must be aborted.
        """
        self.need_transactions("send_offsets_to_transaction").send_offsets(offsets, group_metadata)

    def commit_transaction(self, timeout=None):
        """Sends what is left, waits for it and its callbacks, and commits.

        timeout: seconds, None for max.block.ms. TimeoutError when it has passed: the outcome is open, call it
        again. If a record failed, or the broker refuses, it raises that, `abortable`: then nothing was
        committed, and abort_transaction() must be called. FencedError: another producer took over.
        """
        self.need_transactions("commit_transaction").commit(timeout)

    def abort_transaction(self, timeout=None):
        """Drops the records of the transaction that were not sent, waits for those on their way, and aborts.

        The futures of those that were dropped fail with persisted "no". flush() and close() do not count them as lost.
        timeout: seconds, None for max.block.ms. TimeoutError when it has passed: call it again.
        """
        self.need_transactions("abort_transaction").abort(timeout)

    def transaction(self):
        """A `with` block that is a transaction: committed at its end, aborted by an exception, which goes on."""
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
        """The topic's partitions, as PartitionInfo; asks the brokers if they are not known, at most max.block.ms."""
        self.check_open()
        return self.metadata.partitions_of(self.topic_metadata(topic, self.block_deadline()))

    def __len__(self):
        """Records sent and not yet settled."""
        self.check_made()
        return self.accumulator.unsettled

    def __bool__(self):
        return True

    @property
    def buffer_available(self):
        """Bytes of buffer.memory that are free."""
        if not self.made or self.fork_generation != process_generation:
            self.raise_if_unusable()
        return self.pool.available_memory

    @cython.final
    cdef object memory_in_use(self):
        return self.pool.total_memory - self.pool.unallocated_memory + self.sender.completion.failed_records.bytes

    def metrics(self):
        """The figures of this producer by Java's metric names (producer-metrics), since it was made.

        Sizes in bytes, -avg and -max times in ms unless the name says ns, rates per second. Requests are those that
        carry records, each repetition too. callback-queue-size: callbacks of settled records that have not run;
        callback-queue-bytes: what those and the callbacks of other records take of buffer.memory.
        """
        cdef DrainScheduler drained
        cdef Completion completion
        if not self.made or self.fork_generation != process_generation:
            self.raise_if_unusable()
        drained, completion = self.accumulator.scheduler, self.sender.completion
        seconds = max(time.monotonic() - self.started, 1e-9)
        requests = <unsigned int>fp_atomic_load(&self.transport.requests)

        def ratio(total, count):
            return total / count if count else 0.0

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

    def __reduce__(self):
        raise TypeError("a Producer cannot be copied or pickled: share one between threads, make one in each process")

    def __repr__(self):
        if not self.made:
            return f"<fastprod.{type(self).__name__} not made>"
        state = "closed" if not self.open else f"{self.accumulator.unsettled} records under way"
        return f"<fastprod.{type(self).__name__} {self.config.bootstrap_servers} {state}>"


cdef class DeferredCleanup:
    """What is left of a closed producer: librdkafka's handle, and calls of it that nothing cuts short.

    The metadata thread clears it, which may be in such a call itself. So close() need not wait longer than it was told,
    and nobody is left to use the handle when it goes. Kept till then too is the sender, which a late answer wakes.
    """
    cdef Transport transport
    cdef Sender sender
    cdef MetadataRequests requests
    cdef TransactionManager transactions
    cdef int cleared                       # atomic

    def __init__(self, Transport transport, Sender sender, MetadataRequests requests, TransactionManager transactions):
        self.transport = transport
        self.sender = sender
        self.requests = requests
        self.transactions = transactions

    def clear(self):
        if self.transactions is not None:
            self.transactions.end()
        self.sender.join()
        self.requests.drop_ids()
        self.transport.close()
        fp_atomic_store(&self.cleared, 1)
        notify_completed()


# A call of it lets signal handlers run, and threads that have waited for the GIL for sys.getswitchinterval(), which
# serializers written in C never do: the interpreter looks for both when it enters a function. To release the GIL for a
# moment instead would have those threads begin their wait anew, each time.
cdef object give_way = eval("lambda: None")


cdef object check_topic(object topic):
    if not isinstance(topic, str):
        raise TypeError(f"topic must be str, not {type(topic).__name__}: {shorten(topic)}")
    if not topic or topic in (".", "..") or len(topic) > TOPIC_NAME_LIMIT or not (
            (<str>topic).isascii() and (<str>topic).replace("-", "a").replace("_", "a").replace(".", "a").isalnum()):
        raise ValueError(f"{shorten(topic)} is no topic name: 1 to {TOPIC_NAME_LIMIT} of the characters "
                         "a-z A-Z 0-9 . _ -, and not . or ..")


cdef int check_interceptor(object interceptor) except -1:
    """ConfigError unless its on_acknowledgement(), if it has one, may be called with (metadata, error)."""
    function = getattr(interceptor, "on_acknowledgement", None)
    if function is None:
        return 0
    what = f"interceptors: {type(interceptor).__name__}.on_acknowledgement"
    try:
        check_callback(function, what)
        check_order(function, what)
    except TypeError as error:
        raise ConfigError(str(error)) from None
    return 0


cdef class Acknowledgement:
    """Tells the interceptors what became of a record, then on_delivery, if there is one."""
    cdef tuple interceptors
    cdef object on_delivery

    def __init__(self, tuple interceptors, on_delivery):
        self.interceptors = interceptors
        self.on_delivery = on_delivery

    def __call__(self, metadata, error):
        for interceptor in self.interceptors:
            if getattr(interceptor, "on_acknowledgement", None) is not None:
                try:
                    interceptor.on_acknowledgement(metadata, error)
                except BaseException as raised:
                    unraisable(raised, interceptor)   # the others and on_delivery still hear of it
        if self.on_delivery is not None:
            self.on_delivery(metadata, error)
