from libc.stdint cimport int32_t, int64_t
from fastprod.bulk.arrow cimport ArrowArray, ArrowSchema

# How a type keeps its values. Those up to FIXED are bytes, those up to DICTIONARY can be read as bytes.
cdef enum Layout:
    NULLS            # nothing but nulls
    OFFSETS32        # bytes end to end, and where each value starts
    OFFSETS64
    VIEWS            # 16 bytes for each value, which hold it or say where it is
    FIXED            # bytes end to end, of one width
    DICTIONARY       # indexes of values
    INTEGERS
    TIMESTAMPS
    LIST32           # of pairs; a map too
    LIST64
    FIXED_LIST
    PAIRS            # structs of two
    LAYOUTS          # how many there are

# The type of a column, and where its values are in the current array. It owns the columns it points to, but no buffer.
cdef struct ArrowColumn:
    # of the type
    Layout layout
    int number                # among the columns of the call, for errors
    int text                  # UTF-8, not just bytes
    int32_t width             # bytes of a fixed value, an integer or an index; items of a fixed list
    int is_signed
    int64_t per_unit          # ms in a unit of a timestamp, or
    int64_t per_ms            # units in a ms; the other is 1
    ArrowColumn *inner        # a dictionary's values, a list's pairs, the first of a pair
    ArrowColumn *second       # of a pair
    # of the array
    int64_t start             # where row 0 is in the buffers
    int64_t length
    const unsigned char *validity   # NULL: none is null
    const char *main                # offsets, views, indexes, or the values themselves
    const char *bytes               # what offsets point into; NULL: they are all empty
    const void **variadic           # what views point into
    const void *variadic_sizes
    int64_t variadic_count

cdef ArrowColumn *column_new(const ArrowSchema *schema, int number) except? NULL
cdef void column_free(ArrowColumn *column) noexcept
cdef bint column_accepts(const ArrowColumn *column, str field) except -1
cdef int column_bind(ArrowColumn *column, const ArrowArray *array, int64_t base, int64_t rows, str label) except -1
cdef int column_is_text(const ArrowColumn *column) noexcept
cdef Py_ssize_t read_bytes(const ArrowColumn *column, int64_t row, Py_ssize_t count, const char **data, size_t *size,
                           size_t stride) noexcept nogil
cdef int read_range(const ArrowColumn *column, int64_t row, int64_t *first, int64_t *last) noexcept nogil

cdef str text_of(const char *text)
cdef str type_name(const ArrowSchema *schema)
cdef int check_schema(const ArrowSchema *schema) except -1
cdef object malformed(str label, str what)
