"""Transport: the librdkafka handle. All knowledge of librdkafka is in here."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset, strdup, strlen, strncpy, strstr
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.produce_request_result cimport NOT_PERSISTED, PERSISTED
from fastprod.librdkafka.declarations cimport *
from fastprod.internals.record cimport fp_header, fp_header_read, fp_record, fp_record_read
from fastprod.internals.sync cimport (
    fp_atomic_add, fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock, fp_sleep_ns,
    fp_wall_ms,
)
from fastprod.internals.threads cimport pause_greenlet

from fastprod.errors import ConfigError, KafkaError
from fastprod.librdkafka.loader import address
from fastprod.config.options import redact

LOGIN = ("sasl.username", "sasl.password")
C_SPACE = " \t\n\v\f\r"   # what isspace() takes

cdef int64_t TOKEN_PAUSE_NS = 20_000_000   # between two looks of a greenlet whether a token is wanted
cdef uint64_t PLAIN = 0x80000000           # in what a record carries: it went by produce_batch
cdef uint64_t SINGLE = 0x40000000          # it is the only one of its batch
cdef uint64_t INDEX = 0x3fffffff

cdef enum:
    LATE_MS = 5   # by how much the timestamp of a record that came without one may be later than send()
    MAX_MESSAGES_PER_CALL = 512   # records handed over by one call
    FETCH = 64   # messages fetched from an event at once: they stay in the innermost cache until they are read
    FIXED_ARGUMENTS = 6   # of produceva, before the headers
    LAST_ANSWER_MS = 10_000   # far more than any request for ids takes to fail
    CRIT_SYS_RESOURCE = -194   # librdkafka's, for want of memory
    PRODUCE = 0   # its API key in the protocol


def _bind():
    cdef int i
    for i in range(fp_librdkafka_count()):
        fp_librdkafka_bind(i, <void *><uintptr_t>address(fp_librdkafka_name(i).decode()))


_bind()


def knows(str name):
    """Whether librdkafka has a property of this name."""
    cdef bytes encoded = name.encode()
    cdef char text[512]
    cdef rd_kafka_conf_t *conf = rd_kafka_conf_new()
    cdef int status = rd_kafka_conf_set(conf, encoded, NULL, text, sizeof(text))
    rd_kafka_conf_destroy(conf)
    return status != RD_KAFKA_CONF_UNKNOWN


cdef str advice(const char *refused):
    """What to do about librdkafka's refusal, where its text is for those who build it."""
    if strstr(refused, b"SASL mechanism GSSAPI") is not NULL:
        return (". GSSAPI is what sasl.mechanism is unless you set it: set PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or "
                "OAUTHBEARER, or let FASTPROD_LIBRDKAFKA name a librdkafka that has GSSAPI")
    return ""


cdef int check_kept(rd_kafka_conf_t *conf, str name, str value) except -1:
    """ConfigError unless librdkafka has the value that was set.

    It drops white space before a text, and from a number what follows the digits; then it wraps at 32 bits.
    """
    cdef bytes encoded = name.encode()
    cdef size_t size = 0
    cdef bytearray text
    if not value or rd_kafka_conf_get(conf, encoded, NULL, &size) != RD_KAFKA_CONF_OK:
        return 0
    text = bytearray(size)
    rd_kafka_conf_get(conf, encoded, text, &size)
    kept = text.rstrip(b"\0").decode("utf-8", "replace")
    if kept == value:
        return 0
    if value.lstrip(C_SPACE) == kept:
        raise ConfigError(f"{name}={redact(name, repr(value))}: librdkafka drops white space at the beginning, so that "
                          "another value would be used: give one that does not begin with it")
    try:
        changed = kept.lstrip("-").isdigit() and float(kept) != float(value)
    except ValueError:    # all is a number to librdkafka, but 5x is not
        changed = value.strip(C_SPACE)[0] in "+-.0123456789"
    if changed:
        raise ConfigError(f"{name}={redact(name, repr(value))}: librdkafka would read {redact(name, kept)}")
    return 0


cdef bint has_exact_login(dict properties):
    """Whether user and password must be told to the handle, since the text configuration would change them."""
    login = [properties.get(name, "") for name in LOGIN]
    return all(login) and any(text[0] in C_SPACE for text in login)


cdef int check(rd_kafka_error_t *error, str what) except -1:
    """KafkaError if there is an error, which is freed; what: what librdkafka did not do."""
    if error is not NULL:
        code = rd_kafka_error_code(error)
        rd_kafka_error_destroy(error)
        raise KafkaError(f"librdkafka {what} (code {code})", code=code)
    return 0


cdef int log_in(rd_kafka_t *rk, bytes user, bytes password) except -1:
    """Gives user and password as they are. They are read whenever a connection authenticates."""
    return check(rd_kafka_sasl_set_credentials(rk, user, password), "does not take user and password")


cdef int add_brokers(rd_kafka_t *rk, bytes servers) except -1:
    cdef const char *list_of_them = servers
    with nogil:
        rd_kafka_brokers_add(rk, list_of_them)
    return 0


cdef void *opaque(ProducerBatch *batch, int32_t index, uint64_t plain) noexcept nogil:
    """What a record carries through librdkafka."""
    return <void *><uintptr_t>(
        <uint64_t>batch.slot << 32 | plain | (SINGLE if batch.count == 1 else 0) | <uint64_t>index)


