"""TransactionManager: the state of a transactional producer, and the calls that are allowed in it.

Source: org.apache.kafka.clients.producer.internals.TransactionManager, whose states these are. librdkafka speaks the
protocol. This class looks after the records that librdkafka does not have yet.
"""

cimport cython
from libc.stdint cimport INT32_MAX, INT64_MAX, int64_t
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.produce_request_result cimport (
    process_generation, notify_completed, persisted_word, wait_completed,
)
from fastprod.internals.pending_records cimport PendingRecords
from fastprod.internals.sender cimport Sender
from fastprod.internals.sync cimport (
    fp_atomic_load, fp_atomic_store, fp_monotonic_ns, fp_sleep_ns, fp_slice_end, fp_thread_join, fp_thread_start,
)
from fastprod.internals.threads cimport Lock, next_slice, thread_ident
from fastprod.internals.transaction_call cimport (
    ABORT_TRANSACTION, BEGIN_TRANSACTION, COMMIT_TRANSACTION, INIT_TRANSACTIONS, SEND_OFFSETS, TransactionCall,
    TransactionRequest, checked_offsets, free_offsets, set_offsets, transact,
)
from fastprod.internals.transport cimport Transport
from fastprod.librdkafka.codes cimport TIMED_OUT

from fastprod.internals.produce_request_result import wait_deadline
from fastprod.errors import KafkaError, ProducerClosedError, TransactionStateError
from fastprod.internals.error_codes import for_delivery, for_transaction
from fastprod.librdkafka.loader import describe
from fastprod.internals.logs import logger

cdef int64_t RECENT_NS = 60_000_000_000   # how old an error may be that explains a call which did not end
cdef int64_t LOOK_NS = 1_000_000          # between two looks whether a call has the lock, or closed_error()
cdef enum:
    ATTEMPT_MS = 2000              # of a resumable call; close() waits for it at worst
    RETRY_PAUSE_NS = 100_000_000   # after a retriable answer that came at once
cdef tuple NAMES = (               # by TransactionRequest
    "init_transactions", "begin_transaction", "send_offsets_to_transaction", "commit_transaction",
    "abort_transaction",
)


cdef void *transaction_main(void *argument) noexcept nogil:
    (<TransactionManager>argument).run()
    return NULL


