"""ProducerState: whether a producer takes calls, and what they raise if not."""

cimport cython
from fastprod.internals.client_errors cimport ClientErrors
from fastprod.internals.produce_request_result cimport process_generation
from fastprod.internals.sync cimport fp_atomic_load
from fastprod.internals.transaction_manager cimport TransactionManager

from fastprod.errors import ForkedProducerError, KafkaError, ProducerClosedError


@cython.no_gc_clear   # a producer that is freed may still end its parts
cdef class ProducerState:
    """The state of a producer from the start of its threads on.

    Owns the lifecycle, which only advances: close() does that. A producer that was inherited by a fork is of no use,
    whatever its lifecycle, because its threads stayed in the parent. A fatal error of librdkafka belongs to
    ClientErrors, and the state of a transaction to the TransactionManager: both are only asked here.

    thread: any, with the GIL  lock: none
    """

    def __cinit__(self, ClientErrors errors, TransactionManager transactions):
        self.errors = errors
        self.transactions = transactions
        self.fork_generation = process_generation
        self.lifecycle = OPEN

    cdef bint is_inherited(self) noexcept:
        return self.fork_generation != process_generation

    cdef bint is_unclosed(self) noexcept:
        """Whether close() has something to do in this process."""
        return self.lifecycle != CLOSED and self.fork_generation == process_generation

    cdef int check_fork(self) except -1:
        if self.fork_generation != process_generation:
            raise ForkedProducerError(
                "this producer was made before the process forked, and its threads stayed in the parent: "
                "make a new Producer in the child")
        return 0

    cdef int check_open(self) except -1:
        if self.lifecycle != OPEN or self.fork_generation != process_generation:
            self.raise_if_unusable()
        return 0

    cdef int raise_if_unusable(self) except -1:
        """Raises what keeps the producer from sending: a fork, close(), or a fatal error."""
        self.check_fork()
        if self.lifecycle != OPEN or self.closing:
            raise ProducerClosedError("the producer is closed: make a new one")
        code = fp_atomic_load(&self.errors.fatal_code)
        if code and self.transactions is not None:
            raise self.transactions.closed_error()
        if code:
            raise KafkaError(f"the producer has a fatal error: {self.errors.fatal_reason}; "
                             "close it and make a new one", code=code, fatal=True)
        return 0
