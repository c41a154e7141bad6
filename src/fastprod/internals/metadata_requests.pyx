"""MetadataRequests: requests for metadata and topic ids, by librdkafka."""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions

from fastprod.errors import KafkaError

from fastprod.internals.handle cimport add_brokers

fp_librdkafka_use(functions())

cdef enum:
    LAST_ANSWER_MS = 10_000   # far more than any request for ids takes to fail


cdef int keep_topics(rd_kafka_t *rk, list names) except -1:
    """Makes librdkafka keep the topics, and refresh their metadata: it keeps them though the reference is dropped."""
    cdef rd_kafka_topic_t *topic
    for name in names:
        topic = rd_kafka_topic_new(rk, name.encode(), NULL)
        if topic is not NULL:
            rd_kafka_topic_destroy(topic)
    return 0


cdef class MetadataRequests:
    """Asks the cluster for topics, their leaders and ids. thread: metadata

    Owns the queue of a request for ids. drop_ids() must come before the transport ends.
    """

    def __cinit__(self, Transport transport):
        self.transport = transport
        self.answering_broker = -1

    def know(self, list names):
        """Makes librdkafka refresh the metadata of these topics too, from now on."""
        keep_topics(self.transport.rk, names)

    def metadata(self, str name, int timeout_ms):
        """Returns the metadata of a topic, or of all kept topics: (code, {name: (code, [leader, ...])}).

        leader: broker id, -1 for none. A code is 0 or librdkafka's. Blocks up to timeout_ms, without the GIL.
        """
        topics = {}
        return self.ask(self.transport.rk, name, timeout_ms, topics), topics

    cdef int ask(self, rd_kafka_t *rk, str name, int timeout_ms, dict topics) except? -1:
        cdef const rd_kafka_metadata_t *found = NULL
        cdef rd_kafka_metadata_topic_t *topic
        cdef rd_kafka_metadata_partition_t *partition
        cdef rd_kafka_topic_t *only = NULL
        cdef int code, i, j
        if name is not None:
            # librdkafka keeps the topic, though this reference is dropped at once.
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
        """Asks a broker for the ids of topics, once there is a connection. take_ids() returns the answer, if it comes.

        rd_kafka_metadata() does not give the ids, though brokers since Kafka 2.8 send them.
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
        self.id_queue = rd_kafka_queue_new(self.transport.rk)
        options = rd_kafka_AdminOptions_new(self.transport.rk, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS)
        rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof(text))
        rd_kafka_AdminOptions_set_broker(options, broker, text, sizeof(text))
        topics = rd_kafka_TopicCollection_of_topic_names(texts, len(encoded))
        rd_kafka_DescribeTopics(self.transport.rk, topics, options, self.id_queue)
        rd_kafka_TopicCollection_destroy(topics)
        rd_kafka_AdminOptions_destroy(options)
        free(texts)
        return 0

    cdef dict take_ids(self, int timeout_ms):
        """Returns {name: (high, low) bits of its id} of the topics with an id; None if there is no answer yet.

        None with id_queue NULL: there was an error instead of an answer.
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
                    if bits != (0, 0):    # that means no id
                        ids[rd_kafka_TopicDescription_name(topics[i]).decode()] = bits
        rd_kafka_event_destroy(event)
        rd_kafka_queue_destroy(self.id_queue)
        self.id_queue = NULL
        return ids

    cdef void drop_ids(self) noexcept:
        """Waits for the answer to ask_ids(), and drops it. It comes soon after the request's timeout at the latest.

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
        """Makes librdkafka connect to bootstrap.servers again. It drops them once it knows the cluster's brokers.

        It does not add a broker twice. It drops addresses of no broker with the next metadata.
        """
        add_brokers(self.transport.rk, servers)

    cdef int prepare(self, list names, int timeout_ms) except? -1:
        """Makes the next librdkafka producer and waits for its metadata. Returns 0, or the code of its error."""
        cdef rd_kafka_queue_t *polled = self.transport.sasl_queue
        cdef int code
        self.transport.make(&self.transport.coming)
        if polled is not NULL:
            rd_kafka_queue_yield(polled)   # the token thread waits at the queue of the coming one from here on
        keep_topics(self.transport.coming.rk, names)
        code = self.ask(self.transport.coming.rk, None, timeout_ms, {})
        if code:
            self.transport.discard()
        return code
