/* Stands in for librdkafka where that cannot be run: under ThreadSanitizer, which knows nothing of what a library
 * does that was not compiled for it. It has the functions that csrc/librdkafka.h names, a thread that answers, and
 * no network.
 *
 * A record's value says what becomes of it: "refuse" is not taken, "fail" is answered with an error, "stall" makes
 * all that follows wait for some seconds, "fatal" comes with an error event after which no more is to be sent. All others are acknowledged, some by the millisecond, some at once. */
#include "librdkafka.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOPIC_AUTHORIZATION_FAILED = 29, PURGE_QUEUE = -152, QUEUE_FULL = -184, TRANSPORT = -195, FATAL = -150 };
enum { CHANGED = 1 }; /* what a log event says: that the id of the topic t has changed */
enum { PARTITIONS = 4, BROKERS = 2, TOGETHER = 100, STALL_MS = 2500 };

#define EXPORT __attribute__((visibility("default")))

typedef struct message {
    rd_kafka_message_t shown; /* what is handed out; first */
    int64_t timestamp;
    int status;
    struct timespec taken;
    struct message *next;
} message;

struct rd_kafka_event_s {
    int type;
    int code;
    size_t count, fetched;
    message *messages[TOGETHER];
    struct rd_kafka_event_s *next;
    rd_kafka_queue_t *from; /* and as the how many-th of it; known once it was polled */
    long turn;
};

struct rd_kafka_queue_s {
    pthread_mutex_t lock;
    pthread_cond_t something;
    rd_kafka_event_t *first, *last;
    int yielded;
    void (*notify)(rd_kafka_t *, void *); /* called for an event where there was none */
    void *notify_opaque;
    long polled;    /* events */
    long destroyed; /* atomic: of those */
};

struct rd_kafka_topic_s {
    rd_kafka_t *rk;
    char name[250];
    int references; /* that were taken and not given back; librdkafka keeps a topic without any as well */
    rd_kafka_topic_t *next;
    long unreported[PARTITIONS]; /* records that were taken and not reported; guarded by the handle's lock */
};

struct rd_kafka_conf_s {
    int ordered; /* the order of a partition is to last: with idempotence, or a single request in flight */
    rd_kafka_interceptor_f_on_new_t on_new;
    void *on_new_opaque;
};

struct rd_kafka_s {
    rd_kafka_conf_t *conf;
    rd_kafka_queue_t main, sasl;
    rd_kafka_interceptor_f_on_acknowledgement_t acknowledged;
    rd_kafka_interceptor_f_on_request_sent_t request_sent;
    void *opaque;
    pthread_t thread;
    /* guarded by lock */
    pthread_mutex_t lock;
    pthread_cond_t something;
    message *first, *last;
    rd_kafka_topic_t *topics;
    int outstanding, purging, ending;
    int64_t offsets[PARTITIONS];
    rd_kafka_topic_t *taken_of; /* of this partition, from that thread, the last record was taken */
    int32_t taken_partition;
    pthread_t taken_from;
};

static _Thread_local volatile unsigned char read_last; /* keeps what is read from being optimized away */

static void pause_ms(int ms) {
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&ts, NULL);
}

static int begins(const message *m, const char *word) {
    size_t n = strlen(word);
    return m->shown.payload && m->shown.len >= n && memcmp(m->shown.payload, word, n) == 0;
}

/* Queues of events */

EXPORT void rd_kafka_event_destroy(rd_kafka_event_t *event);

static void queue_init(rd_kafka_queue_t *queue) {
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->something, NULL);
}

static void queue_add(rd_kafka_queue_t *queue, rd_kafka_event_t *event) {
    pthread_mutex_lock(&queue->lock);
    if (queue->notify && !queue->first)
        queue->notify(NULL, queue->notify_opaque);
    if (queue->last)
        queue->last->next = event;
    else
        queue->first = event;
    queue->last = event;
    pthread_cond_signal(&queue->something);
    pthread_mutex_unlock(&queue->lock);
}

EXPORT rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *queue, int timeout_ms) {
    struct timespec until;
    rd_kafka_event_t *event;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&queue->lock);
    while (timeout_ms && !queue->first && !queue->yielded)
        if (timeout_ms < 0)
            pthread_cond_wait(&queue->something, &queue->lock);
        else if (pthread_cond_timedwait(&queue->something, &queue->lock, &until))
            break;
    queue->yielded = 0;
    event = queue->first;
    if (event) {
        event->from = queue;
        event->turn = queue->polled++;
        queue->first = event->next;
        if (!queue->first)
            queue->last = NULL;
    }
    pthread_mutex_unlock(&queue->lock);
    return event;
}