cdef void refusal_report(Report *refused, int32_t slot, int32_t first, int32_t count, int code) noexcept nogil:
    """What stands for the report of records that were not handed over."""
    memset(refused, 0, sizeof(Report))
    refused.slot = slot
    refused.first = first
    refused.count = count
    refused.code = code
    refused.offset = -1
    refused.timestamp = -1
    refused.latency_us = -1
    refused.broker = -1
    refused.persisted = NOT_PERSISTED


cdef int note_certificate(rd_kafka_t *rk, const char *broker_name, int32_t broker_id, int *x509_error, int depth,
                          const char *certificate, size_t size, char *errstr, size_t errstr_size,
                          void *opaque) noexcept nogil:
    """Lets OpenSSL's verdict stand and notes it: librdkafka's text is the same for all. thread: librdkafka's"""
    if x509_error[0] == 0:
        return 1
    (<int *>opaque)[0] = x509_error[0]
    return 0


cdef int add_interceptors(rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *transport, char *errstr,
                          size_t errstr_size) noexcept nogil:
    return (rd_kafka_interceptor_add_on_send(rk, b"fastprod", on_send, transport) or
            rd_kafka_interceptor_add_on_acknowledgement(rk, b"fastprod", on_acknowledgement, transport) or
            rd_kafka_interceptor_add_on_request_sent(rk, b"fastprod", on_request_sent, transport))


cdef int on_send(rd_kafka_t *rk, rd_kafka_message_t *message, void *transport) noexcept nogil:
    """librdkafka has made a message, which nobody else knows yet. thread: that of hand_over()"""
    if (<Transport>transport).stamping_zero:
        (<Transport>transport).stamping_zero = 0
        fp_stamp_zero(message)
    return 0


cdef int on_acknowledgement(rd_kafka_t *rk, rd_kafka_message_t *message, void *transport) noexcept nogil:
    """A record was delivered, or failed; its report follows. thread: librdkafka's, mostly that of the broker"""
    if message.err == 0 and <uintptr_t>message._private & SINGLE:
        (<Transport>transport).note_acknowledgement(message)
    return 0


cdef int on_request_sent(rd_kafka_t *rk, int socket, const char *broker_name, int32_t broker_id, int16_t api_key,
                         int16_t api_version, int32_t correlation_id, size_t size, void *transport) noexcept nogil:
    """thread: librdkafka's, that of the broker"""
    if api_key == PRODUCE:
        fp_atomic_add(<int32_t *>&(<Transport>transport).requests, 1)
    return 0


cdef void wake_for_retired(rd_kafka_t *rk, void *transport) noexcept nogil:
    """The retired librdkafka producer has an event. thread: librdkafka's"""
    (<Transport>transport).wake()


cdef int serve_tokens_in_background(rd_kafka_t *rk) except -1:
    """Lets librdkafka make or fetch its tokens on a thread of its own."""
    return check(rd_kafka_sasl_background_callbacks_enable(rk), "cannot serve OAUTHBEARER tokens")


cdef int know(rd_kafka_t *rk, list names) except -1:
    """librdkafka keeps a topic, however soon the reference to it goes."""
    cdef rd_kafka_topic_t *topic
    for name in names:
        topic = rd_kafka_topic_new(rk, name.encode(), NULL)
        if topic is not NULL:
            rd_kafka_topic_destroy(topic)
    return 0


