/* The part of librdkafka's C ABI that fastprod calls.
 *
 * The confluent-kafka wheel ships the library without its header, so the types
 * are declared here: opaque ones, and the public structs whose layout
 * librdkafka promises to keep. Calls go through one table, filled once by
 * name (librdkafka.c). */
#ifndef FASTPROD_LIBRDKAFKA_H
#define FASTPROD_LIBRDKAFKA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_topic_conf_s rd_kafka_topic_conf_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_event_s rd_kafka_event_t;
typedef struct rd_kafka_error_s rd_kafka_error_t;
typedef struct rd_kafka_consumer_group_metadata_s rd_kafka_consumer_group_metadata_t;
typedef int rd_kafka_resp_err_t;
typedef int (*rd_kafka_ssl_cert_verify_cb_t)(
    rd_kafka_t *rk, const char *broker_name, int32_t broker_id, int *x509_error, int depth,
    const char *certificate, size_t size, char *errstr, size_t errstr_size, void *opaque);

typedef struct rd_kafka_message_s {
    rd_kafka_resp_err_t err;
    rd_kafka_topic_t *rkt;
    int32_t partition;
    void *payload;
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *_private;
} rd_kafka_message_t;

/* Interceptors: called from librdkafka's threads. */
typedef rd_kafka_resp_err_t (*rd_kafka_interceptor_f_on_new_t)(
    rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *opaque, char *errstr, size_t errstr_size);
typedef rd_kafka_resp_err_t (*rd_kafka_interceptor_f_on_send_t)(
    rd_kafka_t *rk, rd_kafka_message_t *message, void *opaque);
typedef rd_kafka_resp_err_t (*rd_kafka_interceptor_f_on_acknowledgement_t)(
    rd_kafka_t *rk, rd_kafka_message_t *message, void *opaque);
typedef rd_kafka_resp_err_t (*rd_kafka_interceptor_f_on_request_sent_t)(
    rd_kafka_t *rk, int socket, const char *broker_name, int32_t broker_id, int16_t api_key,
    int16_t api_version, int32_t correlation_id, size_t size, void *opaque);

typedef struct rd_kafka_vu_s {
    int vtype;
    union {
        rd_kafka_topic_t *rkt;
        int i;
        int32_t i32;
        int64_t i64;
        struct {
            void *ptr;
            size_t size;
        } mem;
        struct {
            const char *name;
            const void *val;
            ssize_t size;
        } header;
        void *ptr;
        char _pad[64];
    } u;
} rd_kafka_vu_t;

typedef struct rd_kafka_topic_partition_s {
    char *topic;
    int32_t partition;
    int64_t offset;
    void *metadata;
    size_t metadata_size;
    void *opaque;
    rd_kafka_resp_err_t err;
    void *_private;
} rd_kafka_topic_partition_t;

typedef struct rd_kafka_topic_partition_list_s {
    int cnt;
    int size;
    rd_kafka_topic_partition_t *elems;
} rd_kafka_topic_partition_list_t;

typedef struct rd_kafka_metadata_broker {
    int32_t id;
    char *host;
    int port;
} rd_kafka_metadata_broker_t;

typedef struct rd_kafka_metadata_partition {
    int32_t id;
    rd_kafka_resp_err_t err;
    int32_t leader;
    int replica_cnt;
    int32_t *replicas;
    int isr_cnt;
    int32_t *isrs;
} rd_kafka_metadata_partition_t;

typedef struct rd_kafka_metadata_topic {
    char *topic;
    int partition_cnt;
    rd_kafka_metadata_partition_t *partitions;
    rd_kafka_resp_err_t err;
} rd_kafka_metadata_topic_t;

typedef struct rd_kafka_metadata {
    int broker_cnt;
    rd_kafka_metadata_broker_t *brokers;
    int topic_cnt;
    rd_kafka_metadata_topic_t *topics;
    int32_t orig_broker_id;
    char *orig_broker_name;
} rd_kafka_metadata_t;

