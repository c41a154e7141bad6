from fastprod.librdkafka.declarations cimport (
    rd_kafka_consumer_group_metadata_t, rd_kafka_t, rd_kafka_topic_partition_list_t,
)

cdef enum TransactionRequest:
    INIT_TRANSACTIONS
    BEGIN_TRANSACTION
    SEND_OFFSETS
    COMMIT_TRANSACTION
    ABORT_TRANSACTION

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

cdef int set_offsets(TransactionCall *call, list offsets, bytes group) except -1
cdef void free_offsets(TransactionCall *call) noexcept nogil
cdef void transact(rd_kafka_t *rk, TransactionCall *call) noexcept nogil
cdef list checked_offsets(object offsets)
