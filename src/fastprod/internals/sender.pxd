from libc.stdint cimport int32_t, int64_t
from fastprod.internals.partition_queue cimport Topic
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.completion cimport Completion
from fastprod.internals.produce_requests cimport ProduceRequests
from fastprod.librdkafka.declarations cimport rd_kafka_event_t, rd_kafka_queue_t
from fastprod.internals.sync cimport fp_cond, fp_mutex, fp_thread
from fastprod.internals.delivery_report cimport Report
from fastprod.internals.transport cimport Transport

# What the sender thread does. Written under sender_lock, by the thread itself but for WAKING.
cdef enum SenderState:
    WORKING    # it has sender_lock, or waits for it
    POLLING    # it waits for an event, or is about to
    WAKING     # another thread has ended that, and it is not back yet
    YIELDING   # it waits for wake_cond, while application threads do its work
    ENDED      # it uses nothing any more

cdef class Sender:
    cdef RecordAccumulator accumulator
    cdef Transport transport
    cdef Completion completion
    cdef ProduceRequests requests
    cdef int64_t overdue_ns         # librdkafka waits no longer for an answer; fixed at construction
    cdef fp_thread thread
    cdef int started
    cdef int32_t assist_waiters     # atomic: threads that wait for sender_lock in assist()
    cdef int state                  # atomic: a SenderState, written under sender_lock
    cdef int finished               # atomic, for wait_completed(): the thread has ended
    # guarded by sender_lock
    cdef fp_mutex sender_lock
    cdef fp_cond wake_cond          # signalled when a thread begins to wait while the sender thread yields
    cdef int assisted               # since the thread last looked
    cdef rd_kafka_queue_t *polled   # where the thread polls; NULL: it does not
    cdef int64_t polls_until_ns     # while it does; monotonic
    cdef int64_t next_expiry_ns     # when look_after_time() has something to do again
    cdef int purged_once            # since raise_flag()
    # the sender thread  lock: sender_lock, which poll() and yield_to_app() release meanwhile
    cdef void run(self) noexcept nogil
    cdef void serve(self, rd_kafka_event_t *event, int retired) noexcept nogil
    cdef void poll(self) noexcept nogil
    cdef void yield_to_app(self) noexcept nogil
    # any thread  lock: sender_lock
    cdef int step(self, int64_t limit) noexcept nogil
    cdef int collect(self, rd_kafka_event_t *event) noexcept nogil
    cdef void wake_thread(self) noexcept nogil
    cdef void look_after_time(self) noexcept nogil
    cdef void expire(self, int64_t now) noexcept nogil
    cdef void purge(self, int64_t now) noexcept nogil
    # any thread; no lock is needed
    cdef void wakeup(self) noexcept nogil
    cdef void assist(self) noexcept nogil
    cdef void complete_early(self, const Report *report) noexcept nogil
    cdef void forget_failure(self) noexcept nogil
    cdef void drop(self) noexcept nogil
    cdef void wait_for_step(self) noexcept nogil
    cdef void begin_purge(self) noexcept nogil
    cdef void end_purge(self) noexcept nogil
    # the metadata thread, with the GIL; no lock is needed
    cdef int remove_topic(self, Topic *topic) noexcept nogil
    cdef list slow_topics(self, int64_t ns)
    cdef int switch_over(self, list stranded) except -1
    cdef bint end_retired(self) except -1
    # lock: sender_lock
    cdef void raise_flag(self, int32_t *flag) noexcept nogil
    cdef void serve_retired(self) noexcept nogil
