"""TransactionCall: one call of librdkafka's transactional API, and its answer.

thread: app or transaction, one call at a time
"""

from libc.stdint cimport INT32_MAX, INT64_MAX
from libc.string cimport strdup, strlen, strncpy
from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions

fp_librdkafka_use(functions())

cdef enum:
    OFFSET_INVALID = -1001         # RD_KAFKA_OFFSET_INVALID: nothing was consumed


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


cdef list checked_offsets(object offsets):
    """Returns (topic, partition, offset, leader epoch, metadata) of each offset, as bytes and ints.

    It leaves out partitions of which nothing was consumed.
    """
    cdef list checked = []
    wanted = "offsets must be a list of confluent_kafka.TopicPartition, or a mapping of (topic, partition) to offset"
    try:
        if hasattr(offsets, "items"):
            entries = [(topic, partition, offset, None, None) for (topic, partition), offset in offsets.items()]
        else:
            entries = [(entry.topic, entry.partition, entry.offset, getattr(entry, "leader_epoch", None),
                        getattr(entry, "metadata", None)) for entry in offsets]
    except (AttributeError, TypeError, ValueError):
        raise TypeError(f"{wanted}, not {offsets!r:.200}") from None
    for topic, partition, offset, epoch, metadata in entries:
        if not isinstance(topic, str) or not all(
                isinstance(n, int) and not isinstance(n, bool) for n in (partition, offset)):
            raise TypeError(f"{wanted}; it holds {(topic, partition, offset)!r}")
        if offset == OFFSET_INVALID:
            continue   # position() returns it for a partition of which nothing was consumed
        if not 0 <= partition <= INT32_MAX or not 0 <= offset <= INT64_MAX:
            raise ValueError(f"the offset of {topic} [{partition}] is {offset}: it must be that of the next record "
                             "to consume, 0 or more")
        checked.append((topic.encode(), partition, offset, -1 if epoch is None else epoch,
                        None if metadata is None else metadata.encode()))
    return checked
