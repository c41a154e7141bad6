from libc.stdint cimport int32_t, int64_t
from fastprod.internals.partition_queue cimport Topic

cdef class TopicMetadata:
    cdef Topic *topic
    cdef readonly str name
    cdef readonly int32_t partitions     # atomic, written with the GIL; 0 until known
    cdef readonly tuple leaders          # broker id per partition, -1 for none
    cdef int32_t fewer                   # partitions in the last answer, if they differ from those that are known
    cdef readonly int code               # of the last answer about it
    cdef readonly int answers            # about it, ever
    cdef bint anew                       # it was created again: the next answer may have fewer partitions
    cdef int64_t used_ns                 # when it was asked for, if not by sending; monotonic
