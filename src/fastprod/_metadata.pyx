"""ProducerMetadata: what is known of the topics, and the thread that asks for it.

Source: org.apache.kafka.clients.producer.internals.ProducerMetadata.
"""

from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t
from fastprod._accumulator cimport RecordAccumulator
from fastprod._input cimport shorten
from fastprod._sync cimport fp_monotonic_ns
from fastprod._transport cimport Transport

import array
import logging
import threading
import time

from fastprod.errors import (
    MetadataTimeoutError, ProducerClosedError, UnknownTopicOrPartitionError, for_authentication, for_delivery,
)
from fastprod.librdkafka import describe
from fastprod.records import Cluster, PartitionInfo

REQUEST_TIMEOUT_MS = 1000     # of one attempt; close() may have to wait for it
UNKNOWN_TOPIC_ANSWERS = 10     # after which a topic that no broker knows is an error: it may have been made just now
# Seconds after each of the first answers until the next request. librdkafka asks
# for its producer id when it has metadata and a connection, and else looks only
# every 500 ms: at the start the first answer often comes a little too early.
EARLY_REQUESTS = (0.03, 0.06, 0.12)
cdef enum:
    UNKNOWN_TOPIC_OR_PART = 3
    LEADER_NOT_AVAILABLE = 5
    NO_MEMORY = -194     # librdkafka's _CRIT_SYS_RESOURCE


cdef class TopicMetadata:
    """A topic's partitions and leaders, as last heard. Written by the metadata thread, read by anyone with the GIL."""

    @property
    def leaderless(self):
        return -1 in self.leaders


