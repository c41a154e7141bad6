"""ArrowStream: the arrays that another library exports, and when they are released.

Source: the specifications of the Arrow C data and C stream interfaces and of their PyCapsules
(arrow.apache.org/docs/format).
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.errno cimport ENOMEM
from fastprod.bulk.arrow cimport ArrowArray, ArrowArrayStream, ArrowSchema
from fastprod.bulk.arrow_column cimport malformed, text_of
from fastprod.internals.input cimport shorten

import os


@cython.final
cdef class ArrowStream:
    """Arrays of one type from an object with __arrow_c_stream__ or __arrow_c_array__.

    Owns the stream, the schema and the current array. It has moved them out of their capsules, and releases each once.
    The exporter's functions are called without the GIL, because they or their threads may need it. Used by one thread.
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
        """Releases the current array and fetches the next one. Returns False if there is none."""
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
            self.array.release = NULL      # a call that fails exports nothing, whatever it leaves there
            raise self.failure(code)
        return self.array.release is not NULL

    cdef object failure(self, int code):
        """Returns the exception for an error code of the stream."""
        cdef str text = ""
        PyErr_CheckSignals()               # a signal may be why it failed
        if self.stream.get_last_error is not NULL:
            text = text_of(self.stream.get_last_error(&self.stream))
        if text.rstrip().endswith("KeyboardInterrupt"):   # of the generator behind a RecordBatchReader of pyarrow,
            return KeyboardInterrupt()                    # which passes on only its text
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
