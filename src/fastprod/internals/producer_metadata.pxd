from libc.stdint cimport int32_t, int64_t
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.sender cimport Sender
from fastprod.internals.sync cimport fp_cond, fp_mutex
from fastprod.internals.metadata_requests cimport MetadataRequests
from fastprod.internals.topic_metadata cimport TopicMetadata
from fastprod.internals.transport cimport Transport

cdef class ProducerMetadata:
    cdef Transport transport
    cdef MetadataRequests requests
    cdef RecordAccumulator accumulator
    cdef Sender sender
    cdef bint renewable                  # another librdkafka producer can take the place of this one
    cdef bytes bootstrap_servers         # to be asked again when nobody answers, or None
    cdef double max_age                  # seconds
    cdef double backoff                  # seconds
    cdef int64_t max_idle_ns
    cdef long max_partitions_for_memory   # so many can have two batches each in buffer.memory
    cdef bint warned                      # that there are more
    cdef dict topics                      # name -> TopicMetadata; changed under lock
    cdef set awaited                      # names that are to be asked for; guarded by the GIL
    cdef object lock                      # Lock: an interrupt finds it either free or taken
    cdef object snapshot                  # Cluster of what is known; None: to be made
    cdef long changes                     # of what is known
    cdef long rounds                      # answers received
    cdef long failures                    # requests without an answer
    cdef object thread_id                 # of run()
    cdef int64_t answered_ns              # when the last one that was answered was asked; monotonic
    # the metadata thread's; names, but for the times, which are monotonic
    cdef set unopened                    # of which the librdkafka producer has not been asked; guarded by lock
    cdef set leaderless
    cdef set left                        # that were forgotten when the librdkafka producer was made
    cdef set recreated                   # names of topics that this librdkafka producer saw deleted and created again
    cdef list stranded                   # TopicMetadata: of those, the ones to which it cannot deliver
    cdef bint doubtful                   # the last answer is not all there is
    cdef long known_partitions           # of all topics
    cdef long opened                     # partitions that the librdkafka producer has, and one for each topic
    cdef long opened_topics              # those topics
    cdef long returned                   # of those, the ones of topics that were `left`
    cdef int64_t next_ask_ns
    cdef int64_t next_full_ns            # the same, for all topics
    cdef int64_t next_sweep_ns
    cdef int64_t next_check_ns
    cdef int64_t next_renewal_ns
    # guarded by mutex, a leaf, under which nobody waits for the GIL
    cdef fp_mutex mutex
    cdef fp_cond asked      # the thread has something to do
    cdef fp_cond answered   # an answer or a failure has come
    cdef int requested      # 0, or of what an answer is wanted: AWAITED, EVERYTHING
    cdef int closed
    cdef int64_t update_sequence                    # answers, failures and close(), counted

    cdef int32_t checked_partition(self, TopicMetadata entry, object partition, int64_t *deadline,
                                   int64_t max_block_ns) except -1
    cdef TopicMetadata entry(self, str name)
    cdef bint wait_news(self, int64_t seen, int64_t deadline) except -1
    cdef void notify(self) noexcept
    cdef bint ask(self, list names) except -1
    cdef list names_to_ask(self, int requested)
    cdef int wait_wanted(self)
    cdef int want_topic(self, str name) except -1
    cdef void rest(self, double timeout)
    cdef object failure(self, long failures_before)
    cdef object timeout_error(self, str what)
    cdef TopicMetadata topic(self, str name, double timeout)
    cdef void update(self, dict found) except *
    cdef void warn_of_little_memory(self) except *
    cdef list partitions_of(self, TopicMetadata entry)
    cdef int keep_up(self) except -1
    cdef int check_recreated(self) except -1
    cdef int sweep(self, int64_t unused_ns, set forgotten) except -1
    cdef bint forget(self, TopicMetadata entry) except -1
    cdef int renew(self) except -1
    cdef int log(self, int level, str line) except -1
