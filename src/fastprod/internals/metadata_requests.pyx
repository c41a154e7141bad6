"""MetadataRequests: requests for metadata, by librdkafka."""

from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions

from fastprod.errors import KafkaError

from fastprod.internals.handle cimport add_brokers

fp_librdkafka_use(functions())

cdef enum:
    REQUEST_TIMEOUT_MS = 1000   # of one request, which nothing interrupts
    FAILED = 1                  # an exception was raised instead of a code


cdef int keep_topics(rd_kafka_t *rk, list names) except -1:
    """Makes librdkafka keep the topics, and refresh their metadata: it keeps them though the reference is dropped."""
    cdef rd_kafka_topic_t *topic
    for name in names:
        topic = rd_kafka_topic_new(rk, name.encode(), NULL)
        if topic is not NULL:
            rd_kafka_topic_destroy(topic)
    return 0


cdef class MetadataRequests:
    """Asks the cluster for topics and their leaders. thread: metadata"""

    def __cinit__(self, Transport transport):
        self.transport = transport

    def know(self, list names):
        """Makes librdkafka refresh the metadata of these topics too, from now on."""
        keep_topics(self.transport.rk, names)

    def metadata(self, str name):
        """Returns the metadata of a topic, or of all kept topics: (code, {name: (code, [leader, ...])}).

        leader: broker id, -1 for none. A code is 0 or librdkafka's. Blocks up to REQUEST_TIMEOUT_MS, without the GIL.
        """
        topics = {}
        return self.ask(self.transport.rk, name, topics), topics

    cdef int ask(self, rd_kafka_t *rk, str name, dict topics) except? -1:
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
            code = rd_kafka_metadata(rk, 0, only, &found, REQUEST_TIMEOUT_MS)
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
            rd_kafka_metadata_destroy(found)
        return code

    def bootstrap(self, bytes servers):
        """Makes librdkafka connect to bootstrap.servers again. It drops them once it knows the cluster's brokers.

        It does not add a broker twice. It drops addresses of no broker with the next metadata.
        """
        add_brokers(self.transport.rk, servers)

    cdef int prepare(self, list names) except? -1:
        """Makes the next librdkafka producer and waits for its metadata. Returns 0, or the code of its error."""
        cdef rd_kafka_queue_t *polled = self.transport.sasl_queue
        cdef int code
        self.transport.make(&self.transport.coming)
        if polled is not NULL:
            rd_kafka_queue_yield(polled)   # the token thread waits at the queue of the coming one from here on
        code = FAILED
        try:
            keep_topics(self.transport.coming.rk, names)
            code = self.ask(self.transport.coming.rk, None, {})
        finally:
            if code:
                self.transport.discard()
        return code
