"""ProducerMetadata: what is known of the topics, and the thread that asks for it.

Source: org.apache.kafka.clients.producer.internals.ProducerMetadata.
"""

from libc.stdint cimport INT32_MAX, int32_t, int64_t
from fastprod._accumulator cimport RecordAccumulator
from fastprod._input cimport whole_number
from fastprod._sync cimport (
    fp_atomic_store, fp_cond_broadcast, fp_cond_destroy, fp_cond_init, fp_cond_signal, fp_cond_wait_until,
    fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod._threads cimport Lock, next_slice
from fastprod._transport cimport Transport

import array

from fastprod._threads import current
from fastprod.errors import (
    KafkaError, MetadataTimeoutError, ProducerClosedError, UnknownTopicOrPartitionError, for_authentication,
    for_delivery, set_place,
)
from fastprod.librdkafka import describe
from fastprod.records import Cluster, PartitionInfo

REQUEST_TIMEOUT_MS = 1000      # of one attempt, which nothing cuts short
UNKNOWN_TOPIC_ANSWERS = 10     # after which a topic that no broker knows is an error: it may have been made just now
# Seconds after each of the first answers until the next request. librdkafka asks
# for its producer id when it has metadata and a connection, and else looks only
# every 500 ms: at the start the first answer often comes a little too early.
EARLY_REQUESTS = (0.03, 0.06, 0.12)
cdef enum:
    UNKNOWN_TOPIC_OR_PART = 3
    LEADER_NOT_AVAILABLE = 5
    LOG_ERR = 3
    LOG_WARNING = 4


cdef class TopicMetadata:
    """A topic's partitions and leaders, as last heard. Written by the metadata thread, read by anyone with the GIL."""

    @property
    def leaderless(self):
        return -1 in self.leaders


cdef int64_t deadline_of(double timeout) noexcept:
    """The monotonic nanosecond at which a wait of timeout seconds ends."""
    return fp_monotonic_ns() + <int64_t>(min(timeout, 1e9) * 1e9)


cdef class ProducerMetadata:
    """Learns partition counts and leaders, and gives them to the accumulator.

    All requests are made by one thread, since librdkafka's call blocks and
    cannot be interrupted; who needs an answer waits for a condition, in slices
    that Ctrl-C ends. Known topics are asked for again every
    metadata.max.age.ms, and soon after an error or while a leader is missing.

    The condition is C's and not threading's: that one is Python code, in which
    a signal handler can raise between taking the lock and knowing of it.
    """

    def __cinit__(self, Transport transport, RecordAccumulator accumulator, *, max_age_ms=300000, backoff_ms=100,
                  roomy_partitions=2**31, bytes bootstrap_servers=None):
        fp_mutex_init(&self.mutex)
        fp_cond_init(&self.asked)
        fp_cond_init(&self.answered)
        self.transport = transport
        self.accumulator = accumulator
        self.max_age = max_age_ms / 1000
        self.backoff = max(backoff_ms, 50) / 1000
        self.roomy_partitions = roomy_partitions
        self.bootstrap_servers = bootstrap_servers
        self.topics = {}
        self.lock = Lock()

    def __dealloc__(self):
        fp_cond_destroy(&self.answered)
        fp_cond_destroy(&self.asked)
        fp_mutex_destroy(&self.mutex)

    cdef TopicMetadata topic(self, str name, double timeout):
        """The topic's metadata, once its partitions are known; waits for them up to timeout seconds.

        UnknownTopicOrPartitionError if the brokers say that there is none, MetadataTimeoutError if nobody
        answers in time. The topic must have been checked to be a legal name.
        """
        cdef TopicMetadata entry = self.topics.get(name)
        cdef int64_t deadline, seen
        if entry is not None and entry.partitions > 0:
            return entry
        deadline = deadline_of(timeout)
        entry = self.entry(name)
        answers, failures = entry.answers, self.failures
        while entry.partitions == 0:
            seen = self.news
            if self.closed:
                raise ProducerClosedError("the producer was closed while send() waited for metadata")
            if entry.answers - answers >= UNKNOWN_TOPIC_ANSWERS and entry.code == UNKNOWN_TOPIC_OR_PART:
                raise UnknownTopicOrPartitionError(
                    f"no broker knows the topic {name!r}: create it, check its name, or set "
                    "allow.auto.create.topics=true if the brokers may create it",
                    code=UNKNOWN_TOPIC_OR_PART, retriable=True)
            if entry.answers != answers and entry.code not in (0, UNKNOWN_TOPIC_OR_PART, LEADER_NOT_AVAILABLE):
                raise for_delivery(entry.code, describe(entry.code), "no", name, -1)
            error = self.failure(failures)
            if error is not None:
                raise error
            self.want()
            if not self.wait_news(seen, deadline):
                raise self.timeout_error(
                    f"the partitions of {name!r} were not known within {timeout:g} s (max.block.ms)")
        return entry

    cdef TopicMetadata entry(self, str name):
        """The topic's entry, made if there is none."""
        cdef TopicMetadata entry
        with self.lock:
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
            return entry

    cdef bint wait_news(self, int64_t seen, int64_t deadline) except -1:
        """Waits for an answer, a failure or close() since `seen`; whether it came by the deadline."""
        cdef int64_t until, pause_ns = 0
        if current() == self.thread_id:    # in a finalizer, say, that the garbage collector runs here
            raise RuntimeError("the metadata thread would wait for itself: call it from another thread")
        while self.news == seen:
            if fp_monotonic_ns() >= deadline:
                return False
            until = next_slice(deadline, &pause_ns)
            with nogil:
                fp_mutex_lock(&self.mutex)
                if self.news == seen:
                    fp_cond_wait_until(&self.answered, &self.mutex, until)
                fp_mutex_unlock(&self.mutex)
        return True

    cdef void tell(self) noexcept:
        """Wakes those who wait for news. thread: any"""
        fp_mutex_lock(&self.mutex)
        self.news += 1
        fp_cond_broadcast(&self.answered)
        fp_mutex_unlock(&self.mutex)

    def ready(self, double timeout):
        """Asks once more, and returns once a broker has answered.

        AuthenticationError as soon as none would, MetadataTimeoutError if none does.
        """
        cdef int64_t deadline = deadline_of(timeout)
        cdef int64_t seen
        rounds, failures = self.rounds, self.failures
        while self.rounds == rounds:
            seen = self.news
            if self.closed:
                raise ProducerClosedError("the producer was closed while the brokers were asked")
            error = self.failure(failures)
            if error is not None:
                raise error
            self.want()
            if not self.wait_news(seen, deadline):
                raise self.timeout_error(f"no broker answered within {timeout:g} s")

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

    cdef int32_t checked_partition(self, TopicMetadata entry, object partition, int64_t *deadline,
                                   int64_t max_block_ns) except -1:
        """A partition that was given; one that is not known may have been added, so the brokers are asked once.

        deadline: monotonic ns until when to wait; 0 is replaced by max_block_ns from now, if need be.
        """
        if type(partition) is not int:
            partition = whole_number(partition, "partition must be an int or None")
        if not 0 <= partition <= INT32_MAX:
            raise ValueError(f"partition is {partition}: it must be 0 to {INT32_MAX}")
        if partition >= entry.partitions:
            deadline[0] = deadline[0] or fp_monotonic_ns() + max_block_ns
            try:
                self.ready(max(0, deadline[0] - fp_monotonic_ns()) / 1e9)
                if partition >= entry.partitions:
                    raise UnknownTopicOrPartitionError(
                        f"partition {partition} of {entry.name!r} does not exist: it has the partitions "
                        f"0 to {entry.partitions - 1}",
                        code=UNKNOWN_TOPIC_OR_PART, retriable=True)
            except KafkaError as error:
                set_place(error, entry.name, partition)
                raise
        return partition

    def want(self):
        """Asks once more, without waiting."""
        fp_mutex_lock(&self.mutex)
        self.wanted = 1
        fp_cond_signal(&self.asked)
        fp_mutex_unlock(&self.mutex)

    def cluster(self):
        """A Cluster of the known topics, for partitioners: the same one until something changes."""
        cluster = self.snapshot
        if cluster is not None:
            return cluster
        # It is made without the lock: a signal handler may run meanwhile, whose close() waits for the thread that
        # waits for the lock.
        with self.lock:
            changes = self.changes
            known = [(entry.name, entry.leaders) for entry in self.topics.values()]
        cluster = Cluster([
            PartitionInfo(name, partition, leader if leader >= 0 else None)
            for name, leaders in known
            for partition, leader in enumerate(leaders)
        ])
        if changes == self.changes:
            self.snapshot = cluster
        return cluster

    def run(self, last):
        """The thread's loop; calls last() when it has been closed and no request is under way any more.

        It logs by way of the callback thread: a handler may send(), which waits for this thread, or hold a lock while
        it does.
        """
        self.thread_id = current()
        while True:
            again = True
            try:
                if not self.wait_wanted(self.patience()):
                    break
                again = not self.ask() or not self.all_known()
            except MemoryError:
                pass   # nobody else would ask again, were this to end the thread
            except BaseException as error:   # likewise
                self.log(LOG_ERR, f"an answer to a metadata request was lost: {type(error).__name__}: {error}")
            self.tell()
            if again:
                # But not at once: the cluster needs time to change, however
                # often somebody asks meanwhile.
                self.rest(self.backoff)
        last()
        self.thread_id = None   # the system gives the number to another thread

    cdef bint ask(self) except -1:
        """Makes one request; whether it was answered. thread: metadata"""
        asked_ns = fp_monotonic_ns()
        code, found = self.transport.metadata(REQUEST_TIMEOUT_MS)
        if code:
            if self.bootstrap_servers is not None:
                self.transport.bootstrap(self.bootstrap_servers)   # the brokers may be others by now
            self.failures += 1
            return False
        self.update(found)
        self.rounds += 1
        self.answered_ns = asked_ns
        return True

    cdef bint wait_wanted(self, double timeout):
        """Waits until somebody asks, or timeout seconds; whether there is to be another request. thread: metadata"""
        cdef int64_t deadline = deadline_of(timeout)
        with nogil:
            fp_mutex_lock(&self.mutex)
            while not self.wanted and not self.closed:
                if fp_cond_wait_until(&self.asked, &self.mutex, deadline):
                    break
            self.wanted = 0
            fp_mutex_unlock(&self.mutex)
        return not self.closed

    cdef void rest(self, double timeout):
        """Waits for close(), up to timeout seconds. thread: metadata"""
        cdef int64_t deadline = deadline_of(timeout)
        with nogil:
            fp_mutex_lock(&self.mutex)
            while not self.closed:
                if fp_cond_wait_until(&self.asked, &self.mutex, deadline):
                    break
            fp_mutex_unlock(&self.mutex)

    def all_known(self):
        return all((<TopicMetadata>entry).partitions and not (<TopicMetadata>entry).fewer
                   for entry in list(self.topics.values()))

    def patience(self):
        """Seconds until the next request if nobody asks."""
        if any((<TopicMetadata>entry).leaderless for entry in list(self.topics.values())):
            return max(self.backoff, 0.25)
        if 0 < self.rounds <= len(EARLY_REQUESTS):
            return EARLY_REQUESTS[self.rounds - 1]
        return self.max_age

    cdef void update(self, dict found) except *:
        cdef TopicMetadata entry
        cdef int32_t[::1] brokers
        cdef bint changed = False
        with self.lock:
            for name, (code, leaders) in found.items():
                entry = self.topics.get(name)
                if entry is None:
                    continue
                entry.code = code
                entry.answers += 1
                if code not in (0, LEADER_NOT_AVAILABLE) or not leaders:
                    continue
                if len(leaders) >= entry.partitions:
                    entry.fewer = 0
                elif len(leaders) != entry.fewer:
                    # The broker may lag behind; if the topic was made anew, the next answer says the same.
                    entry.fewer = <int32_t>len(leaders)
                    continue
                else:
                    entry.fewer = 0
                    self.log(LOG_WARNING, f"{name} has {len(leaders)} partitions and had {entry.partitions}: keys go "
                             "to others from here on")
                if tuple(leaders) != entry.leaders:
                    brokers = array.array("i", leaders)
                    self.accumulator.set_partitions(entry.topic, &brokers[0], brokers.shape[0])
                    entry.leaders = tuple(leaders)
                    fp_atomic_store(<int *>&entry.partitions, <int>brokers.shape[0])
                    self.snapshot = None
                    self.changes += 1
                    changed = True
        if changed:
            self.warn_of_little_memory()

    cdef void warn_of_little_memory(self) except *:
        """Once, the guide's rule: buffer.memory of at least batch.size x partitions x 2."""
        cdef TopicMetadata entry
        cdef long partitions = 0
        for entry in list(self.topics.values()):
            partitions += entry.partitions
        if partitions > self.roomy_partitions and not self.warned:
            self.warned = True
            self.log(
                LOG_WARNING, f"buffer.memory has room for two batches of batch.size in {self.roomy_partitions} "
                f"partitions, but there are {partitions}: raise buffer.memory, or batches will be sent before they are "
                "full")

    cdef int log(self, int level, str line) except -1:
        self.transport.callbacks.log(level, b"METADATA", line.encode("utf-8", "replace"))
        return 0

    def close(self):
        """Lets run() return, and all others who wait give up."""
        fp_mutex_lock(&self.mutex)
        self.closed = 1
        fp_cond_signal(&self.asked)
        fp_mutex_unlock(&self.mutex)
        self.tell()
