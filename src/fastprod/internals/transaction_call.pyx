"""TransactionCall: one call of librdkafka's transactional API, and its answer.

thread: app or transaction, one call at a time
"""

from libc.string cimport strdup, strlen, strncpy
from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions

fp_librdkafka_use(functions())


cdef int set_offsets(TransactionCall *call, list offsets, bytes group) except -1:
    """Gives a call its offsets: (topic, partition, offset, leader epoch, metadata or None) each.

    group: what confluent_kafka's Consumer.consumer_group_metadata() gives, librdkafka's own serialization.
    """
    cdef rd_kafka_topic_partition_t *entry
    cdef rd_kafka_error_t *error
    cdef const char *metadata
    error = rd_kafka_consumer_group_metadata_read(&call.group, <const char *>group, len(group))
    if error is not NULL:
        text = rd_kafka_error_string(error).decode("utf-8", "replace")
        rd_kafka_error_destroy(error)
        raise ValueError(
            f"group_metadata is not what consumer.consumer_group_metadata() of this process gives: {text}")
    call.offsets = rd_kafka_topic_partition_list_new(<int>len(offsets))
    for topic, partition, offset, epoch, note in offsets:
        entry = rd_kafka_topic_partition_list_add(call.offsets, topic, partition)
        entry.offset = offset
        rd_kafka_topic_partition_set_leader_epoch(entry, epoch)
        if note is not None:
            metadata = note
            entry.metadata = strdup(metadata)
            entry.metadata_size = strlen(metadata) + 1
    return 0


cdef void free_offsets(TransactionCall *call) noexcept nogil:
    if call.offsets is not NULL:
        rd_kafka_topic_partition_list_destroy(call.offsets)
    if call.group is not NULL:
        rd_kafka_consumer_group_metadata_destroy(call.group)
    call.offsets = NULL
    call.group = NULL


cdef void transact(rd_kafka_t *rk, TransactionCall *call) noexcept nogil:
    """Makes the call and notes librdkafka's answer. Blocks up to call.timeout_ms; begin does not block."""
    cdef rd_kafka_error_t *error
    if call.request == INIT_TRANSACTIONS:
        error = rd_kafka_init_transactions(rk, call.timeout_ms)
    elif call.request == BEGIN_TRANSACTION:
        error = rd_kafka_begin_transaction(rk)
    elif call.request == SEND_OFFSETS:
        error = rd_kafka_send_offsets_to_transaction(rk, call.offsets, call.group, call.timeout_ms)
    elif call.request == COMMIT_TRANSACTION:
        error = rd_kafka_commit_transaction(rk, call.timeout_ms)
    else:
        error = rd_kafka_abort_transaction(rk, call.timeout_ms)
    call.code = call.fatal = call.retriable = call.abortable = 0
    call.text[0] = 0
    if error is not NULL:
        call.code = rd_kafka_error_code(error)
        call.fatal = rd_kafka_error_is_fatal(error)
        call.retriable = rd_kafka_error_is_retriable(error)
        call.abortable = rd_kafka_error_txn_requires_abort(error)
        strncpy(call.text, rd_kafka_error_string(error), sizeof(call.text) - 1)
        call.text[sizeof(call.text) - 1] = 0
        rd_kafka_error_destroy(error)
