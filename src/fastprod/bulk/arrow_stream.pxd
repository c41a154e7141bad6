from fastprod.bulk.arrow cimport ArrowArray, ArrowArrayStream, ArrowSchema

cdef class ArrowStream:
    cdef ArrowArrayStream stream
    cdef ArrowSchema schema
    cdef ArrowArray array     # the current one
    cdef bint given           # it is the only one, and next() has not returned it yet

    cdef int open(self, object data) except -1
    cdef bint next(self) except -1
    cdef void release(self) noexcept
    cdef object failure(self, int code)
