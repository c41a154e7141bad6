from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.deferred_cleanup cimport DeferredCleanup
from fastprod.internals.interceptors cimport ProducerInterceptors
from fastprod.internals.metadata_updater cimport MetadataUpdater
from fastprod.internals.pending_records cimport PendingRecords
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.producer_metrics cimport ProducerMetrics
from fastprod.internals.producer_state cimport ProducerState
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.record_appender cimport RecordAppender
from fastprod.internals.sender cimport Sender
from fastprod.internals.transaction_manager cimport TransactionManager
from fastprod.internals.transport cimport Transport

cdef class ProducerParts:
    cdef BufferPool pool
    cdef RecordAccumulator accumulator
    cdef Callbacks callbacks
    cdef Transport transport
    cdef Completion completion
    cdef Sender sender
    cdef PendingRecords pending
    cdef ProducerMetadata metadata
    cdef MetadataUpdater updater
    cdef TransactionManager transactions   # None without a transactional.id
    cdef ProducerState state
    cdef RecordAppender appender
    cdef ProducerMetrics metrics
    cdef DeferredCleanup deferred_cleanup
    cdef object tokens                     # TokenRefresher, or None without a provider, and once it has ended
    cdef object callback_thread
    cdef object metadata_thread

    cdef RecordAccumulator make_accumulator(self, object settings, dict properties)
    cdef Sender make_sender(self, object settings, dict properties)
    cdef MetadataUpdater make_updater(self, object settings, dict properties)
    cdef RecordAppender make_appender(self, object settings, ProducerInterceptors interceptors)
    cdef int start(self) except -1
    cdef object memory_in_use(self)
