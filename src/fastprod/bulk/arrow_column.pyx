"""ArrowColumn: the type of one column of Arrow data, and how its values are read.

Source: the specification of the columnar format and of the C data interface (arrow.apache.org/docs/format). The
interface does not give the sizes of buffers, so they are trusted. Everything else is checked.
"""

from libc.stdint cimport INT32_MAX, INT64_MAX, int64_t
from libc.stdlib cimport calloc, free
from fastprod.bulk.arrow cimport ArrowArray, ArrowSchema, fp_bit_at, fp_int32_at, fp_int64_at, fp_integer_at

cdef const char *EMPTY = ""                 # what an empty value points at: NULL would be a null one
cdef enum:
    VIEW_SIZE = 16            # bytes
    INLINE_SIZE = 12          # bytes that a view holds itself
    ANY = -1                  # number of buffers

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

# What an array of each layout has, in the order of Layout.
cdef struct LayoutRule:
    int buffers       # ANY: as many as it has
    int children

cdef LayoutRule[<int>LAYOUTS] RULES
RULES = [
    LayoutRule(ANY, 0),    # NULLS: none, says the specification; Polars has one
    LayoutRule(3, 0), LayoutRule(3, 0),                      # OFFSETS32, OFFSETS64
    LayoutRule(ANY, 0),    # VIEWS: 3 or more
    LayoutRule(2, 0), LayoutRule(2, 0), LayoutRule(2, 0), LayoutRule(2, 0),   # FIXED to TIMESTAMPS
    LayoutRule(2, 1), LayoutRule(2, 1), LayoutRule(1, 1),    # LIST32, LIST64, FIXED_LIST
    LayoutRule(1, 2),      # PAIRS
]

# Format, up to the first colon -> the layout and the fields of ArrowColumn that go with it.
FORMATS = {
    b"n": {"layout": NULLS},
    b"c": {"layout": INTEGERS, "width": 1, "is_signed": 1},
    b"C": {"layout": INTEGERS, "width": 1},
    b"s": {"layout": INTEGERS, "width": 2, "is_signed": 1},
    b"S": {"layout": INTEGERS, "width": 2},
    b"i": {"layout": INTEGERS, "width": 4, "is_signed": 1},
    b"I": {"layout": INTEGERS, "width": 4},
    b"l": {"layout": INTEGERS, "width": 8, "is_signed": 1},
    b"L": {"layout": INTEGERS, "width": 8},
    b"z": {"layout": OFFSETS32},
    b"u": {"layout": OFFSETS32, "text": 1},
    b"Z": {"layout": OFFSETS64},
    b"U": {"layout": OFFSETS64, "text": 1},
    b"vz": {"layout": VIEWS},
    b"vu": {"layout": VIEWS, "text": 1},
    b"w:": {"layout": FIXED},
    b"tss:": {"layout": TIMESTAMPS, "width": 8, "is_signed": 1, "per_unit": 1000},
    b"tsm:": {"layout": TIMESTAMPS, "width": 8, "is_signed": 1},
    b"tsu:": {"layout": TIMESTAMPS, "width": 8, "is_signed": 1, "per_ms": 1000},
    b"tsn:": {"layout": TIMESTAMPS, "width": 8, "is_signed": 1, "per_ms": 1_000_000},
    b"+l": {"layout": LIST32},
    b"+m": {"layout": LIST32},
    b"+L": {"layout": LIST64},
    b"+w:": {"layout": FIXED_LIST},
    b"+s": {"layout": PAIRS},
}


cdef str text_of(const char *text):
    return "" if text is NULL else text.decode("utf-8", "replace")


cdef str type_name(const ArrowSchema *schema):
    """Returns the type as pyarrow writes it, or nearly so."""
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
    """Raises ValueError if a pointer is missing that a schema must have."""
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

cdef void column_free(ArrowColumn *column) noexcept:
    if column is not NULL:
        column_free(column.inner)
        column_free(column.second)
        free(column)


cdef ArrowColumn *column_new(const ArrowSchema *schema, int number) except? NULL:
    """Returns a new column of that type; NULL if no field of a record can take the type."""
    cdef ArrowColumn *column = <ArrowColumn *>calloc(1, sizeof(ArrowColumn))
    if column is NULL:
        raise MemoryError()
    column.number = number
    try:
        if set_type(column, schema):
            return column
    except BaseException:
        column_free(column)
        raise
    column_free(column)
    return NULL