EXPORT void rd_kafka_queue_yield(rd_kafka_queue_t *queue) {
    pthread_mutex_lock(&queue->lock);
    queue->yielded = 1;
    pthread_cond_broadcast(&queue->something);
    pthread_mutex_unlock(&queue->lock);
}

EXPORT void rd_kafka_queue_cb_event_enable(
    rd_kafka_queue_t *queue, void (*notify)(rd_kafka_t *, void *), void *opaque) {
    pthread_mutex_lock(&queue->lock);
    queue->notify = notify;
    queue->notify_opaque = opaque;
    pthread_mutex_unlock(&queue->lock);
}

EXPORT rd_kafka_queue_t *rd_kafka_queue_get_main(rd_kafka_t *rk) { return &rk->main; }
EXPORT rd_kafka_queue_t *rd_kafka_queue_get_sasl(rd_kafka_t *rk) { return &rk->sasl; }
EXPORT void rd_kafka_queue_destroy(rd_kafka_queue_t *queue) {}
EXPORT rd_kafka_resp_err_t rd_kafka_set_log_queue(rd_kafka_t *rk, rd_kafka_queue_t *queue) { return 0; }

EXPORT int rd_kafka_event_type(const rd_kafka_event_t *event) { return event->type; }
EXPORT rd_kafka_resp_err_t rd_kafka_event_error(rd_kafka_event_t *event) { return event->code; }
EXPORT const char *rd_kafka_event_error_string(rd_kafka_event_t *event) { return "a connection was lost"; }
EXPORT int rd_kafka_event_error_is_fatal(rd_kafka_event_t *event) { return event->code == FATAL; }
EXPORT const char *rd_kafka_event_config_string(rd_kafka_event_t *event) { return NULL; }
EXPORT int rd_kafka_event_log(rd_kafka_event_t *event, const char **facility, const char **text, int *level) {
    if (event->code == CHANGED) {
        *facility = "METADATA";
        *text = "[thrd:main]: Topic t changed id from 6ZvlYUARTSyQWEhh4xnlPw to 50xVwRzyQP2NpiE3QhZ-IA";
        *level = 7;
    } else {
        *facility = "STUB";
        *text = "a line";
        *level = 6;
    }
    return 0;
}
EXPORT size_t rd_kafka_event_message_array(rd_kafka_event_t *event, const rd_kafka_message_t **found, size_t size) {
    size_t n = 0;
    rd_kafka_t *rk = event->count ? event->messages[0]->shown.rkt->rk : NULL;
    if (!rk)
        return 0;
    pthread_mutex_lock(&rk->lock);
    while (n < size && event->fetched < event->count) {
        found[n] = &event->messages[event->fetched++]->shown;
        found[n]->rkt->unreported[found[n]->partition]--;
        n++;
    }
    pthread_mutex_unlock(&rk->lock);
    return n;
}
/* After it was served; events have to be served in the order in which they came. */
EXPORT void rd_kafka_event_destroy(rd_kafka_event_t *event) {
    if (__atomic_fetch_add(&event->from->destroyed, 1, __ATOMIC_SEQ_CST) != event->turn) {
        fprintf(stderr, "an event was served before an earlier one\n");
        abort();
    }
    for (size_t i = 0; i < event->count; i++)
        free(event->messages[i]);
    free(event);
}

static rd_kafka_event_t *event_new(int type, int code) {
    rd_kafka_event_t *event = calloc(1, sizeof *event);
    event->type = type;
    event->code = code;
    return event;
}

EXPORT int rd_kafka_message_status(const rd_kafka_message_t *m) { return ((const message *)m)->status; }
EXPORT int64_t rd_kafka_message_timestamp(const rd_kafka_message_t *m, int *type) {
    *type = 1;
    return ((const message *)m)->timestamp;
}
EXPORT int64_t rd_kafka_message_latency(const rd_kafka_message_t *m) {
    struct timespec now, then = ((const message *)m)->taken;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - then.tv_sec) * 1000000 + (now.tv_nsec - then.tv_nsec) / 1000;
}
EXPORT int32_t rd_kafka_message_broker_id(const rd_kafka_message_t *m) {
    return 1 + (int32_t)(((const message *)m)->taken.tv_sec / 100 % 2); /* now and then the leader moves */
}

/* The thread that answers */

