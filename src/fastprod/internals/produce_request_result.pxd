from libc.stdint cimport int8_t, int32_t, int64_t

cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #define FASTPROD_SLAB 1      /* so that the sanitizer sees each result come and go */
    #else
    #define FASTPROD_SLAB 64
    #endif
    """
    enum:
        FASTPROD_SLAB

# What became of a record: librdkafka's rd_kafka_msg_status_t.
cdef enum Persisted:
    NOT_PERSISTED
    POSSIBLY_PERSISTED
    PERSISTED

# Outcome of the records from index `first` up to the next segment.
cdef struct Segment:
    int32_t first
    int32_t code           # 0, or librdkafka's error code
    int64_t base_offset    # of record `first`; -1: the broker gave none
    int64_t timestamp      # in the log, if it is not the record's own; else -1
    int8_t persisted

cdef enum CallbackKind:
    ON_DELIVERY            # function(metadata, error)
    ON_ACKNOWLEDGEMENT     # the same, for interceptors: it does not observe the outcome
    DONE_CALLBACK          # function(future)
    AWAITED                # function is an asyncio future

# What result_add_callback() did.
cdef enum AddedCallback:
    NOTHING_RESERVED = -2  # buffer.memory has none to spare
    NOT_ALLOCATED          # the machine has none
    DONE_ALREADY
    CALLBACK_ADDED

# Whence buffer.memory for a callback comes, if the result has no place left for it.
cdef enum Reservation:
    IF_FREE
    FORCED                 # it may exceed what there is: see BufferPool
    GIVEN                  # the caller has reserved FIRST_CALLBACKS * CALLBACK_COST, which go to the result

cdef enum:
    # Bytes of buffer.memory that a callback takes from its registration until it has run. Measured: 118 for future
    # and entry, with a bound method 159, with an interceptor's Acknowledgement 159, with a partial 240, with a lambda
    # of its own 261.
    CALLBACK_COST = 256
    FIRST_CALLBACKS = 2    # for so many a result reserves at first; a quarter more each time

# How often this process was forked off. A child has its parent's producers and
# futures but not the threads that would settle them.
cdef int process_generation

cdef struct Callback:
    CallbackKind kind
    void *function         # owned reference
    void *future           # owned reference to the FutureRecordMetadata

# The outcome of one batch, shared by the futures of its records. Owned by the
# batch and its futures together; the last of them to leave returns it to its slab.
cdef struct ProduceRequestResult:
    ResultSlab *slab
    int32_t balance        # atomic: minus futures that died, plus `futures` once the batch has dropped its reference
    int32_t futures        # made so far; guarded by the lock under which records are appended
    int32_t partition
    int fork_generation               # `process_generation` when it was made
    # written under sender_lock, read by others once it is done
    Segment *segments        # inline_segment, or allocated
    Segment inline_segment   # most batches need one
    int32_t segment_count
    int32_t segment_capacity
    int32_t recorded_end   # index behind the record recorded last: only its neighbour may share a segment
    int unknown            # there was no memory to record outcomes: all have failed, and the only segment says so
    # guarded by the completion lock
    int done                  # also read without it: written once, after everything else
    int32_t count             # records
    int32_t unobserved        # failed records whose failure nothing has observed
    unsigned char *observed   # bit per record: somebody asks, or is called back
    int32_t observed_bytes
    Callback *callbacks
    int32_t callback_count
    int32_t callback_capacity    # callbacks that memory was reserved for
    void *pool                   # BufferPool, not owned: for use while not done, when the producer is there; or NULL
    ProduceRequestResult *next   # in the queue of results that have callbacks to run; later, of its slab's free ones

# Memory of results. Guarded by the completion lock.
cdef struct ResultSlab:
    ResultSlab *next       # in the list of those with a free place
    ResultSlab *previous
    int32_t taken                # places that have a result
    ProduceRequestResult *free   # the others; NULL: it is not in the list
    ProduceRequestResult places[FASTPROD_SLAB]

cdef ProduceRequestResult *result_new(int32_t partition) noexcept nogil
cdef void result_unref_batch(ProduceRequestResult *result) noexcept nogil
cdef void result_record(ProduceRequestResult *result, int32_t index, int32_t count, int32_t code, int64_t offset,
                        int64_t timestamp, int8_t persisted) noexcept nogil
cdef int result_complete(ProduceRequestResult *result, int32_t count) noexcept nogil
cdef Segment *result_segment(ProduceRequestResult *result, int32_t index) noexcept nogil
cdef str persisted_word(int8_t persisted)
cdef object segment_error(Segment *segment, str topic, int32_t partition)
cdef int result_is_observed(ProduceRequestResult *result, int32_t index) noexcept nogil
cdef void result_mark_observed(ProduceRequestResult *result, int32_t index) noexcept nogil
cdef void result_mark_all_observed(ProduceRequestResult *result) noexcept nogil
cdef void result_unref(ProduceRequestResult *result, int32_t amount) noexcept nogil
cdef AddedCallback result_add_callback(ProduceRequestResult *result, int32_t index, CallbackKind kind, void *function,
                                       void *future, Reservation reservation) noexcept nogil

cdef int register_callback(ProduceRequestResult *result, int32_t index, CallbackKind kind, object function,
                           object future) except -1

cdef int wait_completed(int *done, int64_t until_ns) noexcept nogil
cdef void notify_completed() noexcept nogil
