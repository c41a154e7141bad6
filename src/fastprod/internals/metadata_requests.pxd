from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.declarations cimport rd_kafka_t

cdef class MetadataRequests:
    cdef Transport transport

    cdef int ask(self, rd_kafka_t *rk, str name, int timeout_ms, dict topics) except? -1
    cdef int prepare(self, list names, int timeout_ms) except? -1
