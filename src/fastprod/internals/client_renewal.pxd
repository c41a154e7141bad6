from libc.stdint cimport int64_t
from fastprod.internals.metadata_requests cimport MetadataRequests
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.sender cimport Sender
from fastprod.internals.transport cimport Transport

cdef class ClientRenewal:
    cdef ProducerMetadata metadata
    cdef MetadataRequests requests
    cdef Transport transport
    cdef Sender sender
    cdef bint renewable                  # False for a transaction, which is that of one librdkafka producer
    cdef set recreated                   # names of topics that this librdkafka producer saw deleted and created again
    cdef list stranded                   # TopicMetadata: of those, the ones to which it cannot deliver
    cdef set forgotten                   # names that were left behind when it was made
    cdef long opened                     # partitions that it has, and one for each topic
    cdef long opened_topics              # those topics
    cdef long returned                   # of `opened`, those of topics in `forgotten`
    cdef int64_t next_renewal_ns         # monotonic

    cdef int count_opened(self, list names) except -1
    cdef int count_known(self, list entries) except -1
    cdef int check_recreated(self) except -1
    cdef bint is_due(self, int64_t now) noexcept
    cdef bint renew(self) except -1
    cdef int report_stranded(self) except -1
