"""ProducerMetadata: what is known of the topics, and the thread that asks for it.

Source: org.apache.kafka.clients.producer.internals.ProducerMetadata.
"""

from cpython.object cimport PyObject
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uintptr_t
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.input cimport whole_number
from fastprod.internals.sync cimport (
    fp_atomic_store, fp_cond_broadcast, fp_cond_destroy, fp_cond_init, fp_cond_signal, fp_cond_wait_until,
    fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod.internals.threads cimport Lock, next_slice
from fastprod.internals.topic_metadata cimport TopicMetadata
from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.codes cimport LEADER_NOT_AVAILABLE, UNKNOWN_TOPIC_OR_PART

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)

import array

from fastprod.internals.threads import current
from fastprod.errors import KafkaError, MetadataTimeoutError, ProducerClosedError, UnknownTopicOrPartitionError
from fastprod.internals.error_codes import for_authentication, for_delivery, set_place
from fastprod.librdkafka.loader import describe
from fastprod.records import Cluster, PartitionInfo

REQUEST_TIMEOUT_MS = 1000      # of one attempt, which nothing cuts short
UNKNOWN_TOPIC_ANSWERS = 10     # after which a topic that no broker knows is an error: it may have been made just now
# Seconds after each of the first answers until the next request. librdkafka asks
# for its producer id when it has metadata and a connection, and else looks only
# every 500 ms: at the start the first answer often comes a little too early.
EARLY_REQUESTS = (0.03, 0.06, 0.12)
cdef int64_t SECOND = 1_000_000_000
cdef enum:
    AWAITED = 1                # what is wanted: the topics that somebody waits for
    EVERYTHING = 2             # all topics
    FEW = 8                    # topics that are asked of one by one
    # When the librdkafka producer has so many topics, and topics and partitions together, more than twice those that
    # came back, another one takes its place; see ProducerMetadata.renew().
    MANY_TOPICS = 100
    MANY_PARTITIONS = 2048
    SHORTEST_INTERVAL_NS = 50_000_000
    LOG_ERR = 3
    LOG_WARNING = 4


cdef int64_t deadline_of(double timeout) noexcept:
    """The monotonic nanosecond at which a wait of timeout seconds ends."""
    return fp_monotonic_ns() + <int64_t>(min(timeout, 1e9) * 1e9)


