"""RecreatedTopics: topics that were deleted and created again, as librdkafka's log shows."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strncmp, strstr
from fastprod.internals.sync cimport fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock

# "[thrd:main]: Topic NAME changed id from ID to ID", at level debug, with debug=metadata.
# Source: rd_kafka_topic_metadata_update() of librdkafka 2.5 and later.
cdef const char *CHANGED = b" changed id from "
cdef const char *TO = b" to "
cdef const char *NO_ID = b"AAAAAAAAAAAAAAAAAAAAAA"     # a topic's id in base64 that is not known: all zero
cdef enum:
    CHANGED_SIZE = 17
    TO_SIZE = 4
    ID_SIZE = 22
    SPACE = 32


cdef class RecreatedTopics:
    """The names of topics whose id has changed.

    A topic's id never changes, so another id means that the topic was deleted and created again. librdkafka gives ids
    by rd_kafka_DescribeTopics() too, but ends the process if a broker answers that request with an error of the whole
    (rd_kafka_admin_response_parse() of librdkafka 2.16). Its log says what it has learnt without a request.

    Owns the names until take(). Thread-safe. lock is a leaf: no other lock is taken while it is held.
    """

    def __cinit__(self):
        fp_mutex_init(&self.lock)

    def __dealloc__(self):
        self.take()
        fp_mutex_destroy(&self.lock)

    cdef void read_line(self, const char *line) noexcept nogil:
        """Keeps the topic's name if the line says that its id has changed. thread: any  lock: any"""
        cdef const char *end = strstr(line, CHANGED)
        cdef const char *name
        cdef const char *former
        cdef RecreatedTopic *topic
        if end is NULL:
            return
        former = end + CHANGED_SIZE
        name = strstr(former, TO)
        if name is NULL or strncmp(former, NO_ID, ID_SIZE) == 0 or strncmp(name + TO_SIZE, NO_ID, ID_SIZE) == 0:
            return
        name = end
        while name > line and (name - 1)[0] != SPACE:
            name -= 1
        if end - name >= TOPIC_NAME_SIZE:
            return
        topic = <RecreatedTopic *>malloc(sizeof(RecreatedTopic))
        if topic is NULL:
            return
        memcpy(topic.name, name, end - name)
        topic.name[end - name] = 0
        fp_mutex_lock(&self.lock)
        topic.next = self.first
        self.first = topic
        fp_mutex_unlock(&self.lock)

    cdef set take(self):
        """Returns the names that came since the last call. thread: metadata"""
        cdef RecreatedTopic *topic
        cdef RecreatedTopic *taken
        cdef set names = set()
        fp_mutex_lock(&self.lock)
        topic, self.first = self.first, NULL
        fp_mutex_unlock(&self.lock)
        while topic is not NULL:
            names.add((<bytes>topic.name).decode("utf-8", "replace"))
            taken, topic = topic, topic.next
            free(taken)
        return names