enum { RD_KAFKA_PRODUCER = 0 };
enum { RD_KAFKA_CONF_UNKNOWN = -2, RD_KAFKA_CONF_OK = 0 };
enum {
    RD_KAFKA_EVENT_DR = 0x1,
    RD_KAFKA_EVENT_LOG = 0x4,
    RD_KAFKA_EVENT_ERROR = 0x8,
    RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH = 0x100,
};
enum {
    RD_KAFKA_VTYPE_RKT = 2,
    RD_KAFKA_VTYPE_PARTITION = 3,
    RD_KAFKA_VTYPE_VALUE = 4,
    RD_KAFKA_VTYPE_KEY = 5,
    RD_KAFKA_VTYPE_OPAQUE = 6,
    RD_KAFKA_VTYPE_TIMESTAMP = 8,
    RD_KAFKA_VTYPE_HEADER = 9,
};
enum { RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME = 2 };
enum { RD_KAFKA_PURGE_F_QUEUE = 1, RD_KAFKA_PURGE_F_INFLIGHT = 2, RD_KAFKA_PURGE_F_NON_BLOCKING = 4 };
enum { RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN = -187 };

/* X(return type, name, arguments): each is required. */
#define FP_LIBRDKAFKA_FUNCTIONS(X)                                                            \
    X(rd_kafka_conf_t *, rd_kafka_conf_new, (void))                                           \
    X(rd_kafka_conf_t *, rd_kafka_conf_dup, (const rd_kafka_conf_t *))                        \
    X(void, rd_kafka_conf_destroy, (rd_kafka_conf_t *))                                       \
    X(int, rd_kafka_conf_set,                                                                 \
      (rd_kafka_conf_t *, const char *, const char *, char *, size_t))                        \
    X(int, rd_kafka_conf_get, (const rd_kafka_conf_t *, const char *, char *, size_t *))      \
    X(void, rd_kafka_conf_set_events, (rd_kafka_conf_t *, int))                               \
    X(void, rd_kafka_conf_set_opaque, (rd_kafka_conf_t *, void *))                            \
    X(int, rd_kafka_conf_set_ssl_cert_verify_cb,                                              \
      (rd_kafka_conf_t *, rd_kafka_ssl_cert_verify_cb_t))                                     \
    X(rd_kafka_resp_err_t, rd_kafka_conf_interceptor_add_on_new,                              \
      (rd_kafka_conf_t *, const char *, rd_kafka_interceptor_f_on_new_t, void *))             \
    X(rd_kafka_resp_err_t, rd_kafka_interceptor_add_on_send,                                  \
      (rd_kafka_t *, const char *, rd_kafka_interceptor_f_on_send_t, void *))                 \
    X(rd_kafka_resp_err_t, rd_kafka_interceptor_add_on_acknowledgement,                       \
      (rd_kafka_t *, const char *, rd_kafka_interceptor_f_on_acknowledgement_t, void *))      \
    X(rd_kafka_resp_err_t, rd_kafka_interceptor_add_on_request_sent,                          \
      (rd_kafka_t *, const char *, rd_kafka_interceptor_f_on_request_sent_t, void *))         \
    X(void, rd_kafka_conf_enable_sasl_queue, (rd_kafka_conf_t *, int))                        \
    X(rd_kafka_queue_t *, rd_kafka_queue_get_sasl, (rd_kafka_t *))                            \
    X(rd_kafka_error_t *, rd_kafka_sasl_background_callbacks_enable, (rd_kafka_t *))          \
    X(rd_kafka_error_t *, rd_kafka_sasl_set_credentials,                                      \
      (rd_kafka_t *, const char *, const char *))                                             \
    X(const char *, rd_kafka_event_config_string, (rd_kafka_event_t *))                       \
    X(rd_kafka_resp_err_t, rd_kafka_oauthbearer_set_token,                                    \
      (rd_kafka_t *, const char *, int64_t, const char *, const char **, size_t, char *,      \
       size_t))                                                                               \
    X(rd_kafka_resp_err_t, rd_kafka_oauthbearer_set_token_failure,                            \
      (rd_kafka_t *, const char *))                                                           \
    X(rd_kafka_t *, rd_kafka_new, (int, rd_kafka_conf_t *, char *, size_t))                   \
    X(void, rd_kafka_destroy, (rd_kafka_t *))                                                 \
    X(rd_kafka_topic_t *, rd_kafka_topic_new,                                                 \
      (rd_kafka_t *, const char *, rd_kafka_topic_conf_t *))                                  \
    X(void, rd_kafka_topic_destroy, (rd_kafka_topic_t *))                                     \
    X(rd_kafka_resp_err_t, rd_kafka_metadata,                                                 \
      (rd_kafka_t *, int, rd_kafka_topic_t *, const rd_kafka_metadata_t **, int))             \
    X(void, rd_kafka_metadata_destroy, (const rd_kafka_metadata_t *))                         \
    X(int, rd_kafka_produce_batch,                                                            \
      (rd_kafka_topic_t *, int32_t, int, rd_kafka_message_t *, int))                          \
    X(rd_kafka_error_t *, rd_kafka_produceva,                                                 \
      (rd_kafka_t *, const rd_kafka_vu_t *, size_t))                                          \
    X(rd_kafka_resp_err_t, rd_kafka_error_code, (const rd_kafka_error_t *))                   \
    X(void, rd_kafka_error_destroy, (rd_kafka_error_t *))                                     \
    X(int, rd_kafka_brokers_add, (rd_kafka_t *, const char *))                                \
    X(rd_kafka_resp_err_t, rd_kafka_purge, (rd_kafka_t *, int))                               \
    X(rd_kafka_resp_err_t, rd_kafka_flush, (rd_kafka_t *, int))                               \
    X(rd_kafka_resp_err_t, rd_kafka_pause_partitions,                                         \
      (rd_kafka_t *, rd_kafka_topic_partition_list_t *))                                      \
    X(rd_kafka_resp_err_t, rd_kafka_resume_partitions,                                        \
      (rd_kafka_t *, rd_kafka_topic_partition_list_t *))                                      \
    X(ssize_t, rd_kafka_consume_batch,                                                        \
      (rd_kafka_topic_t *, int32_t, int, rd_kafka_message_t **, size_t))                      \
    X(rd_kafka_queue_t *, rd_kafka_queue_get_main, (rd_kafka_t *))                            \
    X(void, rd_kafka_queue_destroy, (rd_kafka_queue_t *))                                     \
    X(void, rd_kafka_queue_cb_event_enable,                                                   \
      (rd_kafka_queue_t *, void (*)(rd_kafka_t *, void *), void *))                           \
    X(void, rd_kafka_queue_yield, (rd_kafka_queue_t *))                                       \
    X(rd_kafka_event_t *, rd_kafka_queue_poll, (rd_kafka_queue_t *, int))                     \
    X(rd_kafka_resp_err_t, rd_kafka_set_log_queue, (rd_kafka_t *, rd_kafka_queue_t *))        \
    X(int, rd_kafka_event_type, (const rd_kafka_event_t *))                                   \
    X(size_t, rd_kafka_event_message_array,                                                   \
      (rd_kafka_event_t *, const rd_kafka_message_t **, size_t))                              \
    X(rd_kafka_resp_err_t, rd_kafka_event_error, (rd_kafka_event_t *))                        \
    X(const char *, rd_kafka_event_error_string, (rd_kafka_event_t *))                        \
    X(int, rd_kafka_event_error_is_fatal, (rd_kafka_event_t *))                               \
    X(int, rd_kafka_event_log,                                                                \
      (rd_kafka_event_t *, const char **, const char **, int *))                              \
    X(void, rd_kafka_event_destroy, (rd_kafka_event_t *))                                     \
    X(int, rd_kafka_message_status, (const rd_kafka_message_t *))                             \
    X(int64_t, rd_kafka_message_timestamp, (const rd_kafka_message_t *, int *))               \
    X(int64_t, rd_kafka_message_latency, (const rd_kafka_message_t *))                        \
    X(int32_t, rd_kafka_message_broker_id, (const rd_kafka_message_t *))                      \
    X(const char *, rd_kafka_error_string, (const rd_kafka_error_t *))                        \
    X(int, rd_kafka_error_is_fatal, (const rd_kafka_error_t *))                               \
    X(int, rd_kafka_error_is_retriable, (const rd_kafka_error_t *))                           \
    X(int, rd_kafka_error_txn_requires_abort, (const rd_kafka_error_t *))                     \
    X(rd_kafka_error_t *, rd_kafka_init_transactions, (rd_kafka_t *, int))                    \
    X(rd_kafka_error_t *, rd_kafka_begin_transaction, (rd_kafka_t *))                         \
    X(rd_kafka_error_t *, rd_kafka_send_offsets_to_transaction,                               \
      (rd_kafka_t *, const rd_kafka_topic_partition_list_t *,                                 \
       const rd_kafka_consumer_group_metadata_t *, int))                                      \
    X(rd_kafka_error_t *, rd_kafka_commit_transaction, (rd_kafka_t *, int))                   \
    X(rd_kafka_error_t *, rd_kafka_abort_transaction, (rd_kafka_t *, int))                    \
    X(rd_kafka_topic_partition_list_t *, rd_kafka_topic_partition_list_new, (int))            \
    X(void, rd_kafka_topic_partition_list_destroy, (rd_kafka_topic_partition_list_t *))       \
    X(rd_kafka_topic_partition_t *, rd_kafka_topic_partition_list_add,                        \
      (rd_kafka_topic_partition_list_t *, const char *, int32_t))                             \
    X(void, rd_kafka_topic_partition_set_leader_epoch,                                        \
      (rd_kafka_topic_partition_t *, int32_t))                                                \
    X(rd_kafka_error_t *, rd_kafka_consumer_group_metadata_read,                              \
      (rd_kafka_consumer_group_metadata_t **, const void *, size_t))                          \
    X(void, rd_kafka_consumer_group_metadata_destroy,                                         \
      (rd_kafka_consumer_group_metadata_t *))

