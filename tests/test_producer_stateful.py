"""The whole public API against a model, on brokers that fail: whatever is called when, every record settles once.

`make stateful EXAMPLES=1000 SEED=5` runs more of it. A failure prints its steps, and what runs them again.
"""

import asyncio
import contextlib
import faulthandler
import os
import pickle
import re
import sys
import threading
import time
import warnings
from collections import Counter, defaultdict

from confluent_kafka import Consumer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import fastprod
from fastprod import (
    DeliveryError,
    ForkedProducerError,
    KafkaError,
    Producer,
    ProducerClosedError,
    ProducerRecord,
    TransactionStateError,
    partition_for_key,
)
from fastprod.testing import ALL_BROKERS, MockCluster
from tests.conftest import QUICK

LONG_FORM = int(os.environ.get("FASTPROD_STATEFUL_EXAMPLES", 0))  # negative: without looking for shorter failures
HANG_TIMEOUT = 40  # seconds after which a call that should return counts as hung
TOPICS = {"a": 1, "b": 4, "c": 16}
PUBLIC = {cls for cls in vars(fastprod).values() if isinstance(cls, type) and issubclass(cls, KafkaError)}
ORDINARY = [6, 7, 19, 5, 56]  # answers to a request after which it is made again
GRAVE = [10, 29, 87, 45, -195]  # not again; the last but one is fatal to an idempotent producer, the last cuts
NO_GROUP = Consumer({"group.id": "g", "bootstrap.servers": "127.0.0.1:1", "log_level": 0}).consumer_group_metadata()

VALUES = st.one_of(
    st.none(), st.binary(max_size=40), st.text(max_size=10), st.integers(0, 3000).map(bytes), st.just(bytearray(b"ab"))
)
KEYS = st.one_of(st.none(), st.none(), st.binary(max_size=10), st.text(max_size=5))
HEADERS = st.one_of(
    st.none(),
    st.none(),
    st.lists(st.tuples(st.text(min_size=1, max_size=3).filter(lambda t: "\0" not in t), st.just(b"v")), max_size=3),
    st.just({"name": None}),
)
REACTIONS = st.sampled_from(["nothing", "nothing", "look", "raise", "send", "flush", "close", "abort"])
BAD = [  # arguments of send(), keywords, what is raised
    ((b"t",), {}, TypeError),
    (("no such",), {}, ValueError),
    (("a", 5), {}, TypeError),
    (("a", b"v", 5), {}, TypeError),
    (("a", "\ud800"), {}, ValueError),
    (("a", memoryview(b"abcd")[::2]), {}, ValueError),
    (("a", bytes(2_000_000)), {}, ValueError),
    (("a",), {"partition": -1}, ValueError),
    (("a",), {"partition": "0"}, TypeError),
    (("a",), {"timestamp": -1}, ValueError),
    (("a",), {"timestamp": 1.5}, TypeError),
    (("a",), {"headers": 5}, TypeError),
    (("a",), {"headers": [("\0", b"")]}, ValueError),
    (("a",), {"headers": [("n", 5)]}, TypeError),
    (("a",), {"on_delivery": 5}, TypeError),
    ((ProducerRecord("a", 5),), {}, TypeError),
    ((ProducerRecord("a"), b"v"), {}, TypeError),
]


class Boom(Exception):
    """What callbacks of the test raise."""


class Sent:
    """A record that send() took, and what was heard of it."""

    def __init__(self, number, source, topic, partition, on_delivery):
        self.number, self.source, self.topic = number, source, topic
        self.partition = partition  # if it is known before it is sent
        self.on_delivery = on_delivery
        self.outcomes = []  # of on_delivery
        self.asked_for = self.called = 0  # done callbacks
        self.observed = on_delivery
        self.future = None

    def __repr__(self):
        return f"record {self.number} by {self.source} for {self.topic} [{self.partition}]"


