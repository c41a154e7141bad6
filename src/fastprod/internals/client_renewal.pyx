"""ClientRenewal: when a new librdkafka producer takes the place of the current one."""

from libc.stdint cimport int64_t, uintptr_t
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.sync cimport fp_atomic_load, fp_monotonic_ns
from fastprod.internals.topic_metadata cimport TopicMetadata

cdef int64_t SECOND = 1_000_000_000
cdef enum:
    # When the librdkafka producer has so many topics, and topics and partitions together, more than twice those that
    # came back, another one takes its place.
    MANY_TOPICS = 100
    MANY_PARTITIONS = 2048
    LOG_ERR = 3
    LOG_WARNING = 4


cdef class ClientRenewal:
    """Has another librdkafka producer take over when the current one knows too much, or what is wrong.

    librdkafka never forgets a topic: each takes 2 kB and 2 kB for each partition, and makes the next one slower. So
    when there are many, it is given a new start with those that are in use. The others are asked for again if they are
    used again. If those that come back are many, more are waited for.

    librdkafka takes no leader from an answer whose leader epoch is older than the one it knows, and the epochs of a
    topic that was created again start again. It would go on sending to a broker that does not lead the partition. A new
    librdkafka producer does not know the old epochs.

    Only the metadata thread uses it. Transport has the steps of the replacement.
    """

    def __cinit__(self, ProducerMetadata metadata, MetadataRequests requests, Transport transport, Sender sender,
                  bint renewable):
        self.metadata = metadata
        self.requests = requests
        self.transport = transport
        self.sender = sender
        self.renewable = renewable
        self.recreated, self.forgotten = set(), set()
        self.stranded = []

    cdef int count_opened(self, list names) except -1:
        """Counts topics that the librdkafka producer is about to learn of."""
        self.opened += len(names)
        self.opened_topics += len(names)
        return 0

    cdef int count_known(self, list entries) except -1:
        """Counts topics whose partitions it has learned."""
        cdef TopicMetadata entry
        for entry in entries:
            self.opened += entry.partitions
            if entry.name in self.forgotten:
                self.forgotten.remove(entry.name)
                self.returned += 1 + entry.partitions
        return 0

    cdef int check_recreated(self) except -1:
        """Finds topics that were deleted and created again, among those whose records are not acknowledged."""
        cdef TopicMetadata entry
        self.recreated |= self.transport.recreated_topics.take()
        if self.stranded or not self.recreated:
            return 0
        for name in self.recreated.intersection(self.sender.slow_topics(SECOND)):
            self.recreated.remove(name)
            entry = self.metadata.topics.get(name)
            if entry is not None:
                entry.anew = True
                self.stranded.append(entry)
        return 0

    cdef bint is_due(self, int64_t now) noexcept:
        # Not during a purge: it may hold sender_lock for as long as a DNS query, and switch_over() holds the GIL.
        if now < self.next_renewal_ns or fp_atomic_load(<const int *>&self.sender.requests.purging):
            return False
        return bool(self.stranded) or (
            self.renewable and self.opened_topics >= MANY_TOPICS
            and self.opened >= MANY_PARTITIONS + 2 * self.returned)

    cdef bint renew(self) except -1:
        """Has another librdkafka producer take the place of this one. Returns whether topics were created again."""
        cdef TopicMetadata entry
        if not self.renewable:
            return self.report_stranded()
        self.next_renewal_ns = fp_monotonic_ns() + SECOND
        forgotten = self.metadata.sweep(fp_monotonic_ns() - SECOND)
        names = list(self.metadata.topics)
        if self.requests.prepare(names):
            return False
        stranded, self.stranded, self.recreated = self.stranded, [], set()
        self.sender.switch_over([<uintptr_t>(<TopicMetadata>found).topic for found in stranded])
        self.transport.recreated_topics.take()    # the former librdkafka producer's
        with self.metadata.lock:
            self.metadata.unopened = set(self.metadata.topics).difference(names)
            self.forgotten = forgotten
            self.returned = 0
            self.opened_topics = len(self.metadata.topics) - len(self.metadata.unopened)
            self.opened = self.opened_topics + self.metadata.known_partitions
        for entry in stranded:
            self.metadata.log(LOG_WARNING, f"{entry.name} was deleted and made anew: its records go to the new one")
        return bool(stranded)

    cdef int report_stranded(self) except -1:
        """Logs the topics to which a transactional producer cannot deliver any more."""
        cdef TopicMetadata entry
        for entry in self.stranded:
            self.metadata.log(LOG_ERR, f"{entry.name} was deleted and made anew: librdkafka cannot deliver to it, and "
                              "a transactional producer cannot start librdkafka anew: close this one and make another")
        self.stranded = []
        return 0