#define FP_MEMBER(ret, name, args) ret(*name) args;
typedef struct {
    FP_LIBRDKAFKA_FUNCTIONS(FP_MEMBER)
} fp_librdkafka_table;
#undef FP_MEMBER

/* The table that fastprod.librdkafka.functions fills while it is imported. It is linked into that extension only. */
extern fp_librdkafka_table fp_librdkafka_bound;

/* The names to resolve, and where an address goes. In that extension too. */
int fp_librdkafka_count(void);
const char *fp_librdkafka_name(int i);
void fp_librdkafka_bind(int i, void *address);

/* Each extension that calls librdkafka has a copy, so that a call is one load and a jump. Read-only once it is imported. */
static fp_librdkafka_table fp_librdkafka __attribute__((unused));

static inline void fp_librdkafka_use(const void *bound) {
    memcpy(&fp_librdkafka, bound, sizeof fp_librdkafka);
}

/* Sets the timestamp of a message that librdkafka has just made to 0.
 *
 * librdkafka takes a timestamp of 0 for "now" in every call, and has no call that
 * sets it afterwards. A public function reads it from the private part of the
 * message, which follows the public one. So this looks for the word whose change
 * that function sees. rd_kafka_msg_t has had 88 bytes and more there in every
 * version. If the timestamp were elsewhere, it would stay what it was. */