cdef bint set_type(ArrowColumn *column, const ArrowSchema *schema) except -1:
    """Sets what a column knows of its type. Returns False if no field of a record can take the type."""
    cdef bytes form = schema.format
    start, colon, parameter = form.partition(b":")
    known = FORMATS.get(start + colon)
    if known is None:
        return False
    column.layout = known["layout"]
    column.text = known.get("text", 0)
    column.width = known.get("width", 0)
    column.is_signed = known.get("is_signed", 0)
    column.per_unit = known.get("per_unit", 1)
    column.per_ms = known.get("per_ms", 1)
    if column.layout in (FIXED, FIXED_LIST):
        if not parameter.isdigit() or int(parameter) > INT32_MAX:
            return False
        column.width = int(parameter)
    if schema.dictionary is not NULL:
        if column.layout != INTEGERS:
            return False
        column.layout = DICTIONARY
        column.inner = column_new(schema.dictionary, column.number)
        return column.inner is not NULL and column.inner.layout <= FIXED
    return set_children(column, schema)


cdef bint set_children(ArrowColumn *column, const ArrowSchema *schema) except -1:
    """Adds the children of a list or pair. Returns False unless a list has pairs, and a pair two columns of bytes."""
    if column.layout in (LIST32, LIST64, FIXED_LIST):
        if schema.n_children != 1:
            return False
        column.inner = column_new(schema.children[0], column.number)
        return column.inner is not NULL and column.inner.layout == PAIRS
    if column.layout == PAIRS:
        if schema.n_children != 2:
            return False
        column.inner = column_new(schema.children[0], column.number)
        column.second = column_new(schema.children[1], column.number)
        return (column.inner is not NULL and column.inner.layout <= DICTIONARY
                and column.second is not NULL and column.second.layout <= DICTIONARY)
    return True


cdef bint column_accepts(const ArrowColumn *column, str field) except -1:
    """Returns whether a field of a record can be read from the column."""
    if column is NULL:
        return False
    if column.layout == NULLS:
        return True
    if field == "partition":
        return column.layout == INTEGERS
    if field == "timestamp":
        return column.layout == TIMESTAMPS or column.layout == INTEGERS and column.is_signed and column.width == 8
    if field == "headers":
        return column.layout in (LIST32, LIST64, FIXED_LIST)
    return column.layout <= DICTIONARY


cdef int column_is_text(const ArrowColumn *column) noexcept:
    return column.inner.text if column.layout == DICTIONARY else column.text


# Arrays

cdef object malformed(str label, str what):
    raise ValueError(f"malformed Arrow data: {label}: {what}")


cdef int column_bind(ArrowColumn *column, const ArrowArray *array, int64_t base, int64_t rows, str label) except -1:
    """Points the column at an array, of which `rows` rows from `base` on will be read."""
    cdef Layout layout = column.layout
    check_array(layout, array, base, rows, label)
    column.start = array.offset + base
    column.length = array.length - base
    column.validity = NULL
    column.main = column.bytes = NULL
    if layout == NULLS:
        return 0
    if array.null_count != 0:
        column.validity = <const unsigned char *>array.buffers[0]
        if array.null_count > 0 and array.length and column.validity is NULL:
            malformed(label, f"an array has {array.null_count} nulls and no validity buffer")
    if RULES[<int>layout].buffers != 1:
        column.main = <const char *>array.buffers[1]
        if column.main is NULL and rows and not (layout == FIXED and column.width == 0):
            malformed(label, f"the buffer of an array of {array.length} values is NULL")
    if layout in (OFFSETS32, OFFSETS64):
        column.bytes = <const char *>array.buffers[2]
    elif layout == VIEWS:
        column.variadic = array.buffers + 2
        column.variadic_count = array.n_buffers - 3
        column.variadic_sizes = array.buffers[array.n_buffers - 1]
        if column.variadic_count and column.variadic_sizes is NULL:
            malformed(label, "the buffer of the sizes of buffers is NULL")
    elif layout == DICTIONARY:
        column_bind(column.inner, array.dictionary, 0, array.dictionary.length, label)
    elif layout in (LIST32, LIST64, FIXED_LIST):
        if array.children[0] is NULL:
            malformed(label, "an array is missing")
        column_bind(column.inner, array.children[0], 0, array.children[0].length, label)
    elif layout == PAIRS:
        column_bind(column.inner, array.children[0], array.offset, array.length, label)
        column_bind(column.second, array.children[1], array.offset, array.length, label)
    return 0


