from fastprod.internals.client_errors cimport ClientErrors
from fastprod.internals.transaction_manager cimport TransactionManager

# How far the end of a producer is.
cdef enum Lifecycle:
    OPEN            # all parts work
    SENDER_ENDED    # it sends nothing any more; close() has other parts to end
    CLOSED          # close() has nothing to do

cdef class ProducerState:
    cdef ClientErrors errors
    cdef TransactionManager transactions   # None without a transactional.id
    cdef int fork_generation               # `process_generation` when it was made
    cdef Lifecycle lifecycle
    cdef bint closing                      # close() was called

    cdef bint is_inherited(self) noexcept
    cdef bint is_unclosed(self) noexcept
    cdef int check_fork(self) except -1
    cdef int check_open(self) except -1
    cdef int raise_if_unusable(self) except -1
