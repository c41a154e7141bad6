from libc.stdint cimport int32_t, int64_t
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sender cimport Sender
from fastprod.internals.sync cimport fp_cond, fp_monotonic_ns, fp_mutex
from fastprod.internals.topic_metadata cimport TopicMetadata
from fastprod.internals.transport cimport Transport
from fastprod.internals.update_request cimport UpdateRequest

cdef inline int64_t deadline_of(double timeout) noexcept:
    """The monotonic nanosecond at which a wait of timeout seconds ends."""
    return fp_monotonic_ns() + <int64_t>(min(timeout, 1e9) * 1e9)

cdef class ProducerMetadata:
    cdef Transport transport
    cdef UpdateRequest update_request
    cdef RecordAccumulator accumulator
    cdef Sender sender
    cdef long max_partitions_for_memory   # so many can have two batches each in buffer.memory
    cdef bint warned                      # that there are more
    cdef dict topics                      # name -> TopicMetadata; changed under lock
    cdef set awaited                      # names that are to be asked for; guarded by the GIL
    cdef set unopened                     # names that the librdkafka producer does not know yet; changed under lock
    cdef object lock                      # Lock: an interrupt finds it either free or taken
    cdef object snapshot                  # Cluster of what is known; None: to be made
    cdef long changes                     # of what is known
    cdef long rounds                      # answers received
    cdef long failures                    # requests without an answer
    cdef object thread_id                 # of the metadata thread
    cdef int64_t answered_ns              # when the last one that was answered was asked; monotonic
    # the metadata thread's
    cdef set leaderless                   # names of topics with a partition that has no leader
    cdef bint doubtful                    # the last answer is not all there is
    cdef long known_partitions            # of all topics
    # guarded by mutex, a leaf, under which nobody waits for the GIL
    cdef fp_mutex mutex
    cdef fp_cond answered   # an answer or a failure has come
    cdef int64_t update_sequence                    # answers, failures and close(), counted

    cdef TopicMetadata topic(self, str name, double timeout)
    cdef TopicMetadata entry(self, str name)
    cdef bint wait_update(self, int64_t seen, int64_t deadline) except -1
    cdef void notify(self) noexcept
    cdef object failure(self, long failures_before)
    cdef object timeout_error(self, str what)
    cdef int32_t checked_partition(self, TopicMetadata entry, object partition, int64_t *deadline,
                                   int64_t max_block_ns) except -1
    cdef list partitions_of(self, TopicMetadata entry)
    cdef list take_unopened(self, str name)
    cdef list update(self, dict found)
    cdef bint lags(self, TopicMetadata entry, Py_ssize_t partitions) except -1
    cdef int set_leaders(self, TopicMetadata entry, list leaders) except -1
    cdef int warn_of_little_memory(self) except -1
    cdef set sweep(self, int64_t unused_ns)
    cdef bint forget(self, TopicMetadata entry) except -1
    cdef int log(self, int level, str line) except -1