cdef int check_array(Layout layout, const ArrowArray *array, int64_t base, int64_t rows, str label) except -1:
    """Raises ValueError unless the array has the parts that its layout asks for, and enough rows."""
    cdef int64_t buffers = RULES[<int>layout].buffers
    if array is NULL or array.release is NULL:
        malformed(label, "an array is missing or was released before")
    if array.length < 0 or array.offset < 0 or array.offset > INT64_MAX - array.length:
        malformed(label, f"an array of length {array.length} at the offset {array.offset}")
    if base > array.length or rows > array.length - base:
        malformed(label, f"an array has {array.length} values where {base + rows} are needed")
    if buffers == ANY:
        buffers = max(array.n_buffers, 3) if layout == VIEWS else array.n_buffers
    if array.n_buffers != buffers or buffers and array.buffers is NULL:
        malformed(label, f"an array has {array.n_buffers} buffers and not {buffers}")
    if (array.dictionary is NULL) == (layout == DICTIONARY):
        malformed(label, "an array has a dictionary and its type has none, or the other way round")
    if array.n_children != RULES[<int>layout].children or array.n_children and array.children is NULL:
        malformed(label, f"an array has {array.n_children} children")
    return 0


# Values

cdef Py_ssize_t read_bytes(const ArrowColumn *column, int64_t row, Py_ssize_t count, const char **data, size_t *size,
                           size_t stride) noexcept nogil:
    """Points at the bytes of rows from `row` on, NULL for null; each pointer and size `stride` bytes after the last.

    Returns how many could be read: fewer than count if the next row is malformed.
    """
    cdef const unsigned char *validity = column.validity
    cdef const char *main = column.main
    cdef const char *start
    cdef char *data_at = <char *>data
    cdef char *size_at = <char *>size
    cdef int64_t at = column.start + row
    cdef int64_t begin, end, index
    cdef Py_ssize_t i
    for i in range(count):
        start = NULL
        end = begin = 0
        if column.layout != NULLS and fp_bit_at(validity, at + i):
            if column.layout == OFFSETS32 or column.layout == OFFSETS64:
                if column.layout == OFFSETS32:
                    begin = fp_int32_at(main, at + i)
                    end = fp_int32_at(main, at + i + 1)
                else:
                    begin = fp_int64_at(main, at + i)
                    end = fp_int64_at(main, at + i + 1)
                if begin < 0 or end < begin or column.bytes is NULL and end > begin:
                    return i
                start = EMPTY if column.bytes is NULL else column.bytes + begin
            elif column.layout == VIEWS:
                start = view_at(column, at + i, &end)
                if start is NULL:
                    return i
            elif column.layout == FIXED:
                end = column.width
                start = EMPTY if end == 0 else main + (at + i) * end
            else:
                index = fp_integer_at(main, column.width, column.is_signed, at + i)
                if index < 0 or index >= column.inner.length or not read_bytes(
                        column.inner, index, 1, <const char **>data_at, <size_t *>size_at, stride):
                    return i
                data_at += stride
                size_at += stride
                continue
        (<const char **>data_at)[0] = start
        (<size_t *>size_at)[0] = end - begin
        data_at += stride
        size_at += stride
    return count


cdef inline const char *view_at(const ArrowColumn *column, int64_t at, int64_t *size) noexcept nogil:
    """Returns where the bytes of a view are: in the view itself, or in another buffer. NULL: the view is malformed."""
    cdef const char *view = column.main + at * VIEW_SIZE
    cdef int64_t index, begin
    size[0] = fp_int32_at(view, 0)
    if size[0] < 0:
        return NULL
    if size[0] <= INLINE_SIZE:
        return view + 4
    index = fp_int32_at(view, 2)
    begin = fp_int32_at(view, 3)
    if index < 0 or index >= column.variadic_count or begin < 0 or column.variadic[index] is NULL or (
            begin + size[0] > fp_int64_at(column.variadic_sizes, index)):
        return NULL
    return <const char *>column.variadic[index] + begin


cdef int read_range(const ArrowColumn *column, int64_t row, int64_t *first, int64_t *last) noexcept nogil:
    """Sets [first, last), the pairs of a row's list. Returns 0 if the list is malformed."""
    cdef int64_t at = column.start + row
    first[0] = last[0] = 0
    if column.layout == NULLS or not fp_bit_at(column.validity, at):
        return 1
    if column.layout == LIST32:
        first[0] = fp_int32_at(column.main, at)
        last[0] = fp_int32_at(column.main, at + 1)
    elif column.layout == LIST64:
        first[0] = fp_int64_at(column.main, at)
        last[0] = fp_int64_at(column.main, at + 1)
    else:
        first[0] = at * column.width
        last[0] = first[0] + column.width
    return 0 <= first[0] and first[0] <= last[0] and last[0] <= column.inner.length
