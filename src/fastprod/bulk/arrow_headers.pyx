"""ArrowHeaders: the headers of the rows of Arrow data, from a column of lists or from a column for each header."""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr
from fastprod.bulk.arrow cimport fp_bit_at, fp_is_utf8
from fastprod.bulk.arrow_column cimport ArrowColumn, read_bytes, read_range
from fastprod.bulk.bulk_append cimport CHUNK
from fastprod.internals.record cimport (
    FP_HEADER_ROOM, fp_header, fp_header_wire, fp_header_write, fp_no_headers, fp_record, fp_wire_upper_bound,
)

cdef enum:
    CHUNK_HEADERS = 1 << 20   # bytes of encoded headers after which a chunk ends


@cython.final
cdef class ArrowHeaders:
    """The headers of a chunk's records: measure() finds their sizes, then encode() writes them into one buffer.

    Owns that buffer, and the names and values that are the same for all records. The columns are the caller's. The
    records point into the buffer until the next encode(). Used by one thread.
    """

    def __cinit__(self):
        self.refs = []

    def __dealloc__(self):
        free(self.columns)
        free(self.values)
        free(self.encoded)

    cdef int reserve(self, Py_ssize_t count) except -1:
        """Makes room for `count` header columns. Called before the first add()."""
        self.columns = <HeaderColumn *>calloc(count, sizeof(HeaderColumn))
        self.values = <Bytes *>malloc(count * CHUNK * sizeof(Bytes))
        if self.columns is NULL or self.values is NULL:
            raise MemoryError()
        self.capacity = count
        return 0

    cdef int add(self, bytes name, bytes value, ArrowColumn *column) except -1:
        """Adds a header. column: of its values; NULL: all records have `value`, which may be None."""
        cdef HeaderColumn *added = &self.columns[self.count]
        assert self.count < self.capacity
        self.refs += [name, value]
        added.header.name = name
        added.header.name_len = len(name)
        added.column = column
        if value is not None:
            added.header.value = value
            added.header.value_len = len(value)
        self.count += 1
        return 0

    cdef Py_ssize_t measure(self, fp_record *records, int64_t row, Py_ssize_t count, size_t limit,
                            RowError *error) noexcept nogil:
        """Counts the headers of each record, and their bytes. Returns how many records come before the first error.

        row: of the first record, in the current array. limit: bytes of the largest record.
        """
        cdef Py_ssize_t i
        for i in range(count):
            fp_no_headers(&records[i])
        if self.lists is not NULL:
            return self.measure_lists(records, row, count, limit, error)
        return self.measure_columns(records, row, count, limit, error)

    cdef Py_ssize_t measure_columns(self, fp_record *records, int64_t row, Py_ssize_t count, size_t limit,
                                    RowError *error) noexcept nogil:
        cdef fp_record *record
        cdef HeaderColumn *one
        cdef Py_ssize_t i, h, done
        for h in range(self.count):
            one = &self.columns[h]
            if one.column is not NULL:
                done = read_bytes(one.column, row, count, &self.values[h * CHUNK].data, &self.values[h * CHUNK].size,
                                  sizeof(Bytes))
                if done < count:
                    count = stop(error, done, MALFORMED, one.column.number, 0)
        for i in range(count):
            record = &records[i]
            record.headers_count = <int>self.count
            for h in range(self.count):
                one = &self.columns[h]
                self.load_value(h, i)
                record.headers_wire += fp_header_wire(&one.header)
                record.headers_len += one.header.name_len + one.header.value_len + FP_HEADER_ROOM
            if record.headers_wire > limit:
                return stop(error, i, TOO_LARGE, 0, <int64_t>fp_wire_upper_bound(record))
        return count

    cdef void load_value(self, Py_ssize_t h, Py_ssize_t i) noexcept nogil:
        """Sets header h to the value of record i of the chunk."""
        cdef HeaderColumn *one = &self.columns[h]
        if one.column is not NULL:
            one.header.value = self.values[h * CHUNK + i].data
            one.header.value_len = self.values[h * CHUNK + i].size

    cdef Py_ssize_t measure_lists(self, fp_record *records, int64_t row, Py_ssize_t count, size_t limit,
                                  RowError *error) noexcept nogil:
        cdef ArrowColumn *column = self.lists
        cdef fp_record *record
        cdef fp_header header
        cdef int64_t first, last, k
        cdef Py_ssize_t i
        for i in range(count):
            record = &records[i]
            if not read_range(column, row + i, &first, &last):
                return stop(error, i, MALFORMED, column.number, 0)
            for k in range(first, last):
                if not read_pair(column.inner, k, &header):
                    return stop(error, i, MALFORMED, column.number, 0)
                if header.name is NULL or memchr(header.name, 0, header.name_len) is not NULL:
                    return stop(error, i, HEADER_WITHOUT_NAME, column.number, 0)
                if not fp_is_utf8(header.name, header.name_len):
                    return stop(error, i, HEADER_NOT_UTF8, column.number, k)
                record.headers_count += 1
                record.headers_wire += fp_header_wire(&header)
                record.headers_len += header.name_len + header.value_len + FP_HEADER_ROOM
                if record.headers_wire > limit:
                    return stop(error, i, TOO_LARGE, 0, <int64_t>fp_wire_upper_bound(record))
        return count

    cdef Py_ssize_t encode(self, fp_record *records, int64_t row, Py_ssize_t count, RowError *error) noexcept nogil:
        """Writes the headers of the records. Returns how many records stay in the chunk: CHUNK_HEADERS may cut it."""
        cdef fp_record *record
        cdef char *at
        cdef char *grown
        cdef size_t needed = 0
        cdef Py_ssize_t i
        for i in range(count):
            if i and needed + records[i].headers_len > CHUNK_HEADERS:
                error.kind = NO_ERROR   # any error is with a record further on
                count = i
                break
            needed += records[i].headers_len
        if needed > self.encoded_size:
            grown = <char *>realloc(self.encoded, needed)
            if grown is NULL:
                return stop(error, 0, NO_MEMORY, 0, 0)
            self.encoded = grown
            self.encoded_size = needed
        at = self.encoded
        for i in range(count):
            record = &records[i]
            if record.headers_count:
                record.headers = at
                at = self.write(at, row, i)
                record.headers_len = at - record.headers
        return count

    cdef char *write(self, char *at, int64_t row, Py_ssize_t i) noexcept nogil:
        """Writes the headers of record i of the chunk. Returns where they end."""
        cdef fp_header header
        cdef int64_t first, last, k
        cdef Py_ssize_t h
        for h in range(self.count):
            self.load_value(h, i)
            at = fp_header_write(at, &self.columns[h].header)
        if self.lists is not NULL:
            read_range(self.lists, row + i, &first, &last)
            for k in range(first, last):
                read_pair(self.lists.inner, k, &header)
                at = fp_header_write(at, &header)
        return at


cdef int read_pair(const ArrowColumn *pairs, int64_t k, fp_header *header) noexcept nogil:
    """Reads an item of a list as a header. A null item or name gives no name. Returns 0 if the item is malformed."""
    header.name = NULL
    header.name_len = 0
    header.value = NULL
    header.value_len = 0
    if not fp_bit_at(pairs.validity, pairs.start + k):
        return 1
    return (read_bytes(pairs.inner, k, 1, &header.name, &header.name_len, 0) and
            read_bytes(pairs.second, k, 1, &header.value, &header.value_len, 0))