cdef class Transport:
    """One librdkafka producer: topics, metadata, hand-over, delivery reports.

    Owns the handle. What it hands over stays the caller's: librdkafka gets
    pointers into the batch's arena and no flags, so the arena must live until
    the last report of the batch. Every record is reported exactly once.

    ``hand_over`` and ``serve`` are called under sender_lock, ``next_event``
    under it or by its thread; ``metadata`` blocks and belongs to the metadata thread;
    ``wake`` may be called by anyone. ``acknowledged``, which the sender sets before
    it hands anything over, is called by a thread of librdkafka's with the report
    to come of a record that is alone in its batch: two threads earlier.
    ``RD_KAFKA_MSG_F_PARTITION``, ``F_BLOCK`` and ``F_FREE`` are never passed and
    ``rd_kafka_poll`` is never called: the first loses a message and flush() with
    it, the second keeps a new leader from being learnt, the third frees twice,
    the fourth drops reports.
    """

    def __cinit__(self, dict properties, Callbacks callbacks, bint has_token_provider=False):
        cdef char text[512]
        cdef dict text_properties = properties
        cdef Handle made
        fp_mutex_init(&self.error_lock)
        self.callbacks = callbacks
        self.without_acks = properties.get("acks") == "0"
        self.messages = <rd_kafka_message_t *>malloc(MAX_MESSAGES_PER_CALL * sizeof(rd_kafka_message_t))
        self.arguments = <rd_kafka_vu_t *>malloc((FIXED_ARGUMENTS + 16) * sizeof(rd_kafka_vu_t))
        self.arguments_size = FIXED_ARGUMENTS + 16
        if self.messages is NULL or self.arguments is NULL:
            raise MemoryError()
        if has_exact_login(properties):    # no brokers until the handle has it, or a connection may come first
            if properties.get("client.dns.lookup", "use_all_dns_ips") != "use_all_dns_ips":
                raise ConfigError(f"{LOGIN[0]} or {LOGIN[1]} begins with white space: for librdkafka to keep it, "
                                  "client.dns.lookup must be use_all_dns_ips")
            self.exact_login = tuple(properties[name].encode() for name in (*LOGIN, "bootstrap.servers"))
            text_properties = properties | dict.fromkeys(LOGIN, "set below")
            del text_properties["bootstrap.servers"]
        self.configuration = rd_kafka_conf_new()
        for name, value in text_properties.items():
            if rd_kafka_conf_set(
                    self.configuration, name.encode(), value.encode(), text, sizeof(text)) != RD_KAFKA_CONF_OK:
                raise ConfigError(f"{name}: {redact(name, text.decode('utf-8', 'replace'))}")
            check_kept(self.configuration, name, value)
        if properties.get("enable.ssl.certificate.verification", "true") == "true":
            rd_kafka_conf_set_ssl_cert_verify_cb(self.configuration, note_certificate)
        self.events = RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG
        if has_token_provider:
            self.events |= RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH
        self.has_token_provider = has_token_provider
        self.uses_own_tokens = not has_token_provider and properties.get("sasl.mechanism") == "OAUTHBEARER"
        self.generation = 1
        self.make(&made)
        self.rk, self.queue, self.sasl_queue = made.rk, made.queue, made.sasl_queue

    cdef int make(self, Handle *made) except -1:
        """A librdkafka producer with its queues."""
        cdef char text[512]
        cdef rd_kafka_conf_t *conf = rd_kafka_conf_dup(self.configuration)
        memset(made, 0, sizeof(Handle))
        # A duplicate has neither the interceptors nor all that is no property.
        rd_kafka_conf_interceptor_add_on_new(conf, b"fastprod", add_interceptors, <void *>self)
        rd_kafka_conf_set_opaque(conf, &self.certificate_error)
        # Tokens have a queue of their own: on the main one their events would wait for the sender.
        rd_kafka_conf_enable_sasl_queue(conf, 1)
        rd_kafka_conf_set_events(conf, self.events)
        made.rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text))
        if made.rk is NULL:
            rd_kafka_conf_destroy(conf)
            raise ConfigError(f"librdkafka refuses this configuration: {text.decode('utf-8', 'replace')}{advice(text)}")
        made.queue = rd_kafka_queue_get_main(made.rk)
        if self.has_token_provider:
            made.sasl_queue = rd_kafka_queue_get_sasl(made.rk)
        try:
            if self.uses_own_tokens:
                serve_tokens_in_background(made.rk)
            if self.exact_login is not None:
                user, password, servers = self.exact_login
                log_in(made.rk, user, password)
                add_brokers(made.rk, servers)
        except KafkaError:
            self.end(made)
            raise
        rd_kafka_set_log_queue(made.rk, NULL)
        return 0

    cdef int end(self, Handle *handle) except -1:
        """Ends a librdkafka producer. No report may be outstanding and no other call of it under way."""
        cdef Handle ended = handle[0]
        cdef OpenTopic *topic
        memset(handle, 0, sizeof(Handle))    # before the GIL goes: nobody is to find it
        if ended.rk is NULL:
            return 0
        while self.polled_for_tokens is not NULL and self.polled_for_tokens is ended.sasl_queue:
            rd_kafka_queue_yield(ended.sasl_queue)
            with nogil:
                fp_sleep_ns(1_000_000)
        with nogil:
            while ended.topics is not NULL:
                topic = ended.topics
                ended.topics = topic.next
                rd_kafka_topic_destroy(topic.topic)
                free(topic)
            if ended.sasl_queue is not NULL:
                rd_kafka_queue_destroy(ended.sasl_queue)
            rd_kafka_queue_destroy(ended.queue)
            rd_kafka_destroy(ended.rk)
        return 0

    def __dealloc__(self):
        self.end_all()    # of a producer that did not get as far as its threads
        free(self.messages)
        free(self.arguments)
        fp_mutex_destroy(&self.error_lock)

    def close(self):
        """Ends the handle. No report may be outstanding and no other call may be under way."""
        self.end_all()

    cdef int end_all(self) except -1:
        cdef Handle ended
        self.drop_ids()
        self.end(&self.coming)
        self.take_retired(&ended)
        self.end(&ended)
        ended.rk, ended.queue, ended.sasl_queue, ended.topics = self.rk, self.queue, self.sasl_queue, self.topics
        self.rk = NULL    # before the GIL goes: a token provider that was left behind may come back meanwhile
        self.queue = self.sasl_queue = NULL
        self.topics = NULL
        self.end(&ended)
        if self.configuration is not NULL:
            rd_kafka_conf_destroy(self.configuration)
            self.configuration = NULL
        return 0

    # A new librdkafka producer replaces the current one. librdkafka never frees a topic or a leader epoch, so only a
    # new rd_kafka_t forgets them. One replacement at a time:
    #
    # 1. prepare() makes it, and waits until a broker has answered.
    # 2. switch_over() makes it the current one; the former is retired. What is handed over from here on goes to the new
    #    one, but for what must wait for reports of the former; see Sender.submit_next().
    # 3. The sender serves the queues of both. An event of the retired one wakes it by the current one's queue.
    # 4. When the last report has come, the sender takes it away, and it is ended.

    cdef int prepare(self, list names, int timeout_ms) except? -1:
        """Makes a librdkafka producer that knows some topics; 0, or why it gets no answer. thread: metadata"""
        cdef rd_kafka_queue_t *waited_for = self.sasl_queue
        cdef int code
        self.make(&self.coming)
        if waited_for is not NULL:
            rd_kafka_queue_yield(waited_for)   # from here on the coming one's tokens are waited for
        know(self.coming.rk, names)
        code = self.ask(self.coming.rk, None, timeout_ms, {})
        if code:
            self.discard()
        return code

    cdef int discard(self) except -1:
        """Gives up what prepare() made. thread: metadata"""
        if self.coming.sasl_queue is not NULL:
            rd_kafka_queue_yield(self.coming.sasl_queue)
        return self.end(&self.coming)

    cdef void switch_over(self) noexcept nogil:
        """Makes the prepared one the current one. thread: metadata, with the GIL  lock: sender_lock"""
        cdef rd_kafka_queue_t *polled = self.queue
        self.retired.rk, self.retired.queue = self.rk, self.queue
        self.retired.sasl_queue, self.retired.topics = self.sasl_queue, self.topics
        self.rk, self.queue, self.sasl_queue = self.coming.rk, self.coming.queue, self.coming.sasl_queue
        self.topics = NULL
        memset(&self.coming, 0, sizeof(Handle))
        self.generation += 1
        rd_kafka_queue_cb_event_enable(self.retired.queue, wake_for_retired, <void *>self)
        rd_kafka_queue_yield(polled)    # the thread that waits there moves to the new queue

    cdef void purge_retired(self) noexcept nogil:
        """Makes the retired one give up what waits to be sent, or sent again; each is still reported."""
        rd_kafka_purge(self.retired.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING)

    cdef void take_retired(self, Handle *taken) noexcept nogil:
        """Gives the retired one, if there is one, to the caller, who ends it. thread: metadata  lock: sender_lock"""
        taken[0] = self.retired
        memset(&self.retired, 0, sizeof(Handle))
        if taken.rk is not NULL:
            rd_kafka_queue_cb_event_enable(taken.queue, NULL, NULL)

    cdef OpenTopic *open_topic(self, const char *name) noexcept nogil:
        """A topic of the current librdkafka producer, whose life it shares; NULL: no memory. lock: sender_lock"""
        cdef OpenTopic *topic = <OpenTopic *>malloc(sizeof(OpenTopic))
        if topic is NULL:
            return NULL
        topic.rk = self.rk
        topic.topic = rd_kafka_topic_new(self.rk, name, NULL)
        if topic.topic is NULL:
            free(topic)
            return NULL
        topic.next = self.topics
        self.topics = topic
        return topic

    # What the cluster says. thread: metadata

    def know(self, list names):
        """Has librdkafka ask of these topics too, from here on."""
        know(self.rk, names)

    def metadata(self, str name, int timeout_ms):
        """The cluster's word on a topic, with None on all it was asked of: (code, {name: (code, [leader, ...])}).

        leader: broker id, -1 for none. A code is 0 or librdkafka's. Blocks up to timeout_ms, without the GIL.
        """
        topics = {}
        return self.ask(self.rk, name, timeout_ms, topics), topics

    cdef int ask(self, rd_kafka_t *rk, str name, int timeout_ms, dict topics) except? -1:
        cdef const rd_kafka_metadata_t *found = NULL
        cdef rd_kafka_metadata_topic_t *topic
        cdef rd_kafka_metadata_partition_t *partition
        cdef rd_kafka_topic_t *only = NULL
        cdef int code, i, j
        if name is not None:
            # librdkafka asks of it from here on, however soon this reference goes.
            only = rd_kafka_topic_new(rk, name.encode(), NULL)
            if only is NULL:
                raise KafkaError(f"librdkafka refuses the topic {name!r}")
        with nogil:
            code = rd_kafka_metadata(rk, 0, only, &found, timeout_ms)
            if only is not NULL:
                rd_kafka_topic_destroy(only)
        if code == 0:
            for i in range(found.topic_cnt):
                topic = &found.topics[i]
                leaders = [-1] * topic.partition_cnt
                for j in range(topic.partition_cnt):
                    partition = &topic.partitions[j]
                    if 0 <= partition.id < topic.partition_cnt:
                        leaders[partition.id] = partition.leader
                topics[topic.topic.decode()] = (topic.err, leaders)
            self.answering_broker = found.orig_broker_id
            rd_kafka_metadata_destroy(found)
        return code

    cdef int ask_ids(self, list names, int32_t broker, int timeout_ms) except -1:
        """Asks a broker for the ids of topics, once there is a connection; take_ids() gives the answer, if any comes.

        rd_kafka_metadata() does not tell them, though librdkafka gets them from brokers since Kafka 2.8.
        """
        cdef char text[128]
        cdef list encoded = [name.encode() for name in names]
        cdef const char **texts = <const char **>malloc((len(encoded) + 1) * sizeof(char *))
        cdef rd_kafka_AdminOptions_t *options
        cdef rd_kafka_TopicCollection_t *topics
        cdef Py_ssize_t i
        if texts is NULL:
            raise MemoryError()
        for i in range(len(encoded)):
            texts[i] = <bytes>encoded[i]
        self.id_queue = rd_kafka_queue_new(self.rk)
        options = rd_kafka_AdminOptions_new(self.rk, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS)
        rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof(text))
        rd_kafka_AdminOptions_set_broker(options, broker, text, sizeof(text))
        topics = rd_kafka_TopicCollection_of_topic_names(texts, len(encoded))
        rd_kafka_DescribeTopics(self.rk, topics, options, self.id_queue)
        rd_kafka_TopicCollection_destroy(topics)
        rd_kafka_AdminOptions_destroy(options)
        free(texts)
        return 0

    cdef dict take_ids(self, int timeout_ms):
        """name -> (high, low) bits of its id, of the topics that have one, once there is an answer, else None.

        id_queue is NULL then, if there will be none.
        """
        cdef rd_kafka_event_t *event
        cdef const rd_kafka_event_t *result
        cdef const rd_kafka_TopicDescription_t **topics
        cdef const rd_kafka_Uuid_t *identity
        cdef size_t count = 0
        cdef size_t i
        with nogil:
            event = rd_kafka_queue_poll(self.id_queue, timeout_ms)
        if event is NULL:
            return None
        ids = None
        result = rd_kafka_event_DescribeTopics_result(event)
        if result is not NULL and rd_kafka_event_error(event) == 0:
            ids = {}
            topics = rd_kafka_DescribeTopics_result_topics(result, &count)
            for i in range(count):
                identity = rd_kafka_TopicDescription_topic_id(topics[i])
                if rd_kafka_TopicDescription_error(topics[i]) is NULL and identity is not NULL:
                    bits = (rd_kafka_Uuid_most_significant_bits(identity),
                            rd_kafka_Uuid_least_significant_bits(identity))
                    if bits != (0, 0):    # which stands for none
                        ids[rd_kafka_TopicDescription_name(topics[i]).decode()] = bits
        rd_kafka_event_destroy(event)
        rd_kafka_queue_destroy(self.id_queue)
        self.id_queue = NULL
        return ids

    cdef void drop_ids(self) noexcept:
        """Waits for the answer to ask_ids(), and ignores it; there is one soon after the request's timeout.

        rd_kafka_destroy() must not come before it: if the answer comes while librdkafka ends, librdkafka follows a NULL
        pointer (rd_kafka_DescribeTopicsResponse_parse).
        """
        cdef rd_kafka_event_t *event
        if self.id_queue is NULL:
            return
        with nogil:
            event = rd_kafka_queue_poll(self.id_queue, LAST_ANSWER_MS)
            if event is not NULL:
                rd_kafka_event_destroy(event)
            rd_kafka_queue_destroy(self.id_queue)
        self.id_queue = NULL

    def bootstrap(self, bytes servers):
        """Has librdkafka ask the brokers of bootstrap.servers again, which it lets go once it knows the cluster's.

        One that it still has is not added again; those that are no brokers' addresses go with the next metadata.
        """
        add_brokers(self.rk, servers)

    cdef void hand_over(self, OpenTopic *topic, ProducerBatch *batch, int32_t count, report_function report,
                        void *argument) noexcept nogil:
        """Gives count more records of a batch to librdkafka, in order. thread: any  lock: sender_lock

        produce_batch is the cheap call, but it stamps records with the time of
        the call and carries no headers. So it takes records that have none,
        came without a timestamp and were sent at most LATE_MS ago; the others
        go one by one, with the timestamp they have. Records that librdkafka
        refuses are reported here.
        """
        cdef fp_record record
        cdef const char *at
        cdef const char *p = batch.cursor
        cdef int32_t i, run = 0
        cdef int32_t first = batch.submitted
        cdef int64_t now_ms = fp_wall_ms()
        cdef rd_kafka_message_t *messages = self.messages
        cdef rd_kafka_message_t *message
        cdef uintptr_t plain = <uintptr_t>opaque(batch, 0, PLAIN)
        cdef int64_t base_timestamp = batch.base_timestamp
        batch.submitted += count
        for i in range(first, first + count):
            at = p
            p = fp_record_read(p, &record, base_timestamp)
            if record.headers is NULL and not record.timed and 0 <= now_ms - record.timestamp <= LATE_MS:
                message = &messages[run]
                message.payload = <char *>record.value
                message.len = record.value_len
                message.key = <char *>record.key
                message.key_len = record.key_len
                message._private = <void *>(plain | <uintptr_t>i)
                run += 1
                if run == MAX_MESSAGES_PER_CALL:
                    self.produce_plain(topic, batch, i + 1 - run, run, report, argument)
                    run = 0
                    now_ms = fp_wall_ms()
            else:
                if run:
                    self.produce_plain(topic, batch, i - run, run, report, argument)
                    run = 0
                    now_ms = fp_wall_ms()
                self.produce_stamped(topic, batch, i, at, report, argument)
        if run:
            self.produce_plain(topic, batch, batch.submitted - run, run, report, argument)
        batch.cursor = p

    cdef rd_kafka_topic_partition_list_t *pause(self, OpenTopic *topic, const char *name,
                                                int32_t partition) noexcept nogil:
        """Keeps librdkafka from making requests for a partition, up to resume(), which gets the answer.

        NULL if it does not know the partition. No record of it may be outstanding. thread: any  lock: sender_lock
        """
        cdef rd_kafka_topic_partition_list_t *paused = rd_kafka_topic_partition_list_new(1)
        cdef rd_kafka_topic_partition_t *entry = rd_kafka_topic_partition_list_add(paused, name, partition)
        rd_kafka_pause_partitions(topic.rk, paused)
        if entry.err:
            rd_kafka_topic_partition_list_destroy(paused)
            return NULL
        return paused

    cdef void resume(self, rd_kafka_topic_partition_list_t *paused, OpenTopic *topic,
                     int32_t partition) noexcept nogil:
        """Lets librdkafka make requests again, and wakes those who make them. thread: any  lock: sender_lock

        Each change leaves a mark in a queue that only consumers read: a few hundred bytes for good, and a longer
        search for each next one, unless they are taken out (rd_kafka_toppar_op_version_bump).
        """
        cdef rd_kafka_message_t *found[1]
        rd_kafka_resume_partitions(topic.rk, paused)
        rd_kafka_topic_partition_list_destroy(paused)
        rd_kafka_consume_batch(topic.topic, partition, 0, found, 1)
        rd_kafka_flush(topic.rk, 0)   # of what it does only the waking is wanted; resuming does not wake

    cdef void produce_plain(self, OpenTopic *topic, ProducerBatch *batch, int32_t first, int32_t count,
                            report_function report, void *argument) noexcept nogil:
        cdef Report refused
        cdef int32_t i
        if rd_kafka_produce_batch(
                topic.topic, batch.result.partition, 0, self.messages, count) == count:
            return
        for i in range(count):
            if self.messages[i].err:
                refusal_report(&refused, batch.slot, first + i, 1, self.messages[i].err)
                report(argument, &refused)

    cdef void produce_stamped(self, OpenTopic *topic, ProducerBatch *batch, int32_t index, const char *at,
                              report_function report, void *argument) noexcept nogil:
        """at: the record, in the batch's arena."""
        cdef rd_kafka_vu_t *arguments = self.arguments
        cdef fp_record record
        cdef const char *p
        cdef const char *end
        cdef fp_header header
        cdef size_t n = FIXED_ARGUMENTS
        cdef rd_kafka_error_t *error
        cdef Report refused
        fp_record_read(at, &record, batch.base_timestamp)
        p = record.headers
        end = p + record.headers_len
        fp_vu_topic(&arguments[0], topic.topic)
        fp_vu_partition(&arguments[1], batch.result.partition)
        fp_vu_value(&arguments[2], record.value, record.value_len)
        fp_vu_key(&arguments[3], record.key, record.key_len)
        fp_vu_opaque(&arguments[4], opaque(batch, index, 0))
        fp_vu_timestamp(&arguments[5], record.timestamp)
        while p < end:
            if n == self.arguments_size:
                arguments = <rd_kafka_vu_t *>realloc(self.arguments, 2 * n * sizeof(rd_kafka_vu_t))
                if arguments is NULL:
                    refusal_report(&refused, batch.slot, index, 1, CRIT_SYS_RESOURCE)
                    report(argument, &refused)
                    return
                self.arguments = arguments
                self.arguments_size = 2 * n
            p = fp_header_read(p, &header)
            fp_vu_header(&arguments[n], header.name, header.value, header.value_len)
            n += 1
        if record.timestamp == 0:          # librdkafka takes 0 for now
            fp_vu_timestamp(&arguments[5], 1)
            self.stamping_zero = 1         # until on_send()
        error = rd_kafka_produceva(topic.rk, arguments, n)
        if error is not NULL:
            self.stamping_zero = 0         # it may not have got as far as that
            refusal_report(&refused, batch.slot, index, 1, rd_kafka_error_code(error))
            rd_kafka_error_destroy(error)
            report(argument, &refused)

    cdef rd_kafka_event_t *next_event(self, int timeout_ms) noexcept nogil:
        """Waits up to timeout_ms for an event; NULL if none came, or after wake().

        thread: sender; any under sender_lock, with timeout_ms 0
        """
        return rd_kafka_queue_poll(self.queue, timeout_ms)

    cdef rd_kafka_event_t *next_of(self, rd_kafka_queue_t *queue, int timeout_ms) noexcept nogil:
        """next_event() of a queue that was read under sender_lock: another may be the current one meanwhile."""
        return rd_kafka_queue_poll(queue, timeout_ms)

    cdef void serve(self, rd_kafka_event_t *event, report_function report, void *argument) noexcept nogil:
        """Reports what the event says, and ends it. thread: any  lock: sender_lock"""
        cdef int kind = rd_kafka_event_type(event)
        cdef int level
        cdef const char *facility
        cdef const char *text
        if kind == RD_KAFKA_EVENT_DR:
            self.report_deliveries(event, report, argument)
        elif kind == RD_KAFKA_EVENT_ERROR:
            self.note_error(rd_kafka_event_error(event), rd_kafka_event_error_string(event),
                            rd_kafka_event_error_is_fatal(event))
            self.callbacks.want_refresh()
        elif kind == RD_KAFKA_EVENT_LOG:
            if (rd_kafka_event_log(event, &facility, &text, &level) == 0
                    and strstr(text, b"No `bootstrap.servers` configured") is NULL):   # they come after the login
                self.callbacks.log(level, facility, text)
        rd_kafka_event_destroy(event)

    cdef void report_deliveries(self, rd_kafka_event_t *event, report_function report, void *argument) noexcept nogil:
        """Reports the messages of an event, consecutive records of a batch together."""
        cdef const rd_kafka_message_t *found[FETCH]
        cdef const rd_kafka_message_t *message
        cdef Report current
        cdef size_t count, i
        cdef uint64_t tag, expected = 0
        cdef int64_t offset, timestamp
        cdef int stamp_type = 0
        cdef int failed = 0
        cdef int first = 1, offsets = 0
        current.count = 0
        while True:
            count = rd_kafka_event_message_array(event, found, FETCH)
            if count == 0:
                break
            for i in range(count):
                message = found[i]
                tag = <uintptr_t>message._private
                # An answer without offsets (acks=0, or a lost one that was made
                # up for) numbers its messages from -1001 on, into the positive.
                if first and message.err == 0:
                    first = 0
                    offsets = message.offset >= 0
                offset = message.offset if offsets and message.offset >= 0 else -1
                timestamp = rd_kafka_message_timestamp(message, &stamp_type)
                if stamp_type != RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME and not tag & PLAIN:
                    timestamp = -1
                if (current.count and tag == expected and message.err == current.code
                        and timestamp == current.timestamp
                        and offset == (current.offset + current.count if current.offset >= 0 else -1)):
                    current.count += 1
                    expected += 1
                    continue
                if current.count:
                    report(argument, &current)
                current.slot = <int32_t>(tag >> 32)
                current.first = <int32_t>(tag & INDEX)
                current.count = 1
                expected = tag + 1
                current.code = message.err
                current.offset = offset
                current.latency_us = rd_kafka_message_latency(message)
                current.broker = rd_kafka_message_broker_id(message)
                current.timestamp = timestamp
                current.persisted = PERSISTED
                if message.err:
                    current.persisted = rd_kafka_message_status(message)
                    failed = 1
        if current.count:
            report(argument, &current)
        if failed:
            self.callbacks.want_refresh()

    cdef void note_acknowledgement(self, const rd_kafka_message_t *message) noexcept nogil:
        """thread: librdkafka's, of a broker, which holds none of its locks when a record was delivered

        librdkafka also comes with err 0 for records of a refused batch whose
        errors it has one by one; those are not marked as persisted.
        """
        cdef Report report
        cdef uint64_t tag = <uintptr_t>message._private
        cdef int stamp_type = 0
        if not self.without_acks and rd_kafka_message_status(message) != PERSISTED:
            return
        report.slot = <int32_t>(tag >> 32)
        report.first = 0
        report.count = 1
        report.code = 0
        report.offset = message.offset if message.offset >= 0 and not self.without_acks else -1
        report.timestamp = rd_kafka_message_timestamp(message, &stamp_type)
        if stamp_type != RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME and not tag & PLAIN:
            report.timestamp = -1
        report.latency_us = rd_kafka_message_latency(message)
        report.broker = -1
        report.persisted = PERSISTED
        self.acknowledged(self.receiver, &report)

    cdef void note_error(self, int code, const char *text, int fatal) noexcept nogil:
        fp_mutex_lock(&self.error_lock)
        if code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
            self.all_down_ns = fp_monotonic_ns()   # follows the cause, which is worth more
        elif strstr(text, b"Send failed: Broken pipe") is NULL:
            # That one only says that the broker had ended the connection, which is mostly noticed without a word.
            if strstr(self.error_text, b"PLAINTEXT") is NULL or strstr(text, b"in state SSL_HANDSHAKE") is NULL:
                # Else librdkafka had said what it takes such an end for, as it does but once in a while.
                strncpy(self.error_text, text, sizeof(self.error_text) - 1)
            self.error_code = code
            self.error_ns = fp_monotonic_ns()
        if fatal:
            strncpy(self.fatal_text, text, sizeof(self.fatal_text) - 1)
            self.fatal_code = code
        fp_mutex_unlock(&self.error_lock)

    cdef void wake(self) noexcept nogil:
        """Ends a next_event() that waits, or else the next one. thread: any  lock: none"""
        rd_kafka_queue_yield(self.queue)

    cdef void purge(self, int wait) noexcept nogil:
        """Makes librdkafka give up every record it holds; each is still reported, some time later.

        wait: until that is done, so that nothing handed over later is given up; a thread of librdkafka's may be at a
        DNS query. Else a record that is handed over soon may go with the others.
        """
        cdef int flags = RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | (
            0 if wait else RD_KAFKA_PURGE_F_NON_BLOCKING)
        rd_kafka_purge(self.rk, flags)
        if self.retired.rk is not NULL:
            rd_kafka_purge(self.retired.rk, flags)

    cdef void purge_after_fatal(self) noexcept nogil:
        """Makes librdkafka give up what it will not send any more, if it met a fatal error.

        It does so itself when it meets one (rd_kafka_set_fatal_error0). But a request that is under way then may fail
        later, and its records come back to a queue that nobody looks at again, until their time is over.
        """
        if self.fatal_code:
            rd_kafka_purge(self.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING)
            if self.retired.rk is not NULL:
                self.purge_retired()

    cdef void trigger_timeout_scan(self) noexcept nogil:
        """Has librdkafka's threads look for requests that have timed out, if their second is over.

        They look once a second, but not while they sleep, which may be for another one (rd_kafka_broker_serve). They
        wake up to purge, and without one of the other flags there is nothing that they purge.
        """
        rd_kafka_purge(self.rk, RD_KAFKA_PURGE_F_NON_BLOCKING)
        if self.retired.rk is not NULL:
            rd_kafka_purge(self.retired.rk, RD_KAFKA_PURGE_F_NON_BLOCKING)

    def last_error(self, int64_t since_ns):
        """(code, text) of the newest error event after a monotonic time, such as a refused connection, or (0, "").

        librdkafka gives none where a broker accepts a connection and ends it without a word.
        """
        fp_mutex_lock(&self.error_lock)
        code, text, noted_ns, all_down_ns = self.error_code, <bytes>self.error_text, self.error_ns, self.all_down_ns
        fp_mutex_unlock(&self.error_lock)
        if code and noted_ns > since_ns:
            return code, text.decode("utf-8", "replace")
        if all_down_ns > since_ns:
            return RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, (
                "brokers end the connection at once, as ports for TLS or SASL do with who does not speak it: "
                "check security.protocol")
        return 0, ""

    @property
    def refused_certificate(self):
        """OpenSSL's code for why a broker's certificate was refused last (X509_V_ERR_...), or 0."""
        return self.certificate_error

    def token_wanted(self):
        """Waits until librdkafka needs an OAUTHBEARER token, or wake_token(): sasl.oauthbearer.config, or None.

        None comes also when another greenlet may have something to do.
        """
        cdef rd_kafka_event_t *event
        cdef const char *text
        cdef rd_kafka_queue_t *queue = self.coming.sasl_queue
        cdef int timeout_ms = 0 if pause_greenlet(TOKEN_PAUSE_NS) else -1
        if queue is NULL:
            queue = self.sasl_queue
        self.polled_for_tokens = queue
        with nogil:
            event = rd_kafka_queue_poll(queue, timeout_ms)
        self.polled_for_tokens = NULL
        if event is NULL:
            return None
        found = None
        if rd_kafka_event_type(event) == RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH:
            text = rd_kafka_event_config_string(event)
            found = "" if text is NULL else (<bytes>text).decode("utf-8", "replace")
        rd_kafka_event_destroy(event)
        return found

    def wake_token(self):
        """Ends a token_wanted() that waits, or else the next one."""
        if self.coming.sasl_queue is not NULL:
            rd_kafka_queue_yield(self.coming.sasl_queue)
        rd_kafka_queue_yield(self.sasl_queue)

    def set_token(self, str token, int64_t expiry_ms, str principal, dict extensions):
        """Gives librdkafka a token that lives until a time in ms since the epoch. ValueError says what is wrong."""
        cdef char text[512]
        cdef const char *pairs[32]
        cdef list encoded = [part.encode() for pair in extensions.items() for part in pair]
        cdef bytes principal_bytes = principal.encode()
        cdef Py_ssize_t i
        if expiry_ms <= fp_wall_ms():
            raise ValueError(f"the expiry, {expiry_ms / 1000:.0f}, is over: it must be that of an unexpired token, in "
                             f"seconds since the epoch, which is {fp_wall_ms() / 1000:.0f} s ago")
        if len(encoded) > 32:
            raise ValueError(f"{len(extensions)} extensions are more than 16")
        for i in range(len(encoded)):
            pairs[i] = <bytes>encoded[i]
        for rk in (<uintptr_t>self.rk, <uintptr_t>self.coming.rk, <uintptr_t>self.retired.rk):
            if rk and rd_kafka_oauthbearer_set_token(
                    <rd_kafka_t *><uintptr_t>rk, token.encode(), expiry_ms, principal_bytes, pairs, len(encoded), text,
                    sizeof(text)):
                raise ValueError(text.decode("utf-8", "replace"))

    def fail_token(self, str reason):
        """Tells librdkafka that there is none; it asks again in 10 s."""
        for rk in (<uintptr_t>self.rk, <uintptr_t>self.coming.rk):
            if rk:
                rd_kafka_oauthbearer_set_token_failure(<rd_kafka_t *><uintptr_t>rk, reason.encode("utf-8", "replace"))

    @property
    def fatal_reason(self):
        """What librdkafka says of it: topic, partition, broker and what went before."""
        fp_mutex_lock(&self.error_lock)
        text = <bytes>self.fatal_text
        fp_mutex_unlock(&self.error_lock)
        return text.decode("utf-8", "replace").removeprefix("Fatal error: ")

    # Transactions. thread: app or transaction, one call at a time

    cdef int set_offsets(self, TransactionCall *call, list offsets, bytes group) except -1:
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

    cdef void free_offsets(self, TransactionCall *call) noexcept nogil:
        if call.offsets is not NULL:
            rd_kafka_topic_partition_list_destroy(call.offsets)
        if call.group is not NULL:
            rd_kafka_consumer_group_metadata_destroy(call.group)
        call.offsets = NULL
        call.group = NULL

    cdef void transact(self, TransactionCall *call) noexcept nogil:
        """Makes the call and notes librdkafka's answer. Blocks up to call.timeout_ms; begin does not block."""
        cdef rd_kafka_error_t *error
        if call.request == INIT_TRANSACTIONS:
            error = rd_kafka_init_transactions(self.rk, call.timeout_ms)
        elif call.request == BEGIN_TRANSACTION:
            error = rd_kafka_begin_transaction(self.rk)
        elif call.request == SEND_OFFSETS:
            error = rd_kafka_send_offsets_to_transaction(self.rk, call.offsets, call.group, call.timeout_ms)
        elif call.request == COMMIT_TRANSACTION:
            error = rd_kafka_commit_transaction(self.rk, call.timeout_ms)
        else:
            error = rd_kafka_abort_transaction(self.rk, call.timeout_ms)
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
