"""TopicMetadata: what is known of a topic. TopicIds: the ids of topics, which show that one was created again."""

import itertools

REQUEST_TIMEOUT_MS = 1000      # of one request, which nothing interrupts
cdef enum:
    FEW = 8                    # topics, and their leaders, whose brokers may be asked
    IDS_ASKED = 1000           # by one request


cdef class TopicMetadata:
    """A topic's partitions and leaders, as last heard. Written by the metadata thread, read by anyone with the GIL."""

    @property
    def leaderless(self):
        return -1 in self.leaders


cdef class TopicIds:
    """Asks for the ids of topics, and notes them in their TopicMetadata. thread: metadata

    Owns the names that have no id yet, and those that were asked for. A topic's id never changes, so another id means
    that the topic was deleted and created again.
    """

    def __cinit__(self, MetadataRequests requests, dict topics):
        self.requests = requests
        self.topics = topics
        self.unknown = set()
        self.asked = []

    cdef int learn(self) except -1:
        """Takes the answer to the last request, if it has come, and asks for more ids. Does not wait."""
        cdef TopicMetadata entry
        if self.requests.id_queue is not NULL:
            ids = self.requests.take_ids(0)
            if ids is None and self.requests.id_queue is not NULL:
                return 0
            if ids is None:
                self.drop()
                self.next_broker += 1
            else:
                for name, identity in ids.items():
                    entry = self.topics.get(name)
                    if entry is not None and entry.identity is None:
                        entry.identity = identity
                self.asked = []
        if self.unknown:
            names = list(itertools.islice(self.unknown, IDS_ASKED))
            if self.ask(names):
                self.asked = names
                self.unknown.difference_update(names)
        return 0

    cdef list changed(self, list names):
        """Returns the TopicMetadata of each of these topics that has another id now. Waits for an answer."""
        cdef TopicMetadata entry
        cdef list found = []
        names = [name for name in names
                 if name in self.topics and (<TopicMetadata>self.topics[name]).identity is not None]
        if not names:
            return found
        self.drop()
        self.ask(names)
        ids = self.requests.take_ids(REQUEST_TIMEOUT_MS) if self.requests.id_queue is not NULL else None
        self.requests.drop_ids()
        if ids is None:
            self.next_broker += 1
            return found
        for name in names:
            entry = self.topics.get(name)
            if entry is not None and ids.get(name, entry.identity) != entry.identity:
                entry.identity = ids[name]
                found.append(entry)
        return found

    cdef bint ask(self, list names) except -1:
        """Asks a broker that probably has a connection: another one after each request without an answer.

        Returns whether it has asked: not if it knows no broker yet.
        """
        cdef TopicMetadata entry
        brokers = {self.requests.answering_broker} - {-1}
        for name in names[:FEW]:
            entry = self.topics.get(name)
            if entry is not None:
                brokers.update(leader for leader in entry.leaders[:FEW] if leader >= 0)
        if not brokers:
            return False
        brokers = sorted(brokers)
        self.requests.ask_ids(names, brokers[self.next_broker % len(brokers)], REQUEST_TIMEOUT_MS)
        return True

    cdef int drop(self) except -1:
        """Drops a request that is under way. Its topics are asked for again."""
        self.unknown.update(self.topics.keys() & self.asked)
        self.asked = []
        self.requests.drop_ids()
        return 0
