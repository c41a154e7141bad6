from libc.stdint cimport int32_t
from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.declarations cimport rd_kafka_queue_t, rd_kafka_t

cdef class MetadataRequests:
    cdef Transport transport
    cdef rd_kafka_queue_t *id_queue      # the answer to ask_ids() comes here; NULL: nothing was asked
    cdef int32_t answering_broker        # that gave the last metadata; -1: not known by its id yet

    cdef int ask(self, rd_kafka_t *rk, str name, int timeout_ms, dict topics) except? -1
    cdef int prepare(self, list names, int timeout_ms) except? -1
    cdef int ask_ids(self, list names, int32_t broker, int timeout_ms) except -1
    cdef dict take_ids(self, int timeout_ms)
    cdef void drop_ids(self) noexcept