static void answer(rd_kafka_t *rk, message *m, int purge) {
    m->shown.err = purge ? PURGE_QUEUE : begins(m, "fail") ? TOPIC_AUTHORIZATION_FAILED : 0;
    m->shown.offset = -1001;
    m->status = 0;
    if (m->shown.err)
        return;
    for (size_t i = 0; i < m->shown.len; i++) /* as if it was written to a socket */
        read_last = ((unsigned char *)m->shown.payload)[i];
    for (size_t i = 0; i < m->shown.key_len; i++)
        read_last = ((unsigned char *)m->shown.key)[i];
    m->status = 2;
    m->shown.offset = rk->offsets[m->shown.partition]++;
}

static void *serve(void *argument) {
    rd_kafka_t *rk = argument;
    unsigned round = 0;
    int purge, stall;
    rd_kafka_event_t *event;
    message *m;
    pthread_mutex_lock(&rk->lock);
    while (!rk->ending) {
        if (!rk->first) {
            rk->purging = 0;
            pthread_cond_wait(&rk->something, &rk->lock);
            continue;
        }
        event = event_new(RD_KAFKA_EVENT_DR, 0);
        stall = 0;
        while (rk->first && event->count < TOGETHER && !stall) {
            m = rk->first;
            rk->first = m->next;
            if (!rk->first)
                rk->last = NULL;
            stall = begins(m, "stall");
            event->messages[event->count++] = m;
        }
        purge = rk->purging;
        pthread_mutex_unlock(&rk->lock);
        if (rk->request_sent)
            rk->request_sent(rk, 0, "stub", 1, 0, 9, 1, 100, rk->opaque);
        if (stall && !purge)
            pause_ms(STALL_MS);
        else if (++round % 3 == 0)
            pause_ms(1);
        for (size_t i = 0; i < event->count; i++) {
            answer(rk, event->messages[i], purge);
            if (begins(event->messages[i], "fatal"))
                queue_add(&rk->main, event_new(RD_KAFKA_EVENT_ERROR, FATAL));
            rk->acknowledged(rk, &event->messages[i]->shown, rk->opaque);
        }
        if (round % 50 == 0)
            queue_add(&rk->main, event_new(RD_KAFKA_EVENT_ERROR, TRANSPORT));
        if (round % 20 == 0) /* now and then the topic was deleted and created again */
            queue_add(&rk->main, event_new(RD_KAFKA_EVENT_LOG, round % 60 ? 0 : CHANGED));
        pthread_mutex_lock(&rk->lock);
        rk->outstanding -= (int)event->count;
        pthread_mutex_unlock(&rk->lock);
        queue_add(&rk->main, event);
        pthread_mutex_lock(&rk->lock);
    }
    pthread_mutex_unlock(&rk->lock);
    return NULL;
}

/* Taking records */

/* A partition's records are handed over in one go, and the next once those are reported. lock: held */
static void check_turn(rd_kafka_topic_t *topic, int32_t partition) {
    rd_kafka_t *rk = topic->rk;
    int continues = rk->taken_of == topic && rk->taken_partition == partition &&
                  pthread_equal(rk->taken_from, pthread_self());
    if (rk->conf->ordered && topic->unreported[partition] && !continues) {
        fprintf(stderr, "a partition's records were handed over while earlier ones were on their way\n");
        abort();
    }
    rk->taken_of = topic;
    rk->taken_partition = partition;
    rk->taken_from = pthread_self();
    topic->unreported[partition]++;
}

static int take(rd_kafka_topic_t *topic, const rd_kafka_message_t *given, int64_t timestamp) {
    rd_kafka_t *rk = topic->rk;
    message *m = calloc(1, sizeof *m);
    m->shown = *given;
    m->shown.rkt = topic;
    m->timestamp = timestamp;
    clock_gettime(CLOCK_MONOTONIC, &m->taken);
    if (begins(m, "refuse")) {
        free(m);
        return QUEUE_FULL;
    }
    pthread_mutex_lock(&rk->lock);
    check_turn(topic, m->shown.partition);
    if (rk->last)
        rk->last->next = m;
    else
        rk->first = m;
    rk->last = m;
    rk->outstanding++;
    pthread_cond_signal(&rk->something);
    pthread_mutex_unlock(&rk->lock);
    return 0;
}

EXPORT int rd_kafka_produce_batch(rd_kafka_topic_t *topic, int32_t partition, int flags, rd_kafka_message_t *messages,
                                  int count) {
    struct timespec now;
    int taken = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; i < count; i++) {
        messages[i].partition = partition;
        messages[i].err = take(topic, &messages[i], now.tv_sec * 1000 + now.tv_nsec / 1000000);
        taken += messages[i].err == 0;
    }
    return taken;
}

