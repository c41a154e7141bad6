from libc.stdint cimport int64_t
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sender cimport Sender

cdef class PendingRecords:
    cdef RecordAccumulator accumulator
    cdef Callbacks callbacks
    cdef Sender sender

    cdef bint wait_settled(self, int64_t deadline) except -1
    cdef bint wait_callbacks(self, int64_t deadline) except -1