static inline void fp_stamp_zero(rd_kafka_message_t *message) {
    enum { PRIVATE_WORDS = 8 };
    int64_t *words = (int64_t *)(message + 1);
    int type, i;
    int64_t timestamp = fp_librdkafka.rd_kafka_message_timestamp(message, &type);

    for (i = 0; i < PRIVATE_WORDS; i++) {
        if (words[i] != timestamp)
            continue;
        words[i] = 0;
        if (fp_librdkafka.rd_kafka_message_timestamp(message, &type) == 0)
            return;
        words[i] = timestamp;
    }
}

static inline void fp_vu_topic(rd_kafka_vu_t *vu, rd_kafka_topic_t *rkt) {
    vu->vtype = RD_KAFKA_VTYPE_RKT;
    vu->u.rkt = rkt;
}
static inline void fp_vu_partition(rd_kafka_vu_t *vu, int32_t partition) {
    vu->vtype = RD_KAFKA_VTYPE_PARTITION;
    vu->u.i32 = partition;
}
static inline void fp_vu_value(rd_kafka_vu_t *vu, const char *data, size_t len) {
    vu->vtype = RD_KAFKA_VTYPE_VALUE;
    vu->u.mem.ptr = (void *)data;
    vu->u.mem.size = len;
}
static inline void fp_vu_key(rd_kafka_vu_t *vu, const char *data, size_t len) {
    vu->vtype = RD_KAFKA_VTYPE_KEY;
    vu->u.mem.ptr = (void *)data;
    vu->u.mem.size = len;
}
static inline void fp_vu_opaque(rd_kafka_vu_t *vu, void *opaque) {
    vu->vtype = RD_KAFKA_VTYPE_OPAQUE;
    vu->u.ptr = opaque;
}
static inline void fp_vu_timestamp(rd_kafka_vu_t *vu, int64_t ms) {
    vu->vtype = RD_KAFKA_VTYPE_TIMESTAMP;
    vu->u.i64 = ms;
}
/* value NULL: a null header */
static inline void fp_vu_header(rd_kafka_vu_t *vu, const char *name,
                                const char *value, size_t len) {
    vu->vtype = RD_KAFKA_VTYPE_HEADER;
    vu->u.header.name = name;
    vu->u.header.val = value;
    vu->u.header.size = (ssize_t)len;
}

#endif