class ProducerMachine(RuleBasedStateMachine):
    """Each example has a producer and a mock cluster of two brokers of its own.

    The model knows every record that was taken and whether the program has observed its outcome. As long as nothing was
    broken (`calm`), it also knows whether a call must succeed.
    """

    @initialize(
        options=st.fixed_dictionaries(
            {
                "linger_ms": st.sampled_from([0, 0, 3, 500]),
                "batch_size": st.sampled_from([0, 200, 16384]),
                "buffer_memory": st.sampled_from([20_000, 100_000, 33_554_432]),
                "max_block_ms": st.sampled_from([20, 100, 400]),
                "acks": st.sampled_from(["all", "all", "1", "0"]),
                "compression_type": st.sampled_from(["none", "lz4"]),
                "max_in_flight_requests_per_connection": st.sampled_from([1, 5]),
                "partitioner": st.sampled_from(["uniform_sticky", "sticky", "timed_sticky", "round_robin", "random"]),
            }
        ),
        hasty=st.sampled_from([False, False, True]),
        transactional=st.sampled_from([False, False, True]),
    )
    def begin(self, options, hasty, transactional):
        faulthandler.dump_traceback_later(6 * HANG_TIMEOUT, exit=True, file=sys.__stderr__)
        self.cluster = MockCluster(brokers=2, topics={})
        options["delivery_timeout_ms"], options["request_timeout_ms"] = (700, 150) if hasty else (90_000, 1000)
        options["retry_backoff_ms"] = options["retry_backoff_max_ms"] = 10
        self.hasty, self.transactional = hasty, transactional
        if transactional:
            options |= {
                "transactional_id": "stateful",
                "acks": "all",
                "max_block_ms": max(options["max_block_ms"], 200),
            }
        self.state = "new" if transactional else None  # of the transaction; "open", "ready", "unknown"
        # With several requests on their way and no idempotence, a retry changes the order.
        self.ordered = options["acks"] == "all" or options["max_in_flight_requests_per_connection"] == 1
        self.options = options
        self.sent = []
        self.heard = defaultdict(list)  # (source, topic, partition) -> numbers, in the order of on_delivery
        # What was not handed over fails at once when its time is over, or by an abort, and before what was.
        self.fails_in_order = not hasty and not transactional
        self.raised = 0  # by callbacks, where nobody catches it
        self.unraisable = []
        self.problems = []  # what went wrong on another thread
        self.calm = True
        self.closed = False
        self.vague = 0  # records that may have failed in a transaction that was aborted
        self.lock = threading.Lock()
        self.number = 0
        self.hook, sys.unraisablehook = sys.unraisablehook, lambda raised: self.unraisable.append(raised.exc_type)
        self.producer = self.another(**options)
        # Not before: a cluster without any traffic may take a second to hear of a change.
        for name, partitions in TOPICS.items():
            self.cluster.create_topic(name, partitions)

    def another(self, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # acks may switch idempotence off, and the like
            return Producer(QUICK, bootstrap_servers=self.cluster.bootstrap_servers, **options)

    # What a call may raise.

    def check_error(self, error):
        assert type(error) in PUBLIC, repr(error)
        assert str(error) and "\n" not in str(error)
        assert error.persisted in (None, "no", "possibly", "yes")

    @contextlib.contextmanager
    def documented(self, *others):
        """KafkaErrors of public classes, and these."""
        try:
            yield
        except KafkaError as error:
            self.check_error(error)
            if isinstance(error, ProducerClosedError):
                assert self.closed
        except others:
            pass

    # Sending.

    def send_one(self, source, topic="b", value=b"v", key=None, *, reaction=None, record=False, **fields):
        """Sends; whether it was taken. reaction: what on_delivery does; None: there is none."""
        partition = fields.get("partition")
        if partition is None and key is not None and self.options["partitioner"] not in ("round_robin", "random"):
            partition = partition_for_key(key, TOPICS[topic])
        with self.lock:
            self.number += 1
            sent = Sent(self.number, source, topic, partition, reaction is not None)

        def on_delivery(metadata, error):
            sent.outcomes.append((metadata, error))
            self.notice(sent, metadata, error)
            self.react(sent, reaction)

        if reaction is not None:
            fields["on_delivery"] = on_delivery
        with self.documented():
            if record:
                callback = {"on_delivery": fields.pop("on_delivery")} if reaction is not None else {}
                sent.future = self.producer.send(ProducerRecord(topic, value, key, **fields), **callback)
            else:
                sent.future = self.producer.send(topic, value, key, **fields)
            with self.lock:
                self.sent.append(sent)
            return True
        return False

    def notice(self, sent, metadata, error):
        try:
            assert (metadata is None) != (error is None)
            if error is not None:
                self.check_error(error)
                partition = int(re.search(r"\[(\d+)\]", str(error))[1])
            else:
                partition = metadata.partition
                assert metadata.topic == sent.topic
            assert sent.partition in (None, partition)
            assert 0 <= partition < TOPICS[sent.topic]
            if error is None or self.fails_in_order:
                self.heard[sent.source, sent.topic, partition].append(sent.number)
        except BaseException as problem:
            self.problems.append((sent, repr(problem)))

    def react(self, sent, reaction):
        """What a callback does, on the callback thread."""
        try:
            if reaction == "look":
                assert sent.future is None or sent.future.done()
                self.producer.metrics()
                len(self.producer)
            elif reaction == "send":
                self.send_one("a callback", reaction="nothing")
            elif reaction in ("flush", "close", "abort"):
                call = {"abort": "abort_transaction"}.get(reaction, reaction)
                try:
                    getattr(self.producer, call)()
                except RuntimeError as error:
                    assert "would wait" in str(error) or isinstance(error, ProducerClosedError), error
                else:
                    # close() on a closed producer does nothing, and the flag comes before its callbacks have ended.
                    raise AssertionError(f"{call}() returned in a callback")
        except BaseException as problem:
            self.problems.append((sent, repr(problem)))
        if reaction == "raise":
            with self.lock:
                self.raised += 1
            raise Boom

    @rule(
        topic=st.sampled_from(sorted(TOPICS)),
        value=VALUES,
        key=KEYS,
        headers=HEADERS,
        partition=st.one_of(st.none(), st.none(), st.integers(0, 17)),
        timestamp=st.sampled_from([None, None, 0, 1, 1_700_000_000_000, 2**63 - 1]),
        reaction=st.one_of(st.none(), REACTIONS),
        record=st.booleans(),
        burst=st.sampled_from([1, 1, 3, 40]),
    )
    def send(self, topic, value, key, headers, partition, timestamp, reaction, record, burst):
        fields = {"headers": headers, "partition": partition, "timestamp": timestamp}
        for _ in range(burst):
            if not self.send_one("the rules", topic, value, key, reaction=reaction, record=record, **fields):
                break  # each might take max.block.ms

    @rule(which=st.integers(0, len(BAD) - 1))
    def send_what_is_wrong(self, which):
        arguments, keywords, expected = BAD[which]
        if isinstance(arguments[0], str) and "no such" not in arguments[0]:
            # The topic must be known before what is wrong with the rest is seen.
            with self.documented():
                self.producer.partitions_for(arguments[0])
        try:
            self.producer.send(*arguments, **keywords)
        except expected:
            return
        except KafkaError as error:
            self.check_error(error)
            assert self.closed or not self.calm or isinstance(error, TimeoutError), repr(error)
            return
        raise AssertionError("what is wrong was taken")

    @rule(call=st.sampled_from(["send", "partitions_for"]))
    def name_no_topic(self, call):
        taken = False
        with self.documented():
            getattr(self.producer, call)("unheard-of")
            taken = True
        assert not taken

    @rule(threads=st.integers(2, 4), burst=st.integers(1, 60), reaction=st.one_of(st.none(), REACTIONS))
    def send_from_threads(self, threads, burst, reaction):
        def work(source):
            try:
                for i in range(burst):
                    value = bytes(i * 7 % 300)
                    if not self.send_one(source, "b", value, reaction=reaction, partition=None if i % 2 else i % 4):
                        break
            except BaseException as problem:
                self.problems.append((source, repr(problem)))

        with self.lock:
            run = self.number
        workers = [threading.Thread(target=work, args=(f"thread {run}.{i}",)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(HANG_TIMEOUT * 2)
            assert not worker.is_alive(), "send() hangs"

    # Asking.

    def pick(self, which):
        found = [sent for sent in self.sent if sent.future is not None]
        return found[which % len(found)] if found else None

    @rule(
        which=st.integers(0, 500), how=st.sampled_from(["result", "get", "exception"]), wait=st.sampled_from([0, 0.02])
    )
    def ask(self, which, how, wait):
        sent = self.pick(which)
        if sent is None:
            return
        try:
            answer = getattr(sent.future, how)(timeout=wait)
        except KafkaError as error:
            assert how != "exception"
            self.check_error(error)
        except TimeoutError:
            return
        else:
            if isinstance(answer, Exception):
                self.check_error(answer)
        assert sent.future.done()
        sent.observed = True

    @rule(which=st.integers(0, 500), wait=st.sampled_from([0, 0.02]))
    def wait_in_asyncio(self, which, wait):
        sent = self.pick(which)
        if sent is None:
            return

        async def wait_for():
            async def ask():
                return await sent.future

            await asyncio.wait_for(ask(), wait)

        try:
            asyncio.run(wait_for())
        except KafkaError as error:
            self.check_error(error)
        except (TimeoutError, asyncio.TimeoutError):
            # It may have been notified at the very moment at which it was cancelled: ask.
            with contextlib.suppress(KafkaError, TimeoutError):
                sent.future.result(HANG_TIMEOUT if sent.future.done() else 0)
            sent.observed = sent.observed or sent.future.done()
            return
        sent.observed = True

    @rule(which=st.integers(0, 500), reaction=st.sampled_from(["nothing", "look", "raise", "send"]))
    def add_done_callback(self, which, reaction):
        sent = self.pick(which)
        if sent is None:
            return
        here = threading.get_ident()

        def call(future):
            assert future is sent.future
            sent.called += 1
            if reaction == "raise" and threading.get_ident() == here:
                raise Boom
            self.react(sent, reaction)

        sent.observed = True
        sent.asked_for += 1
        with contextlib.suppress(Boom):  # called at once
            sent.future.add_done_callback(call)

    @rule(which=st.integers(0, 500))
    def drop(self, which):
        """Nobody holds the future any more."""
        sent = self.pick(which)
        if sent is not None and not sent.asked_for:
            sent.future = None

    @rule()
    def look(self):
        metrics = self.producer.metrics()
        assert all(isinstance(value, int | float) and value >= 0 for value in metrics.values()), metrics
        assert metrics["waiting-threads"] == 0
        assert 0 <= self.producer.buffer_available <= self.options["buffer_memory"]
        assert len(self.producer) >= 0 and self.producer
        assert repr(self.producer) and all(repr(sent.future) for sent in self.sent[-5:])
        with contextlib.suppress(TypeError):
            pickle.dumps(self.producer)
            raise AssertionError("a producer was pickled")

    @rule(topic=st.sampled_from(sorted(TOPICS)))
    def look_at_a_topic(self, topic):
        with self.documented():
            assert len(self.producer.partitions_for(topic)) == TOPICS[topic]
        with self.documented():
            self.producer.wait_ready(0.05)

    # Waiting and ending.

    @rule(timeout=st.sampled_from([0, 0.01, None, None]))
    def flush(self, timeout):
        if timeout is None:
            self.cluster.broker_up(ALL_BROKERS)  # else it may take delivery.timeout.ms
        known = len(self.sent)
        started = time.monotonic()
        try:
            with self.documented():
                self.run_blocking(lambda: self.producer.flush(timeout), known)
                assert not self.closed
        except TimeoutError:
            assert timeout is not None
            return
        assert time.monotonic() - started < HANG_TIMEOUT, "flush() hangs"

    def run_blocking(self, call, known):
        """Calls flush() or close(), which must raise the failures that nothing has observed, and no other."""
        try:
            call()
        except DeliveryError as error:
            count, records = error.count, error.records
            self.check_error(error)
            for failed in records:
                self.check_error(failed.error)
            assert len(records) <= count == sum(error.reasons.values())
            assert count > 0 or "gave up" in str(error)
        else:
            count = 0
        unobserved = [sent for sent in self.sent[:known] if not sent.observed]
        least = most = 0
        for sent in unobserved:
            sent.observed = True
            if sent.future is not None:
                assert sent.future.done(), sent
                least += sent.future.exception(0) is not None
            else:
                most += 1
        assert least <= count <= least + most + self.vague, (least, count, most, self.vague)

    def may_forget_failures(self):
        """An abort may forget the failures of its transaction, which count for nothing then."""
        for sent in self.sent:
            self.vague += not sent.observed
            sent.observed = True

    @rule(timeout=st.sampled_from([0, 0.05, None]), really=st.sampled_from([False, False, False, True]))
    def close(self, timeout, really):
        if really:
            self.end(timeout)

    # Transactions.

    def call_patiently(self, call, *arguments):
        """Where a call gives up after max.block.ms, which is short here, the computer may have been slow: again."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return call(*arguments)
            except TimeoutError:
                if not self.calm or arguments or time.monotonic() > deadline:
                    raise

    def transact(self, name, allowed, then, *arguments):
        """Calls; `allowed` are the states in which it must succeed while all is calm, `then` the one that follows."""
        state = self.state
        try:
            self.call_patiently(getattr(self.producer, name), *arguments)
        except (TransactionStateError, ProducerClosedError) as error:
            self.check_error(error)
            assert self.closed or state == "unknown" or not self.calm or state not in allowed, (name, state, error)
        except (KafkaError, TimeoutError) as error:
            if isinstance(error, KafkaError):
                self.check_error(error)
            else:
                assert type(error) is TimeoutError
            assert not self.calm or type(error) is TimeoutError and arguments, (name, state, error)
            self.state = "unknown"
        else:
            assert not self.closed and self.transactional
            assert state == "unknown" or state in allowed, (name, state)
            self.state = then
        if name == "abort_transaction":
            self.may_forget_failures()

    @rule()
    def init_transactions(self):
        self.transact("init_transactions", ["new"], "ready")

    @rule()
    def begin_transaction(self):
        self.transact("begin_transaction", ["ready"], "open")

    @rule(timeout=st.sampled_from([None, None, 0, 0.01]))
    def commit_transaction(self, timeout):
        self.transact("commit_transaction", ["open"], "ready", timeout)

    @rule(timeout=st.sampled_from([None, None, 0, 0.01]))
    def abort_transaction(self, timeout):
        self.transact("abort_transaction", ["open"], "ready", timeout)

    @rule(offset=st.sampled_from([0, 5, 2**63 - 1, -1001]))
    def send_offsets(self, offset):
        self.transact("send_offsets_to_transaction", ["open"], "open", {("b", 1): offset}, NO_GROUP)

    @rule(burst=st.integers(0, 30), fails=st.booleans())
    @precondition(lambda self: self.transactional)
    def with_transaction(self, burst, fails):
        begun = False
        with self.documented(Boom, TimeoutError), self.producer.transaction():
            begun = True
            for _ in range(burst):
                self.send_one("the rules", reaction="nothing")
            if fails:
                raise Boom
        if begun:
            self.state = "ready" if self.calm else "unknown"
            self.may_forget_failures()

    # Breaking.

    @rule(
        request=st.sampled_from(["Produce", "Produce", "Metadata", "InitProducerId", "AddPartitionsToTxn", "EndTxn"]),
        errors=st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=4),
        grave=st.sampled_from([None, None, *GRAVE]),
    )
    def fail_requests(self, request, errors, grave):
        self.calm = False
        self.cluster.push_request_errors(request, errors + ([grave] if grave is not None else []))

    @rule(broker=st.sampled_from([1, 2, ALL_BROKERS]))
    def take_down(self, broker):
        self.calm = False
        self.cluster.broker_down(broker)

    @rule()
    def bring_up(self):
        self.cluster.broker_up(ALL_BROKERS)

    @rule(milliseconds=st.sampled_from([0, 5, 60]))
    def slow_down(self, milliseconds):
        self.calm = self.calm and milliseconds < 60
        self.cluster.set_round_trip_time(ALL_BROKERS, milliseconds)

    @rule(topic=st.sampled_from(sorted(TOPICS)), partition=st.integers(0, 15), broker=st.integers(1, 2))
    def move_leader(self, topic, partition, broker):
        self.calm = False
        self.cluster.set_leader(topic, partition % TOPICS[topic], broker)

    # The process.

    @rule()
    def fork(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fork beside threads
            child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            return
        code = 1
        try:
            for call in (self.producer.flush, self.producer.metrics, lambda: self.producer.send("a", b"v")):
                try:
                    call()
                except ForkedProducerError:
                    continue
                os._exit(2)
            code = 0
        finally:
            os._exit(code)

    @rule(count=st.integers(0, 30), close=st.booleans())
    def use_another_producer(self, count, close):
        other = self.another(max_block_ms=100, delivery_timeout_ms=1500, request_timeout_ms=500)
        with self.documented(), other:
            for _ in range(count):
                other.send("c", b"other")
            if close:
                other.close(HANG_TIMEOUT)

    # What holds at any time, and at the end.

    @invariant()
    def nothing_went_wrong_elsewhere(self):
        assert not getattr(self, "problems", None), self.problems

    def end(self, timeout):
        """Closes, and checks that every record has settled once and that everything was given back."""
        if self.closed:
            self.producer.close()
            return
        self.closed = True
        self.fails_in_order = self.fails_in_order and timeout is None
        if timeout is None:
            self.cluster.broker_up(ALL_BROKERS)
        known, started = len(self.sent), time.monotonic()
        self.run_blocking(lambda: self.producer.close(timeout), known)
        assert time.monotonic() - started < HANG_TIMEOUT, "close() hangs"
        self.check_end()

    def check_end(self):
        for sent in self.sent:
            assert len(sent.outcomes) == sent.on_delivery, (sent, sent.outcomes)
            assert sent.called == sent.asked_for, sent
            if sent.future is None:
                continue
            assert sent.future.done(), sent
            error = sent.future.exception(0)
            if sent.outcomes:
                assert (sent.outcomes[0][1] is None) == (error is None), (sent, error)
            if error is None:
                metadata = sent.future.result(0)
                assert sent.partition in (None, metadata.partition)
            else:
                self.check_error(error)
        assert Counter(self.unraisable) == Counter({Boom: self.raised} if self.raised else {})
        if self.ordered:
            for place, numbers in self.heard.items():
                assert numbers == sorted(numbers), (place, numbers)
        assert len(self.producer) == 0
        assert self.producer.buffer_available == self.options["buffer_memory"]
        metrics = self.producer.metrics()
        assert metrics["record-send-total"] + metrics["record-error-total"] == len(self.sent), metrics
        assert metrics["waiting-threads"] == 0
        with self.documented():
            self.producer.send("a", b"v")
            raise AssertionError("a closed producer took a record")

    def teardown(self):
        if not hasattr(self, "producer"):
            return
        try:
            self.cluster.broker_up(ALL_BROKERS)
            self.cluster.set_round_trip_time(ALL_BROKERS, 0)
            self.end(None)
            self.nothing_went_wrong_elsewhere()
        finally:
            sys.unraisablehook = self.hook
            self.cluster.close()
            faulthandler.cancel_dump_traceback_later()


TestProducer = ProducerMachine.TestCase
TestProducer.settings = settings(
    max_examples=abs(LONG_FORM) or 20,
    stateful_step_count=20,
    deadline=None,
    print_blob=True,
    # Shrinking takes long and, with what depends on time, may not get anywhere: only on demand.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if LONG_FORM > 0 else [])],
    suppress_health_check=list(HealthCheck),
)
