"""send_arrow(): the rows of Arrow data as records, read where its producer keeps them.

ArrowData owns what is lent by the Arrow C data interface, ArrowAppend takes its rows to the accumulator.
Source: the specifications of the Arrow C data and C stream interfaces, of their PyCapsules, and of the columnar
format (arrow.apache.org/docs/format). The sizes of buffers are not in the interface, so they are taken on trust;
what can be checked without them is.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport ENOMEM
from libc.stdint cimport INT32_MAX, INT64_MAX, SIZE_MAX, int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr
from fastprod.bulk.bulk_append cimport CHUNK, BulkAppend
from fastprod.internals.input cimport checked_timestamp, encode_headers, refuse_size, shorten
from fastprod.internals.record cimport (
    FP_HEADER_ROOM, FP_MAX_OVERHEAD, fp_header, fp_header_read, fp_header_wire, fp_header_write, fp_no_headers,
    fp_record, fp_wire_upper_bound,
)
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns, fp_slice_end, fp_wall_ms

import os

from fastprod.errors import SerializationError

cdef const char *EMPTY = ""                 # what an empty value points at: NULL would be a null one
cdef enum:
    MAX_VARINT = 5            # bytes, of a count of headers
    VIEW_SIZE = 16            # bytes
    INLINE_SIZE = 12          # bytes that a view holds itself
    CHUNK_HEADERS = 1 << 20   # bytes of encoded headers after which a chunk ends

BYTES_TAKEN = "string or binary, also large, view, fixed-size or dictionary-encoded"
TAKEN = {
    "value": BYTES_TAKEN,
    "key": BYTES_TAKEN,
    "header": BYTES_TAKEN,
    "partition": "of an integer type",
    "timestamp": "int64, which is ms since the epoch, or timestamp",
    "headers": "a map, or list of structs of two: names and values that are " + BYTES_TAKEN,
}
TYPE_NAMES = {
    "n": "null", "b": "bool", "c": "int8", "C": "uint8", "s": "int16", "S": "uint16", "i": "int32", "I": "uint32",
    "l": "int64", "L": "uint64", "e": "float16", "f": "float32", "g": "float64", "z": "binary", "Z": "large_binary",
    "vz": "binary_view", "u": "string", "U": "large_string", "vu": "string_view", "tdD": "date32", "tdm": "date64",
    "tts": "time32[s]", "ttm": "time32[ms]", "ttu": "time64[us]", "ttn": "time64[ns]", "tDs": "duration[s]",
    "tDm": "duration[ms]", "tDu": "duration[us]", "tDn": "duration[ns]", "tiM": "month_interval",
    "tiD": "day_time_interval", "tin": "month_day_nano_interval", "+r": "run_end_encoded", "+vl": "list_view",
    "+vL": "large_list_view",
}
UNITS = {"s": "s", "m": "ms", "u": "us", "n": "ns"}


cdef str text_of(const char *text):
    return "" if text is NULL else text.decode("utf-8", "replace")


cdef str type_name(const ArrowSchema *schema):
    """The type as pyarrow writes it, or nearly."""
    cdef str form = text_of(schema.format)
    cdef int64_t i
    if schema.dictionary is not NULL:
        return f"dictionary<{type_name(schema.dictionary)}, indices {TYPE_NAMES.get(form, form)}>"
    if form in TYPE_NAMES:
        return TYPE_NAMES[form]
    if form.startswith("w:"):
        return f"fixed_size_binary[{form[2:]}]"
    if form.startswith("d:"):
        return f"decimal({form[2:]})"
    if form.startswith("ts") and form[2:3] in UNITS:
        zone = form[4:]
        return f"timestamp[{UNITS[form[2:3]]}{', ' if zone else ''}{zone}]"
    if form[:2] in ("+l", "+L", "+m", "+s", "+w", "+u"):
        kind = {"l": "list", "L": "large_list", "m": "map", "s": "struct", "w": "fixed_size_list",
                "u": "union"}[form[1:2]]
        return f"{kind}<{', '.join([type_name(schema.children[i]) for i in range(schema.n_children)])}>"
    return f"of the format {form!r}"


cdef int check_schema(const ArrowSchema *schema) except -1:
    """ValueError unless all pointers that a schema must have are there."""
    cdef int64_t i
    if schema is NULL or schema.format is NULL:
        malformed("the schema", "a child, a dictionary or a format is missing")
    if schema.n_children < 0 or schema.n_children and schema.children is NULL:
        malformed("the schema", f"it has {schema.n_children} children")
    for i in range(schema.n_children):
        check_schema(schema.children[i])
    if schema.dictionary is not NULL:
        check_schema(schema.dictionary)
    return 0


# Types

cdef void cells_free(Cells *cells) noexcept:
    if cells is not NULL:
        cells_free(cells.inner)
        cells_free(cells.second)
        free(cells)


cdef Cells *cells_of(const ArrowSchema *schema, int column) except? NULL:
    """Cells of that type; NULL if there is no use for it here."""
    cdef bytes form = schema.format
    cdef Cells *cells = <Cells *>calloc(1, sizeof(Cells))
    if cells is NULL:
        raise MemoryError()
    cells.column = column
    try:
        if set_type(cells, schema, form):
            return cells
    except BaseException:
        cells_free(cells)
        raise
    cells_free(cells)
    return NULL


cdef bint set_type(Cells *cells, const ArrowSchema *schema, bytes form) except -1:
    if form in (b"c", b"C", b"s", b"S", b"i", b"I", b"l", b"L"):
        cells.layout = INTEGERS
        cells.is_signed = form.islower()
        cells.width = {b"c": 1, b"s": 2, b"i": 4, b"l": 8}[form.lower()]
        if schema.dictionary is not NULL:
            cells.layout = DICTIONARY
            cells.inner = cells_of(schema.dictionary, cells.column)
            return cells.inner is not NULL and cells.inner.layout <= FIXED
        return True
    if schema.dictionary is not NULL:
        return False
    cells.text = form in (b"u", b"U", b"vu")
    if form == b"n":
        cells.layout = NULLS
    elif form in (b"z", b"u"):
        cells.layout = OFFSETS32
    elif form in (b"Z", b"U"):
        cells.layout = OFFSETS64
    elif form in (b"vz", b"vu"):
        cells.layout = VIEWS
    elif form.startswith(b"w:") and form[2:].isdigit() and int(form[2:]) <= 0x7fffffff:
        cells.layout = FIXED
        cells.width = int(form[2:])
    elif form.startswith(b"ts") and form[2:3] in (b"s", b"m", b"u", b"n"):
        cells.layout = TIMESTAMPS
        cells.is_signed = 1
        cells.width = 8
        cells.per_unit = 1000 if form[2:3] == b"s" else 1
        cells.per_ms = {b"u": 1000, b"n": 1_000_000}.get(form[2:3], 1)
    elif (form in (b"+l", b"+L", b"+m") or form.startswith(b"+w:") and form[3:].isdigit()
            and int(form[3:]) <= 0x7fffffff) and schema.n_children == 1:
        cells.layout = FIXED_LIST if form[1:2] == b"w" else LIST64 if form == b"+L" else LIST32
        cells.width = int(form[3:]) if form[1:2] == b"w" else 0
        cells.inner = cells_of(schema.children[0], cells.column)
        return cells.inner is not NULL and cells.inner.layout == PAIRS
    elif form == b"+s" and schema.n_children == 2:
        cells.layout = PAIRS
        cells.inner = cells_of(schema.children[0], cells.column)
        cells.second = cells_of(schema.children[1], cells.column)
        return (cells.inner is not NULL and cells.inner.layout <= DICTIONARY
                and cells.second is not NULL and cells.second.layout <= DICTIONARY)
    else:
        return False
    return True


cdef bint accepts(const Cells *cells, str what) except -1:
    if cells is NULL:
        return False
    if cells.layout == NULLS:
        return True
    if what == "partition":
        return cells.layout == INTEGERS
    if what == "timestamp":
        return cells.layout == TIMESTAMPS or cells.layout == INTEGERS and cells.is_signed and cells.width == 8
    if what == "headers":
        return cells.layout in (LIST32, LIST64, FIXED_LIST)
    return cells.layout <= DICTIONARY


# Arrays

cdef object malformed(str label, str what):
    raise ValueError(f"the Arrow data is not as its specification has it: {label}: {what}")


cdef int bind(Cells *cells, const ArrowArray *array, int64_t base, int64_t rows, str label) except -1:
    """Points the cells at an array, of which `rows` from `base` on will be read."""
    cdef Layout layout = cells.layout
    cdef int64_t buffers
    if array is NULL or array.release is NULL:
        malformed(label, "an array is missing or was released before")
    if array.length < 0 or array.offset < 0 or array.offset > INT64_MAX - array.length:
        malformed(label, f"an array of length {array.length} at the offset {array.offset}")
    if base > array.length or rows > array.length - base:
        malformed(label, f"an array has {array.length} values where {base + rows} are needed")
    if layout == NULLS:
        buffers = array.n_buffers          # none, says the specification; Polars has one
    elif layout in (FIXED, DICTIONARY, INTEGERS, TIMESTAMPS, LIST32, LIST64):
        buffers = 2
    elif layout in (OFFSETS32, OFFSETS64):
        buffers = 3
    elif layout == VIEWS:
        buffers = max(array.n_buffers, 3)
    else:
        buffers = 1
    if array.n_buffers != buffers or buffers and array.buffers is NULL:
        malformed(label, f"an array has {array.n_buffers} buffers and not {buffers}")
    if (array.dictionary is NULL) == (layout == DICTIONARY):
        malformed(label, "an array has a dictionary and its type has none, or the other way round")
    if array.n_children != (2 if layout == PAIRS else 1 if layout in (LIST32, LIST64, FIXED_LIST) else 0) or (
            array.n_children and array.children is NULL):
        malformed(label, f"an array has {array.n_children} children")
    cells.start = array.offset + base
    cells.length = array.length - base
    cells.validity = NULL
    cells.main = cells.bytes = NULL
    if layout == NULLS:
        return 0
    if array.null_count != 0:
        cells.validity = <const unsigned char *>array.buffers[0]
        if array.null_count > 0 and array.length and cells.validity is NULL:
            malformed(label, f"an array has {array.null_count} nulls and no validity buffer")
    if buffers > 1:
        cells.main = <const char *>array.buffers[1]
        if cells.main is NULL and rows and not (layout == FIXED and cells.width == 0):
            malformed(label, f"the buffer of an array of {array.length} values is NULL")
    if layout in (OFFSETS32, OFFSETS64):
        cells.bytes = <const char *>array.buffers[2]
    elif layout == VIEWS:
        cells.variadic = array.buffers + 2
        cells.variadic_count = array.n_buffers - 3
        cells.variadic_sizes = array.buffers[array.n_buffers - 1]
        if cells.variadic_count and cells.variadic_sizes is NULL:
            malformed(label, "the buffer of the sizes of buffers is NULL")
    elif layout == DICTIONARY:
        bind(cells.inner, array.dictionary, 0, array.dictionary.length, label)
    elif layout in (LIST32, LIST64, FIXED_LIST):
        if array.children[0] is NULL:
            malformed(label, "an array is missing")
        bind(cells.inner, array.children[0], 0, array.children[0].length, label)
    elif layout == PAIRS:
        bind(cells.inner, array.children[0], array.offset, array.length, label)
        bind(cells.second, array.children[1], array.offset, array.length, label)
    return 0


cdef Py_ssize_t read_bytes(const Cells *cells, int64_t row, Py_ssize_t count, const char **data, size_t *size,
                           size_t stride) noexcept nogil:
    """Points at the bytes of rows from `row` on, NULL for null; each pointer and size `stride` bytes after the last.

    Returns how many could be read: fewer than count if the next is unsound.
    """
    cdef const unsigned char *validity = cells.validity
    cdef const char *main = cells.main
    cdef const char *start
    cdef char *data_at = <char *>data
    cdef char *size_at = <char *>size
    cdef int64_t at = cells.start + row
    cdef int64_t begin, end, index
    cdef Py_ssize_t i
    for i in range(count):
        start = NULL
        end = begin = 0
        if cells.layout != NULLS and fp_bit_at(validity, at + i):
            if cells.layout == OFFSETS32 or cells.layout == OFFSETS64:
                if cells.layout == OFFSETS32:
                    begin = fp_int32_at(main, at + i)
                    end = fp_int32_at(main, at + i + 1)
                else:
                    begin = fp_int64_at(main, at + i)
                    end = fp_int64_at(main, at + i + 1)
                if begin < 0 or end < begin or cells.bytes is NULL and end > begin:
                    return i
                start = EMPTY if cells.bytes is NULL else cells.bytes + begin
            elif cells.layout == VIEWS:
                start = main + (at + i) * VIEW_SIZE
                end = fp_int32_at(start, 0)
                if end < 0:
                    return i
                if end <= INLINE_SIZE:
                    start += 4
                else:
                    index = fp_int32_at(start, 2)
                    begin = fp_int32_at(start, 3)
                    if index < 0 or index >= cells.variadic_count or begin < 0 or cells.variadic[index] is NULL or (
                            begin + end > fp_int64_at(cells.variadic_sizes, index)):
                        return i
                    start = <const char *>cells.variadic[index] + begin
                    begin = 0
            elif cells.layout == FIXED:
                end = cells.width
                start = EMPTY if end == 0 else main + (at + i) * end
            else:
                index = fp_integer_at(main, cells.width, cells.is_signed, at + i)
                if index < 0 or index >= cells.inner.length or not read_bytes(
                        cells.inner, index, 1, <const char **>data_at, <size_t *>size_at, stride):
                    return i
                data_at += stride
                size_at += stride
                continue
        (<const char **>data_at)[0] = start
        (<size_t *>size_at)[0] = end - begin
        data_at += stride
        size_at += stride
    return count


cdef int read_range(const Cells *cells, int64_t row, int64_t *first, int64_t *last) noexcept nogil:
    """Which pairs a row's list has, [first, last); 0 if that is unsound."""
    cdef int64_t at = cells.start + row
    first[0] = last[0] = 0
    if cells.layout == NULLS or not fp_bit_at(cells.validity, at):
        return 1
    if cells.layout == LIST32:
        first[0] = fp_int32_at(cells.main, at)
        last[0] = fp_int32_at(cells.main, at + 1)
    elif cells.layout == LIST64:
        first[0] = fp_int64_at(cells.main, at)
        last[0] = fp_int64_at(cells.main, at + 1)
    else:
        first[0] = at * cells.width
        last[0] = first[0] + cells.width
    return 0 <= first[0] and first[0] <= last[0] and last[0] <= cells.inner.length


