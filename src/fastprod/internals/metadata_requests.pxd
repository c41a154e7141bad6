from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.declarations cimport rd_kafka_t

cdef class MetadataRequests:
    cdef Transport transport

    cdef int ask(self, rd_kafka_t *rk, str name, dict topics) except? -1
    cdef int prepare(self, list names) except? -1
