"""SequenceAppend: the records of one send_many(), read out of Python objects."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.list cimport PyList_CheckExact
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.sequence cimport PySequence_Fast_GET_SIZE, PySequence_Fast_ITEMS
from cpython.tuple cimport PyTuple_CheckExact
from libc.stdint cimport INT32_MAX, int64_t
from libc.stdlib cimport free, malloc
from fastprod.bulk.bulk_append cimport CHUNK, BulkAppend, give_way
from fastprod.bulk.bulk_future cimport BulkFuture, future_of_call
from fastprod.internals.input cimport checked_timestamp, refuse_size, set_headers, shorten, span_of, span_release
from fastprod.internals.record cimport FP_MAX_OVERHEAD, fp_no_headers, fp_prefetch, fp_record, fp_wire_upper_bound
from fastprod.internals.record_appender cimport RecordAppender
from fastprod.internals.sync cimport fp_atomic_load, fp_wall_ms

import itertools

from fastprod.internals.error_codes import set_place

cdef tuple FIELDS = ("values", "keys", "partitions", "timestamps", "headers")


cdef class Column:
    """What a call gives for one field of its records: one item for all, or an item for each."""

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
        """Takes up to `most` of the next items. An exception of the iterator is kept as `error`."""
        cdef Py_ssize_t i, count
        cdef PyObject **items
        if PyList_CheckExact(self.items) or PyTuple_CheckExact(self.items):
            items = PySequence_Fast_ITEMS(self.items)
            # The count is negative if the list has become shorter.
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
    """Whether it is a mapping or a data frame. A pandas Series has items() too, but one dimension."""
    return hasattr(given, "items") and getattr(given, "ndim", None) != 1


cdef bint is_one(object given, str name) except -1:
    """Whether a call gives one value of a field for all records."""
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


cdef tuple columns_of(object values, object keys, object partitions, object timestamps, object headers):
    """Checks what a call gives for its records. Returns a Column for each of FIELDS."""
    given = values, keys, partitions, timestamps
    columns = (Column(values, "values", False), Column(keys, "keys", False), Column(partitions, "partitions", True),
               Column(timestamps, "timestamps", True), Column(headers, "headers", True))
    lengths = {name: len(items) for name, items in zip(FIELDS, given) if hasattr(items, "__len__")}
    if len(set(lengths.values())) > 1:
        raise ValueError("send_many() takes sequences of equal length, not "
                         + " and ".join(f"{length} {name}" for name, length in lengths.items()))
    return columns


cdef BulkFuture append_sequences(RecordAppender appender, object topic, object values, object keys, object partitions,
                                 object timestamps, object headers):
    """send_many(): see Producer."""
    cdef BulkFuture future = future_of_call(topic)
    cdef SequenceAppend append = None
    cdef int epoch = fp_atomic_load(&appender.accumulator.epoch)
    try:
        appender.state.check_open()
        columns = columns_of(values, keys, partitions, timestamps, headers)
        entry = appender.topic_metadata(topic, appender.block_deadline())
        append = SequenceAppend(future, appender, topic, entry, epoch)
        append.read_from(columns)
        append.append_all()
        return future
    except BaseException as error:
        future.describe_sent(error, append is not None)
        raise
    finally:
        future.forget_latest()


cdef class SequenceAppend(BulkAppend):
    """Appends the records of one send_many().

    Owns references to the objects that the chunk's records point at, until the chunk is appended. Used by one thread.
    """

    def __cinit__(self, *_):
        self.refs = []
        self.spans = <Span *>malloc(2 * CHUNK * sizeof(Span))
        if self.spans is NULL:
            raise MemoryError()

    def __dealloc__(self):
        self.release_spans()
        free(self.spans)

    cdef int read_from(self, tuple columns) except -1:
        """Sets the columns that the call was given: those of columns_of()."""
        self.columns = columns
        self.values, self.keys, self.record_partitions, self.timestamps, self.headers = columns
        self.fast_path = all(column.items is None and column.scalar is None
                             for column in (self.record_partitions, self.timestamps, self.headers))
        if self.keys.items is None and self.keys.scalar is None:
            self.ignore_keys = True
        return 0

    cdef bint append_next(self) except -1:
        cdef Py_ssize_t i
        cdef Py_ssize_t count = self.take()
        if count == 0:
            return False
        if self.appender.no_hooks:
            self.append_taken(count)
        elif self.error is None or isinstance(self.error, Exception):   # Ctrl-C does not wait for the rest
            for i in range(count):
                self.send_through(<object>self.values.item(i), <object>self.keys.item(i),
                                  <object>self.record_partitions.item(i), <object>self.timestamps.item(i),
                                  <object>self.headers.item(i))
            give_way()
        self.unref()
        return True

    cdef Py_ssize_t take(self) except -1:
        """Takes the next chunk's items from the columns. Returns how many records they are; 0 after the last.

        An exception of a column is kept as `error` until the records before it are appended.
        """
        cdef Column column
        cdef Py_ssize_t count = CHUNK
        if self.error is not None:
            raise self.error
        for column in self.columns:
            column.take(count)
            if column.error is not None:
                if self.error is None or isinstance(self.error, Exception):   # a KeyboardInterrupt is kept
                    self.error = column.error
                count = column.count       # the other columns need give no more
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
        """Appends the chunk. If a record is wrong, appends those before it and raises its error.

        After Ctrl-C it does not wait for memory: it appends the records before it that fit.
        """
        cdef Py_ssize_t i = 0
        cdef int64_t now_ms = fp_wall_ms()
        try:
            while True:
                if self.fast_path:
                    i = self.read_fast_path(i, count, now_ms)
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

    cdef Py_ssize_t read_fast_path(self, Py_ssize_t first, Py_ssize_t count, int64_t now_ms) noexcept:
        """read() for records of bytes, as most are. Returns the index of the first record that is not, or count."""
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
        """Points the chunk's record i at the bytes to copy, and checks its fields."""
        cdef fp_record *record = &self.records[i]
        cdef int64_t deadline = 0
        cdef size_t size
        cdef object partition = <object>self.record_partitions.item(i)
        cdef object timestamp = <object>self.timestamps.item(i)
        cdef object headers = <object>self.headers.item(i)
        self.point(<object>self.values.item(i), &record.value, &record.value_len, "value")
        self.point(<object>self.keys.item(i), &record.key, &record.key_len, "key")
        fp_no_headers(record)
        if headers is not None:
            self.refs.append(set_headers(record, headers, self.largest_record))
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
        """Releases the objects of the chunk."""
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
