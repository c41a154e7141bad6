from libc.stdint cimport int64_t
from fastprod.internals.client_renewal cimport ClientRenewal
from fastprod.internals.metadata_requests cimport MetadataRequests
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.sender cimport Sender
from fastprod.internals.transport cimport Transport
from fastprod.internals.update_request cimport UpdateRequest

cdef class MetadataUpdater:
    cdef ProducerMetadata metadata
    cdef MetadataRequests requests
    cdef ClientRenewal renewal
    cdef Transport transport
    cdef UpdateRequest update_request
    cdef Sender sender
    cdef bytes bootstrap_servers         # to be asked again when no broker answers, or None
    cdef double max_age                  # seconds
    cdef double backoff                  # seconds
    cdef int64_t max_idle_ns
    # monotonic
    cdef int64_t next_ask_ns
    cdef int64_t next_full_ns            # the same, for all topics
    cdef int64_t next_sweep_ns
    cdef int64_t next_check_ns

    cdef bint ask_wanted(self) except -1
    cdef list names_to_ask(self, int requested)
    cdef bint ask(self, list names) except -1
    cdef double timeout(self)
    cdef int64_t next_ns(self) noexcept
    cdef int keep_up(self) except -1
