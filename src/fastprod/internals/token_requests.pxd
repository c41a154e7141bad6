from fastprod.internals.transport cimport Transport

cdef class TokenRequests:
    cdef Transport transport
