from fastprod.internals.sender cimport Sender
from fastprod.internals.transaction_manager cimport TransactionManager
from fastprod.internals.transport cimport Transport

cdef class DeferredCleanup:
    cdef Transport transport
    cdef Sender sender
    cdef TransactionManager transactions   # None without a transactional.id
    cdef int cleared                       # atomic, for wait_completed(): nothing is left
