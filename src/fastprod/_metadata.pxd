from libc.stdint cimport int32_t, int64_t
from fastprod._accumulator cimport RecordAccumulator, Topic
from fastprod._sync cimport fp_cond, fp_mutex
from fastprod._transport cimport Transport

cdef class TopicMetadata:
    cdef Topic *topic
    cdef readonly str name
    cdef readonly int32_t partitions     # atomic, written with the GIL; 0 until known
    cdef readonly tuple leaders          # broker id per partition, -1 for none
    cdef int32_t fewer                   # partitions that the last answer told of, if not as many as are known
    cdef readonly int code               # of the last answer about it
    cdef readonly int answers            # about it, ever

cdef class ProducerMetadata:
    cdef Transport transport
    cdef RecordAccumulator accumulator
    cdef bytes bootstrap_servers         # to be asked again when nobody answers, or None
    cdef double max_age                  # seconds
    cdef double backoff                  # seconds
    cdef long roomy_partitions           # so many can have two batches each in buffer.memory
    cdef bint warned                     # that there are more
    cdef dict topics                     # name -> TopicMetadata; changed under lock
    cdef object lock                     # Lock: an interrupt finds it either free or taken
    cdef object snapshot                 # Cluster of what is known; None: to be made
    cdef long changes                    # of what is known
    cdef long rounds                     # answers received
    cdef long failures                   # requests without an answer
    cdef object thread_id                # of run()
    cdef int64_t answered_ns             # when the last one that was answered was asked; monotonic
    # guarded by mutex, a leaf, under which nobody waits for the GIL
    cdef fp_mutex mutex
    cdef fp_cond asked                   # the thread has something to do
    cdef fp_cond answered                # there is news
    cdef int wanted                      # somebody waits for an answer, or an error made one doubtful
    cdef int closed
    cdef int64_t news                    # answers, failures and close(), counted

    cdef int32_t checked_partition(self, TopicMetadata entry, object partition, int64_t *deadline,
                                   int64_t max_block_ns) except -1
    cdef TopicMetadata entry(self, str name)
    cdef bint wait_news(self, int64_t seen, int64_t deadline) except -1
    cdef void tell(self) noexcept
    cdef bint ask(self) except -1
    cdef bint wait_wanted(self, double timeout)
    cdef void rest(self, double timeout)
    cdef object failure(self, long failures_before)
    cdef object timeout_error(self, str what)
    cdef TopicMetadata topic(self, str name, double timeout)
    cdef void update(self, dict found) except *
    cdef void warn_of_little_memory(self) except *
    cdef int log(self, int level, str line) except -1