cdef class ProducerMetadata:
    """Learns partition counts and leaders, and gives them to the accumulator.

    All requests are made by one thread, since librdkafka's call blocks and
    cannot be interrupted; who needs an answer waits for the condition, which
    Ctrl-C does interrupt. Known topics are asked for again every
    metadata.max.age.ms, and soon after an error or while a leader is missing.
    """

    def __cinit__(self, Transport transport, RecordAccumulator accumulator, *, max_age_ms=300000, backoff_ms=100,
                  roomy_partitions=2**31):
        self.transport = transport
        self.accumulator = accumulator
        self.max_age = max_age_ms / 1000
        self.backoff = max(backoff_ms, 50) / 1000
        self.roomy_partitions = roomy_partitions
        self.topics = {}
        self.changed = threading.Condition()

    cdef TopicMetadata topic(self, str name, double timeout):
        """The topic's metadata, once its partitions are known; waits for them up to timeout seconds.

        UnknownTopicOrPartitionError if the brokers say that there is none, MetadataTimeoutError if nobody
        answers in time. The topic must have been checked to be a legal name.
        """
        cdef TopicMetadata entry = self.topics.get(name)
        if entry is not None and entry.partitions > 0:
            return entry
        deadline = time.monotonic() + timeout
        with self.changed:
            entry = self.topics.get(name)
            if entry is None:
                if self.closed:
                    raise ProducerClosedError("the producer is closed: no record can be sent any more")
                entry = TopicMetadata()
                entry.name = name
                entry.leaders = ()
                entry.topic = self.accumulator.add_topic(name.encode())
                entry.topic.handle = self.transport.open_topic(name)
                self.topics[name] = entry
            entry.answers = 0
            failures = self.failures
            while entry.partitions == 0:
                if self.closed:
                    raise ProducerClosedError("the producer was closed while send() waited for metadata")
                if entry.answers >= UNKNOWN_TOPIC_ANSWERS and entry.code == UNKNOWN_TOPIC_OR_PART:
                    raise UnknownTopicOrPartitionError(
                        f"no broker knows the topic {name!r}: create it, check its name, or set "
                        "allow.auto.create.topics=true if the brokers may create it", code=UNKNOWN_TOPIC_OR_PART)
                if entry.answers and entry.code not in (0, UNKNOWN_TOPIC_OR_PART, LEADER_NOT_AVAILABLE):
                    raise for_delivery(entry.code, describe(entry.code), "no", name, -1)
                error = self.failure(failures)
                if error is not None:
                    raise error
                self.wanted = True
                self.changed.notify_all()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self.timeout_error(
                        f"the partitions of {name!r} were not known within {timeout:g} s (max.block.ms)")
                self.changed.wait(left)
        return entry

    def ready(self, double timeout):
        """Returns once a broker has answered. AuthenticationError as soon as none would; MetadataTimeoutError."""
        deadline = time.monotonic() + timeout
        with self.changed:
            rounds, failures = self.rounds, self.failures
            while self.rounds == rounds:
                if self.closed:
                    raise ProducerClosedError("the producer was closed while wait_ready() waited")
                error = self.failure(failures)
                if error is not None:
                    raise error
                self.wanted = True
                self.changed.notify_all()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self.timeout_error(f"no broker answered within {timeout:g} s")
                self.changed.wait(min(left, 3600))   # threading has a limit of its own

    cdef object failure(self, long failures_before):
        """What waiting will not mend, if a request has failed by it since there were so many failures."""
        if self.failures == failures_before:
            return None    # the last error may be an old one, or that of one broker while others answer
        code, text = self.transport.last_error(self.answered_ns)
        return for_authentication(code, text, self.transport.refused_certificate)

    cdef object timeout_error(self, str what):
        code, text = self.transport.last_error(self.answered_ns)
        if code:
            what += f"; last error: {text}"
        return MetadataTimeoutError(f"{what}. Check bootstrap.servers, security.protocol, and that the brokers are up",
                                    code=code or None, retriable=True)

    def refresh(self, double timeout):
        """Asks once more and waits for the answer, up to timeout seconds; whether it came."""
        with self.changed:
            before = self.rounds
            self.want()
            self.changed.wait_for(lambda: self.closed or self.rounds > before, timeout)
            return self.rounds > before

    cdef int32_t checked_partition(self, TopicMetadata entry, object partition, int64_t *deadline,
                                   int64_t max_block_ns) except -1:
        """A partition that was given; one that is not known may have been added, so the brokers are asked once.

        deadline: monotonic ns until when to wait; 0 is replaced by max_block_ns from now, if need be.
        """
        if isinstance(partition, bool) or not isinstance(partition, int):
            raise TypeError(f"partition must be an int or None, not {type(partition).__name__}: {shorten(partition)}")
        if not 0 <= partition <= INT32_MAX:
            raise ValueError(f"partition is {partition}: it must be 0 or more")
        if partition >= entry.partitions:
            deadline[0] = deadline[0] or min(fp_monotonic_ns() + max_block_ns, INT64_MAX)
            self.refresh(max(0, deadline[0] - fp_monotonic_ns()) / 1e9)
            if partition >= entry.partitions:
                raise UnknownTopicOrPartitionError(
                    f"partition {partition} of {entry.name!r} does not exist: it has the partitions "
                    f"0 to {entry.partitions - 1}", code=3)
        return partition

    def want(self):
        """Asks once more, without waiting."""
        with self.changed:
            self.wanted = True
            self.changed.notify_all()

    def cluster(self):
        """A Cluster of the known topics, for partitioners: the same one until something changes."""
        with self.changed:
            if self.snapshot is None:
                self.snapshot = Cluster([
                    PartitionInfo(name, partition, leader if leader >= 0 else None)
                    for name, entry in self.topics.items()
                    for partition, leader in enumerate((<TopicMetadata>entry).leaders)
                ])
            return self.snapshot

    def run(self):
        """The thread's loop."""
        while True:
            with self.changed:
                if not self.wanted and not self.closed:
                    self.changed.wait(self.patience())
                if self.closed:
                    return
                self.wanted = False
            asked_ns = fp_monotonic_ns()
            code = self.ask()
            with self.changed:
                if code == 0:
                    self.rounds += 1
                    self.answered_ns = asked_ns
                else:
                    self.failures += 1
                self.changed.notify_all()
                if not self.closed and (code or not self.settled()):
                    # Ask again, but not at once: the cluster needs time to change,
                    # however often the condition is notified meanwhile.
                    self.changed.wait_for(lambda: self.closed, self.backoff)

    def ask(self):
        """Makes one request and notes the answer; librdkafka's code of what went wrong, or 0."""
        try:
            code, found = self.transport.metadata(REQUEST_TIMEOUT_MS)
            if code == 0:
                with self.changed:
                    self.update(found)
        except MemoryError:    # nobody else would ask again, were this to end the thread
            code = NO_MEMORY
        return code

    def settled(self):
        return all((<TopicMetadata>entry).partitions for entry in self.topics.values())

    def patience(self):
        """Seconds until the next request if nobody asks."""
        if any((<TopicMetadata>entry).leaderless for entry in self.topics.values()):
            return max(self.backoff, 0.25)
        if 0 < self.rounds <= len(EARLY_REQUESTS):
            return EARLY_REQUESTS[self.rounds - 1]
        return self.max_age

    cdef void update(self, dict found) except *:
        cdef TopicMetadata entry
        cdef int32_t[::1] brokers
        for name, (code, leaders) in found.items():
            entry = self.topics.get(name)
            if entry is None:
                continue
            entry.code = code
            entry.answers += 1
            if code not in (0, LEADER_NOT_AVAILABLE) or not leaders or len(leaders) < entry.partitions:
                continue
            if tuple(leaders) != entry.leaders:
                brokers = array.array("i", leaders)
                self.accumulator.set_partitions(entry.topic, &brokers[0], brokers.shape[0])
                entry.leaders = tuple(leaders)
                entry.partitions = brokers.shape[0]
                self.snapshot = None
                self.warn_of_little_memory()

    cdef void warn_of_little_memory(self) except *:
        """Once, the guide's rule: buffer.memory of at least batch.size x partitions x 2."""
        cdef TopicMetadata entry
        cdef long partitions = 0
        for entry in self.topics.values():
            partitions += entry.partitions
        if partitions > self.roomy_partitions and not self.warned:
            self.warned = True
            logging.getLogger("fastprod").warning(
                "buffer.memory has room for two batches of batch.size in %d partitions, but there are %d: "
                "raise buffer.memory, or batches will be sent before they are full",
                self.roomy_partitions, partitions)

    def close(self):
        with self.changed:
            self.closed = True
            self.changed.notify_all()
