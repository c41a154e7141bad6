"""ArrowAppend: appends the rows of one send_arrow(). It reads them in place, in the exported buffers."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT32_MAX, INT64_MAX, SIZE_MAX, int32_t, int64_t, uint64_t
from libc.stdlib cimport free, realloc
from fastprod.bulk.arrow cimport ArrowArray, ArrowSchema, fp_bit_at, fp_int64_at, fp_integer_at
from fastprod.bulk.arrow_column cimport (
    NULLS, TIMESTAMPS, ArrowColumn, check_schema, column_accepts, column_bind, column_free, column_is_text, column_new,
    malformed, read_bytes, text_of, type_name,
)
from fastprod.bulk.arrow_headers cimport (
    BAD_PARTITION, BAD_TIMESTAMP, HEADER_NOT_UTF8, HEADER_WITHOUT_NAME, MALFORMED, NO_ERROR, NO_MEMORY, NULL_ROW,
    TOO_LARGE, ArrowHeaders, RowErrorKind, read_pair, stop,
)
from fastprod.bulk.arrow_stream cimport ArrowStream
from fastprod.bulk.bulk_append cimport CHUNK, BulkAppend, give_way
from fastprod.bulk.bulk_future cimport BulkFuture, future_of_call
from fastprod.internals.input cimport checked_timestamp, encode_headers, refuse_size, set_headers, shorten
from fastprod.internals.record cimport (
    FP_MAX_OVERHEAD, fp_header, fp_header_read, fp_record, fp_wire_upper_bound,
)
from fastprod.internals.record_appender cimport RecordAppender
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns, fp_slice_end, fp_wall_ms

from fastprod.errors import SerializationError

cdef enum:
    MAX_VARINT = 5            # bytes, of a count of headers

BYTES_TYPES = "string or binary, also large, view, fixed-size or dictionary-encoded"
TYPES = {
    "value": BYTES_TYPES,
    "key": BYTES_TYPES,
    "header": BYTES_TYPES,
    "partition": "of an integer type",
    "timestamp": "int64, which is ms since the epoch, or timestamp",
    "headers": "a map, or list of structs of two: names and values that are " + BYTES_TYPES,
}


cdef BulkFuture append_arrow(RecordAppender appender, object topic, object data, object value, object key,
                             object partition, object timestamp, object headers):
    """send_arrow(): see Producer."""
    cdef BulkFuture future = future_of_call(topic)
    cdef ArrowAppend append = None
    cdef int epoch = fp_atomic_load(&appender.accumulator.epoch)
    try:
        appender.state.check_open()
        check_arrow(data, value, key, partition, timestamp)
        headers = check_headers(headers)
        entry = appender.topic_metadata(topic, appender.block_deadline())
        append = ArrowAppend(future, appender, topic, entry, epoch)
        append.open(data, value, key, partition, timestamp, headers)
        append.append_all()
        return future
    except BaseException as error:
        future.describe_sent(error, append is not None)
        raise
    finally:
        if append is not None:
            append.data.release()
        future.forget_latest()


@cython.final
cdef class ArrowAppend(BulkAppend):
    """Appends the rows of one send_arrow(): open() first, with the names of the columns.

    Owns the columns. Their buffers belong to `data`, which must be released when the call is over. Used by one thread.
    """

    def __cinit__(self, *_):
        self.data = ArrowStream()
        self.labels = []
        self.children = []
        self.same_partition = -1
        self.same_timestamp = -1

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.columns is not NULL:
            for i in range(len(self.labels)):
                column_free(self.columns[i])
        free(self.columns)

    # What the call gave

    cdef int open(self, object data, object value, object key, object partition, object timestamp,
                  object headers) except -1:
        cdef int64_t deadline = 0
        cdef Py_ssize_t i
        if partition is not None and not isinstance(partition, str):
            self.same_partition = self.metadata.checked_partition(
                self.entry, partition, &deadline, self.max_block_ns)
        if timestamp is not None and not isinstance(timestamp, str):
            self.same_timestamp = checked_timestamp(timestamp)
        self.data.open(data)
        self.value = self.column(value, "value")
        if key is not None:
            self.key = self.column(key, "key")
        else:
            self.ignore_keys = True
        if isinstance(partition, str):
            self.partition = self.column(partition, "partition")
        if isinstance(timestamp, str):
            self.timestamp = self.column(timestamp, "timestamp")
        if isinstance(headers, str):
            self.headers = ArrowHeaders()
            self.headers.lists = self.column(headers, "headers")
        elif headers is not None:
            self.open_headers(headers)
        self.same.timed = self.same_timestamp >= 0
        for i in range(CHUNK):
            self.records[i] = self.same
        return 0

    cdef int open_headers(self, object headers) except -1:
        """Opens headers that are given as pairs. They have been checked."""
        if not any(isinstance(value, str) for _, value in headers):
            self.same_headers = set_headers(&self.same, headers, self.largest_record)
            return 0
        self.headers = ArrowHeaders()
        self.headers.reserve(len(headers))
        for name, value in headers:
            if isinstance(value, str):
                self.headers.add((<str>name).encode(), None, self.column(value, "header"))
            else:
                self.headers.add((<str>name).encode(), None if value is None else bytes(value), NULL)
        return 0

    cdef ArrowColumn *column(self, str name, str field) except NULL:
        """The column of that name, for a field of the record."""
        cdef ArrowSchema *schema = &self.data.schema
        cdef ArrowColumn *column
        cdef int64_t i
        cdef int64_t child = -1
        check_schema(schema)
        if text_of(schema.format) == "+s":
            names = [text_of(schema.children[i].name) for i in range(schema.n_children)]
            if names.count(name) != 1:
                many = f"{names.count(name)} columns are" if name in names else "no column is"
                listed = ", ".join(names[:50]) + (", ..." if len(names) > 50 else "")
                raise ValueError(f"{many} named {name!r} to take the {field} from; "
                                 + (f"the columns are {listed}" if names else "the data has no columns"))
            child = names.index(name)
            schema = schema.children[child]
        elif field != "value":
            raise ValueError(f"the data is a single column of {type_name(schema)}, which holds the values: no column "
                             f"is named {name!r} to take the {field} from")
        label = f"the column {name!r}" if child >= 0 else "the data"
        column = column_new(schema, len(self.labels))
        if not column_accepts(column, field):
            column_free(column)
            cast = ": cast it to string or binary" if TYPES[field] is BYTES_TYPES else ""
            raise TypeError(
                f"{label} is {type_name(schema)}, but must be {TYPES[field]}, to take the {field} from{cast}")
        return self.add_column(column, label, child)

    cdef ArrowColumn *add_column(self, ArrowColumn *column, str label, int64_t child) except NULL:
        """Takes ownership of a column. child: its number in the schema; -1: the data is the column itself."""
        cdef ArrowColumn **grown = <ArrowColumn **>realloc(
            self.columns, (len(self.labels) + 1) * sizeof(ArrowColumn *))
        if grown is NULL:
            column_free(column)
            raise MemoryError()
        self.columns = grown
        self.columns[len(self.labels)] = column
        self.labels.append(label)
        self.children.append(child)
        return column

    # Its rows

    cdef bint append_next(self) except -1:
        cdef Py_ssize_t count, i
        if self.appender.no_hooks:
            return self.send()
        count = self.read()
        for i in range(count):
            value, key, partition, timestamp, headers = self.record(i)
            self.send_through(value, key, partition, timestamp, headers)
        if count:
            give_way()
        return count > 0

    cdef bint more(self) except -1:
        """Returns whether a row is left. Fetches the next array with rows, if the current one is used up."""
        cdef ArrowArray *array = &self.data.array
        while self.row == self.rows:
            self.row = self.rows = 0
            if not self.data.next():
                return False
            PyErr_CheckSignals()
            if self.children[0] < 0:
                column_bind(self.columns[0], array, 0, array.length, self.labels[0])
                self.row_validity = NULL
            else:
                self.bind_columns(array)
            self.rows = array.length
        return True

    cdef int bind_columns(self, ArrowArray *array) except -1:
        cdef Py_ssize_t i
        cdef int64_t child
        if array.length < 0 or array.offset < 0 or array.offset > INT64_MAX - array.length or array.n_buffers != 1 or (
                array.buffers is NULL or array.n_children != self.data.schema.n_children or array.children is NULL):
            malformed("the record batch", f"its length is {array.length}, its offset {array.offset}; it has "
                      f"{array.n_buffers} buffers and {array.n_children} children")
        self.row_validity = NULL
        if array.null_count != 0:
            self.row_validity = <const unsigned char *>array.buffers[0]
            if array.null_count > 0 and array.length and self.row_validity is NULL:
                malformed("the record batch", f"it has {array.null_count} nulls and no validity buffer")
        for i in range(len(self.labels)):
            child = self.children[i]
            column_bind(self.columns[i], array.children[child], array.offset, array.length, self.labels[i])
        return 0

    cdef bint send(self) except -1:
        """Appends rows for one slice of time, after which Ctrl-C is looked for. Returns False if no row was left."""
        cdef int64_t until
        cdef Py_ssize_t count, done
        if not self.more():
            return False
        until = fp_slice_end(INT64_MAX)
        with nogil:
            while True:
                count = self.fill(fp_wall_ms(), self.largest_record)
                self.place_keys(count)
                done = self.append_ready(0, count)
                if done < count or self.row_error.kind != NO_ERROR or self.unrecorded or (
                        self.row + count == self.rows or fp_monotonic_ns() >= until):
                    break
                self.row += count
        self.append_rest(done, count)
        self.row += count
        if self.row_error.kind != NO_ERROR:
            self.raise_row_error()
        return True

    cdef Py_ssize_t read(self) except -1:
        """Reads rows for record(). Returns how many; 0 if none is left."""
        cdef Py_ssize_t count = 0
        while not count:
            if self.row_error.kind != NO_ERROR:
                self.raise_row_error()
            if not self.more():
                return 0
            with nogil:
                count = self.fill(0, SIZE_MAX)
            self.row += count
        return count

    cdef tuple record(self, Py_ssize_t i):
        """Returns (value, key, partition, timestamp, headers) of a row that read() has read, as send() takes them."""
        cdef fp_record *record = &self.records[i]
        cdef fp_header header
        cdef const char *at = record.headers
        cdef list headers = None
        if at is not NULL:
            headers = []
            while at < record.headers + record.headers_len:
                at = fp_header_read(at, &header)
                headers.append((header.name[:header.name_len].decode(),
                                None if header.value is NULL else <bytes>header.value[:header.value_len]))
        return (object_of(record.value, record.value_len, column_is_text(self.value), "value"),
                object_of(record.key, record.key_len, self.key is not NULL and column_is_text(self.key), "key"),
                None if self.partitions[i] < 0 else self.partitions[i],
                record.timestamp if record.timed else None, headers)

    cdef Py_ssize_t fill(self, int64_t now_ms, size_t limit) noexcept nogil:
        """Points the chunk's records at the rows that come next; returns how many.

        A chunk ends after CHUNK records, before a row with an error (then `row_error` has it), or when its headers have
        become many. now_ms: the timestamp of a record without one. limit: bytes of the largest record.
        """
        cdef fp_record *records = self.records
        cdef Py_ssize_t count = min(self.rows - self.row, <int64_t>CHUNK)
        cdef Py_ssize_t i
        # Key and value of so many bytes are within the limit, without a closer look.
        cdef int64_t sure = (<int64_t>min(limit, <size_t>INT32_MAX) - FP_MAX_OVERHEAD - MAX_VARINT -
                             <int64_t>self.same.headers_wire)
        self.row_error.kind = NO_ERROR
        count = self.check_rows(count)
        count = self.fill_bytes(self.value, count, &records[0].value, &records[0].value_len)
        if self.key is not NULL:
            count = self.fill_bytes(self.key, count, &records[0].key, &records[0].key_len)
        count = self.fill_partitions(count)
        count = self.fill_timestamps(count, now_ms)
        if self.headers is not None:
            sure = -1
            count = self.headers.measure(records, self.row, count, self.largest_record, &self.row_error)
        for i in range(count):
            if <int64_t>(records[i].key_len + records[i].value_len) > sure and (
                    fp_wire_upper_bound(&records[i]) > limit):
                count = stop(&self.row_error, i, TOO_LARGE, 0, <int64_t>fp_wire_upper_bound(&records[i]))
                break
        if self.headers is not None:
            count = self.headers.encode(records, self.row, count, &self.row_error)
        return count

    cdef Py_ssize_t check_rows(self, Py_ssize_t count) noexcept nogil:
        """Returns how many rows come before one that is null as a whole."""
        cdef Py_ssize_t i
        if self.row_validity is not NULL:
            for i in range(count):
                if not fp_bit_at(self.row_validity, self.data.array.offset + self.row + i):
                    return stop(&self.row_error, i, NULL_ROW, 0, 0)
        return count

    cdef Py_ssize_t fill_bytes(self, const ArrowColumn *column, Py_ssize_t count, const char **data,
                               size_t *size) noexcept nogil:
        """Points at a column's values, in each record at the field that data and size are of the first record."""
        cdef Py_ssize_t done = read_bytes(column, self.row, count, data, size, sizeof(fp_record))
        return count if done == count else stop(&self.row_error, done, MALFORMED, column.number, 0)

    cdef Py_ssize_t fill_partitions(self, Py_ssize_t count) noexcept nogil:
        cdef const ArrowColumn *column = self.partition
        cdef int32_t known = fp_atomic_load(<const int *>&self.entry.partitions)
        cdef int64_t at, partition
        cdef Py_ssize_t i
        if column is NULL or column.layout == NULLS:
            for i in range(count):
                self.partitions[i] = self.same_partition
            return count
        at = column.start + self.row
        for i in range(count):
            self.partitions[i] = -1
            if fp_bit_at(column.validity, at + i):
                partition = fp_integer_at(column.main, column.width, column.is_signed, at + i)
                if partition < 0 or partition >= known:
                    return stop(&self.row_error, i, BAD_PARTITION, column.number, partition)
                self.partitions[i] = <int32_t>partition
        return count

    cdef Py_ssize_t fill_timestamps(self, Py_ssize_t count, int64_t now_ms) noexcept nogil:
        cdef const ArrowColumn *column = self.timestamp
        cdef int64_t per_unit = 1
        cdef int64_t per_ms = 1
        cdef int64_t at, found
        cdef Py_ssize_t i
        if column is NULL or column.layout == NULLS:
            for i in range(count):
                self.records[i].timestamp = now_ms if self.same_timestamp < 0 else self.same_timestamp
            return count
        if column.layout == TIMESTAMPS:
            per_unit = column.per_unit
            per_ms = column.per_ms
        at = column.start + self.row
        for i in range(count):
            self.records[i].timed = 0
            self.records[i].timestamp = now_ms
            if fp_bit_at(column.validity, at + i):
                found = fp_int64_at(column.main, at + i)
                if found < 0 or found > INT64_MAX // per_unit:
                    return stop(&self.row_error, i, BAD_TIMESTAMP, column.number, found)
                self.records[i].timed = 1
                self.records[i].timestamp = found * per_unit // per_ms
        return count

    cdef int raise_row_error(self) except -1:
        """Raises the error of the next row. Returns if the error was a partition that has been added meanwhile."""
        cdef RowErrorKind kind = self.row_error.kind
        cdef ArrowColumn *column = self.columns[self.row_error.column]
        cdef str label = self.labels[self.row_error.column]
        cdef fp_header header
        cdef object number = self.row_error.value
        cdef int64_t deadline = 0
        self.row_error.kind = NO_ERROR
        if kind == MALFORMED:
            malformed(label, "a value's offset, length or index is out of bounds")
        if kind == NULL_ROW:
            raise ValueError(f"row {self.row} of a record batch is null as a whole, so it has no record. "
                             "For a tombstone, make only its value null")
        if kind == TOO_LARGE:
            refuse_size(self.entry.name, <size_t>self.row_error.value, self.largest_record, self.size_limit)
        if kind == HEADER_WITHOUT_NAME:
            raise ValueError(f"{label} has a header whose name is null or holds a NUL")
        if kind == HEADER_NOT_UTF8:
            read_pair(column.inner, self.row_error.value, &header)
            name = <bytes>header.name[:header.name_len]
            raise SerializationError(f"{label} has a header whose name is not valid text (UTF-8): {shorten(name)}")
        if kind == NO_MEMORY:
            raise MemoryError("no memory for the headers")
        if kind == BAD_TIMESTAMP:
            if column.layout == TIMESTAMPS:
                number = number * column.per_unit // column.per_ms
            checked_timestamp(number)
            return 0
        if not column.is_signed:
            number = <uint64_t>self.row_error.value
        self.metadata.checked_partition(self.entry, number, &deadline, self.max_block_ns)
        return 0


