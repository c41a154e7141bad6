from fastprod.librdkafka.declarations cimport (
    rd_kafka_conf_t, rd_kafka_interceptor_f_on_new_t, rd_kafka_queue_t, rd_kafka_t, rd_kafka_topic_t,
)

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

cdef class HandleFactory:
    cdef rd_kafka_conf_t *configuration  # each handle gets a copy
    cdef int events
    cdef tuple credentials               # user, password, bootstrap.servers; None: they are in the configuration
    cdef bint has_token_provider
    cdef bint uses_own_tokens            # librdkafka makes or fetches them

    cdef int make(self, Handle *made, rd_kafka_interceptor_f_on_new_t add_interceptors, void *transport,
                  int *certificate_error) except -1

cdef int end_handle(Handle *handle) except -1
cdef int add_brokers(rd_kafka_t *rk, bytes servers) except -1
