"""DeferredCleanup: what ends after close(), if librdkafka is in a call that cannot be interrupted."""

from fastprod.internals.produce_request_result cimport notify_completed
from fastprod.internals.sender cimport Sender
from fastprod.internals.sync cimport fp_atomic_store
from fastprod.internals.transaction_manager cimport TransactionManager
from fastprod.internals.transport cimport Transport


cdef class DeferredCleanup:
    """Ends what may outlast close(): the librdkafka producer, and calls of it that cannot be interrupted.

    The metadata thread runs clear() last, because it may be in such a call itself. So close() keeps its timeout, and no
    thread uses the librdkafka producer when it is destroyed. Owns the sender until then: a late answer wakes it.

    thread: metadata  lock: none
    """

    def __cinit__(self, Transport transport, Sender sender, TransactionManager transactions):
        self.transport = transport
        self.sender = sender
        self.transactions = transactions

    def clear(self):
        if self.transactions is not None:
            self.transactions.end()
        self.sender.join()
        self.transport.close()
        fp_atomic_store(&self.cleared, 1)
        notify_completed()