@cython.final
cdef class ArrowData:
    """Arrays of one type from an object with __arrow_c_stream__ or __arrow_c_array__.

    Owns stream, schema and the array at hand, which it has moved out of their
    capsules, and releases each once. Its producer's functions are called
    without the GIL, which they or threads of theirs may need. Used by one thread.
    """

    def __dealloc__(self):
        self.release()

    cdef int open(self, object data) except -1:
        cdef ArrowArrayStream *stream
        cdef ArrowSchema *schema
        cdef ArrowArray *array
        cdef int code
        if hasattr(data, "__arrow_c_stream__"):
            capsule = data.__arrow_c_stream__(None)
            stream = <ArrowArrayStream *>pointer(capsule, "__arrow_c_stream__", "arrow_array_stream")
            if stream.release is NULL:
                raise ValueError("the Arrow stream was released or read before")
            self.stream = stream[0]
            stream.release = NULL
            with nogil:
                code = self.stream.get_schema(&self.stream, &self.schema)
            if code:
                self.schema.release = NULL
                raise self.failure(code)
        else:
            pair = data.__arrow_c_array__(None)
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise TypeError(f"__arrow_c_array__ must give a pair of capsules, not {shorten(pair)}")
            schema = <ArrowSchema *>pointer(pair[0], "__arrow_c_array__", "arrow_schema")
            array = <ArrowArray *>pointer(pair[1], "__arrow_c_array__", "arrow_array")
            self.schema = schema[0]
            schema.release = NULL
            self.array = array[0]
            array.release = NULL
            self.given = True
        if self.schema.release is NULL or self.schema.format is NULL:
            malformed("the schema", "it is missing or was released before")
        return 0

    cdef bint next(self) except -1:
        """Goes on to the next array; False if there is none."""
        cdef int code
        if self.given:
            self.given = False
            return self.array.release is not NULL
        with nogil:
            release_array(&self.array)
        if self.stream.release is NULL:
            return False
        with nogil:
            code = self.stream.get_next(&self.stream, &self.array)
        if code:
            self.array.release = NULL      # what a call that fails leaves there was not given
            raise self.failure(code)
        return self.array.release is not NULL

    cdef object failure(self, int code):
        cdef str text = ""
        PyErr_CheckSignals()               # which may be why it failed
        if self.stream.get_last_error is not NULL:
            text = text_of(self.stream.get_last_error(&self.stream))
        if text.rstrip().endswith("KeyboardInterrupt"):   # in the generator behind a reader of pyarrow's, which tells
            return KeyboardInterrupt()                    # what that raised as text only
        if code == ENOMEM:
            return MemoryError(text or "no memory for the Arrow data")
        return OSError(code, f"the Arrow stream failed: {text or os.strerror(code)}")

    cdef void release(self) noexcept:
        if self.array.release is NULL and self.schema.release is NULL and self.stream.release is NULL:
            return
        with nogil:
            release_array(&self.array)
            if self.schema.release is not NULL:
                self.schema.release(&self.schema)
                self.schema.release = NULL
            if self.stream.release is not NULL:
                self.stream.release(&self.stream)
                self.stream.release = NULL


