"""Handle: a librdkafka producer, how it is configured, made and destroyed."""

from libc.stdint cimport int32_t
from libc.stdlib cimport free
from libc.string cimport memset, strstr
from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions

from fastprod.errors import ConfigError, KafkaError
from fastprod.config.options import redact

LOGIN = ("sasl.username", "sasl.password")
C_SPACE = " \t\n\v\f\r"   # what isspace() takes


fp_librdkafka_use(functions())


def knows(str name):
    """Returns whether librdkafka has a property of this name."""
    cdef bytes encoded = name.encode()
    cdef char text[512]
    cdef rd_kafka_conf_t *conf = rd_kafka_conf_new()
    cdef int status = rd_kafka_conf_set(conf, encoded, NULL, text, sizeof(text))
    rd_kafka_conf_destroy(conf)
    return status != RD_KAFKA_CONF_UNKNOWN


cdef str advice(const char *refused):
    """Returns what to do about an error of librdkafka whose text only helps those who build it."""
    if strstr(refused, b"SASL mechanism GSSAPI") is not NULL:
        return (". GSSAPI is what sasl.mechanism is unless you set it: set PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or "
                "OAUTHBEARER, or let FASTPROD_LIBRDKAFKA name a librdkafka that has GSSAPI")
    return ""


cdef int check_kept(rd_kafka_conf_t *conf, str name, str value) except -1:
    """Raises ConfigError unless librdkafka has kept the value that was set.

    It drops white space before a text and everything after the digits of a number, and wraps numbers at 32 bits.
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
        raise ConfigError(f"{name}={redact(name, repr(value))}: librdkafka drops white space at the beginning, so it "
                          "would use another value: give one that does not begin with white space")
    try:
        changed = kept.lstrip("-").isdigit() and float(kept) != float(value)
    except ValueError:    # float() takes no 5x, which librdkafka reads as a number
        changed = value.strip(C_SPACE)[0] in "+-.0123456789"
    if changed:
        raise ConfigError(f"{name}={redact(name, repr(value))}: librdkafka would read {redact(name, kept)}")
    return 0


cdef bint needs_literal_credentials(dict properties):
    """Returns whether user and password must bypass the text configuration, which would change them."""
    login = [properties.get(name, "") for name in LOGIN]
    return all(login) and any(text[0] in C_SPACE for text in login)


cdef int check(rd_kafka_error_t *error, str what) except -1:
    """Raises KafkaError if there is an error, and frees it. what: librdkafka's failure, as a predicate."""
    if error is not NULL:
        code = rd_kafka_error_code(error)
        rd_kafka_error_destroy(error)
        raise KafkaError(f"librdkafka {what} (code {code})", code=code)
    return 0


cdef int log_in(rd_kafka_t *rk, bytes user, bytes password) except -1:
    """Sets user and password unchanged. librdkafka reads them for each connection."""
    return check(rd_kafka_sasl_set_credentials(rk, user, password), "does not take user and password")


cdef int add_brokers(rd_kafka_t *rk, bytes servers) except -1:
    cdef const char *list_of_them = servers
    with nogil:
        rd_kafka_brokers_add(rk, list_of_them)
    return 0


cdef int record_certificate(rd_kafka_t *rk, const char *broker_name, int32_t broker_id, int *x509_error, int depth,
                            const char *certificate, size_t size, char *errstr, size_t errstr_size,
                            void *opaque) noexcept nogil:
    """Lets OpenSSL's verdict stand and notes it: librdkafka's text is the same for all. thread: librdkafka's"""
    if x509_error[0] == 0:
        return 1
    (<int *>opaque)[0] = x509_error[0]
    return 0


cdef int serve_tokens_in_background(rd_kafka_t *rk) except -1:
    """Lets librdkafka make or fetch its tokens on a thread of its own."""
    return check(rd_kafka_sasl_background_callbacks_enable(rk), "cannot serve OAUTHBEARER tokens")


cdef str with_metadata(str debug):
    """The property debug, with the context that RecreatedTopics reads."""
    return f"{debug},metadata" if debug else "metadata"


cdef class HandleFactory:
    """Makes librdkafka producers of one configuration.

    Owns the configuration. Used by the thread that constructs the producer, and by the metadata thread.
    """

    def __cinit__(self, dict properties, bint has_token_provider):
        cdef char text[512]
        cdef dict text_properties = properties | {
            "debug": with_metadata(properties.get("debug", "")), "log.queue": "true"}
        if needs_literal_credentials(properties):    # brokers are added after it, or a connection could come first
            if properties.get("client.dns.lookup", "use_all_dns_ips") != "use_all_dns_ips":
                raise ConfigError(f"{LOGIN[0]} or {LOGIN[1]} begins with white space: for librdkafka to keep it, "
                                  "client.dns.lookup must be use_all_dns_ips")
            self.credentials = tuple(properties[name].encode() for name in (*LOGIN, "bootstrap.servers"))
            text_properties |= dict.fromkeys(LOGIN, "set below")
            del text_properties["bootstrap.servers"]
        self.configuration = rd_kafka_conf_new()
        for name, value in text_properties.items():
            if rd_kafka_conf_set(
                    self.configuration, name.encode(), value.encode(), text, sizeof(text)) != RD_KAFKA_CONF_OK:
                raise ConfigError(f"{name}: {redact(name, text.decode('utf-8', 'replace'))}")
            check_kept(self.configuration, name, value)
        if properties.get("enable.ssl.certificate.verification", "true") == "true":
            rd_kafka_conf_set_ssl_cert_verify_cb(self.configuration, record_certificate)
        self.events = RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG
        if has_token_provider:
            self.events |= RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH
        self.has_token_provider = has_token_provider
        self.uses_own_tokens = not has_token_provider and properties.get("sasl.mechanism") == "OAUTHBEARER"

    def __dealloc__(self):
        if self.configuration is not NULL:
            rd_kafka_conf_destroy(self.configuration)

    cdef int make(self, Handle *made, rd_kafka_interceptor_f_on_new_t add_interceptors, void *transport,
                  int *certificate_error) except -1:
        """Makes a librdkafka producer with its queues. transport: the interceptors get it.

        certificate_error: gets OpenSSL's code for a broker's certificate that is refused.
        """
        cdef char text[512]
        cdef rd_kafka_conf_t *conf = rd_kafka_conf_dup(self.configuration)
        memset(made, 0, sizeof(Handle))
        # A copy lacks the interceptors, and everything that is not a property.
        rd_kafka_conf_interceptor_add_on_new(conf, b"fastprod", add_interceptors, transport)
        rd_kafka_conf_set_opaque(conf, certificate_error)
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
            if self.credentials is not None:
                user, password, servers = self.credentials
                log_in(made.rk, user, password)
                add_brokers(made.rk, servers)
        except KafkaError:
            end_handle(made)
            raise
        rd_kafka_set_log_queue(made.rk, NULL)
        return 0


cdef int end_handle(Handle *handle) except -1:
    """Destroys a librdkafka producer, if there is one. No report may be outstanding, and no other call may use it."""
    cdef Handle ended = handle[0]
    cdef OpenTopic *topic
    memset(handle, 0, sizeof(Handle))    # before the GIL is released, so that no thread finds it
    if ended.rk is NULL:
        return 0
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
