"""MetadataUpdater: asks the brokers for metadata, on the metadata thread.

Source: org.apache.kafka.clients.NetworkClient.DefaultMetadataUpdater.
"""

from libc.stdint cimport int64_t
from fastprod.internals.producer_metadata cimport ProducerMetadata, deadline_of
from fastprod.internals.sync cimport fp_monotonic_ns
from fastprod.internals.update_request cimport EVERYTHING

from fastprod.internals.threads import current

# Seconds after each of the first answers until the next request. librdkafka asks for its producer id when it has
# metadata and a connection, and else looks only every 500 ms: at the start the first answer often comes too early.
EARLY_REQUESTS = (0.03, 0.06, 0.12)
cdef int64_t SECOND = 1_000_000_000
cdef enum:
    FEW = 8                    # topics that are asked of one by one
    SHORTEST_INTERVAL_NS = 50_000_000
    LOG_ERR = 3


cdef class MetadataUpdater:
    """The metadata thread's work: all requests for metadata, and the upkeep of topics.

    Known topics are asked for again every metadata.max.age.ms, and soon after an error or while a leader is missing. A
    new topic is asked for alone, so that it costs the same however many there are. Topics that were not used for
    metadata.max.idle.ms are forgotten.

    run() is the thread. Only the thread uses the updater.
    """

    def __cinit__(self, ProducerMetadata metadata, Transport transport, Sender sender, *, bint renewable,
                  max_age_ms=300000, backoff_ms=100, max_idle_ms=300000, bytes bootstrap_servers=None):
        self.metadata = metadata
        self.requests = MetadataRequests(transport)
        self.renewal = ClientRenewal(metadata, self.requests, transport, sender, renewable)
        self.transport = transport
        self.update_request = transport.update_request
        self.sender = sender
        self.max_age = max_age_ms / 1000
        self.backoff = max(backoff_ms, 50) / 1000
        self.bootstrap_servers = bootstrap_servers
        self.max_idle_ns = max_idle_ms * <int64_t>1_000_000

    def run(self, last):
        """The thread's loop. Calls last() when the metadata has been closed and no request is under way any more.

        It logs by way of the callback thread: a handler may send(), which waits for this thread, or hold a lock while
        it does.
        """
        self.metadata.thread_id = current()
        self.next_ask_ns = self.next_full_ns = deadline_of(self.max_age)
        self.next_sweep_ns = deadline_of(self.max_idle_ns / 1e9)
        while True:
            again = False
            try:
                again = self.ask_wanted()
                if self.update_request.closed:
                    break
            except MemoryError:
                again = True                 # no other thread would ask again, were this to end the thread
            except BaseException as error:   # likewise
                again = True
                self.metadata.log(LOG_ERR, f"an answer to a metadata request was lost: {type(error).__name__}: {error}")
            try:
                self.keep_up()
            except MemoryError:
                again = True
            except BaseException as error:
                again = True
                self.metadata.log(LOG_ERR, f"the upkeep of the topics failed: {type(error).__name__}: {error}")
            if again:
                # But not at once: the cluster needs time to change, however often a thread asks meanwhile.
                self.update_request.wait_closed(deadline_of(self.backoff))
        last()
        self.metadata.thread_id = None       # the system gives the number to another thread

    cdef bint ask_wanted(self) except -1:
        """Waits until an answer is wanted, and asks. Returns whether to ask again soon."""
        cdef int requested = self.update_request.wait_requested(self.next_ns())
        names = self.names_to_ask(requested)
        if self.update_request.closed or not names:
            return False
        try:
            return not self.ask(names) or self.metadata.doubtful
        finally:
            self.metadata.notify()

    cdef int64_t next_ns(self) noexcept:
        """When to do something though no thread wants an answer."""
        cdef int64_t now = fp_monotonic_ns()
        cdef int64_t until = min(self.next_ask_ns, self.next_full_ns, now + SECOND)
        if self.transport.retired.rk is not NULL:
            until = min(until, now + SHORTEST_INTERVAL_NS)
        return until

    cdef list names_to_ask(self, int requested):
        """The topics to ask for one by one; [None] stands for all; [] for none."""
        now = fp_monotonic_ns()
        names, self.metadata.awaited = self.metadata.awaited, set()
        if requested == EVERYTHING or now >= self.next_full_ns:
            return [None]
        if now >= self.next_ask_ns:
            if not self.metadata.leaderless:
                return [None]
            names |= self.metadata.leaderless
        return list(names) if len(names) <= FEW else [None]

    cdef bint ask(self, list names) except -1:
        """Makes these requests. Returns whether they were answered."""
        asked_ns = fp_monotonic_ns()
        self.metadata.doubtful = False
        for name in names:
            unopened = self.metadata.take_unopened(name)
            self.renewal.count_opened(unopened)
            if name is None:
                self.requests.know(unopened)
            code, found = self.requests.metadata(name)
            if code:
                if self.bootstrap_servers is not None:
                    self.requests.bootstrap(self.bootstrap_servers)   # the brokers may be others by now
                self.metadata.failures += 1
                return False
            self.renewal.count_known(self.metadata.update(found))
            self.metadata.doubtful |= name is not None and name not in found
        self.metadata.rounds += 1
        self.metadata.answered_ns = asked_ns
        self.next_ask_ns = deadline_of(self.timeout())
        if names == [None]:
            self.next_full_ns = deadline_of(self.max_age)
        else:
            self.next_ask_ns = min(self.next_ask_ns, self.next_full_ns)
        return True

    cdef double timeout(self):
        """Seconds until the next request if no thread asks."""
        if self.metadata.leaderless:
            return max(self.backoff, 0.25)
        if 0 < self.metadata.rounds <= len(EARLY_REQUESTS):
            return EARLY_REQUESTS[self.metadata.rounds - 1]
        return self.max_age

    cdef int keep_up(self) except -1:
        """What is to be done now and then, besides asking."""
        cdef int64_t now = fp_monotonic_ns()
        cdef bint ended = self.sender.end_retired()
        if now >= self.next_check_ns:
            self.next_check_ns = now + SECOND
            self.renewal.check_recreated()
        if now >= self.next_sweep_ns:
            self.next_sweep_ns = now + max(self.max_idle_ns // 10, <int64_t>SHORTEST_INTERVAL_NS)
            self.metadata.sweep(now - self.max_idle_ns)
        if ended and self.renewal.is_due(now) and self.renewal.renew():
            self.next_full_ns = 0            # the topics that were created again may have other partitions
        return 0
