# csrc/librdkafka.h: declarations only. The names are librdkafka's; the calls go through the table.
from libc.stdint cimport int16_t, int32_t, int64_t

cdef extern from "librdkafka.h" nogil:
    ctypedef struct rd_kafka_t:
        pass
    ctypedef struct rd_kafka_conf_t:
        pass
    ctypedef struct rd_kafka_topic_t:
        pass
    ctypedef struct rd_kafka_queue_t:
        pass
    ctypedef struct rd_kafka_event_t:
        pass
    ctypedef struct rd_kafka_error_t:
        pass
    ctypedef struct rd_kafka_consumer_group_metadata_t:
        pass
    ctypedef struct rd_kafka_topic_partition_t:
        int64_t offset
        void *metadata
        size_t metadata_size
        int err
    ctypedef struct rd_kafka_topic_partition_list_t:
        pass
    ctypedef int (*rd_kafka_ssl_cert_verify_cb_t)(
        rd_kafka_t *, const char *, int32_t, int *, int, const char *, size_t, char *, size_t, void *) noexcept
    ctypedef struct rd_kafka_message_t:
        int err
        void *payload
        size_t len
        void *key
        size_t key_len
        int64_t offset
        void *_private
    ctypedef int (*rd_kafka_interceptor_f_on_new_t)(
        rd_kafka_t *, const rd_kafka_conf_t *, void *, char *, size_t) noexcept
    ctypedef int (*rd_kafka_interceptor_f_on_send_t)(
        rd_kafka_t *, rd_kafka_message_t *, void *) noexcept
    ctypedef int (*rd_kafka_interceptor_f_on_acknowledgement_t)(
        rd_kafka_t *, rd_kafka_message_t *, void *) noexcept
    ctypedef int (*rd_kafka_interceptor_f_on_request_sent_t)(
        rd_kafka_t *, int, const char *, int32_t, int16_t, int16_t, int32_t, size_t, void *) noexcept
    ctypedef struct rd_kafka_vu_t:
        pass
    ctypedef struct rd_kafka_metadata_partition_t:
        int32_t id
        int32_t leader
    ctypedef struct rd_kafka_metadata_topic_t:
        char *topic
        int partition_cnt
        rd_kafka_metadata_partition_t *partitions
        int err
    ctypedef struct rd_kafka_metadata_t:
        int topic_cnt
        rd_kafka_metadata_topic_t *topics

    void fp_librdkafka_use(const void *) noexcept
    void fp_stamp_zero(rd_kafka_message_t *) noexcept

    int RD_KAFKA_PRODUCER
    int RD_KAFKA_CONF_OK
    int RD_KAFKA_CONF_UNKNOWN
    int RD_KAFKA_EVENT_DR, RD_KAFKA_EVENT_LOG, RD_KAFKA_EVENT_ERROR, RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH
    int RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
    int RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME
    int RD_KAFKA_PURGE_F_QUEUE, RD_KAFKA_PURGE_F_INFLIGHT, RD_KAFKA_PURGE_F_NON_BLOCKING

    # Filling in the arguments of rd_kafka_produceva
    void fp_vu_topic(rd_kafka_vu_t *, rd_kafka_topic_t *) noexcept
    void fp_vu_partition(rd_kafka_vu_t *, int32_t) noexcept
    void fp_vu_value(rd_kafka_vu_t *, const char *, size_t) noexcept
    void fp_vu_key(rd_kafka_vu_t *, const char *, size_t) noexcept
    void fp_vu_opaque(rd_kafka_vu_t *, void *) noexcept
    void fp_vu_timestamp(rd_kafka_vu_t *, int64_t) noexcept
    void fp_vu_header(rd_kafka_vu_t *, const char *, const char *, size_t) noexcept

    rd_kafka_conf_t *rd_kafka_conf_new "fp_librdkafka.rd_kafka_conf_new"() noexcept
    rd_kafka_conf_t *rd_kafka_conf_dup \
        "fp_librdkafka.rd_kafka_conf_dup"(const rd_kafka_conf_t *) noexcept
    void rd_kafka_conf_destroy "fp_librdkafka.rd_kafka_conf_destroy"(rd_kafka_conf_t *) noexcept
    int rd_kafka_conf_set "fp_librdkafka.rd_kafka_conf_set"(
        rd_kafka_conf_t *, const char *, const char *, char *, size_t) noexcept
    int rd_kafka_conf_get "fp_librdkafka.rd_kafka_conf_get"(
        const rd_kafka_conf_t *, const char *, char *, size_t *) noexcept
    void rd_kafka_conf_set_events "fp_librdkafka.rd_kafka_conf_set_events"(rd_kafka_conf_t *, int) noexcept
    void rd_kafka_conf_set_opaque "fp_librdkafka.rd_kafka_conf_set_opaque"(rd_kafka_conf_t *, void *) noexcept
    int rd_kafka_conf_set_ssl_cert_verify_cb "fp_librdkafka.rd_kafka_conf_set_ssl_cert_verify_cb"(
        rd_kafka_conf_t *, rd_kafka_ssl_cert_verify_cb_t) noexcept
    int rd_kafka_conf_interceptor_add_on_new "fp_librdkafka.rd_kafka_conf_interceptor_add_on_new"(
        rd_kafka_conf_t *, const char *, rd_kafka_interceptor_f_on_new_t, void *) noexcept
    int rd_kafka_interceptor_add_on_send "fp_librdkafka.rd_kafka_interceptor_add_on_send"(
        rd_kafka_t *, const char *, rd_kafka_interceptor_f_on_send_t, void *) noexcept
    int rd_kafka_interceptor_add_on_acknowledgement "fp_librdkafka.rd_kafka_interceptor_add_on_acknowledgement"(
        rd_kafka_t *, const char *, rd_kafka_interceptor_f_on_acknowledgement_t, void *) noexcept
    int rd_kafka_interceptor_add_on_request_sent "fp_librdkafka.rd_kafka_interceptor_add_on_request_sent"(
        rd_kafka_t *, const char *, rd_kafka_interceptor_f_on_request_sent_t, void *) noexcept
    void rd_kafka_conf_enable_sasl_queue "fp_librdkafka.rd_kafka_conf_enable_sasl_queue"(
        rd_kafka_conf_t *, int) noexcept
    rd_kafka_queue_t *rd_kafka_queue_get_sasl "fp_librdkafka.rd_kafka_queue_get_sasl"(rd_kafka_t *) noexcept
    rd_kafka_error_t *rd_kafka_sasl_background_callbacks_enable \
        "fp_librdkafka.rd_kafka_sasl_background_callbacks_enable"(rd_kafka_t *) noexcept
    rd_kafka_error_t *rd_kafka_sasl_set_credentials "fp_librdkafka.rd_kafka_sasl_set_credentials"(
        rd_kafka_t *, const char *, const char *) noexcept
    const char *rd_kafka_event_config_string "fp_librdkafka.rd_kafka_event_config_string"(rd_kafka_event_t *) noexcept
    int rd_kafka_oauthbearer_set_token "fp_librdkafka.rd_kafka_oauthbearer_set_token"(
        rd_kafka_t *, const char *, int64_t, const char *, const char **, size_t, char *, size_t) noexcept
    int rd_kafka_oauthbearer_set_token_failure "fp_librdkafka.rd_kafka_oauthbearer_set_token_failure"(
        rd_kafka_t *, const char *) noexcept
    rd_kafka_t *rd_kafka_new "fp_librdkafka.rd_kafka_new"(int, rd_kafka_conf_t *, char *, size_t) noexcept
    void rd_kafka_destroy "fp_librdkafka.rd_kafka_destroy"(rd_kafka_t *) noexcept
    rd_kafka_topic_t *rd_kafka_topic_new "fp_librdkafka.rd_kafka_topic_new"(
        rd_kafka_t *, const char *, void *) noexcept
    void rd_kafka_topic_destroy "fp_librdkafka.rd_kafka_topic_destroy"(rd_kafka_topic_t *) noexcept
    int rd_kafka_metadata "fp_librdkafka.rd_kafka_metadata"(
        rd_kafka_t *, int, rd_kafka_topic_t *, const rd_kafka_metadata_t **, int) noexcept
    void rd_kafka_metadata_destroy "fp_librdkafka.rd_kafka_metadata_destroy"(const rd_kafka_metadata_t *) noexcept
    int rd_kafka_produce_batch "fp_librdkafka.rd_kafka_produce_batch"(
        rd_kafka_topic_t *, int32_t, int, rd_kafka_message_t *, int) noexcept
    rd_kafka_error_t *rd_kafka_produceva "fp_librdkafka.rd_kafka_produceva"(
        rd_kafka_t *, const rd_kafka_vu_t *, size_t) noexcept
    int rd_kafka_error_code "fp_librdkafka.rd_kafka_error_code"(const rd_kafka_error_t *) noexcept
    void rd_kafka_error_destroy "fp_librdkafka.rd_kafka_error_destroy"(rd_kafka_error_t *) noexcept
    int rd_kafka_brokers_add "fp_librdkafka.rd_kafka_brokers_add"(rd_kafka_t *, const char *) noexcept
    int rd_kafka_purge "fp_librdkafka.rd_kafka_purge"(rd_kafka_t *, int) noexcept
    int rd_kafka_flush "fp_librdkafka.rd_kafka_flush"(rd_kafka_t *, int) noexcept
    int rd_kafka_pause_partitions "fp_librdkafka.rd_kafka_pause_partitions"(
        rd_kafka_t *, rd_kafka_topic_partition_list_t *) noexcept
    int rd_kafka_resume_partitions "fp_librdkafka.rd_kafka_resume_partitions"(
        rd_kafka_t *, rd_kafka_topic_partition_list_t *) noexcept
    Py_ssize_t rd_kafka_consume_batch "fp_librdkafka.rd_kafka_consume_batch"(
        rd_kafka_topic_t *, int32_t, int, rd_kafka_message_t **, size_t) noexcept
    rd_kafka_queue_t *rd_kafka_queue_get_main "fp_librdkafka.rd_kafka_queue_get_main"(rd_kafka_t *) noexcept
    void rd_kafka_queue_destroy "fp_librdkafka.rd_kafka_queue_destroy"(rd_kafka_queue_t *) noexcept
    void rd_kafka_queue_cb_event_enable "fp_librdkafka.rd_kafka_queue_cb_event_enable"(
        rd_kafka_queue_t *, void (*)(rd_kafka_t *, void *) noexcept, void *) noexcept
    void rd_kafka_queue_yield "fp_librdkafka.rd_kafka_queue_yield"(rd_kafka_queue_t *) noexcept
    rd_kafka_event_t *rd_kafka_queue_poll "fp_librdkafka.rd_kafka_queue_poll"(rd_kafka_queue_t *, int) noexcept
    int rd_kafka_set_log_queue "fp_librdkafka.rd_kafka_set_log_queue"(rd_kafka_t *, rd_kafka_queue_t *) noexcept
    int rd_kafka_event_type "fp_librdkafka.rd_kafka_event_type"(const rd_kafka_event_t *) noexcept
    size_t rd_kafka_event_message_array "fp_librdkafka.rd_kafka_event_message_array"(
        rd_kafka_event_t *, const rd_kafka_message_t **, size_t) noexcept
    int rd_kafka_event_error "fp_librdkafka.rd_kafka_event_error"(rd_kafka_event_t *) noexcept
    const char *rd_kafka_event_error_string "fp_librdkafka.rd_kafka_event_error_string"(rd_kafka_event_t *) noexcept
    int rd_kafka_event_error_is_fatal "fp_librdkafka.rd_kafka_event_error_is_fatal"(rd_kafka_event_t *) noexcept
    int rd_kafka_event_log "fp_librdkafka.rd_kafka_event_log"(
        rd_kafka_event_t *, const char **, const char **, int *) noexcept
    void rd_kafka_event_destroy "fp_librdkafka.rd_kafka_event_destroy"(rd_kafka_event_t *) noexcept
    int rd_kafka_message_status "fp_librdkafka.rd_kafka_message_status"(const rd_kafka_message_t *) noexcept
    int64_t rd_kafka_message_timestamp "fp_librdkafka.rd_kafka_message_timestamp"(
        const rd_kafka_message_t *, int *) noexcept
    int64_t rd_kafka_message_latency "fp_librdkafka.rd_kafka_message_latency"(const rd_kafka_message_t *) noexcept
    int32_t rd_kafka_message_broker_id "fp_librdkafka.rd_kafka_message_broker_id"(
        const rd_kafka_message_t *) noexcept

    # Transactions
    const char *rd_kafka_error_string "fp_librdkafka.rd_kafka_error_string"(const rd_kafka_error_t *) noexcept
    int rd_kafka_error_is_fatal "fp_librdkafka.rd_kafka_error_is_fatal"(const rd_kafka_error_t *) noexcept
    int rd_kafka_error_is_retriable "fp_librdkafka.rd_kafka_error_is_retriable"(const rd_kafka_error_t *) noexcept
    int rd_kafka_error_txn_requires_abort "fp_librdkafka.rd_kafka_error_txn_requires_abort"(
        const rd_kafka_error_t *) noexcept
    rd_kafka_error_t *rd_kafka_init_transactions "fp_librdkafka.rd_kafka_init_transactions"(
        rd_kafka_t *, int) noexcept
    rd_kafka_error_t *rd_kafka_begin_transaction "fp_librdkafka.rd_kafka_begin_transaction"(rd_kafka_t *) noexcept
    rd_kafka_error_t *rd_kafka_send_offsets_to_transaction "fp_librdkafka.rd_kafka_send_offsets_to_transaction"(
        rd_kafka_t *, const rd_kafka_topic_partition_list_t *,
        const rd_kafka_consumer_group_metadata_t *, int) noexcept
    rd_kafka_error_t *rd_kafka_commit_transaction "fp_librdkafka.rd_kafka_commit_transaction"(
        rd_kafka_t *, int) noexcept
    rd_kafka_error_t *rd_kafka_abort_transaction "fp_librdkafka.rd_kafka_abort_transaction"(
        rd_kafka_t *, int) noexcept
    rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new \
        "fp_librdkafka.rd_kafka_topic_partition_list_new"(int) noexcept
    void rd_kafka_topic_partition_list_destroy "fp_librdkafka.rd_kafka_topic_partition_list_destroy"(
        rd_kafka_topic_partition_list_t *) noexcept
    rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add \
        "fp_librdkafka.rd_kafka_topic_partition_list_add"(
            rd_kafka_topic_partition_list_t *, const char *, int32_t) noexcept
    void rd_kafka_topic_partition_set_leader_epoch "fp_librdkafka.rd_kafka_topic_partition_set_leader_epoch"(
        rd_kafka_topic_partition_t *, int32_t) noexcept
    rd_kafka_error_t *rd_kafka_consumer_group_metadata_read "fp_librdkafka.rd_kafka_consumer_group_metadata_read"(
        rd_kafka_consumer_group_metadata_t **, const void *, size_t) noexcept
    void rd_kafka_consumer_group_metadata_destroy "fp_librdkafka.rd_kafka_consumer_group_metadata_destroy"(
        rd_kafka_consumer_group_metadata_t *) noexcept