cdef void release_array(ArrowArray *array) noexcept nogil:
    if array.release is not NULL:
        array.release(array)
        array.release = NULL


cdef void *pointer(object capsule, str method, const char *name) except NULL:
    if not PyCapsule_IsValid(capsule, name):
        raise TypeError(f"{method} must give a capsule named {name.decode()}, not {shorten(capsule)}")
    return PyCapsule_GetPointer(capsule, name)


@cython.final
cdef class ArrowAppend(BulkAppend):
    """Appends the rows of one send_arrow(): open() first, with the names of the columns.

    Owns the arrays of a chunk and the cells; what they point at belongs to `data`,
    which must be released when the call is over. Used by one thread.
    """

    def __cinit__(self, *_):
        self.data = ArrowData()
        self.labels = []
        self.children = []
        self.refs = []
        self.same_partition = -1
        self.same_timestamp = -1

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.columns is not NULL:
            for i in range(len(self.labels)):
                cells_free(self.columns[i])
        free(self.columns)
        free(self.header_columns)
        free(self.header_values)
        free(self.encoded)

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
            self.header_lists = self.column(headers, "headers")
        elif headers is not None:
            self.open_headers(headers)
        self.same.timed = self.same_timestamp >= 0
        for i in range(CHUNK):
            self.records[i] = self.same
        return 0

    cdef int open_headers(self, object headers) except -1:
        """headers: as pairs, checked."""
        cdef HeaderColumn *one
        cdef bytes text
        if not any(isinstance(value, str) for _, value in headers):
            text = encode_headers(headers, self.largest_record, &self.same.headers_count,
                                  &self.same.headers_wire)
            self.refs.append(text)
            if self.same.headers_count:
                self.same.headers = text
                self.same.headers_len = len(text)
            return 0
        self.header_columns = <HeaderColumn *>calloc(len(headers), sizeof(HeaderColumn))
        self.header_values = <Bytes *>malloc(len(headers) * CHUNK * sizeof(Bytes))
        if self.header_columns is NULL or self.header_values is NULL:
            raise MemoryError()
        for name, value in headers:
            one = &self.header_columns[self.header_count]
            text = (<str>name).encode()
            self.refs.append(text)
            one.header.name = text
            one.header.name_len = len(text)
            if isinstance(value, str):
                one.cells = self.column(value, "header")
            elif value is not None:
                text = bytes(value)
                self.refs.append(text)
                one.header.value = text
                one.header.value_len = len(text)
            self.header_count += 1
        return 0

    cdef Cells *column(self, str name, str what) except NULL:
        """The cells of the column for a field."""
        cdef ArrowSchema *schema = &self.data.schema
        cdef Cells *cells
        cdef Cells **grown
        cdef int64_t i
        cdef int64_t child = -1
        check_schema(schema)
        if text_of(schema.format) == "+s":
            names = [text_of(schema.children[i].name) for i in range(schema.n_children)]
            if names.count(name) != 1:
                many = f"{names.count(name)} columns are" if name in names else "no column is"
                listed = ", ".join(names[:50]) + (", ..." if len(names) > 50 else "")
                raise ValueError(f"{many} named {name!r} to take the {what} from; "
                                 + (f"the columns are {listed}" if names else "the data has no columns"))
            child = names.index(name)
            schema = schema.children[child]
        elif what != "value":
            raise ValueError(f"the data is a single column of {type_name(schema)}, which is taken for the values: "
                             f"no column is named {name!r} to take the {what} from")
        cells = cells_of(schema, len(self.labels))
        if not accepts(cells, what):
            cells_free(cells)
            column = f"the column {name!r}" if child >= 0 else "the data"
            cast = ": cast it to string or binary" if TAKEN[what] is BYTES_TAKEN else ""
            raise TypeError(
                f"{column} is {type_name(schema)}, but must be {TAKEN[what]}, to take the {what} from{cast}")
        grown = <Cells **>realloc(self.columns, (len(self.labels) + 1) * sizeof(Cells *))
        if grown is NULL:
            cells_free(cells)
            raise MemoryError()
        self.columns = grown
        self.columns[len(self.labels)] = cells
        self.labels.append(f"the column {name!r}" if child >= 0 else "the data")
        self.children.append(child)
        return cells

    # Its rows

    cdef bint more(self) except -1:
        """Whether a row is left; fetches the next array that has one."""
        cdef ArrowArray *array = &self.data.array
        while self.row == self.rows:
            self.row = self.rows = 0
            if not self.data.next():
                return False
            PyErr_CheckSignals()
            if self.children[0] < 0:
                bind(self.columns[0], array, 0, array.length, self.labels[0])
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
            bind(self.columns[i], array.children[child], array.offset, array.length, self.labels[i])
        return 0

    cdef bint send(self) except -1:
        """Appends rows for as long as Ctrl-C may wait; False if none was left."""
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
                if done < count or self.row_error != NO_PROBLEM or self.unnoted or (
                        self.row + count == self.rows or fp_monotonic_ns() >= until):
                    break
                self.row += count
        self.append_rest(done, count)
        self.row += count
        if self.row_error != NO_PROBLEM:
            self.raise_problem()
        return True

    cdef Py_ssize_t read(self) except -1:
        """Reads rows for record(); how many, -1 never, 0 if none is left."""
        cdef Py_ssize_t count = 0
        while not count:
            if self.row_error != NO_PROBLEM:
                self.raise_problem()
            if not self.more():
                return 0
            with nogil:
                count = self.fill(0, SIZE_MAX)
            self.row += count
        return count

    cdef tuple record(self, Py_ssize_t i):
        """Value, key, partition, timestamp and headers of a row that was read, as send() takes them."""
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
        return (object_of(record.value, record.value_len, is_text(self.value), "value"),
                object_of(record.key, record.key_len, self.key is not NULL and is_text(self.key), "key"),
                None if self.partitions[i] < 0 else self.partitions[i],
                record.timestamp if record.timed else None, headers)

    cdef Py_ssize_t fill(self, int64_t now_ms, size_t limit) noexcept nogil:
        """Points the chunk's records at the rows that come next; returns how many.

        They end before CHUNK of them where `problem` is with the next one, and where their headers have become many.
        now_ms: the timestamp of those without one. limit: bytes of the largest.
        """
        cdef fp_record *records = self.records
        cdef Py_ssize_t count = min(self.rows - self.row, <int64_t>CHUNK)
        cdef Py_ssize_t i
        # Key and value of so many bytes are within the limit, without a closer look.
        cdef int64_t sure = (<int64_t>min(limit, <size_t>INT32_MAX) - FP_MAX_OVERHEAD - MAX_VARINT -
                             <int64_t>self.same.headers_wire)
        self.row_error = NO_PROBLEM
        if self.row_validity is not NULL:
            for i in range(count):
                if not fp_bit_at(self.row_validity, self.data.array.offset + self.row + i):
                    count = self.stop(i, NULL_ROW, 0, 0)
                    break
        count = self.fill_bytes(self.value, count, &records[0].value, &records[0].value_len, sizeof(fp_record))
        if self.key is not NULL:
            count = self.fill_bytes(self.key, count, &records[0].key, &records[0].key_len, sizeof(fp_record))
        count = self.fill_partitions(count)
        count = self.fill_timestamps(count, now_ms)
        if self.header_count or self.header_lists is not NULL:
            sure = -1
            for i in range(count):
                fp_no_headers(&records[i])
            count = self.measure_columns(count) if self.header_count else self.measure_lists(count)
        for i in range(count):
            if <int64_t>(records[i].key_len + records[i].value_len) > sure and (
                    fp_wire_upper_bound(&records[i]) > limit):
                count = self.stop(i, TOO_LARGE, 0, <int64_t>fp_wire_upper_bound(&records[i]))
                break
        if self.header_count or self.header_lists is not NULL:
            count = self.encode(count)
        return count

    cdef Py_ssize_t stop(self, Py_ssize_t i, Problem row_error, int column, int64_t number) noexcept nogil:
        """The chunk ends before its record i."""
        self.row_error = row_error
        self.problem_column = column
        self.problem_number = number
        return i

    cdef Py_ssize_t fill_bytes(self, const Cells *cells, Py_ssize_t count, const char **data, size_t *size,
                               size_t stride) noexcept nogil:
        cdef Py_ssize_t sound = read_bytes(cells, self.row, count, data, size, stride)
        return count if sound == count else self.stop(sound, UNSOUND, cells.column, 0)

    cdef Py_ssize_t fill_partitions(self, Py_ssize_t count) noexcept nogil:
        cdef const Cells *cells = self.partition
        cdef int32_t known = fp_atomic_load(<const int *>&self.entry.partitions)
        cdef int64_t at, partition
        cdef Py_ssize_t i
        if cells is NULL or cells.layout == NULLS:
            for i in range(count):
                self.partitions[i] = self.same_partition
            return count
        at = cells.start + self.row
        for i in range(count):
            self.partitions[i] = -1
            if fp_bit_at(cells.validity, at + i):
                partition = fp_integer_at(cells.main, cells.width, cells.is_signed, at + i)
                if partition < 0 or partition >= known:
                    return self.stop(i, BAD_PARTITION, cells.column, partition)
                self.partitions[i] = <int32_t>partition
        return count

    cdef Py_ssize_t fill_timestamps(self, Py_ssize_t count, int64_t now_ms) noexcept nogil:
        cdef const Cells *cells = self.timestamp
        cdef int64_t per_unit = 1
        cdef int64_t per_ms = 1
        cdef int64_t at, found
        cdef Py_ssize_t i
        if cells is NULL or cells.layout == NULLS:
            for i in range(count):
                self.records[i].timestamp = now_ms if self.same_timestamp < 0 else self.same_timestamp
            return count
        if cells.layout == TIMESTAMPS:
            per_unit = cells.per_unit
            per_ms = cells.per_ms
        at = cells.start + self.row
        for i in range(count):
            self.records[i].timed = 0
            self.records[i].timestamp = now_ms
            if fp_bit_at(cells.validity, at + i):
                found = fp_int64_at(cells.main, at + i)
                if found < 0 or found > INT64_MAX // per_unit:
                    return self.stop(i, BAD_TIMESTAMP, cells.column, found)
                self.records[i].timed = 1
                self.records[i].timestamp = found * per_unit // per_ms
        return count

    # Headers: first their sizes, then, in a buffer that is large enough, themselves

    cdef Py_ssize_t measure_columns(self, Py_ssize_t count) noexcept nogil:
        cdef fp_record *record
        cdef HeaderColumn *one
        cdef Py_ssize_t i, h
        for h in range(self.header_count):
            if self.header_columns[h].cells is not NULL:
                count = self.fill_bytes(self.header_columns[h].cells, count, &self.header_values[h * CHUNK].data,
                                        &self.header_values[h * CHUNK].size, sizeof(Bytes))
        for i in range(count):
            record = &self.records[i]
            record.headers_count = <int32_t>self.header_count
            for h in range(self.header_count):
                one = &self.header_columns[h]
                self.take_value(one, h, i)
                record.headers_wire += fp_header_wire(&one.header)
                record.headers_len += one.header.name_len + one.header.value_len + FP_HEADER_ROOM
            if record.headers_wire > self.largest_record:
                return self.stop(i, TOO_LARGE, 0, <int64_t>fp_wire_upper_bound(record))
        return count

    cdef void take_value(self, HeaderColumn *one, Py_ssize_t h, Py_ssize_t i) noexcept nogil:
        if one.cells is not NULL:
            one.header.value = self.header_values[h * CHUNK + i].data
            one.header.value_len = self.header_values[h * CHUNK + i].size

    cdef Py_ssize_t measure_lists(self, Py_ssize_t count) noexcept nogil:
        cdef Cells *cells = self.header_lists
        cdef fp_record *record
        cdef fp_header header
        cdef int64_t first, last, k
        cdef Py_ssize_t i
        for i in range(count):
            record = &self.records[i]
            if not read_range(cells, self.row + i, &first, &last):
                return self.stop(i, UNSOUND, cells.column, 0)
            for k in range(first, last):
                if not read_pair(cells.inner, k, &header):
                    return self.stop(i, UNSOUND, cells.column, 0)
                if header.name is NULL or memchr(header.name, 0, header.name_len) is not NULL:
                    return self.stop(i, HEADER_WITHOUT_NAME, cells.column, 0)
                if not fp_is_utf8(header.name, header.name_len):
                    return self.stop(i, HEADER_NOT_UTF8, cells.column, k)
                record.headers_count += 1
                record.headers_wire += fp_header_wire(&header)
                record.headers_len += header.name_len + header.value_len + FP_HEADER_ROOM
                if record.headers_wire > self.largest_record:
                    return self.stop(i, TOO_LARGE, 0, <int64_t>fp_wire_upper_bound(record))
        return count

    cdef Py_ssize_t encode(self, Py_ssize_t count) noexcept nogil:
        """Writes the headers of as many records as a chunk may have."""
        cdef fp_record *record
        cdef fp_header header
        cdef char *at
        cdef char *grown
        cdef size_t needed = 0
        cdef int64_t first, last, k
        cdef Py_ssize_t i, h
        for i in range(count):
            if i and needed + self.records[i].headers_len > CHUNK_HEADERS:
                self.row_error = NO_PROBLEM  # which is with a record further on
                count = i
                break
            needed += self.records[i].headers_len
        if needed > self.encoded_size:
            grown = <char *>realloc(self.encoded, needed)
            if grown is NULL:
                return self.stop(0, NO_MEMORY, 0, 0)
            self.encoded = grown
            self.encoded_size = needed
        at = self.encoded
        for i in range(count):
            record = &self.records[i]
            if not record.headers_count:
                continue
            record.headers = at
            if self.header_count:
                for h in range(self.header_count):
                    self.take_value(&self.header_columns[h], h, i)
                    at = fp_header_write(at, &self.header_columns[h].header)
            else:
                read_range(self.header_lists, self.row + i, &first, &last)
                for k in range(first, last):
                    read_pair(self.header_lists.inner, k, &header)
                    at = fp_header_write(at, &header)
            record.headers_len = at - record.headers
        return count

    # What is wrong

    cdef int raise_problem(self) except -1:
        """Raises what is wrong with the next row, unless it is its partition and that has been added meanwhile."""
        cdef Problem row_error = self.row_error
        cdef Cells *cells = self.columns[self.problem_column]
        cdef str label = self.labels[self.problem_column]
        cdef fp_header header
        cdef object number = self.problem_number
        cdef int64_t deadline = 0
        self.row_error = NO_PROBLEM
        if row_error == UNSOUND:
            malformed(label, "a value's offset, length or index is out of bounds")
        if row_error == NULL_ROW:
            raise ValueError(f"row {self.row} of a record batch is null as a whole, which is no record: "
                             "a tombstone is a row whose value is null")
        if row_error == TOO_LARGE:
            refuse_size(self.entry.name, <size_t>self.problem_number, self.largest_record, self.size_limit)
        if row_error == HEADER_WITHOUT_NAME:
            raise ValueError(f"{label} has a header whose name is null or holds a NUL")
        if row_error == HEADER_NOT_UTF8:
            read_pair(cells.inner, self.problem_number, &header)
            name = <bytes>header.name[:header.name_len]
            raise SerializationError(f"{label} has a header whose name is not valid text (UTF-8): {shorten(name)}")
        if row_error == NO_MEMORY:
            raise MemoryError("no memory for the headers")
        if row_error == BAD_TIMESTAMP:
            if cells.layout == TIMESTAMPS:
                number = number * cells.per_unit // cells.per_ms
            checked_timestamp(number)
            return 0
        if not cells.is_signed:
            number = <uint64_t>self.problem_number
        self.metadata.checked_partition(self.entry, number, &deadline, self.max_block_ns)
        return 0


cdef int read_pair(const Cells *pairs, int64_t k, fp_header *header) noexcept nogil:
    """The header that a list's item is, without a name if it or that is null; 0 if it is unsound."""
    header.name = NULL
    header.name_len = 0
    header.value = NULL
    header.value_len = 0
    if not fp_bit_at(pairs.validity, pairs.start + k):
        return 1
    return (read_bytes(pairs.inner, k, 1, &header.name, &header.name_len, 0) and
            read_bytes(pairs.second, k, 1, &header.value, &header.value_len, 0))


cdef int is_text(const Cells *cells) noexcept:
    return cells.inner.text if cells.layout == DICTIONARY else cells.text


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
    """What can be told before the data is opened, which it may be but once."""
    if not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"):
        raise TypeError("data must have __arrow_c_stream__ or __arrow_c_array__, as what pyarrow, Polars, pandas and "
                        f"DuckDB give has, and not be {type(data).__name__}: {shorten(data)}")
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
    """What was given for them: the name of a column, or pairs of a name and the name of a column or bytes; or None."""
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
