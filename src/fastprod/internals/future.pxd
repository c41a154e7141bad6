from libc.stdint cimport int32_t, int64_t
from fastprod.internals.produce_request_result cimport CallbackKind, ProduceRequestResult

cdef class FutureRecordMetadata:
    cdef ProduceRequestResult *produced   # NULL until bind()
    cdef int32_t index                    # of the record in its batch
    cdef int32_t key_size                 # bytes; -1: no key
    cdef int32_t value_size               # bytes; -1: tombstone
    cdef int64_t timestamp                # ms; CreateTime
    cdef str topic

    cdef object metadata(self)
    cdef object error(self)
    cdef int settled(self) except -1
    cdef int wait(self, object timeout) except -1
    cdef void mark_observed(self) noexcept
    cdef int refuse_in_child(self) except -1
    cdef int register(self, CallbackKind kind, object function) except -1
