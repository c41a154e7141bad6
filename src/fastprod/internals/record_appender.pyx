"""RecordAppender: takes a record from send() to the accumulator.

Source: org.apache.kafka.clients.producer.KafkaProducer.doSend(). Unlike that, it serializes before it waits for the
topic's metadata.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t
from fastprod.internals.callback_check cimport check_delivery_callback
from fastprod.internals.future cimport FutureRecordMetadata
from fastprod.internals.input cimport (
    Span, check_topic, checked_timestamp, is_boolean, refuse_size, set_headers, shorten, span_of, span_release,
)
from fastprod.internals.interceptors cimport ProducerInterceptors, callback_kind
from fastprod.internals.open_batches cimport CallbackSlot, RecordAppendResult
from fastprod.internals.partitioner cimport key_partition
from fastprod.internals.produce_request_result cimport process_generation
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.producer_state cimport OPEN, ProducerState
from fastprod.internals.record cimport FP_MAX_OVERHEAD, fp_no_headers, fp_record, fp_wire_upper_bound
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.serializers cimport Serializers
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns, fp_wall_clock_ms
from fastprod.internals.topic_metadata cimport TopicMetadata

from fastprod.errors import KafkaError
from fastprod.internals.error_codes import set_place


@cython.final
@cython.no_gc_clear                        # a finalizer of a user's part may still send()
cdef class RecordAppender:
    """Checks a record, finds its topic and partition, and appends it.

    Owns the user's hooks (interceptors, serializers, partitioner), the limits of one record, and the topic of the last
    send(). Invariant: if a method raises, the record was not appended, and the interceptors that had seen it have heard
    of the error; otherwise its future is bound to its batch.

    thread: app, with the GIL  lock: none, in all methods
    """

    def __cinit__(self, ProducerState state, RecordAccumulator accumulator, ProducerMetadata metadata,
                  ProducerInterceptors interceptors, Serializers serializers, partitioner, *, bint ignore_keys,
                  size_t max_request_size, size_t buffer_memory, max_block_ms):
        self.state = state
        self.errors = state.errors
        self.accumulator = accumulator
        self.metadata = metadata
        self.interceptors = interceptors
        self.serializers = serializers
        self.partitioner = partitioner
        self.no_hooks = interceptors is None and partitioner is None and serializers.are_none()
        self.ignore_keys = ignore_keys
        self.largest_record = min(max_request_size, buffer_memory)
        self.size_limit = "buffer.memory" if buffer_memory < max_request_size else "max.request.size"
        self.max_block_ns = max_block_ms * 1_000_000

    cdef FutureRecordMetadata send_fast_path(self, object topic, object value, object key):
        """send() for the common case: bytes, for the topic of the last record and an open batch.

        Returns None in all other cases; then the record was not accepted. value is bytes, key is bytes or None, and
        there are no hooks.
        """
        cdef TopicMetadata entry = self.last_topic
        cdef FutureRecordMetadata future
        cdef fp_record record
        cdef RecordAppendResult appended
        cdef int32_t partition = -1
        if entry is None or topic is not entry.name or fp_atomic_load(&self.errors.fatal_code) or (
                self.state.lifecycle != OPEN or self.state.fork_generation != process_generation):
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
        if not self.accumulator.append_fast_path(entry.topic, partition, &record, &appended):
            return None
        future.topic = entry.name
        future.timestamp = record.timestamp
        future.key_size = <int32_t>record.key_len if record.key is not NULL else -1
        future.value_size = <int32_t>record.value_len
        future.produced = appended.result
        future.index = appended.index
        return future

    cdef FutureRecordMetadata send(self, object topic, object value, object key, object partition, object timestamp,
                                   object headers, object on_delivery):
        """Sends a record, through the hooks if there are any."""
        try:
            self.state.check_open()
            if on_delivery is not None:
                check_delivery_callback(on_delivery)
            if self.no_hooks:
                return self.send_serialized(topic, value, key, partition, timestamp, headers, on_delivery, None)
        except KafkaError as error:
            set_place(error, topic, partition)
            raise
        return self.send_through(topic, value, key, partition, timestamp, headers, on_delivery)

    cdef FutureRecordMetadata send_through(self, object topic, object value, object key, object partition,
                                           object timestamp, object headers, object on_delivery):
        """Sends through interceptors, serializers or the user's partitioner.

        A record that is refused after on_send() is reported to on_acknowledgement().
        """
        if self.interceptors is not None:
            record = self.interceptors.on_send(topic, value, key, partition, timestamp, headers)
            topic, value, key = record.topic, record.value, record.key
            partition, timestamp, headers = record.partition, record.timestamp, record.headers
            on_delivery = self.interceptors.acknowledgement(on_delivery)
        try:
            check_topic(topic)
            original = (key, value) if self.partitioner is not None else None
            key = self.serializers.key(topic, key)
            value = self.serializers.value(topic, value)
            return self.send_serialized(topic, value, key, partition, timestamp, headers, on_delivery, original)
        except BaseException as error:
            set_place(error, topic, partition)
            if self.interceptors is not None:
                self.interceptors.on_send_error(error)
            raise

    cdef FutureRecordMetadata send_serialized(self, object topic, object value, object key, object partition,
                                              object timestamp, object headers, object on_delivery, object original):
        """Appends a record. original: (key, value) before they were serialized, for the user's partitioner, or None."""
        cdef int epoch = fp_atomic_load(&self.accumulator.epoch)
        cdef TopicMetadata entry = self.last_topic
        cdef FutureRecordMetadata future
        cdef fp_record record
        cdef Span value_span, key_span
        cdef int32_t chosen = -1
        cdef int64_t deadline = 0
        cdef bytes _encoded_headers        # kept while the record points at them
        cdef size_t size
        if entry is None or topic is not entry.name or fp_atomic_load(&self.errors.fatal_code):
            deadline = self.block_deadline()
            entry = self.topic_metadata(topic, deadline)
        record.timed = timestamp is not None
        record.timestamp = fp_wall_clock_ms(&self.clock) if timestamp is None else checked_timestamp(timestamp)
        fp_no_headers(&record)
        if headers is not None:
            _encoded_headers = set_headers(&record, headers, self.largest_record)
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
            future = future_of(entry, &record)
            if chosen < 0 and original is not None:
                self.send_partitioned(entry, &record, future, original, on_delivery, epoch, deadline)
                return future
            if chosen < 0 and record.key is not NULL and not self.ignore_keys:
                chosen = key_partition(record.key, record.key_len, entry.partitions)
            self.append(entry, chosen, &record, future, on_delivery, epoch, deadline, 0)
        finally:
            span_release(&value_span)
            span_release(&key_span)
        self.last_topic = entry
        return future

    cdef int send_partitioned(self, TopicMetadata entry, fp_record *record, FutureRecordMetadata future,
                              tuple original, object on_delivery, int epoch, int64_t deadline) except -1:
        """Lets the user's partitioner choose: org.apache.kafka.clients.producer.Partitioner."""
        cdef bytes key_bytes = record.key[:record.key_len] if record.key is not NULL else None
        cdef bytes value_bytes = record.value[:record.value_len] if record.value is not NULL else None
        cdef int32_t chosen
        cluster = self.metadata.cluster()
        on_new_batch = getattr(self.partitioner, "on_new_batch", None)
        chosen = self.ask_partitioner(entry, original, key_bytes, value_bytes, cluster)
        if not self.append(entry, chosen, record, future, on_delivery, epoch, deadline, on_new_batch is not None):
            on_new_batch(entry.name, cluster, chosen)
            chosen = self.ask_partitioner(entry, original, key_bytes, value_bytes, cluster)
            self.append(entry, chosen, record, future, on_delivery, epoch, deadline, 0)
        return 0

    cdef int32_t ask_partitioner(self, TopicMetadata entry, tuple original, bytes key_bytes, bytes value_bytes,
                                 object cluster) except -1:
        key, value = original
        chosen = self.partitioner.partition(entry.name, key, key_bytes, value, value_bytes, cluster)
        if is_boolean(chosen) or not hasattr(chosen, "__index__") or not 0 <= chosen < entry.partitions:
            raise ValueError(f"the partitioner chose {shorten(chosen)} for {entry.name!r}, which has the partitions "
                             f"0 to {entry.partitions - 1}")
        return chosen

    cdef int append(self, TopicMetadata entry, int32_t partition, fp_record *record, FutureRecordMetadata future,
                    object on_delivery, int epoch, int64_t deadline, int abort_on_new_batch) except -1:
        """Appends the record and binds its future. Returns 0 if abort_on_new_batch is set and it needs a new batch."""
        cdef CallbackSlot callback
        cdef RecordAppendResult appended
        cdef int done
        callback.function = NULL
        if on_delivery is not None:
            # The batch takes over these references, and clears `function`; otherwise it stays set.
            callback.kind = callback_kind(on_delivery)
            callback.function = <PyObject *>on_delivery
            callback.future = <PyObject *>future
            Py_INCREF(on_delivery)
            Py_INCREF(future)
        try:
            done = self.accumulator.append(entry.topic, partition, record, epoch, 0, deadline,
                                           &callback, abort_on_new_batch, &appended)
        finally:
            if callback.function is not NULL:
                Py_DECREF(on_delivery)
                Py_DECREF(future)
        if done:
            future.produced = appended.result
            future.index = appended.index
            # The GIL may be released only now: once it is, the batch can settle, and the callback thread reads the
            # future that was just bound.
            if appended.backlog_high:
                with nogil:
                    self.accumulator.assist_sender()
        return done

    cdef int64_t block_deadline(self) noexcept:
        return fp_monotonic_ns() + self.max_block_ns

    cdef TopicMetadata topic_metadata(self, object topic, int64_t deadline):
        """Returns the topic's metadata. Waits until the deadline if there is none yet."""
        if type(topic) is not str or topic not in self.metadata.topics:
            check_topic(topic)
            topic = str.__str__(topic)     # of an enum, its value
        try:
            if fp_atomic_load(&self.errors.fatal_code):
                self.state.raise_if_unusable()
            return self.metadata.topic(topic, max(0, deadline - fp_monotonic_ns()) / 1e9)
        except KafkaError as error:
            set_place(error, topic, None)
            raise

    cdef int check_sending(self, int epoch) except -1:
        """Raises if a bulk call must not go on. epoch: the accumulator's, when the call began."""
        if fp_atomic_load(&self.errors.fatal_code) or self.state.lifecycle != OPEN:
            self.state.raise_if_unusable()
        if epoch != fp_atomic_load(&self.accumulator.epoch):
            raise self.state.transactions.closed_error()
        return 0


cdef FutureRecordMetadata future_of(TopicMetadata entry, const fp_record *record):
    """Returns a future that is not bound to a batch yet."""
    cdef FutureRecordMetadata future = <FutureRecordMetadata>FutureRecordMetadata.__new__(FutureRecordMetadata)
    future.topic = entry.name
    future.timestamp = record.timestamp
    future.key_size = <int32_t>record.key_len if record.key is not NULL else -1
    future.value_size = <int32_t>record.value_len if record.value is not NULL else -1
    return future
