"""Futures and callbacks: what a record's outcome looks like from each side that can ask for it."""

import asyncio
import copy
import functools
import gc
import pickle
import sys
import threading
import time
from collections import Counter

import pyarrow
import pytest

from fastprod import (
    AuthorizationError,
    DeliveryError,
    KafkaError,
    Producer,
    ProducerClosedError,
    ProducerRecord,
    RecordMetadata,
    RecordTooLargeError,
    SerializationError,
    UnknownTopicOrPartitionError,
    partition_for_key,
)
from fastprod.testing import MockCluster
from tests.conftest import QUICK

pytestmark = pytest.mark.mock
PARTITIONS = 4  # of the `topic` fixture
CALLBACK_THREAD = "fastprod-callbacks"
FORBIDDEN = 29  # TOPIC_AUTHORIZATION_FAILED: never retried


@pytest.fixture(scope="module")
def failing():
    """A cluster of its own that answers the next 10,000 Produce requests with FORBIDDEN; its topic is "t"."""
    # It outlives the producers that talk to it: a producer is slow to close while no broker answers.
    with MockCluster(topics={"t": PARTITIONS}, process=True) as cluster:
        cluster.push_request_errors("Produce", [FORBIDDEN] * 10_000)
        yield cluster


@pytest.fixture
def unraisable(monkeypatch):
    """The types of the exceptions that reached sys.unraisablehook."""
    types = []
    monkeypatch.setattr("sys.unraisablehook", lambda raised: types.append(raised.exc_type))
    return types


