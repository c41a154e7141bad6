"""What an application may give as topic, key, value, headers and timestamp, and the bytes of it."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.number cimport PyNumber_Index
from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t
from fastprod.internals.record cimport FP_HEADER_ROOM, fp_header, fp_header_wire, fp_header_write, fp_record

from fastprod.errors import RecordTooLargeError, SerializationError

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    TOPIC_NAME_LIMIT = 249                 # characters: org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH

cdef const char *EMPTY = ""                # what an empty value points at: NULL would be a null one


cdef int span_of(object value, Span *span, str what) except -1:
    """Points span at the bytes of a value; span_release() when done."""
    cdef Py_ssize_t size
    span.viewed = 0
    if value is None:
        span.data = NULL
        span.size = 0
    elif PyBytes_CheckExact(value):
        span.data = PyBytes_AS_STRING(value)
        span.size = PyBytes_GET_SIZE(value)
    elif isinstance(value, str):
        try:
            span.data = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError as error:
            raise SerializationError(f"the {what} is not valid text: {error}") from error
        span.size = size
    elif isinstance(value, (bytes, bytearray, memoryview)):
        try:
            PyObject_GetBuffer(value, &span.view, PyBUF_SIMPLE)
        except (BufferError, ValueError) as error:
            raise SerializationError(f"the {what} cannot be read as one run of bytes: {error}") from error
        span.viewed = 1
        span.data = <const char *>span.view.buf if span.view.len else EMPTY
        span.size = span.view.len
    else:
        raise TypeError(
            f"the {what} must be bytes, bytearray, memoryview, str or None, not {type(value).__name__}: "
            f"{shorten(value)}" + (f"; give {what}_serializer for anything else" if what in ("key", "value") else ""))
    if span.size > INT32_MAX:
        span_release(span)
        raise RecordTooLargeError(f"the {what} has {span.size} bytes: Kafka's limit is {INT32_MAX}")
    return 0


cdef void span_release(Span *span) noexcept:
    if span.viewed:
        PyBuffer_Release(&span.view)
        span.viewed = 0


cdef str shorten(object value):
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


cdef bytes encode_headers(object headers, size_t limit, int32_t *count, size_t *wire):
    """The headers as a record keeps them in its arena (csrc/record.h); no more is read than limit bytes of them."""
    cdef fp_header header
    cdef bytearray part
    cdef list parts = []
    cdef char *start
    cdef bytes name_bytes
    cdef Span span
    count[0] = 0
    wire[0] = 0
    if hasattr(headers, "items"):
        headers = headers.items()
    elif isinstance(headers, (str, bytes)) or not hasattr(headers, "__iter__"):
        raise TypeError(f"headers must be a sequence of (str, bytes) or a mapping, not {shorten(headers)}")
    for item in headers:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"a header must be a pair (str, bytes, str or None), not {shorten(item)}")
        name, value = item
        if not isinstance(name, str):
            raise TypeError(f"a header's name must be str, not {type(name).__name__}: {shorten(name)}")
        try:
            name_bytes = (<str>name).encode()
        except UnicodeEncodeError as error:
            raise SerializationError(f"a header's name is not valid text: {error}") from error
        if 0 in name_bytes:
            raise ValueError(f"a header's name is {name!r}: it must not hold a NUL")
        span_of(value, &span, "header's value")
        try:
            header.name = name_bytes
            header.name_len = len(name_bytes)
            header.value = span.data
            header.value_len = span.size
            wire[0] += fp_header_wire(&header)
            if wire[0] > limit:
                raise RecordTooLargeError(f"the headers take more than the {limit} bytes that a record may have in all")
            part = bytearray(header.name_len + header.value_len + FP_HEADER_ROOM)
            start = part
            parts.append(bytes(part[:fp_header_write(start, &header) - start]))
            count[0] += 1
        finally:
            span_release(&span)
    return b"".join(parts)


cdef bytes set_headers(fp_record *record, object headers, size_t limit):
    """Points the record at its headers, as bytes, and returns these: the caller keeps them as long as the record."""
    cdef bytes encoded = encode_headers(headers, limit, &record.headers_count, &record.headers_wire)
    if record.headers_count:
        record.headers = encoded
        record.headers_len = len(encoded)
    return encoded


cdef bint is_boolean(object given) except -1:
    """Whether it is a bool, or NumPy's: that one has __index__() before NumPy 2.3."""
    return type(given).__name__ in ("bool", "bool_")


cdef object whole_number(object given, str wanted):
    """The int that an int or an integer of NumPy's is."""
    if not is_boolean(given):
        try:
            return PyNumber_Index(given)
        except TypeError:
            pass
    raise TypeError(f"{wanted}, not {type(given).__name__}: {shorten(given)}")


cdef int64_t checked_timestamp(object timestamp) except -1:
    if type(timestamp) is not int:
        timestamp = whole_number(timestamp, "timestamp must be an int (ms since the epoch) or None")
    if not 0 <= timestamp <= INT64_MAX:
        raise ValueError(f"timestamp is {timestamp}: it must be 0 to {INT64_MAX} ms since the epoch")
    return timestamp


cdef object refuse_size(str topic, size_t size, size_t limit, str name):
    raise RecordTooLargeError(
        f"the record for {topic!r} takes up to {size} bytes, more than {name}={limit}: "
        f"make it smaller or raise {name} (and the topic's max.message.bytes)")


cdef int check_topic(object topic) except -1:
    """Raises if it is not the name of a topic that a broker would accept."""
    if not isinstance(topic, str):
        raise TypeError(f"topic must be str, not {type(topic).__name__}: {shorten(topic)}")
    if not topic or topic in (".", "..") or len(topic) > TOPIC_NAME_LIMIT or not (
            (<str>topic).isascii() and (<str>topic).replace("-", "a").replace("_", "a").replace(".", "a").isalnum()):
        raise ValueError(f"{shorten(topic)} is not a topic name: use 1 to {TOPIC_NAME_LIMIT} of the characters "
                         "a-z A-Z 0-9 . _ -, but not . or ..")
    return 0
