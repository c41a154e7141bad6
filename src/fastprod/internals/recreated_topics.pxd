from fastprod.internals.partition_queue cimport TOPIC_NAME_SIZE
from fastprod.internals.sync cimport fp_mutex

cdef struct RecreatedTopic:
    RecreatedTopic *next
    char name[TOPIC_NAME_SIZE]

cdef class RecreatedTopics:
    # guarded by lock
    cdef fp_mutex lock
    cdef RecreatedTopic *first

    cdef void read_line(self, const char *line) noexcept nogil
    cdef set take(self)