struct rd_kafka_error_s {
    int code;
};

static rd_kafka_error_t *error_new(int code) {
    rd_kafka_error_t *error = malloc(sizeof *error);
    error->code = code;
    return error;
}

EXPORT rd_kafka_error_t *rd_kafka_produceva(rd_kafka_t *rk, const rd_kafka_vu_t *arguments, size_t count) {
    rd_kafka_message_t given = {0};
    int64_t timestamp = 0;
    int code;
    for (size_t i = 0; i < count; i++) {
        const rd_kafka_vu_t *argument = &arguments[i];
        switch (argument->vtype) {
        case RD_KAFKA_VTYPE_RKT: given.rkt = argument->u.rkt; break;
        case RD_KAFKA_VTYPE_PARTITION: given.partition = argument->u.i32; break;
        case RD_KAFKA_VTYPE_VALUE:
            given.payload = argument->u.mem.ptr;
            given.len = argument->u.mem.size;
            break;
        case RD_KAFKA_VTYPE_KEY:
            given.key = argument->u.mem.ptr;
            given.key_len = argument->u.mem.size;
            break;
        case RD_KAFKA_VTYPE_OPAQUE: given._private = argument->u.ptr; break;
        case RD_KAFKA_VTYPE_TIMESTAMP: timestamp = argument->u.i64; break;
        case RD_KAFKA_VTYPE_HEADER: read_last = (unsigned char)strlen(argument->u.header.name); break;
        }
    }
    code = take(given.rkt, &given, timestamp);
    return code ? error_new(code) : NULL;
}

EXPORT rd_kafka_resp_err_t rd_kafka_purge(rd_kafka_t *rk, int flags) {
    if (!(flags & (RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT)))
        return 0;
    pthread_mutex_lock(&rk->lock);
    rk->purging = rk->first != NULL;
    pthread_mutex_unlock(&rk->lock);
    return 0;
}

/* Handles */

EXPORT rd_kafka_t *rd_kafka_new(int type, rd_kafka_conf_t *conf, char *text, size_t size) {
    rd_kafka_t *rk = calloc(1, sizeof *rk);
    rk->conf = conf;
    pthread_mutex_init(&rk->lock, NULL);
    pthread_cond_init(&rk->something, NULL);
    queue_init(&rk->main);
    queue_init(&rk->sasl);
    conf->on_new(rk, conf, conf->on_new_opaque, text, size);
    pthread_create(&rk->thread, NULL, serve, rk);
    return rk;
}

EXPORT void rd_kafka_destroy(rd_kafka_t *rk) {
    rd_kafka_event_t *event;
    pthread_mutex_lock(&rk->lock);
    rk->ending = 1;
    pthread_cond_signal(&rk->something);
    pthread_mutex_unlock(&rk->lock);
    pthread_join(rk->thread, NULL);
    for (rd_kafka_topic_t *topic = rk->topics, *next; topic; topic = next) {
        next = topic->next;
        if (topic->references) {
            fprintf(stderr, "stub: destroyed with a topic in use\n");
            abort();
        }
        free(topic);
    }
    if (rk->first) {
        fprintf(stderr, "stub: destroyed with records left\n");
        abort();
    }
    while ((event = rd_kafka_queue_poll(&rk->main, 0)))
        rd_kafka_event_destroy(event);
    free(rk->conf);
    free(rk);
}

EXPORT rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *rk, const char *name, rd_kafka_topic_conf_t *conf) {
    rd_kafka_topic_t *topic;
    pthread_mutex_lock(&rk->lock);
    for (topic = rk->topics; topic && strcmp(topic->name, name); topic = topic->next)
        ;
    if (!topic) {
        topic = calloc(1, sizeof *topic);
        topic->rk = rk;
        strncpy(topic->name, name, sizeof topic->name - 1);
        topic->next = rk->topics;
        rk->topics = topic;
    }
    topic->references++;
    pthread_mutex_unlock(&rk->lock);
    return topic;
}

EXPORT void rd_kafka_topic_destroy(rd_kafka_topic_t *topic) {
    rd_kafka_t *rk = topic->rk;
    pthread_mutex_lock(&rk->lock);
    topic->references--;
    pthread_mutex_unlock(&rk->lock);
}

EXPORT int rd_kafka_brokers_add(rd_kafka_t *rk, const char *brokers) {
    return 1;
}