cdef object object_of(const char *data, size_t size, int text, str what):
    if data is NULL:
        return None
    if not text:
        return <bytes>data[:size]
    try:
        return PyUnicode_DecodeUTF8(<char *>data, size, NULL)
    except UnicodeDecodeError as error:
        raise SerializationError(f"the {what} is not valid text: {error}") from error


cdef int check_arrow(object data, object value, object key, object partition, object timestamp) except -1:
    """Checks the arguments before the data is opened: a stream can be opened only once."""
    if not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"):
        raise TypeError("data must have __arrow_c_stream__ or __arrow_c_array__, as tables of pyarrow, Polars, pandas "
                        f"and DuckDB do, not {type(data).__name__}: {shorten(data)}")
    if not isinstance(value, str):
        raise TypeError(f"value must be the name of a column, not {type(value).__name__}: {shorten(value)}")
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key must be the name of a column or None, not {type(key).__name__}: {shorten(key)}")
    if not (partition is None or isinstance(partition, str) or hasattr(partition, "__index__")):
        raise TypeError("partition must be the name of a column, an int or None, not "
                        f"{type(partition).__name__}: {shorten(partition)}")
    if not (timestamp is None or isinstance(timestamp, str) or hasattr(timestamp, "__index__")):
        raise TypeError("timestamp must be the name of a column, an int (ms since the epoch) or None, not "
                        f"{type(timestamp).__name__}: {shorten(timestamp)}")
    return 0


cdef object check_headers(object headers):
    """Returns None, the name of a column, or a list of pairs: a header's name, and the name of a column or bytes."""
    cdef int32_t count
    cdef size_t wire
    if headers is None or isinstance(headers, str):
        return headers
    if hasattr(headers, "items"):
        headers = headers.items()
    elif not isinstance(headers, (list, tuple)):
        raise TypeError("headers must be the name of a column, or a mapping or pairs of names and columns, not "
                        f"{type(headers).__name__}: {shorten(headers)}")
    headers = list(headers)
    encode_headers(headers, SIZE_MAX, &count, &wire)
    return headers
