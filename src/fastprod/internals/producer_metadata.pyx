"""ProducerMetadata: what is known of the topics, and how a thread waits for more.

Source: org.apache.kafka.clients.producer.internals.ProducerMetadata.
"""

from cpython.object cimport PyObject
from libc.stdint cimport INT32_MAX, int32_t, int64_t
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.input cimport whole_number
from fastprod.internals.sync cimport (
    fp_atomic_store, fp_cond_broadcast, fp_cond_destroy, fp_cond_init, fp_cond_wait_until,
    fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)
from fastprod.internals.threads cimport Lock, next_slice
from fastprod.internals.topic_metadata cimport TopicMetadata
from fastprod.internals.transport cimport Transport
from fastprod.internals.update_request cimport AWAITED, EVERYTHING
from fastprod.librdkafka.codes cimport LEADER_NOT_AVAILABLE, UNKNOWN_TOPIC_OR_PART

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)

import array

from fastprod.internals.threads import current
from fastprod.errors import KafkaError, MetadataTimeoutError, ProducerClosedError, UnknownTopicOrPartitionError
from fastprod.internals.error_codes import for_authentication, for_delivery, set_place
from fastprod.librdkafka.loader import describe
from fastprod.records import Cluster, PartitionInfo

UNKNOWN_TOPIC_ANSWERS = 10     # after which a topic that no broker knows is an error: it may have been made just now
cdef enum:
    LOG_WARNING = 4            # syslog's levels


cdef class ProducerMetadata:
    """Partition counts and leaders, as the metadata thread has learned them. The accumulator gets them too.

    MetadataUpdater asks the brokers, on a thread of its own, because librdkafka's call blocks and cannot be
    interrupted. A thread that needs an answer waits for a condition, in slices that Ctrl-C ends.

    A topic lives from entry() to forget(): for metadata.max.idle.ms after it was used last, and in any case while

    * it has batches that have not settled, or that librdkafka reads;
    * something but `topics` refers to its TopicMetadata: a call that is under way, or the RecordAppender, for the topic
      of the last send().

    So a thread that has a TopicMetadata may append to its Topic. forget() checks both and removes the entry from
    `topics` while it holds the GIL, so no thread gets the entry in between. All other users of a topic's name have a
    copy.

    lock guards `topics` and `unopened` while they change. mutex is a leaf.
    """

    def __cinit__(self, Transport transport, RecordAccumulator accumulator, Sender sender, *,
                  max_partitions_for_memory=2**31):
        fp_mutex_init(&self.mutex)
        fp_cond_init(&self.answered)
        self.transport = transport
        self.update_request = transport.update_request
        self.accumulator = accumulator
        self.sender = sender
        self.max_partitions_for_memory = max_partitions_for_memory
        self.topics = {}
        self.awaited, self.unopened, self.leaderless = set(), set(), set()
        self.lock = Lock()

    def __dealloc__(self):
        fp_cond_destroy(&self.answered)
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
            if self.update_request.closed:
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
            self.awaited.add(name)
            self.update_request.request(AWAITED)
            if not self.wait_update(seen, deadline):
                raise self.timeout_error(
                    f"the partitions of {name!r} were not known within {timeout:g} s (max.block.ms)")
        return entry

    cdef TopicMetadata entry(self, str name):
        """The topic's entry, made if there is none."""
        cdef TopicMetadata entry
        with self.lock:
            entry = self.topics.get(name)
            if entry is None:
                if self.update_request.closed:
                    raise ProducerClosedError("the producer is closed: no record can be sent any more")
                entry = TopicMetadata()
                entry.name = name
                entry.leaders = ()
                entry.topic = self.accumulator.add_topic(name.encode())
                self.topics[name] = entry
                self.unopened.add(name)
            return entry

    cdef bint wait_update(self, int64_t seen, int64_t deadline) except -1:
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
            if self.update_request.closed:
                raise ProducerClosedError("the producer was closed while the brokers were asked")
            error = self.failure(failures)
            if error is not None:
                raise error
            self.update_request.request(EVERYTHING)
            if not self.wait_update(seen, deadline):
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

    # For the metadata thread

    cdef list take_unopened(self, str name):
        """Returns the topics that the librdkafka producer does not know yet: that one, or all of them if it is None."""
        with self.lock:
            names = list(self.unopened) if name is None else list(self.unopened & {name})
            self.unopened.difference_update(names)
        return names

    cdef list update(self, dict found):
        """Takes an answer: {name: (code, [leader, ...])}. Returns the topics whose partitions were not known before.

        `doubtful` is set if the answer is not all there is.
        """
        cdef TopicMetadata entry
        cdef list known = []
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
                elif not self.lags(entry, len(leaders)) and tuple(leaders) != entry.leaders:
                    if entry.partitions == 0:
                        known.append(entry)
                    self.set_leaders(entry, leaders)
                    changed = True
        if changed:
            self.warn_of_little_memory()
        return known

    cdef bint lags(self, TopicMetadata entry, Py_ssize_t partitions) except -1:
        """Returns whether the broker may lag behind: it knows fewer partitions, and it is the first to say so.

        If the topic was created again, the next answer says the same.
        """
        if partitions >= entry.partitions or entry.anew:
            entry.anew = False
        elif partitions != entry.fewer:
            entry.fewer = <int32_t>partitions
            self.doubtful = True
            return True
        else:
            self.log(LOG_WARNING, f"{entry.name} has {partitions} partitions and had {entry.partitions}: keys go to "
                     "others from here on")
        entry.fewer = 0
        return False

    cdef int set_leaders(self, TopicMetadata entry, list leaders) except -1:
        cdef int32_t[::1] brokers = array.array("i", leaders)
        self.accumulator.set_partitions(entry.topic, &brokers[0], brokers.shape[0])
        self.known_partitions += len(leaders) - entry.partitions
        entry.leaders = tuple(leaders)
        if entry.leaderless:
            self.leaderless.add(entry.name)
        else:
            self.leaderless.discard(entry.name)
        fp_atomic_store(<int *>&entry.partitions, <int>brokers.shape[0])
        self.snapshot = None
        self.changes += 1
        return 0

    cdef int warn_of_little_memory(self) except -1:
        """Logs once that buffer.memory is less than batch.size x partitions x 2."""
        cdef long partitions = self.known_partitions
        if partitions > self.max_partitions_for_memory and not self.warned:
            self.warned = True
            self.log(
                LOG_WARNING,
                f"buffer.memory has room for two batches of batch.size in {self.max_partitions_for_memory} "
                f"partitions, but there are {partitions}: raise buffer.memory, or batches will be sent before they are "
                "full")
        return 0

    cdef set sweep(self, int64_t unused_ns):
        """Forgets the topics that were not used since unused_ns. Returns their names."""
        cdef TopicMetadata entry
        cdef set forgotten = set()
        for name in list(self.topics):
            entry = self.topics[name]
            if max(entry.used_ns, entry.topic.used_ns) <= unused_ns and self.forget(entry):
                forgotten.add(name)
        return forgotten

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

    cdef int log(self, int level, str line) except -1:
        self.transport.callbacks.log(level, b"METADATA", line.encode("utf-8", "replace"))
        return 0

    def close(self):
        """Lets the metadata thread end, and all waiting threads give up."""
        self.update_request.close()
        self.notify()