EXPORT rd_kafka_resp_err_t rd_kafka_metadata(rd_kafka_t *rk, int all, rd_kafka_topic_t *only,
                                             const rd_kafka_metadata_t **found, int timeout_ms) {
    static int asked; /* leaders move with each answer */
    rd_kafka_metadata_t *metadata = calloc(1, sizeof *metadata);
    rd_kafka_topic_t *topic;
    int moved = __atomic_add_fetch(&asked, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&rk->lock);
    for (topic = rk->topics; topic; topic = topic->next)
        metadata->topic_cnt++;
    metadata->topics = calloc((size_t)metadata->topic_cnt + 1, sizeof *metadata->topics);
    metadata->topic_cnt = 0;
    metadata->orig_broker_id = 1;
    for (topic = rk->topics; topic; topic = topic->next) {
        int i = metadata->topic_cnt;
        if (only && only != topic)
            continue;
        metadata->topic_cnt++;
        metadata->topics[i].topic = strdup(topic->name);
        metadata->topics[i].partition_cnt = PARTITIONS;
        metadata->topics[i].partitions = calloc(PARTITIONS, sizeof *metadata->topics[i].partitions);
        for (int j = 0; j < PARTITIONS; j++) {
            metadata->topics[i].partitions[j].id = j;
            metadata->topics[i].partitions[j].leader = 1 + (j + moved) % BROKERS;
        }
    }
    pthread_mutex_unlock(&rk->lock);
    pause_ms(1);
    *found = metadata;
    return 0;
}

EXPORT void rd_kafka_metadata_destroy(const rd_kafka_metadata_t *metadata) {
    for (int i = 0; i < metadata->topic_cnt; i++) {
        free(metadata->topics[i].topic);
        free(metadata->topics[i].partitions);
    }
    free(metadata->topics);
    free((void *)metadata);
}

/* Configuration: everything is fine */

EXPORT rd_kafka_conf_t *rd_kafka_conf_dup(const rd_kafka_conf_t *conf) {
    rd_kafka_conf_t *copy = calloc(1, sizeof *copy);
    copy->ordered = conf->ordered;
    return copy;
}
EXPORT rd_kafka_conf_t *rd_kafka_conf_new(void) { return calloc(1, sizeof(rd_kafka_conf_t)); }
EXPORT void rd_kafka_conf_destroy(rd_kafka_conf_t *conf) { free(conf); }
EXPORT int rd_kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value, char *text, size_t size) {
    if (strcmp(name, "enable.idempotence") == 0)
        conf->ordered |= strcmp(value, "true") == 0;
    else if (strcmp(name, "max.in.flight.requests.per.connection") == 0)
        conf->ordered |= strcmp(value, "1") == 0;
    return RD_KAFKA_CONF_OK;
}
EXPORT int rd_kafka_conf_get(const rd_kafka_conf_t *conf, const char *name, char *text, size_t *size) {
    return RD_KAFKA_CONF_UNKNOWN;
}
EXPORT void rd_kafka_conf_set_events(rd_kafka_conf_t *conf, int events) {}
EXPORT void rd_kafka_conf_set_opaque(rd_kafka_conf_t *conf, void *opaque) {}
EXPORT int rd_kafka_conf_set_ssl_cert_verify_cb(rd_kafka_conf_t *conf, rd_kafka_ssl_cert_verify_cb_t verify) {
    return RD_KAFKA_CONF_OK;
}
EXPORT void rd_kafka_conf_enable_sasl_queue(rd_kafka_conf_t *conf, int enable) {}
EXPORT rd_kafka_resp_err_t rd_kafka_conf_interceptor_add_on_new(
    rd_kafka_conf_t *conf, const char *name, rd_kafka_interceptor_f_on_new_t on_new, void *opaque) {
    conf->on_new = on_new;
    conf->on_new_opaque = opaque;
    return 0;
}
EXPORT rd_kafka_resp_err_t rd_kafka_interceptor_add_on_send(
    rd_kafka_t *rk, const char *name, rd_kafka_interceptor_f_on_send_t send, void *opaque) {
    return 0; /* it only writes a timestamp of 0, which nobody sends here */
}
EXPORT rd_kafka_resp_err_t rd_kafka_interceptor_add_on_acknowledgement(
    rd_kafka_t *rk, const char *name, rd_kafka_interceptor_f_on_acknowledgement_t acknowledged, void *opaque) {
    rk->acknowledged = acknowledged;
    rk->opaque = opaque;
    return 0;
}
EXPORT rd_kafka_resp_err_t rd_kafka_interceptor_add_on_request_sent(
    rd_kafka_t *rk, const char *name, rd_kafka_interceptor_f_on_request_sent_t sent, void *opaque) {
    rk->request_sent = sent;
    return 0;
}

