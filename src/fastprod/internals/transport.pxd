from libc.stdint cimport int8_t, int32_t, int64_t
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.callbacks cimport Callbacks
from fastprod.librdkafka.declarations cimport (
    rd_kafka_conf_t, rd_kafka_consumer_group_metadata_t, rd_kafka_event_t, rd_kafka_message_t, rd_kafka_queue_t,
    rd_kafka_t, rd_kafka_topic_partition_list_t, rd_kafka_topic_t, rd_kafka_vu_t,
)
from fastprod.internals.sync cimport fp_mutex

# What librdkafka reports of consecutive records of one batch.
cdef struct Report:
    int32_t slot             # what hand_over() was given for the batch
    int32_t first            # index of the first of them in the batch
    int32_t count
    int32_t code             # 0, or librdkafka's error code
    int64_t offset           # of the first; -1: the broker gave none
    int64_t timestamp        # in the log, if the broker or produce_batch gave it; -1: the record's own
    int64_t latency_us       # of the first, from hand-over to acknowledgement
    int32_t broker           # that took them; -1: unknown, or none did
    int8_t persisted

cdef void refusal_report(Report *refused, int32_t slot, int32_t first, int32_t count, int code) noexcept nogil

ctypedef void (*report_function)(void *, const Report *) noexcept nogil

cdef enum TransactionRequest:
    INIT_TRANSACTIONS
    BEGIN_TRANSACTION
    SEND_OFFSETS
    COMMIT_TRANSACTION
    ABORT_TRANSACTION

# A topic of one librdkafka producer.
cdef struct OpenTopic:
    rd_kafka_t *rk
    rd_kafka_topic_t *topic
    OpenTopic *next

# A librdkafka producer that is not the current one: it is being made, or it was retired and is to be ended.
cdef struct Handle:
    rd_kafka_t *rk           # NULL: there is none
    rd_kafka_queue_t *queue
    rd_kafka_queue_t *sasl_queue
    OpenTopic *topics

# One call of librdkafka's transactional API.
cdef struct TransactionCall:
    TransactionRequest request
    int timeout_ms
    rd_kafka_topic_partition_list_t *offsets    # of SEND_OFFSETS, as is the next
    rd_kafka_consumer_group_metadata_t *group
    # the answer
    int code                 # 0, or librdkafka's error code
    int fatal
    int retriable            # of all but SEND_OFFSETS and BEGIN_TRANSACTION: it goes on, and the same call resumes it
    int abortable            # the transaction must be aborted
    char text[512]

cdef class Transport:
    cdef rd_kafka_t *rk
    cdef rd_kafka_queue_t *queue
    cdef rd_kafka_queue_t *sasl_queue    # NULL unless tokens come from the user's provider
    cdef rd_kafka_queue_t *id_queue      # the answer to ask_ids(), or NULL; the metadata thread's
    cdef int32_t answering_broker        # that gave the last metadata; -1: not known by its id yet
    cdef OpenTopic *topics               # those of rk; guarded by sender_lock
    cdef int generation                  # of rk: grows with each; written under the GIL and sender_lock
    cdef Handle coming                   # the metadata thread's, written under the GIL
    cdef Handle retired                  # written under the GIL and sender_lock
    cdef rd_kafka_conf_t *configuration  # to make another rk of
    cdef int events
    cdef tuple exact_login               # user, password, bootstrap.servers; None: they are in the configuration
    cdef bint has_token_provider
    cdef bint uses_own_tokens                  # librdkafka makes or fetches them
    cdef rd_kafka_queue_t *polled_for_tokens   # token_wanted() waits there; guarded by the GIL
    cdef Callbacks callbacks
    cdef report_function acknowledged
    cdef void *receiver                  # what it is called with
    cdef int requests                    # atomic: ProduceRequests sent, to any broker
    cdef int without_acks                # acks=0
    # guarded by sender_lock
    cdef rd_kafka_message_t *messages    # scratch for produce_batch
    cdef rd_kafka_vu_t *arguments        # scratch for produceva
    cdef size_t arguments_size
    cdef int stamping_zero               # the record that is being handed over has the timestamp 0
    # guarded by error_lock
    cdef fp_mutex error_lock
    cdef int error_code
    cdef char error_text[512]
    cdef int64_t error_ns                # monotonic; 0: none yet
    cdef int64_t all_down_ns             # when librdkafka last found no broker left; 0: never
    cdef int certificate_error           # OpenSSL's code for the certificate refused last, or 0; written by any broker
    cdef int fatal_code
    cdef char fatal_text[512]

    cdef int make(self, Handle *made) except -1
    cdef int end(self, Handle *handle) except -1
    cdef OpenTopic *open_topic(self, const char *name) noexcept nogil
    cdef int ask(self, rd_kafka_t *rk, str name, int timeout_ms, dict topics) except? -1
    cdef int prepare(self, list names, int timeout_ms) except? -1
    cdef int discard(self) except -1
    cdef void switch_over(self) noexcept nogil
    cdef void purge_retired(self) noexcept nogil
    cdef void take_retired(self, Handle *taken) noexcept nogil
    cdef int end_all(self) except -1
    cdef int ask_ids(self, list names, int32_t broker, int timeout_ms) except -1
    cdef dict take_ids(self, int timeout_ms)
    cdef void drop_ids(self) noexcept
    cdef void hand_over(self, OpenTopic *topic, ProducerBatch *batch, int32_t count, report_function report,
                        void *argument) noexcept nogil
    cdef rd_kafka_topic_partition_list_t *pause(self, OpenTopic *topic, const char *name,
                                                int32_t partition) noexcept nogil
    cdef void resume(self, rd_kafka_topic_partition_list_t *paused, OpenTopic *topic, int32_t partition) noexcept nogil
    cdef void produce_plain(self, OpenTopic *topic, ProducerBatch *batch, int32_t first, int32_t count,
                            report_function report, void *argument) noexcept nogil
    cdef void produce_stamped(self, OpenTopic *topic, ProducerBatch *batch, int32_t index, const char *at,
                              report_function report, void *argument) noexcept nogil
    cdef rd_kafka_event_t *next_event(self, int timeout_ms) noexcept nogil
    cdef rd_kafka_event_t *next_of(self, rd_kafka_queue_t *queue, int timeout_ms) noexcept nogil
    cdef void serve(self, rd_kafka_event_t *event, report_function report, void *argument) noexcept nogil
    cdef void report_deliveries(self, rd_kafka_event_t *event, report_function report, void *argument) noexcept nogil
    cdef void note_acknowledgement(self, const rd_kafka_message_t *message) noexcept nogil
    cdef void note_error(self, int code, const char *text, int fatal) noexcept nogil
    cdef void wake(self) noexcept nogil
    cdef void purge(self, int wait) noexcept nogil
    cdef void purge_after_fatal(self) noexcept nogil
    cdef void trigger_timeout_scan(self) noexcept nogil
    cdef int set_offsets(self, TransactionCall *call, list offsets, bytes group) except -1
    cdef void free_offsets(self, TransactionCall *call) noexcept nogil
    cdef void transact(self, TransactionCall *call) noexcept nogil