cdef class ProducerMetadata:
    """Learns partition counts and leaders, and gives them to the accumulator.

    All requests are made by one thread, since librdkafka's call blocks and
    cannot be interrupted; who needs an answer waits for a condition, in slices
    that Ctrl-C ends. Known topics are asked for again every
    metadata.max.age.ms, and soon after an error or while a leader is missing.
    A new topic is asked for alone, so that it costs the same however many there
    are.

    A topic lives from entry() to forget(): for metadata.max.idle.ms after it
    was used last, and in any case while

    * it has batches that have not settled, or that librdkafka reads;
    * somebody but `topics` has its TopicMetadata: a call that is under way, or
      the producer, for the topic of its last send().

    So a thread that has a TopicMetadata may append to its Topic. forget() checks
    both and removes the entry from `topics` while it holds the GIL, so no thread
    gets the entry in between. All other users of a topic's name have a copy.

    The condition is C's and not threading's: that one is Python code, in which
    a signal handler can raise between taking the lock and knowing of it.
    """

    def __cinit__(self, Transport transport, RecordAccumulator accumulator, *, max_age_ms=300000, backoff_ms=100,
                  max_idle_ms=300000, Sender sender=None, bint renewable=False, max_partitions_for_memory=2**31,
                  bytes bootstrap_servers=None):
        fp_mutex_init(&self.mutex)
        fp_cond_init(&self.asked)
        fp_cond_init(&self.answered)
        self.transport = transport
        self.requests = MetadataRequests(transport)
        self.topics = {}
        self.accumulator = accumulator
        self.max_age = max_age_ms / 1000
        self.backoff = max(backoff_ms, 50) / 1000
        self.max_partitions_for_memory = max_partitions_for_memory
        self.bootstrap_servers = bootstrap_servers
        self.max_idle_ns = max_idle_ms * <int64_t>1_000_000
        self.sender = sender
        self.renewable = renewable
        self.awaited = set()
        self.unopened, self.leaderless, self.left, self.recreated = set(), set(), set(), set()
        self.stranded = []
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
            seen = self.update_sequence
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
            self.want_topic(name)
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
                self.topics[name] = entry
                self.unopened.add(name)
                self.opened += 1
                self.opened_topics += 1
            return entry

    cdef bint wait_news(self, int64_t seen, int64_t deadline) except -1:
        """Waits for an answer, a failure or close() since `seen`; whether it came by the deadline."""
        cdef int64_t until, pause_ns = 0
        if current() == self.thread_id:    # in a finalizer, say, that the garbage collector runs here
            raise RuntimeError("the metadata thread would wait for itself: call it from another thread")
        while self.update_sequence == seen:
            if fp_monotonic_ns() >= deadline:
                return False
            until = next_slice(deadline, &pause_ns)
            with nogil:
                fp_mutex_lock(&self.mutex)
                if self.update_sequence == seen:
                    fp_cond_wait_until(&self.answered, &self.mutex, until)
                fp_mutex_unlock(&self.mutex)
        return True

    cdef void notify(self) noexcept:
        """Wakes the threads that wait for an answer. thread: any"""
        fp_mutex_lock(&self.mutex)
        self.update_sequence += 1
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
            seen = self.update_sequence
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
        code, text = self.transport.errors.last_error(self.answered_ns)
        return for_authentication(code, text, self.transport.errors.refused_certificate)

    cdef object timeout_error(self, str what):
        code, text = self.transport.errors.last_error(self.answered_ns)
        if code:
            what += f"; last error: {text}"
            if "in state SSL_HANDSHAKE" in text and "PLAINTEXT" not in text:
                what += " (connecting to a PLAINTEXT broker listener?)"   # librdkafka asks so of an end, not of a reset
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
        """Asks once more for all topics, without waiting."""
        fp_mutex_lock(&self.mutex)
        self.requested = EVERYTHING
        fp_cond_signal(&self.asked)
        fp_mutex_unlock(&self.mutex)

    cdef int want_topic(self, str name) except -1:
        """The same for one topic."""
        self.awaited.add(name)
        fp_mutex_lock(&self.mutex)
        self.requested = max(self.requested, <int>AWAITED)
        fp_cond_signal(&self.asked)
        fp_mutex_unlock(&self.mutex)
        return 0

    cdef list partitions_of(self, TopicMetadata entry):
        entry.used_ns = fp_monotonic_ns()
        return [PartitionInfo(entry.name, partition, leader if leader >= 0 else None)
                for partition, leader in enumerate(entry.leaders)]

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
        self.next_ask_ns = self.next_full_ns = deadline_of(self.max_age)
        self.next_sweep_ns = deadline_of(self.max_idle_ns / 1e9)
        while True:
            again = False
            names = None
            try:
                names = self.names_to_ask(self.wait_wanted())
                if self.closed:
                    break
                if names:
                    again = True
                    again = not self.ask(names) or self.doubtful
            except MemoryError:
                pass                         # nobody else would ask again, were this to end the thread
            except BaseException as error:   # likewise
                self.log(LOG_ERR, f"an answer to a metadata request was lost: {type(error).__name__}: {error}")
            if names:
                self.notify()
            try:
                self.keep_up()
            except MemoryError:
                again = True
            except BaseException as error:
                again = True
                self.log(LOG_ERR, f"the upkeep of the topics failed: {type(error).__name__}: {error}")
            if again:
                # But not at once: the cluster needs time to change, however
                # often somebody asks meanwhile.
                self.rest(self.backoff)
        last()
        self.thread_id = None   # the system gives the number to another thread

    cdef list names_to_ask(self, int requested):
        """The topics to ask for one by one; [None] stands for all; [] for none. thread: metadata"""
        now = fp_monotonic_ns()
        names, self.awaited = self.awaited, set()
        if requested == EVERYTHING or now >= self.next_full_ns:
            return [None]
        if now >= self.next_ask_ns:
            if not self.leaderless:
                return [None]
            names |= self.leaderless
        return list(names) if len(names) <= FEW else [None]

    cdef bint ask(self, list names) except -1:
        """Makes these requests; whether they were answered. thread: metadata"""
        asked_ns = fp_monotonic_ns()
        self.doubtful = False
        for name in names:
            with self.lock:
                unopened = [name] if name is not None else list(self.unopened)
                self.unopened.difference_update(unopened)
            if name is None:
                self.requests.know(unopened)
            code, found = self.requests.metadata(name, REQUEST_TIMEOUT_MS)
            if code:
                if self.bootstrap_servers is not None:
                    self.requests.bootstrap(self.bootstrap_servers)   # the brokers may be others by now
                self.failures += 1
                return False
            self.update(found)
            self.doubtful |= name is not None and name not in found
        self.rounds += 1
        self.answered_ns = asked_ns
        next_ns = deadline_of(self.timeout())
        if names == [None]:
            self.next_full_ns = deadline_of(self.max_age)
            self.next_ask_ns = next_ns
        else:
            self.next_ask_ns = min(next_ns, self.next_full_ns)
        return True

    cdef int wait_wanted(self):
        """Waits until somebody asks, or there is something else to do; what is wanted. thread: metadata"""
        cdef int64_t now = fp_monotonic_ns()
        cdef int64_t deadline = min(self.next_ask_ns, self.next_full_ns, now + SECOND)
        cdef int requested
        if self.transport.retired.rk is not NULL:
            deadline = min(deadline, now + SHORTEST_INTERVAL_NS)
        with nogil:
            fp_mutex_lock(&self.mutex)
            while not self.requested and not self.closed:
                if fp_cond_wait_until(&self.asked, &self.mutex, deadline):
                    break
            requested = self.requested
            self.requested = 0
            fp_mutex_unlock(&self.mutex)
        return requested

    cdef void rest(self, double timeout):
        """Waits for close(), up to timeout seconds. thread: metadata"""
        cdef int64_t deadline = deadline_of(timeout)
        with nogil:
            fp_mutex_lock(&self.mutex)
            while not self.closed:
                if fp_cond_wait_until(&self.asked, &self.mutex, deadline):
                    break
            fp_mutex_unlock(&self.mutex)

    def timeout(self):
        """Seconds until the next request if nobody asks."""
        if self.leaderless:
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
                    self.doubtful |= not entry.partitions
                    continue
                if len(leaders) >= entry.partitions or entry.anew:
                    entry.fewer = 0
                    entry.anew = False
                elif len(leaders) != entry.fewer:
                    # The broker may lag behind; if the topic was made anew, the next answer says the same.
                    entry.fewer = <int32_t>len(leaders)
                    self.doubtful = True
                    continue
                else:
                    entry.fewer = 0
                    self.log(LOG_WARNING, f"{name} has {len(leaders)} partitions and had {entry.partitions}: keys go "
                             "to others from here on")
                if tuple(leaders) != entry.leaders:
                    brokers = array.array("i", leaders)
                    self.accumulator.set_partitions(entry.topic, &brokers[0], brokers.shape[0])
                    self.known_partitions += len(leaders) - entry.partitions
                    if entry.partitions == 0:
                        self.opened += len(leaders)
                        if name in self.left:
                            self.returned += 1 + len(leaders)
                            self.left.remove(name)
                    entry.leaders = tuple(leaders)
                    if entry.leaderless:
                        self.leaderless.add(name)
                    else:
                        self.leaderless.discard(name)
                    fp_atomic_store(<int *>&entry.partitions, <int>brokers.shape[0])
                    self.snapshot = None
                    self.changes += 1
                    changed = True
        if changed:
            self.warn_of_little_memory()

    cdef void warn_of_little_memory(self) except *:
        """Once, the guide's rule: buffer.memory of at least batch.size x partitions x 2."""
        cdef long partitions = self.known_partitions
        if partitions > self.max_partitions_for_memory and not self.warned:
            self.warned = True
            self.log(
                LOG_WARNING,
                f"buffer.memory has room for two batches of batch.size in {self.max_partitions_for_memory} "
                f"partitions, but there are {partitions}: raise buffer.memory, or batches will be sent before they are "
                "full")

    # The life of topics. thread: metadata

    cdef int keep_up(self) except -1:
        """What is to be done now and then, besides asking."""
        cdef int64_t now = fp_monotonic_ns()
        cdef bint ended = self.sender.end_retired()
        if now >= self.next_check_ns:
            self.next_check_ns = now + SECOND
            self.check_recreated()
        if now >= self.next_sweep_ns:
            self.next_sweep_ns = now + max(self.max_idle_ns // 10, <int64_t>SHORTEST_INTERVAL_NS)
            self.sweep(now - self.max_idle_ns, set())
        if ended and now >= self.next_renewal_ns and (self.stranded or (
                self.renewable and self.opened_topics >= MANY_TOPICS
                and self.opened >= MANY_PARTITIONS + 2 * self.returned)):
            self.renew()

    cdef int sweep(self, int64_t unused_ns, set forgotten) except -1:
        """Forgets the topics that were not used since unused_ns."""
        cdef TopicMetadata entry
        for name in list(self.topics):
            entry = self.topics[name]
            if max(entry.used_ns, entry.topic.used_ns) <= unused_ns and self.forget(entry):
                forgotten.add(name)
        return 0

    cdef bint forget(self, TopicMetadata entry) except -1:
        """Frees a topic that has no batches and no other user; returns whether it did."""
        with self.lock:
            # `topics` has one reference and the caller another. The GIL stays held from here to the end.
            if Py_REFCNT(<PyObject *>entry) > 2 or not self.sender.remove_topic(entry.topic):
                return False
            entry.topic = NULL
            del self.topics[entry.name]
            for names in (self.unopened, self.leaderless):
                names.discard(entry.name)
            self.known_partitions -= entry.partitions
            self.snapshot = None
            self.changes += 1
        return True

    cdef int check_recreated(self) except -1:
        """Finds topics that were deleted and created again, among those whose records are not acknowledged.

        librdkafka takes no leader from an answer whose leader epoch is older than the one it knows, and the epochs of a
        new topic start again. It would go on sending to a broker that does not lead the partition.
        """
        cdef TopicMetadata entry
        self.recreated |= self.transport.recreated_topics.take()
        if self.stranded or not self.recreated:
            return 0
        for name in self.recreated.intersection(self.sender.slow_topics(SECOND)):
            self.recreated.remove(name)
            entry = self.topics.get(name)
            if entry is not None:
                entry.anew = True
                self.stranded.append(entry)
        return 0

    cdef int renew(self) except -1:
        """Has another librdkafka producer take the place of this one.

        librdkafka never forgets a topic: each takes 2 kB and 2 kB for each partition, and makes the next one slower. So
        when there are many, it is given a new start with those that are in use; the others are asked for again if they
        are used again. If those that come back are many, more are waited for.
        """
        cdef TopicMetadata entry
        cdef set forgotten = set()
        if not self.renewable:    # a transaction is that of one librdkafka producer
            for entry in self.stranded:
                self.log(LOG_ERR, f"{entry.name} was deleted and made anew: librdkafka cannot deliver to it, and a "
                         "transactional producer cannot start librdkafka anew: close this one and make another")
            self.stranded = []
            return 0
        self.next_renewal_ns = fp_monotonic_ns() + SECOND
        self.sweep(fp_monotonic_ns() - SECOND, forgotten)
        names = list(self.topics)
        if self.requests.prepare(names, REQUEST_TIMEOUT_MS):
            return 0
        stranded, self.stranded, self.recreated = self.stranded, [], set()
        self.sender.switch_over([<uintptr_t>(<TopicMetadata>found).topic for found in stranded])
        with self.lock:
            self.unopened = set(self.topics).difference(names)
            self.left = forgotten
            self.returned = 0
            self.opened_topics = len(self.topics)
            self.opened = self.opened_topics + self.known_partitions
        if stranded:
            self.next_full_ns = 0    # their partitions may be others
        for entry in stranded:
            self.log(LOG_WARNING, f"{entry.name} was deleted and made anew: its records go to the new one")
        return 0

    cdef int log(self, int level, str line) except -1:
        self.transport.callbacks.log(level, b"METADATA", line.encode("utf-8", "replace"))
        return 0

    def close(self):
        """Lets run() return, and all others who wait give up."""
        fp_mutex_lock(&self.mutex)
        self.closed = 1
        fp_cond_signal(&self.asked)
        fp_mutex_unlock(&self.mutex)
        self.notify()
