from libc.stdint cimport int32_t, int64_t
from fastprod.internals.partition_queue cimport PartitionQueue, Topic
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.buffer_pool cimport BufferPool
from fastprod.internals.callbacks cimport Callbacks
from fastprod.internals.completion cimport Completion
from fastprod.internals.produce_requests cimport ProduceRequests
from fastprod.librdkafka.declarations cimport rd_kafka_queue_t
from fastprod.internals.sync cimport fp_cond, fp_mutex, fp_thread
from fastprod.internals.handle cimport Handle
from fastprod.internals.transport cimport Report, Transport

cdef class Sender:
    cdef RecordAccumulator accumulator
    cdef BufferPool pool
    cdef Transport transport
    cdef Callbacks callbacks
    cdef Completion completion
    cdef ProduceRequests requests
    cdef int64_t overdue_ns      # after so long it gives up waiting for an answer
    cdef fp_thread thread
    cdef int started
    cdef int sleeping             # atomic: the thread waits for an event, or is about to
    cdef int finished             # atomic: the thread has ended
    cdef int32_t assist_waiters   # atomic: threads that wait for sender_lock in assist()
    cdef int yielding             # atomic: the thread waits for `wake_cond`, or is about to; stored under sender_lock
    # guarded by sender_lock
    cdef fp_mutex sender_lock
    cdef fp_cond wake_cond          # signalled when somebody waits for a thread that yields
    cdef int fetching               # the thread is without sender_lock, and may have an event, or has ended
    cdef rd_kafka_queue_t *polled   # that one it waits at, while fetching
    cdef int assisted               # since the thread last looked
    cdef int64_t next_expiry_ns       # not to look for expired batches before
    cdef int looked_once              # give_up_all() has been called since raise_flag()
    cdef int64_t sleeps_until_ns      # while the thread sleeps; monotonic
    # the thread, which takes sender_lock while it works
    cdef void run(self) noexcept nogil
    cdef void yield_to_app(self) noexcept nogil
    # any thread; no lock is needed
    cdef void wakeup(self) noexcept nogil
    cdef void assist(self) noexcept nogil
    cdef void tick(self) noexcept nogil
    cdef void complete_early(self, const Report *report) noexcept nogil
    cdef void forget_failure(self) noexcept nogil
    cdef void drop(self) noexcept nogil
    cdef void wait_for_step(self) noexcept nogil
    cdef void begin_purge(self) noexcept nogil
    cdef void end_purge(self) noexcept nogil
    # the metadata thread, with the GIL; no lock is needed
    cdef int remove_topic(self, Topic *topic) noexcept nogil
    cdef list slow_topics(self, int64_t ns)
    cdef int switch_over(self, list remade) except -1
    cdef bint end_retired(self) except -1
    # lock: sender_lock
    cdef void look_after_time(self, int64_t now) noexcept nogil
    cdef void give_up_all(self, int64_t now) noexcept nogil
    cdef void raise_flag(self, int32_t *flag) noexcept nogil
    cdef int take_retired(self, Handle *taken) noexcept nogil
    cdef void serve_retired(self) noexcept nogil
