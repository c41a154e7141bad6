from libc.stdint cimport int64_t
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.pending_records cimport PendingRecords
from fastprod.internals.sender cimport Sender
from fastprod.internals.sync cimport fp_thread
from fastprod.internals.threads cimport Lock
from fastprod.internals.transaction_call cimport TransactionCall, TransactionRequest
from fastprod.internals.transport cimport Transport

cdef enum TransactionState:
    UNINITIALIZED
    INITIALIZING
    READY
    IN_TRANSACTION
    COMMITTING
    ABORTING
    ABORTABLE_ERROR
    FATAL_ERROR
    CLOSED

cdef class TransactionManager:
    # fixed at construction
    cdef Transport transport
    cdef RecordAccumulator accumulator
    cdef Sender sender
    cdef PendingRecords pending
    cdef int64_t max_block_ns
    cdef int fork_generation   # `process_generation` when it was made
    cdef Lock lock             # held by the one call that is under way, or by closed_error(); guards the fields below
    cdef object caller         # thread that is in one of the calls; None for closed_error()
    cdef TransactionState state
    cdef tuple failed              # in the two error states: code, what happened (None: see error_of()), fatal
    # the call of librdkafka's, and the thread that makes it
    cdef TransactionCall call
    cdef int64_t until_ns          # no attempt after this
    cdef fp_thread thread
    cdef int under_way             # the thread was started and not joined yet
    cdef int ended                 # atomic: the thread has librdkafka's answer
    cdef int stopping              # atomic: make no other attempt
    cdef int closing               # atomic: close() waits no longer for the call that is under way

    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef object not_now(self)
    cdef object reason(self, TransactionState state, tuple failed)
    cdef tuple record_failure(self)
    cdef int64_t deadline(self, object timeout) except -1
    cdef int notice_failure(self) except -1
    cdef object error(self)
    cdef object error_of(self, tuple failed)
    cdef int fail(self, int code, str what, bint fatal) except -1
    cdef int perform(self, TransactionRequest request, object timeout, int64_t deadline) except -1
    cdef int start(self, TransactionRequest request, int64_t until_ns) except -1
    cdef int wait_ended(self, object timeout, int64_t deadline) except -1
    cdef bint wait_settled(self, str name, int64_t deadline) except -1
    cdef int refuse_closing(self, str name) except -1
    cdef int conclude(self) except -1
    cdef int undo(self, object timeout, int64_t deadline) except -1
    cdef void run(self) noexcept nogil