def in_threads(count, work, seconds=30):
    """What work(i) returned in each of count threads that ran at once."""
    results, barrier = {}, threading.Barrier(count)

    def run(i):
        barrier.wait(seconds)
        results[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive()
    return [results[i] for i in range(count)]


# Asking


def test_result_get_and_exception_agree_and_can_be_asked_again(make, topic):
    future = make().send(topic, b"v", partition=1)
    metadata = future.result(10)
    assert isinstance(metadata, RecordMetadata) and metadata[:3] == (topic, 1, 0)
    assert future.result() == future.get() == future.get(0) == future.get(timeout=5) == metadata
    assert future.exception() is None and future.exception(timeout=0) is None
    assert future.done() is True


def test_each_reader_of_a_failure_gets_an_exception_of_its_own(make, failing):
    future = make(failing.bootstrap_servers).send("t", b"v", partition=3)
    first = future.exception(10)
    assert type(first) is AuthorizationError and first.code == FORBIDDEN and "t [3]" in str(first)
    for ask in (future.result, future.get):
        with pytest.raises(AuthorizationError) as caught:
            ask(0)
        assert caught.value is not first and str(caught.value) == str(first)
    assert future.exception(0) is not first and future.done()


def test_done_is_false_until_the_record_has_settled(make, topic):
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v")
    assert future.done() is False
    producer.flush(10)
    assert future.done() is True


@pytest.mark.parametrize("ask", ["result", "get", "exception"])
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_timeout_raises_and_the_record_is_still_delivered(make, topic, ask, timeout):
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v", partition=0)
    with pytest.raises(TimeoutError, match="still on its way") as caught:
        getattr(future, ask)(timeout)
    assert not isinstance(caught.value, KafkaError) and topic in str(caught.value)
    assert not future.done()
    producer.flush(10)
    assert future.result(0).offset == 0


def test_a_timeout_does_not_observe_the_outcome(make, failing):
    producer = make(failing.bootstrap_servers, linger_ms=80_000)
    future = producer.send("t", b"v")
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(0)
    with pytest.raises(DeliveryError) as caught:
        producer.flush(10)
    assert caught.value.count == 1


def test_repr_shows_the_state(make, topic, failing):
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v", partition=2)
    assert repr(future) == f"<FutureRecordMetadata {topic} pending>"
    producer.flush(10)
    assert repr(future) == f"<FutureRecordMetadata {topic} {future.result()!r}>"
    failed = make(failing.bootstrap_servers).send("t", b"v")
    assert failed.exception(10) is not None
    assert repr(failed).startswith("<FutureRecordMetadata t AuthorizationError(")


# Done callbacks


def test_a_done_callback_runs_once_on_the_callback_thread(make, topic):
    calls = []
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v")
    assert future.add_done_callback(lambda f: calls.append((f, f.done(), threading.current_thread().name))) is None
    assert calls == []
    producer.flush(10)
    assert calls == [(future, True, CALLBACK_THREAD)]


def test_a_done_callback_added_after_settling_runs_at_once_in_the_caller(make, topic):
    calls = []
    future = make().send(topic, b"v")
    future.result(10)
    future.add_done_callback(lambda f: calls.append((f, threading.current_thread())))
    assert calls == [(future, threading.current_thread())]


def test_an_error_of_a_late_done_callback_is_its_callers(make, topic):
    def fail(future):
        raise LookupError("mine")

    future = make().send(topic, b"v")
    future.result(10)
    with pytest.raises(LookupError, match="mine"):
        future.add_done_callback(fail)


def test_several_done_callbacks_run_in_the_order_they_were_added(make, topic):
    calls = []
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v", on_delivery=lambda *_: calls.append("on_delivery"))
    for i in range(20):
        future.add_done_callback(lambda _, i=i: calls.append(i))
    producer.flush(10)
    assert calls == ["on_delivery", *range(20)]


@pytest.mark.parametrize("function", [None, 5, "text"], ids=repr)
def test_a_done_callback_must_be_callable(make, topic, function):
    producer = make()
    future = producer.send(topic, b"v")
    with pytest.raises(TypeError, match="callable"):
        future.add_done_callback(function)
    assert future.result(10) is not None


def test_callbacks_added_while_batches_settle_all_run_exactly_once(make, topic):
    producer = make()
    calls = Counter()
    for i in range(3000):
        producer.send(topic, b"v").add_done_callback(lambda _, i=i: calls.update((i,)))
    producer.flush(20)
    assert calls == Counter(range(3000))


# await


def test_await_gives_the_metadata(make, topic):
    producer = make()

    async def main():
        future = producer.send(topic, b"v", partition=1)
        first = await future
        return first, await future

    first, again = asyncio.run(main())
    assert first == again and first[:3] == (topic, 1, 0)


def test_gather_of_5000_awaits_gives_each_its_own(make, topic):
    producer = make(linger_ms=5)

    async def main():
        return await asyncio.gather(*(producer.send(topic, b"v", partition=i % PARTITIONS) for i in range(5000)))

    outcomes = asyncio.run(main())
    assert [(m.partition, m.offset) for m in outcomes] == [(i % PARTITIONS, i // PARTITIONS) for i in range(5000)]


def test_await_of_a_failing_record_raises_and_observes_it(make, failing):
    producer = make(failing.bootstrap_servers)

    async def main():
        with pytest.raises(AuthorizationError) as caught:
            await producer.send("t", b"v")
        return caught.value.code

    assert asyncio.run(main()) == FORBIDDEN
    producer.flush(10)


@pytest.mark.slow
def test_each_record_of_a_topic_that_may_not_be_written_to_says_so(make, failing):
    """librdkafka takes the topic's partitions away, and has other words for the records that it had for them."""
    for _ in range(80):
        producer = make(failing.bootstrap_servers)
        futures = [producer.send("t", b"v", partition=i % PARTITIONS) for i in range(20)]
        assert [type(future.exception(20)) for future in futures] == [AuthorizationError] * 20
        producer.close()


def test_gather_sorts_failures_from_successes(make, failing):
    producer = make(failing.bootstrap_servers)

    async def main():
        futures = [producer.send("t", b"v", partition=i % PARTITIONS) for i in range(20)]
        return await asyncio.gather(*futures, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert [type(outcome) for outcome in outcomes] == [AuthorizationError] * 20
    assert len(set(map(id, outcomes))) == 20
    producer.flush(10)


def test_asyncio_wait_is_refused_and_says_what_it_takes(make, topic):
    producer = make()

    async def main():
        if sys.version_info >= (3, 11):  # before that it made tasks of what it was given
            with pytest.raises(TypeError, match=r"asyncio.ensure_future\(future\)"):
                await asyncio.wait([producer.send(topic, b"v" * 100_000)])
        done, pending = await asyncio.wait([asyncio.ensure_future(producer.send(topic, b"v"))])
        assert not pending and [task.result().topic for task in done] == [topic]

    asyncio.run(main())


def test_a_done_callback_that_nobody_would_await_is_refused(make, topic):
    async def never(future):
        raise AssertionError

    with pytest.raises(TypeError, match="a done callback is a coroutine function"):
        make().send(topic, b"v").add_done_callback(never)


def test_a_cancelled_await_does_not_silence_the_later_failure(make, failing):
    producer = make(failing.bootstrap_servers, linger_ms=80_000)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(producer.send("t", b"lost"), 0.02)

    asyncio.run(main())
    with pytest.raises(DeliveryError) as caught:
        producer.flush(10)
    assert [record.value for record in caught.value.records] == [b"lost"]


def test_a_cancelled_await_can_be_awaited_again(make, topic):
    producer = make(linger_ms=80_000)

    async def main():
        future = producer.send(topic, b"v", partition=0)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.02)
        flushing = asyncio.get_running_loop().run_in_executor(None, producer.flush, 10)
        metadata = await future
        await flushing
        return metadata

    assert asyncio.run(main()).offset == 0


def test_a_loop_closed_before_settling_disturbs_nothing(make, topic, unraisable):
    producer = make(linger_ms=80_000)
    called = []
    loop = asyncio.new_event_loop()

    async def wait_for(future):
        await future

    future = producer.send(topic, b"v", on_delivery=lambda *_: called.append(1))
    task = loop.create_task(wait_for(future))
    loop.run_until_complete(asyncio.sleep(0.01))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    future.add_done_callback(lambda _: called.append(2))
    producer.flush(10)
    assert (called, future.done(), unraisable) == ([1, 2], True, [])


def test_a_loop_that_cannot_be_woken_hinders_no_other_callback(make, topic, unraisable):
    class Unwakeable(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *_, **__):
            raise LookupError("loop")

    async def wait_for(future):
        await future

    producer = make(linger_ms=80_000)
    called, loop = [], Unwakeable()
    task = loop.create_task(wait_for(producer.send(topic, b"v")))
    loop.run_until_complete(asyncio.sleep(0.01))
    producer.flush(10)
    producer.send(topic, b"v", on_delivery=lambda *_: called.append(1))
    producer.flush(10)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert (called, unraisable) == ([1], [LookupError])


def test_awaits_of_one_batch_from_several_loops_all_wake(make, topic):
    producer = make(linger_ms=80_000)
    futures = [producer.send(topic, b"v", partition=0) for _ in range(4)]

    async def main(i):
        return (await asyncio.wait_for(asyncio.gather(futures[i], futures[0]), 20))[0]

    timer = threading.Timer(0.2, producer.flush, (10,))
    timer.start()
    outcomes = in_threads(4, lambda i: asyncio.run(main(i)))
    timer.join(20)
    assert [metadata.offset for metadata in outcomes] == [0, 1, 2, 3]


# How long futures and producers live


def test_futures_outlive_their_producer(mock_cluster, failing, topic):
    producer = Producer({"bootstrap.servers": mock_cluster.bootstrap_servers, **QUICK})
    futures = [producer.send(topic, b"v", partition=0) for _ in range(1000)]
    producer.close(10)
    other = Producer({"bootstrap.servers": failing.bootstrap_servers, **QUICK})
    failed = other.send("t", b"v")
    with pytest.raises(DeliveryError):
        other.close(10)
    del producer, other
    gc.collect()
    assert [future.result(0).offset for future in futures] == list(range(1000))
    assert type(failed.exception(0)) is AuthorizationError and "AuthorizationError" in repr(failed)


def test_futures_dropped_early_are_no_obstacle(make, topic):
    producer = make(buffer_memory=1 << 20)
    called = []
    for i in range(2000):
        future = producer.send(topic, b"v", partition=0, on_delivery=lambda m, _: called.append(m.offset))
        if i % 3 == 0:
            future.add_done_callback(lambda _: None)
        del future
    producer.flush(20)
    assert called == list(range(2000)) and producer.buffer_available == 1 << 20


def test_a_callback_is_released_once_it_has_run(make, topic):
    class Canary:
        alive = 0

        def __init__(self):
            Canary.alive += 1

        def __del__(self):
            Canary.alive -= 1

        def __call__(self, *_):
            pass

    producer = make()
    futures = [producer.send(topic, b"v", on_delivery=Canary()) for _ in range(100)]
    for future in futures:
        future.add_done_callback(Canary())
    producer.flush(10)
    gc.collect()
    assert Canary.alive == 0 and len(futures) == 100


# on_delivery


def test_on_delivery_comes_in_order_within_a_partition_on_one_thread(make, topic):
    seen, names = {i: [] for i in range(PARTITIONS)}, set()

    def notified(metadata, error):
        seen[metadata.partition].append(metadata.offset)
        names.add(threading.current_thread().name)

    producer = make(batch_size=500)
    for i in range(4000):
        producer.send(topic, b"%d" % i, partition=i % PARTITIONS, on_delivery=notified)
    producer.flush(20)
    assert seen == {i: list(range(1000)) for i in range(PARTITIONS)}
    assert names == {CALLBACK_THREAD}


def test_on_delivery_gets_either_metadata_or_an_error(make, failing, topic):
    outcomes = []
    good, bad = make(), make(failing.bootstrap_servers)
    good.send(topic, b"v", on_delivery=lambda *outcome: outcomes.append(outcome))
    good.flush(10)
    bad.send("t", b"v", on_delivery=lambda *outcome: outcomes.append(outcome))
    bad.flush(10)
    (metadata, none), (nothing, error) = outcomes
    assert metadata.topic == topic and none is nothing is None and type(error) is AuthorizationError


class Hearing:
    def __init__(self):
        self.outcomes = []

    def on_acknowledgement(self, metadata, error):
        self.outcomes.append(error)


@pytest.mark.parametrize("partition", [None, 3])
def test_an_error_names_its_topic_and_partition_wherever_it_is_raised(make, failing, partition):
    outcomes, hearing = [], Hearing()
    producer = make(failing.bootstrap_servers, interceptors=[hearing])
    future = producer.send("t", b"v", b"k", partition=partition, on_delivery=lambda _, error: outcomes.append(error))
    future.add_done_callback(lambda done: outcomes.append(done.exception(0)))
    bulk = producer.send_many("t", [b"v"], [b"k"], partitions=partition)
    expected = ("t", partition_for_key(b"k", PARTITIONS) if partition is None else partition, None)
    outcomes += [future.exception(10), *(error for _, error in bulk.exception(10).failures)]
    producer.flush(10)
    outcomes += hearing.outcomes
    assert [(error.topic, error.partition, error.record) for error in outcomes] == [expected] * 6
    assert (bulk.exception(0).topic, bulk.exception(0).partition) == ("t", None)
    for duplicate in (lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy):
        assert [(error.topic, error.partition) for error in map(duplicate, outcomes)] == [expected[:2]] * 6


def test_what_flush_raises_has_errors_that_have_their_records(make, failing):
    producer = make(failing.bootstrap_servers)
    producer.send("t", b"v", b"k", partition=2, timestamp=0, headers=[("", None), ("h", b"1")])
    with pytest.raises(DeliveryError) as caught:
        producer.flush(10)
    (failed,) = caught.value.records
    record = ProducerRecord("t", b"v", b"k", 2, 0, [("", None), ("h", b"1")])
    assert (failed.error.topic, failed.error.partition, failed.error.record) == ("t", 2, record)
    twin = pickle.loads(pickle.dumps(caught.value)).records[0].error
    assert (twin.topic, twin.partition, twin.record) == ("t", 2, record)


def test_what_send_raises_says_which_topic_and_partition_it_is_about(make, topic):
    producer = make(max_block_ms=10_000)
    refused = [
        ((topic, bytes(2_000_000)), {"partition": 1}, RecordTooLargeError, topic, 1),
        ((topic, bytes(2_000_000)), {}, RecordTooLargeError, topic, None),
        ((topic, b"v"), {"partition": 77}, UnknownTopicOrPartitionError, topic, 77),
        ((topic, "\ud800"), {"partition": 0}, SerializationError, topic, 0),
        ((topic + "-missing", b"v"), {"partition": 5}, UnknownTopicOrPartitionError, topic + "-missing", 5),
        ((ProducerRecord(topic, bytes(2_000_000), None, 2),), {}, RecordTooLargeError, topic, 2),
    ]
    for arguments, options, kind, about, partition in refused:
        with pytest.raises(kind) as caught:
            producer.send(*arguments, **options)
        assert (caught.value.topic, caught.value.partition) == (about, partition)
    with pytest.raises(UnknownTopicOrPartitionError) as caught:
        producer.partitions_for(topic + "-missing")
    assert caught.value.topic == topic + "-missing"
    with pytest.raises(RecordTooLargeError) as caught:
        producer.send_many(topic, [b"v", bytes(2_000_000)], partitions=[0, 3])
    assert (caught.value.topic, caught.value.partition, caught.value.index) == (topic, 3, 1)
    with pytest.raises(UnknownTopicOrPartitionError) as caught:
        producer.send_arrow(topic, pyarrow.table({"value": ["a", "b"], "at": [0, 9]}), partition="at")
    assert (caught.value.topic, caught.value.partition, caught.value.index) == (topic, 9, 1)
    producer.close(10)
    with pytest.raises(ProducerClosedError) as caught:
        producer.send(topic, b"v", partition=1)
    assert (caught.value.topic, caught.value.partition) == (topic, 1)


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_future_is_neither_copied_nor_pickled(make, topic, duplicate):
    producer = make()
    for future in (producer.send(topic, b"v"), producer.send_many(topic, [b"v"])):
        with pytest.raises(TypeError, match="Future.* cannot be copied or pickled"):
            duplicate(future)
        future.result(10)
        with pytest.raises(TypeError, match="Future.* cannot be copied or pickled"):
            duplicate(future)


def test_a_callback_that_raises_hinders_no_other(make, topic, unraisable):
    called = []

    def fail(*_):
        raise LookupError("callback")

    def leave(*_):
        raise SystemExit(3)

    producer = make(linger_ms=80_000)
    for i in range(10):
        future = producer.send(topic, b"v", partition=0, on_delivery=fail if i % 2 else lambda *_: called.append("d"))
        future.add_done_callback(leave if i == 4 else lambda _: called.append("f"))
    producer.flush(10)
    assert Counter(called) == {"d": 5, "f": 9}
    assert Counter(unraisable) == {LookupError: 5, SystemExit: 1}
    producer.send(topic, b"v", on_delivery=lambda *_: called.append("after"))
    producer.flush(10)
    assert called[-1] == "after"


def test_a_callback_may_send(make, topic):
    producer = make()
    offsets, finished = [], threading.Event()

    def again(metadata, error):
        offsets.append(metadata.offset)
        if len(offsets) == 50:
            finished.set()
        else:
            producer.send(topic, b"v", partition=0, on_delivery=again)

    producer.send(topic, b"v", partition=0, on_delivery=again)
    assert finished.wait(20)
    assert offsets == list(range(50))


@pytest.mark.parametrize("name", ["flush", "close"])
def test_flush_and_close_in_a_callback_are_refused_instead_of_waiting_for_ever(make, topic, name, unraisable):
    caught = []
    producer = make(linger_ms=80_000)

    def notified(*_):
        try:
            getattr(producer, name)()
        except RuntimeError as error:
            caught.append(str(error))

    producer.send(topic, b"v", on_delivery=notified).add_done_callback(lambda _: getattr(producer, name)(1))
    producer.flush(20)
    assert len(caught) == 1 and caught[0].startswith(f"{name}() in a callback would wait")
    assert unraisable == [RuntimeError]
    assert producer.send(topic, b"v") is not None


def test_a_thread_with_the_number_of_a_callback_thread_that_has_ended_may_close(make, topic):
    producer = make()
    producer.send(topic, b"v").result(20)
    producer.close()
    raised, all_there = [], threading.Barrier(20)

    def close_again():
        all_there.wait(20)  # so many at a time that some have the numbers of the producer's own
        try:
            producer.close()
        except RuntimeError as error:
            raised.append(error)

    threads = [threading.Thread(target=close_again) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []


def test_a_callback_may_look_at_the_producer(make, topic):
    looks = [len, repr, Producer.metrics, lambda p: p.buffer_available, lambda p: p.partitions_for(topic)]
    seen = []
    producer = make(linger_ms=80_000)
    for look in looks:
        producer.send(topic, b"v", on_delivery=lambda *_, look=look: seen.append(look(producer)))
    producer.flush(10)
    assert len(seen) == len(looks) and [info.partition for info in seen[-1]] == [0, 1, 2, 3]


def test_what_a_callback_raises_ends_neither_its_thread_nor_the_process(make, topic, unraisable):
    kinds = [KeyboardInterrupt, SystemExit, GeneratorExit, Exception]
    called = []
    producer = make()

    def notified(kind, *_):
        called.append(kind)
        raise kind

    for kind in kinds:
        producer.send(topic, b"v", partition=0, on_delivery=functools.partial(notified, kind))
        producer.send(topic, b"v", partition=0).add_done_callback(functools.partial(notified, kind))
    producer.flush(10)
    assert Counter(called) == Counter(unraisable) == Counter(2 * kinds)
    assert producer.send(topic, b"v").result(10).topic == topic


def test_another_producer_may_be_flushed_in_a_callback(make, topic):
    producer, other = make(), make(linger_ms=80_000)
    offsets = []

    def notified(*_):
        future = other.send(topic, b"v", partition=1)
        other.flush(10)
        offsets.append(future.result(0).offset)

    producer.send(topic, b"v", on_delivery=notified, partition=0)
    producer.flush(20)
    assert offsets == [0]


def test_20000_records_get_exactly_20000_callbacks(make, topic):
    producer = make()
    calls = Counter()
    for _ in range(20_000):
        producer.send(topic, b"v", on_delivery=lambda metadata, error: calls.update((metadata[1:3],)))
    producer.flush(30)
    assert len(calls) == 20_000 == sum(calls.values())  # each offset of each partition once
    for partition in range(PARTITIONS):
        offsets = sorted(offset for p, offset in calls if p == partition)
        assert offsets == list(range(len(offsets)))


def test_a_slow_callback_holds_up_no_delivery(make, topic):
    producer = make()
    release = threading.Event()
    producer.send(topic, b"v", on_delivery=lambda *_: release.wait(30))
    try:
        futures = [producer.send(topic, b"v") for _ in range(100)]
        assert all(future.result(20) for future in futures)
        with pytest.raises(TimeoutError):
            producer.flush(0.1)  # which waits for callbacks too
    finally:
        release.set()
    producer.flush(20)


# Several threads


def test_eight_threads_wait_for_the_same_future(make, topic):
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v", partition=0)
    timer = threading.Timer(0.2, producer.flush, (10,))
    timer.start()
    outcomes = in_threads(8, lambda i: (future.result if i % 2 else future.get)(20))
    timer.join(20)
    assert outcomes == [future.result(0)] * 8


def test_eight_threads_that_wait_for_the_same_failure_get_eight_exceptions(make, failing):
    producer = make(failing.bootstrap_servers, linger_ms=100)
    future = producer.send("t", b"v")
    errors = in_threads(8, lambda _: future.exception(20))
    assert {type(error) for error in errors} == {AuthorizationError} and len(set(map(id, errors))) == 8
    producer.flush(10)


def test_eight_threads_wait_for_different_futures(make, topic):
    producer = make()

    def work(i):
        offsets = []
        for _ in range(100):
            offsets.append(producer.send(topic, b"v", partition=i % PARTITIONS).result(20).offset)
        return i % PARTITIONS, offsets

    outcomes = in_threads(8, work)
    for partition in range(PARTITIONS):
        mine = [offsets for p, offsets in outcomes if p == partition]
        assert sorted(sum(mine, [])) == list(range(200))
        assert all(offsets == sorted(offsets) for offsets in mine)


def test_a_waiting_thread_lets_others_run(make, topic):
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v")
    waiter = threading.Thread(target=future.result, args=(30,))
    waiter.start()
    started = time.monotonic()
    assert not future.done() and sum(range(100_000)) > 0
    assert time.monotonic() - started < 20 and waiter.is_alive()
    producer.flush(10)
    waiter.join(20)
    assert not waiter.is_alive()