EXPORT int rd_kafka_version(void) { return 0x021000ff; }
EXPORT const char *rd_kafka_version_str(void) { return "2.16.0"; }
EXPORT const char *rd_kafka_err2str(rd_kafka_resp_err_t code) { return code ? "Stub: an error" : "Success"; }

/* Errors and transactions, which are granted */

EXPORT rd_kafka_resp_err_t rd_kafka_error_code(const rd_kafka_error_t *error) { return error->code; }
EXPORT const char *rd_kafka_error_string(const rd_kafka_error_t *error) { return rd_kafka_err2str(error->code); }
EXPORT int rd_kafka_error_is_fatal(const rd_kafka_error_t *error) { return 0; }
EXPORT int rd_kafka_error_is_retriable(const rd_kafka_error_t *error) { return 0; }
EXPORT int rd_kafka_error_txn_requires_abort(const rd_kafka_error_t *error) { return 0; }
EXPORT void rd_kafka_error_destroy(rd_kafka_error_t *error) { free(error); }

static rd_kafka_error_t *end_transaction(rd_kafka_t *rk) {
    int left = 1;
    while (left) {
        pause_ms(1);
        pthread_mutex_lock(&rk->lock);
        left = rk->outstanding;
        pthread_mutex_unlock(&rk->lock);
    }
    return NULL;
}
EXPORT rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *rk, int timeout_ms) { return end_transaction(rk); }
EXPORT rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *rk) { return NULL; }
EXPORT rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(
    rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets, const rd_kafka_consumer_group_metadata_t *group,
    int timeout_ms) {
    return NULL;
}
EXPORT rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms) { return end_transaction(rk); }
EXPORT rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *rk, int timeout_ms) { return end_transaction(rk); }

/* Not called by the workload; every function must be there */

EXPORT rd_kafka_error_t *rd_kafka_sasl_background_callbacks_enable(rd_kafka_t *rk) { return error_new(-1); }
EXPORT rd_kafka_error_t *rd_kafka_sasl_set_credentials(rd_kafka_t *rk, const char *user, const char *password) {
    return error_new(-1);
}
EXPORT rd_kafka_resp_err_t rd_kafka_oauthbearer_set_token(
    rd_kafka_t *rk, const char *token, int64_t expiry, const char *principal, const char **extensions, size_t count,
    char *text, size_t size) {
    return -1;
}
EXPORT rd_kafka_resp_err_t rd_kafka_oauthbearer_set_token_failure(rd_kafka_t *rk, const char *text) { return -1; }
EXPORT rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int size) {
    rd_kafka_topic_partition_list_t *list = calloc(1, sizeof *list);
    list->elems = calloc((size_t)size, sizeof *list->elems);
    return list;
}
EXPORT void rd_kafka_topic_partition_list_destroy(rd_kafka_topic_partition_list_t *list) {
    free(list->elems);
    free(list);
}
EXPORT rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add(
    rd_kafka_topic_partition_list_t *list, const char *topic, int32_t partition) {
    rd_kafka_topic_partition_t *entry = &list->elems[list->cnt++];
    entry->partition = partition;
    return entry;
}
EXPORT rd_kafka_resp_err_t rd_kafka_pause_partitions(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list) {
    return 0;
}
EXPORT rd_kafka_resp_err_t rd_kafka_resume_partitions(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list) {
    return 0;
}
EXPORT ssize_t rd_kafka_consume_batch(
    rd_kafka_topic_t *topic, int32_t partition, int timeout_ms, rd_kafka_message_t **messages, size_t size) {
    return 0;
}
EXPORT rd_kafka_resp_err_t rd_kafka_flush(rd_kafka_t *rk, int timeout_ms) { return 0; }
EXPORT void rd_kafka_topic_partition_set_leader_epoch(rd_kafka_topic_partition_t *partition, int32_t epoch) { abort(); }
EXPORT rd_kafka_error_t *rd_kafka_consumer_group_metadata_read(
    rd_kafka_consumer_group_metadata_t **group, const void *data, size_t size) {
    abort();
}
EXPORT void rd_kafka_consumer_group_metadata_destroy(rd_kafka_consumer_group_metadata_t *group) { abort(); }