@cython.no_gc_clear   # __dealloc__ frees offsets with the transport at hand
cdef class TransactionManager:
    """The state of a transactional producer; only what it permits reaches librdkafka.

    Appends are stopped unless a transaction is open, and from the first record
    that fails in it: this costs send() nothing, and no record can slip from one
    transaction into the next.

    librdkafka's blocking calls are made by a thread of their own, with a long
    timeout: a caller whose time is over, or who is interrupted, leaves it at
    work, and the same method called again waits for the same answer. Calling
    librdkafka itself in short slices is not safe: an attempt that times out in
    its first step leaves an answer behind that the next takes for its own.

    One call at a time; a second thread is refused. The thread that calls holds
    `lock` and has the GIL but while it waits.
    """

    def __cinit__(self, Transport transport, RecordAccumulator accumulator, Sender sender,
                  PendingRecords pending, int64_t max_block_ns):
        self.transport = transport
        self.accumulator = accumulator
        self.sender = sender
        self.pending = pending
        self.max_block_ns = max_block_ns
        self.fork_generation = process_generation
        self.lock = Lock()
        accumulator.closed_error = self.closed_error
        accumulator.stop_appends()

    def __dealloc__(self):
        if self.under_way and self.fork_generation == process_generation:
            fp_atomic_store(&self.stopping, 1)
            with nogil:
                fp_thread_join(self.thread)
        free_offsets(&self.call)

    # Java's methods. thread: app

    def init(self, timeout):
        self.enter()
        try:
            if self.state != UNINITIALIZED and self.state != INITIALIZING:
                raise (TransactionStateError("init_transactions() has been called already") if self.failed is None
                       else self.error())
            self.state = INITIALIZING
            self.perform(INIT_TRANSACTIONS, timeout, self.deadline(timeout))
            self.state = READY
        finally:
            self.leave()

    def begin(self):
        self.enter()
        try:
            if self.state != READY:
                raise self.not_now()
            self.call.request = BEGIN_TRANSACTION
            with nogil:
                transact(self.transport.rk, &self.call)
            self.conclude()
            with nogil:
                self.sender.forget_failure()
                self.accumulator.resume_appends()
            self.state = IN_TRANSACTION
        finally:
            self.leave()

    def send_offsets(self, offsets, group_metadata):
        if not isinstance(group_metadata, bytes):
            raise TypeError("group_metadata must be what consumer.consumer_group_metadata() of confluent_kafka gives, "
                            f"not {type(group_metadata).__name__}: a bare group id would not fence a consumer that "
                            "lost its partitions")
        checked = checked_offsets(offsets)
        self.enter()
        try:
            if self.state != IN_TRANSACTION:
                raise self.not_now()
            if not checked:
                return
            deadline = self.deadline(None)
            set_offsets(&self.call, checked, group_metadata)
            self.start(SEND_OFFSETS, deadline)
            try:
                self.wait_ended(None, deadline)
            except BaseException:
                # It may still come to pass or not, so a commit would not know what it commits.
                fp_atomic_store(&self.stopping, 1)
                self.fail(TIMED_OUT, "send_offsets_to_transaction() did not end, and whether the offsets are part of "
                          "the transaction is not known", False)
                raise
            self.conclude()
        finally:
            self.leave()

    def commit(self, timeout):
        deadline = self.deadline(timeout)
        self.enter()
        try:
            if self.state != IN_TRANSACTION and self.state != COMMITTING:
                raise self.not_now()
            self.state = COMMITTING
            if not self.under_way:
                # librdkafka flushes what it has; what we have comes first.
                self.accumulator.stop_appends()
                if not self.wait_settled("commit_transaction", deadline):
                    raise TimeoutError(
                        f"{self.pending.unfinished()} after {self.shown(timeout)}: "
                        "call commit_transaction() again, or abort_transaction()")
                self.notice_failure()
                if self.state != COMMITTING:
                    raise self.error()
            self.perform(COMMIT_TRANSACTION, timeout, deadline)
            self.state = READY
        finally:
            self.leave()

    def abort(self, timeout):
        deadline = self.deadline(timeout)
        self.enter()
        try:
            if self.state not in (IN_TRANSACTION, COMMITTING, ABORTING, ABORTABLE_ERROR) or (
                    self.state == COMMITTING and self.under_way):
                raise self.not_now()
            try:
                self.undo(timeout, deadline)
            finally:   # after a timeout too: a flush() before the next call must not raise for dropped records
                with nogil:
                    self.sender.completion.failed_records.discard()
        finally:
            self.leave()

    cdef int undo(self, object timeout, int64_t deadline) except -1:
        """Drops what is ours, waits for what is librdkafka's, and aborts.

        librdkafka would purge what it has, and fail the transactions that
        follow: a request that it purges leaves a gap in the sequence numbers of
        its partition, and if none has got through yet, the coordinator knows of
        no transaction and refuses to end it, which librdkafka takes for fatal.
        """
        self.accumulator.stop_appends()
        if self.under_way and self.call.request == SEND_OFFSETS:
            self.wait_ended(timeout, deadline)
        self.state = ABORTING
        self.failed = None
        if not self.under_way:
            with nogil:
                self.sender.drop()
            if not self.wait_settled("abort_transaction", deadline):
                raise TimeoutError(
                    f"{self.pending.unfinished()} after {self.shown(timeout)}: call abort_transaction() again")
        self.perform(ABORT_TRANSACTION, timeout, deadline)
        self.state = READY
        return 0

    def close(self, deadline_ns):
        """Aborts a transaction that is open, as Java's close() does. After an interrupt it can be called again.

        What librdkafka is at cannot be cut short, nor its handle be closed before: end() waits for it.
        """
        deadline = min(deadline_ns, fp_monotonic_ns() + self.max_block_ns)
        if not self.lock.acquire(deadline):
            fp_atomic_store(&self.closing, 1)   # ends the wait of the thread that holds it
            self.lock.acquire(INT64_MAX)
        self.caller = thread_ident()
        try:
            if self.state == CLOSED:
                return
            try:
                self.notice_failure()
                if self.state in (IN_TRANSACTION, ABORTABLE_ERROR) or (
                        self.state in (COMMITTING, ABORTING) and not self.under_way):
                    logger().warning("a producer is closed with its transaction open: aborting it")
                    self.undo(None, deadline)
                elif self.under_way and self.state != INITIALIZING:
                    self.wait_ended(None, deadline)
                    self.conclude()
            except (KafkaError, TimeoutError) as error:
                logger().warning("the end of the transaction was not seen: %s", error)
            self.state = CLOSED
            self.accumulator.closed_error = None
        finally:
            self.leave()

    def end(self):
        """Waits for the thread; for ATTEMPT_MS at most, or max.block.ms for offsets. thread: metadata, the last"""
        fp_atomic_store(&self.stopping, 1)
        if self.under_way:
            with nogil:
                fp_thread_join(self.thread)
            self.under_way = 0

    # Where it stands

    cdef int enter(self) except -1:
        # closed_error() takes the lock too, for a moment: a send() that is refused does not keep a call from its work.
        while not self.lock.acquire(fp_monotonic_ns() + LOOK_NS):
            if self.caller is not None:
                raise TransactionStateError("another thread is in a call of this producer's transaction")
        self.caller = thread_ident()
        try:
            self.notice_failure()
        except BaseException:
            self.leave()
            raise
        return 0

    def refuse_nested(self):
        """close() in a signal handler would wait for the call that the signal has interrupted."""
        if self.caller is not None and self.lock.waits_for_itself():
            raise RuntimeError("close() was called by a signal handler while this very thread is in a call of the "
                               "transaction: let the handler raise, and close the producer after that")

    cdef int leave(self) except -1:
        self.caller = None
        self.lock.release()
        return 0

    cdef int64_t deadline(self, object timeout) except -1:
        return fp_monotonic_ns() + self.max_block_ns if timeout is None else wait_deadline(timeout)

    def shown(self, timeout):
        return f"max.block.ms={self.max_block_ns // 1_000_000}" if timeout is None else f"{timeout} s"

    cdef object not_now(self):
        """What a call raises that the state does not permit."""
        return self.reason(self.state, self.failed)

    cdef object reason(self, TransactionState state, tuple failed):
        if failed is not None:
            return self.error_of(failed)
        if state == CLOSED:
            return ProducerClosedError("the producer is closed")
        return TransactionStateError({
            UNINITIALIZED: "transactions are not initialized: call init_transactions() first",
            INITIALIZING: "init_transactions() has not ended: call it again",
            READY: "no transaction is open: call begin_transaction() first",
            IN_TRANSACTION: "a transaction is open already: commit or abort it first",
            COMMITTING: "commit_transaction() has not ended: call it again",
            ABORTING: "abort_transaction() has not ended: call it again",
        }[state])

    def closed_error(self):
        """What send() raises while appends are stopped."""
        if not self.lock.acquire(0):
            if self.state != ABORTING and fp_atomic_load(&self.sender.completion.failure_code):
                return for_transaction(*self.record_failure(), False)
            return TransactionStateError(
                "another thread begins or ends the transaction: no record can be sent meanwhile")
        # No Python code runs under the lock here, and so no signal handler, whose close() would wait for it.
        try:
            self.notice_failure()
            state, failed = self.state, self.failed
        finally:
            self.lock.release()
        if state == IN_TRANSACTION:
            return TransactionStateError("the transaction ended while send() waited: send the record again")
        return self.reason(state, failed)

    cdef tuple record_failure(self):
        """(code, what happened) of the first record that failed."""
        cdef int code = fp_atomic_load(&self.sender.completion.failure_code)
        topic = (<bytes>self.sender.completion.failure_topic).decode()
        persisted = persisted_word(self.sender.completion.failure_persisted)
        return code, str(for_delivery(code, describe(code), persisted, topic, self.sender.completion.failure_partition))

    cdef int notice_failure(self) except -1:
        """A record that failed, or an error of librdkafka's, ends the transaction. lock: held"""
        cdef TransactionCall asked
        cdef int code = fp_atomic_load(&self.sender.completion.failure_code)
        if self.state not in (IN_TRANSACTION, COMMITTING) or self.under_way:
            return 0
        if not code and not fp_atomic_load(&self.transport.errors.fatal_code):
            return 0
        # An error of the transaction fails its records with a code that only
        # says so. Beginning another transaction in this one is refused with the
        # error itself, if there is one, and changes nothing.
        asked.request = BEGIN_TRANSACTION
        with nogil:
            transact(self.transport.rk, &asked)
        if asked.fatal or asked.abortable:
            text = (<bytes>asked.text).decode("utf-8", "replace")
            self.fail(asked.code, f"the transaction failed: {text} (code {asked.code})", asked.fatal)
        elif code:
            self.fail(code, None, False)
        else:
            self.fail(fp_atomic_load(&self.transport.errors.fatal_code), None, True)
        return 0

    cdef int fail(self, int code, str what, bint fatal) except -1:
        self.failed = (code, what, fatal)
        self.state = FATAL_ERROR if fatal else ABORTABLE_ERROR
        self.accumulator.stop_appends()
        return 0

    cdef object error(self):
        return self.error_of(self.failed)

    cdef object error_of(self, tuple failed):
        code, what, fatal = failed
        if what is None and not fatal:
            code, what = self.record_failure()
        return for_transaction(code, what or f"{describe(code)} (code {code})", fatal)

    # librdkafka's calls

    cdef int perform(self, TransactionRequest request, object timeout, int64_t deadline) except -1:
        """Makes a resumable call, or goes on waiting for it; returns when it has succeeded."""
        if not self.under_way:
            self.start(request, INT64_MAX)
        self.wait_ended(timeout, deadline)
        return self.conclude()

    cdef int start(self, TransactionRequest request, int64_t until_ns) except -1:
        self.call.request = request
        self.until_ns = until_ns
        fp_atomic_store(&self.ended, 0)
        fp_atomic_store(&self.stopping, 0)
        if fp_thread_start(&self.thread, transaction_main, <void *>self, b"fastprod-txn"):
            free_offsets(&self.call)
            raise RuntimeError("the operating system gives no thread to the transaction")
        self.under_way = 1
        return 0

    cdef void run(self) noexcept nogil:
        """thread: transaction"""
        cdef int64_t left_ms
        while True:
            left_ms = max((self.until_ns - fp_monotonic_ns()) // 1_000_000, <int64_t>1)
            self.call.timeout_ms = <int>min(left_ms, <int64_t>INT32_MAX)
            if self.call.request != SEND_OFFSETS:
                self.call.timeout_ms = ATTEMPT_MS
            transact(self.transport.rk, &self.call)
            if (self.call.code == 0 or not self.call.retriable or fp_atomic_load(&self.stopping) or
                    fp_monotonic_ns() >= self.until_ns):
                break
            if self.call.code != TIMED_OUT:
                fp_sleep_ns(RETRY_PAUSE_NS)
        fp_atomic_store(&self.ended, 1)
        notify_completed()

    cdef int wait_ended(self, object timeout, int64_t deadline) except -1:
        cdef int64_t until, pause_ns = 0
        cdef int ended
        while True:
            until = next_slice(deadline, &pause_ns)
            with nogil:
                ended = wait_completed(&self.ended, until)
                if ended:
                    fp_thread_join(self.thread)
            if ended:
                self.under_way = 0
                free_offsets(&self.call)
                return 0
            if fp_monotonic_ns() >= deadline:
                _, text = self.transport.errors.last_error(fp_monotonic_ns() - RECENT_NS)
                raise TimeoutError(
                    f"{NAMES[self.call.request]}() had not ended after {self.shown(timeout)}; it goes on, and the same "
                    "call waits for it again" + (f"; last error: {text}" if text else ""))
            self.refuse_closing(NAMES[self.call.request])

    cdef bint wait_settled(self, str name, int64_t deadline) except -1:
        """Whether every record has settled, and its callbacks have run, by the deadline."""
        while not self.pending.wait_settled(fp_slice_end(deadline)):
            if fp_monotonic_ns() >= deadline:
                return False
            self.refuse_closing(name)
        return True

    cdef int refuse_closing(self, str name) except -1:
        if fp_atomic_load(&self.closing):
            raise ProducerClosedError(f"the producer was closed while {name}() was under way")
        return 0

    cdef int conclude(self) except -1:
        """Raises what librdkafka's answer means, and changes the state."""
        cdef int code = self.call.code
        if code == 0:
            return 0
        name = NAMES[self.call.request]
        text = (<bytes>self.call.text).decode("utf-8", "replace")
        if self.call.retriable and self.call.request != SEND_OFFSETS:
            raise ProducerClosedError(f"the producer was closed while {name}() was under way")
        # librdkafka says to take an answer without any flag for a fatal one.
        self.fail(code, f"{name}() failed: {text} (code {code})",
                  self.call.fatal or not (self.call.abortable or self.call.retriable))
        raise self.error()
