"""What goes wrong on the way to the broker: nothing is lost in silence, and the producer works on afterwards."""

import asyncio
import contextlib
import gc
import logging
import socket
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from fastprod import (
    AuthorizationError,
    BufferExhaustedError,
    DeliveryError,
    DeliveryTimeoutError,
    KafkaError,
    MetadataTimeoutError,
    Producer,
    ProducerClosedError,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
)
from fastprod.testing import MockCluster
from tests.conftest import QUICK, READER, Interrupted, interrupted, signalled

pytestmark = pytest.mark.mock
TOPIC, PARTITIONS = "t", 4
FORBIDDEN, TOO_LARGE, INVALID_RECORD = 29, 10, 87  # answers after which librdkafka does not retry
NOT_LEADER = 6  # and one after which it does
# Long enough for the first record of a producer, which has to get an id, and for a reconnection.
SHORT = {"delivery_timeout_ms": 1500, "request_timeout_ms": 500}


@pytest.fixture
def cluster():
    """A cluster of its own, since the errors pushed to one hit whoever comes next."""
    with MockCluster(topics={TOPIC: PARTITIONS}, process=True) as cluster:
        yield cluster


@pytest.fixture
def make(cluster):
    """Producers that are closed when the test ends; they know the topic already unless ready=False."""
    producers = []

    def producer(*, ready=True, **options):
        producers.append(Producer({"bootstrap.servers": cluster.bootstrap_servers, **QUICK}, **options))
        if ready:
            future = producers[-1].send(TOPIC, b"warm up", partition=PARTITIONS - 1)
            producers[-1].flush(10)
            assert future.exception(0) is None
        return producers[-1]

    yield producer
    for producer in producers:
        with contextlib.suppress(DeliveryError):
            producer.close(10)


@pytest.fixture
def paused(cluster):
    """with paused(): nothing answers."""

    @contextlib.contextmanager
    def paused():
        cluster.pause()
        try:
            yield
        finally:
            cluster.resume()

    return paused


@pytest.fixture(scope="module")
def unreachable():
    """A producer whose only address is a port where nobody listens, and nobody else will."""
    # One for all, since close() waits up to a second for the answer to the last metadata request.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with Producer(bootstrap_servers=f"127.0.0.1:{held.getsockname()[1]}", max_block_ms=400) as producer:
            yield producer


def failures(wait, *arguments):
    """The DeliveryError that flush() or close() raises, checked to be consistent in itself."""
    with pytest.raises(DeliveryError) as caught:
        wait(*arguments)
    error = caught.value
    assert sum(error.reasons.values()) == error.count >= len(error.records)
    assert str(error.count) in str(error)
    assert type(error) is DeliveryError
    return error


def fail_next(cluster, code=INVALID_RECORD, requests=200):
    """INVALID_RECORD fails what the request holds, and no more: FORBIDDEN would close the whole topic for a moment."""
    cluster.push_request_errors("Produce", [code] * requests)


def read(cluster, partition, count):
    """offset -> value of what the partition holds; waits for `count` records."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, **READER})
    try:
        consumer.assign([TopicPartition(TOPIC, partition, 0)])
        return {message.offset(): message.value() for message in consumer.consume(count, 10 if count else 0.2)}
    finally:
        consumer.close()


def eventually(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def whole(producer):
    """Whether all of buffer.memory is free again and nobody waits for it."""
    total = producer.config.buffer_memory
    return eventually(lambda: producer.buffer_available == total and producer.metrics()["waiting-threads"] == 0)


# What a record fails with


@pytest.mark.parametrize(
    ("code", "kind"),
    [(FORBIDDEN, AuthorizationError), (TOO_LARGE, RecordTooLargeError), (INVALID_RECORD, DeliveryError)],
)
def test_a_permanent_error_has_its_class_code_and_persistence(make, cluster, code, kind):
    producer = make()
    fail_next(cluster, code, 1)
    error = producer.send(TOPIC, b"v", partition=2).exception(10)
    assert type(error) is kind and isinstance(error, KafkaError)
    assert (error.code, error.persisted, error.fatal, error.retriable) == (code, "no", False, False)
    assert f"{TOPIC} [2]" in str(error) and f"code {code}" in str(error)
    # After TOPIC_AUTHORIZATION_FAILED librdkafka takes nothing for the topic until it has fresh metadata.
    assert eventually(lambda: producer.send(TOPIC, b"v", partition=2).exception(10) is None)
    assert eventually(lambda: whole(producer))


@pytest.mark.parametrize("code", [2, 3, 5, 6, 7, 19, 20, -195])
@pytest.mark.parametrize("idempotent", [True, False])
def test_a_transient_error_is_retried_to_success(make, cluster, code, idempotent):
    producer = make(enable_idempotence=idempotent, retry_backoff_ms=10, reconnect_backoff_ms=10)
    told = []
    fail_next(cluster, code, 2)
    future = producer.send(TOPIC, b"v", partition=0, on_delivery=lambda *outcome: told.append(outcome))
    metadata = future.result(20)
    producer.flush(20)
    assert metadata.offset == 0 and told == [(metadata, None)]


def test_without_retries_a_transient_error_is_final(make, cluster):
    producer = make(retries=0, enable_idempotence=False)
    fail_next(cluster, 7, 1)
    error = producer.send(TOPIC, b"v").exception(10)
    assert error is not None and (error.code, error.retriable) == (7, True)


CALLED_BACK_EARLY = """
import sys
from fastprod import Producer
from fastprod.testing import MockCluster

errors = [int(code) for code in sys.argv[1:]]
with MockCluster(topics={"t": 1}, process=True) as cluster:
    for _ in range(6):
        with Producer(bootstrap_servers=cluster.bootstrap_servers, enable_idempotence=False) as producer:
            producer.partitions_for("t")
            cluster.push_request_errors("Produce", errors)
            told = []
            for _ in range(10_000):
                producer.send("t", b"v" * 2000, on_delivery=lambda metadata, error: told.append(error))
            producer.flush(20)
        assert len(told) == 10_000
        assert errors or told == [None] * 10_000
"""


@pytest.mark.parametrize("errors", [[], ["29"] * 3], ids=["delivered", "refused at once"])
def test_a_callback_that_is_due_before_send_has_returned_finds_its_record(errors):
    # A send() far ahead of the sender thread hands over in its place, and others run meanwhile.
    # In a process of its own: it once ended in a segmentation fault.
    command = [sys.executable, "-c", CALLED_BACK_EARLY, *errors]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr


@pytest.mark.slow
def test_a_callback_waits_for_those_of_earlier_records_of_its_partition():
    """librdkafka refuses a record at once after the topic was forbidden; an earlier one is on its way."""
    told = []
    with (
        MockCluster(2, {TOPIC: 2}, process=True) as cluster,
        Producer(bootstrap_servers=cluster.bootstrap_servers) as producer,
    ):
        slow, fast = 0, 1
        cluster.set_leader(TOPIC, slow, 1)
        cluster.set_leader(TOPIC, fast, 2)
        for partition in (slow, fast) * 2:
            producer.send(TOPIC, b"first", partition=partition).result(10)

        def send(name, partition):
            producer.send(TOPIC, name, partition=partition, on_delivery=lambda _, error: told.append((name, error)))

        cluster.set_round_trip_time(1, 2500)
        send(b"slow", slow)
        time.sleep(0.8)  # until the slow broker has it
        cluster.push_request_errors("Produce", [FORBIDDEN])
        send(b"forbidden", fast)
        while not told:
            time.sleep(0.001)
        send(b"refused", slow)  # unless fresh metadata has opened the topic again already
        assert [name for name, _ in told] == [b"forbidden"]
        producer.flush(10)
    assert [name for name, _ in told] == [b"forbidden", b"slow", b"refused"]
    assert told[1][1] is None


def test_an_idempotent_producer_has_one_request_of_a_partition_under_way(cluster):
    """If the first of two were refused and the second not, librdkafka would take a new epoch."""
    told = []
    # Without QUICK: metadata asked for every 20 ms would take up all of a connection whose answers come so late.
    with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for _ in range(2):  # the partition is not new any more
            producer.send(TOPIC, b"first", partition=0).result(10)
        cluster.set_round_trip_time(1, 500)
        for _ in range(2):
            producer.send(TOPIC, b"", partition=0, on_delivery=lambda *_: told.append(time.monotonic()))
        producer.flush(10)
    assert told[1] - told[0] > 0.4  # a round trip that began with the first one's answer


# Requests that are too large for the topic


def test_a_request_that_is_too_large_is_split_in_order(make, cluster, caplog):
    producer = make(linger_ms=20)
    producer.send(TOPIC, b"first", partition=0).result(10)
    cluster.push_request_errors("Produce", [TOO_LARGE, TOO_LARGE])
    told = []
    for i in range(100):
        producer.send(TOPIC, b"%d" % i, partition=0, on_delivery=lambda metadata, error: told.append((metadata, error)))
    producer.flush(10)
    assert [error for _, error in told] == [None] * 100
    assert [metadata.offset for metadata, _ in told] == list(range(1, 101))
    assert "max.message.bytes" in caplog.text


def test_a_record_that_is_too_large_alone_fails_alone(make, cluster):
    producer = make(linger_ms=20)
    producer.send(TOPIC, b"first", partition=0).result(10)
    cluster.push_request_errors("Produce", [TOO_LARGE] * 3)
    first, *others = [producer.send(TOPIC, b"v", partition=0) for _ in range(4)]
    error = failures(producer.flush, 10)  # of the four, of the first two, of the first
    assert error.count == 1
    assert isinstance(first.exception(0), RecordTooLargeError)
    assert first.exception(0).persisted == "no"
    assert [future.result(0).offset for future in others] == [1, 2, 3]


def test_what_cannot_be_split_without_breaking_order_fails_with_the_reason(make, cluster):
    producer = make(linger_ms=20, enable_idempotence=False, **{"librdkafka.batch.size": 3000})
    for _ in range(2):
        producer.send(TOPIC, b"first", partition=0).result(10)  # then several requests may be on their way
    cluster.push_request_errors("Produce", [TOO_LARGE])
    told = []
    for i in range(40):
        producer.send(TOPIC, b"%0200d" % i, partition=0, on_delivery=lambda metadata, error: told.append(error))
    producer.flush(10)
    failed = told.index(None)
    assert 0 < failed < 20
    assert all(isinstance(error, RecordTooLargeError) for error in told[:failed])
    assert all("max.message.bytes" in str(error) and error.persisted == "no" for error in told[:failed])
    assert told[failed:] == [None] * (40 - failed)
    assert producer.send(TOPIC, b"later", partition=0).result(10).offset == 2 + 40 - failed


# flush() and close() tell of what nobody was told of


def test_flush_raises_with_the_failed_records_themselves(make, cluster):
    producer = make(linger_ms=80_000)
    fail_next(cluster)
    headers = [("h", b"1"), ("n", None), ("h", b"")]
    producer.send(TOPIC, b"value", b"key", partition=0, timestamp=1_700_000_000_000, headers=headers)
    producer.send(TOPIC, None, b"", partition=0, timestamp=1_700_000_000_001)
    producer.send(TOPIC, b"", partition=0, timestamp=1_600_000_000_000, headers={"utf-8": "ä"})
    producer.send(TOPIC, "text ä", "k", partition=1, timestamp=5)
    error = failures(producer.flush, 10)
    assert error.count == 4 and list(error.reasons.values()) == [4]
    fields = {(r.partition, r.key, r.value, tuple(r.headers), r.timestamp) for r in error.records}
    assert fields == {
        (0, b"key", b"value", tuple(headers), 1_700_000_000_000),
        (0, b"", None, (), 1_700_000_000_001),
        (0, None, b"", (("utf-8", "ä".encode()),), 1_600_000_000_000),
        (1, b"k", "text ä".encode(), (), 5),
    }
    assert {record.topic for record in error.records} == {TOPIC}
    assert {type(record.error) for record in error.records} == {DeliveryError}
    assert {(record.error.code, record.error.persisted) for record in error.records} == {(INVALID_RECORD, "no")}
    assert len({id(record.error) for record in error.records}) == 4
    assert [r.value for r in error.records if r.partition == 0] == [b"value", None, b""]  # in order


@pytest.mark.parametrize("end", ["flush", "close"])
def test_exactly_those_that_nobody_was_told_of_are_raised_and_only_once(make, cluster, end):
    producer = make(linger_ms=200)
    fail_next(cluster)
    told = []
    futures = {}
    for name in (b"asked", b"result", b"looked at", b"done callback", b"timed out", b"cancelled", b"awaited"):
        futures[name] = producer.send(TOPIC, name, partition=0)
    producer.send(TOPIC, b"on_delivery", partition=0, on_delivery=lambda _, error: told.append(error))
    producer.send(TOPIC, b"dropped", partition=0)
    futures[b"done callback"].add_done_callback(lambda future: told.append(future))
    with pytest.raises(TimeoutError):
        futures[b"timed out"].result(0)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(futures[b"cancelled"], 0.001)
        with pytest.raises(DeliveryError):
            await futures[b"awaited"]

    asyncio.run(main())
    assert futures[b"asked"].exception(10) is not None
    with pytest.raises(DeliveryError):
        futures[b"result"].result(10)
    assert eventually(futures[b"looked at"].done) and "DeliveryError" in repr(futures[b"looked at"])
    error = failures(getattr(producer, end), 10)
    assert [record.value for record in error.records] == [b"looked at", b"timed out", b"cancelled", b"dropped"]
    assert error.count == 4 and len(told) == 2
    if end == "flush":
        producer.flush(10)
    producer.close(10)


def test_a_flush_where_everybody_was_told_is_silent(make, cluster):
    producer = make()
    fail_next(cluster)
    told = []
    for _ in range(100):
        producer.send(TOPIC, b"v", on_delivery=lambda _, error: told.append(error.code))
    producer.flush(10)
    assert told == [INVALID_RECORD] * 100 and whole(producer)
    producer.close(10)


def test_what_is_asked_after_the_failure_and_before_flush_is_told(make, cluster):
    producer = make()
    fail_next(cluster)
    futures = [producer.send(TOPIC, b"%d" % i, partition=0) for i in range(50)]
    assert eventually(lambda: all(future.done() for future in futures))
    for future in futures[::2]:
        assert future.exception(0) is not None
        assert future.exception(0) is not None  # twice tells no other record
    error = failures(producer.flush, 10)
    assert [record.value for record in error.records] == [b"%d" % i for i in range(1, 50, 2)]
    assert whole(producer)


class Silent:
    def on_send(self, record):
        return record


class Hearing(Silent):
    def __init__(self):
        self.heard = []

    def on_acknowledgement(self, metadata, error):
        self.heard.append(error.code)


@pytest.mark.parametrize("end", ["flush", "close"])
def test_interceptors_do_not_count_as_being_told(make, cluster, end):
    hearing = Hearing()
    told = []
    producer = make(ready=False, interceptors=[Silent(), hearing])
    fail_next(cluster)
    for value in (b"a", b"b"):
        producer.send(TOPIC, value, partition=0)
    producer.send(TOPIC, b"c", partition=0, on_delivery=lambda _, error: told.append(error.code))
    error = failures(getattr(producer, end), 10)
    assert sorted(record.value for record in error.records) == [b"a", b"b"]
    assert hearing.heard == [INVALID_RECORD] * 3 and told == [INVALID_RECORD]


def test_interceptors_without_on_acknowledgement_do_not_count_either(make, cluster):
    producer = make(ready=False, interceptors=[Silent()])
    fail_next(cluster)
    producer.send(TOPIC, b"a", partition=0)
    assert [record.value for record in failures(producer.flush, 10).records] == [b"a"]


def test_leaving_the_with_block_raises_for_what_failed(cluster):
    fail_next(cluster)
    with (
        pytest.raises(DeliveryError) as caught,
        Producer({"bootstrap.servers": cluster.bootstrap_servers, **QUICK}) as producer,
    ):
        producer.send(TOPIC, b"v")
    assert caught.value.count == 1 and "closed" in repr(producer)
    producer.close(10)


def test_failed_records_can_be_sent_again(make, cluster):
    producer = make()
    fail_next(cluster, INVALID_RECORD, requests=1)
    producer.send(TOPIC, b"v", b"k", partition=0, headers=[("h", b"1")])
    (record,) = failures(producer.flush, 10).records
    topic, partition, key, value, headers, timestamp, _ = record
    again = producer.send(topic, value, key, partition=partition, headers=headers, timestamp=timestamp)
    assert again.result(10).offset == 0
    assert read(cluster, 0, 1) == {0: b"v"}


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(
    "codes", [(0, INVALID_RECORD, 0), (INVALID_RECORD, 0, INVALID_RECORD), (0, 0, INVALID_RECORD), (TOO_LARGE, 0, 0)]
)
def test_each_record_of_a_batch_that_is_split_gets_its_own_outcome(cluster, idempotent, codes):
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap_servers, "librdkafka.batch.num.messages": 3, **QUICK},
        enable_idempotence=idempotent,
        linger_ms=80_000,
    )
    try:
        producer.partitions_for(TOPIC)
        cluster.push_request_errors("Produce", codes)
        values = [b"%d" % i for i in range(9)]
        futures = [producer.send(TOPIC, value, partition=0) for value in values]
        error = failures(producer.flush, 20)
        failed = [record.value for record in error.records]
        assert error.count == len(failed) and 1 <= len(failed) < 9
        outcomes = {value: future.exception(0) for value, future in zip(values, futures, strict=True)}
        assert [value for value in values if outcomes[value] is not None] == failed
        assert {record.value: record.error.code for record in error.records} == {
            value: outcomes[value].code for value in failed
        }
        assert {outcomes[value].code for value in failed} == {code for code in codes if code}
        offsets = {
            future.result(0).offset: value
            for value, future in zip(values, futures, strict=True)
            if outcomes[value] is None
        }
        assert offsets == read(cluster, 0, 9 - len(failed))
        assert len(producer) == 0 and whole(producer)
    finally:
        producer.close(10)


def test_records_of_failures_are_kept_up_to_a_quarter_of_buffer_memory_and_counted_beyond(make, cluster):
    producer = make(buffer_memory=400_000)
    fail_next(cluster)
    values = [b"%05d" % i * 2000 for i in range(60)]  # 10 kB each
    for value in values:
        producer.send(TOPIC, value, partition=0)
    error = failures(producer.flush, 20)
    assert error.count == 60 and list(error.reasons.values()) == [60]
    kept = [record.value for record in error.records]
    assert 5 <= len(kept) <= 10 and set(kept) <= set(values)
    assert f"{len(kept)} of them" in str(error)
    assert whole(producer)
    producer.flush(10)


def test_failures_kept_for_flush_do_not_stop_the_producer(make, cluster):
    producer = make(buffer_memory=100_000, max_block_ms=10_000)
    fail_next(cluster, requests=100)
    for _ in range(100):
        producer.send(TOPIC, b"v" * 10_000, partition=0)  # ten times buffer.memory
    assert failures(producer.flush, 20).count == 100
    # A request may hold several records, so that errors are left over.
    assert whole(producer) and eventually(lambda: producer.send(TOPIC, b"v").exception(10) is None)


# delivery.timeout.ms


@pytest.mark.slow
def test_a_record_whose_broker_was_no_longer_the_leader_may_have_been_written(make, cluster):
    # librdkafka calls it not persisted. A leader that is deposed while it waits for its followers answers this too.
    producer = make(**SHORT)
    cluster.push_request_errors("Produce", [NOT_LEADER] * 1000)
    error = producer.send(TOPIC, b"v", partition=0).exception(20)
    assert (type(error), error.persisted) == (DeliveryTimeoutError, "possibly")


@pytest.mark.slow
@pytest.mark.parametrize("code", [19, 20, 56])  # NOT_ENOUGH_REPLICAS, the same AFTER_APPEND, KAFKA_STORAGE_ERROR
def test_a_broker_that_cannot_store_is_asked_until_delivery_timeout(make, cluster, code):
    producer = make(**SHORT)
    cluster.push_request_errors("Produce", [code] * 1000)
    started = time.monotonic()
    error = producer.send(TOPIC, b"v", partition=0).exception(20)
    assert 1.4 < time.monotonic() - started < 20
    # librdkafka does not tell what the requests were answered, so that the error names no cause.
    assert (type(error), error.code, error.persisted) == (DeliveryTimeoutError, -192, "possibly")
    producer.flush(10)
    assert whole(producer)


@pytest.mark.slow
def test_a_record_that_no_request_took_along_was_not_written(make, cluster):
    producer = make(**SHORT)
    cluster.broker_down(1)
    error = producer.send(TOPIC, b"v", partition=0).exception(20)
    assert (type(error), error.persisted) == (DeliveryTimeoutError, "no")


@pytest.mark.slow
def test_with_the_broker_down_records_fail_by_delivery_timeout(make, cluster):
    producer = make(**SHORT)
    cluster.broker_down(1)
    started = time.monotonic()
    futures = [producer.send(TOPIC, b"%d" % i, partition=i % PARTITIONS) for i in range(100)]
    errors = [future.exception(30) for future in futures]
    assert 0.5 < time.monotonic() - started < 20
    assert {type(error) for error in errors} == {DeliveryTimeoutError}
    assert all(isinstance(error, TimeoutError) and error.retriable and error.code == -192 for error in errors)
    cluster.broker_up(1)
    producer.flush(10)
    assert eventually(lambda: producer.send(TOPIC, b"v").exception(20) is None) and whole(producer)


@pytest.mark.slow
def test_records_queued_and_in_transit_both_fail_by_delivery_timeout(make, paused):
    options = {"max_in_flight_requests_per_connection": 1, "batch_size": 1000, **SHORT}
    producers = [make(enable_idempotence=idempotent, **options) for idempotent in (True, False)]  # they wait together
    with paused():
        started = time.monotonic()
        sent = [[producer.send(TOPIC, b"v" * 800, partition=0) for _ in range(3000)] for producer in producers]
        failed = [[future.exception(30) for future in futures] for futures in sent]
        assert time.monotonic() - started < 25
    for producer, errors in zip(producers, failed, strict=True):
        assert {type(error) for error in errors} == {DeliveryTimeoutError}
        assert {error.persisted for error in errors} <= {"no", "possibly"}
        producer.flush(10)
        assert eventually(lambda p=producer: p.send(TOPIC, b"v").exception(20) is None) and whole(producer)


@pytest.mark.slow
def test_flush_tells_of_timed_out_records_even_those_in_transit(make, paused):
    producer = make(max_in_flight_requests_per_connection=1, batch_size=1000, **SHORT)
    values = [b"%03d" % i + b"v" * 700 for i in range(100)]
    with paused():
        for value in values:
            producer.send(TOPIC, value, partition=0)
        error = failures(producer.flush, 30)
    assert error.count == 100 and sorted(record.value for record in error.records) == values
    assert {type(record.error) for record in error.records} == {DeliveryTimeoutError}
    producer.flush(10)
    assert whole(producer)


# Timeouts of flush() and close()


def test_flush_that_times_out_loses_nothing(make, paused):
    producer = make()
    with paused():
        futures = [producer.send(TOPIC, b"v", partition=0) for _ in range(100)]
        for timeout in (0, 0.2):
            with pytest.raises(TimeoutError, match="100 records.*on their way") as caught:
                producer.flush(timeout)
            assert not isinstance(caught.value, KafkaError)
        assert len(producer) == 100
    producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(100))


def test_flush_that_times_out_tells_what_it_waited_for(make, paused):
    producer, started, ended = make(), threading.Event(), threading.Event()

    def told(*_):
        started.set()
        ended.wait(30)

    producer.send(TOPIC, b"v", on_delivery=told)
    assert started.wait(10) and eventually(lambda: len(producer) == 0)
    try:
        with pytest.raises(TimeoutError, match="^the callbacks of 1 batches had not run after 0.2 s"):
            producer.flush(0.2)
        with paused():
            producer.send(TOPIC, b"v")
            with pytest.raises(TimeoutError, match="^1 records had not settled and the callbacks of 1 batches had not"):
                producer.flush(0.2)
    finally:
        ended.set()
    producer.flush(20)


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_close_that_times_out_gives_up_and_says_how_many(make, paused, timeout):
    producer = make(batch_size=1000, max_in_flight_requests_per_connection=1)
    values = [b"%03d" % i + b"v" * 300 for i in range(100)]
    with paused():
        futures = [producer.send(TOPIC, value, partition=0) for value in values]
        assert eventually(lambda: producer.metrics()["request-total"])
        started = time.monotonic()
        error = failures(producer.close, timeout)
        assert time.monotonic() - started < 15
    assert "gave up 100 records" in str(error) and error.count == 100
    assert sorted(record.value for record in error.records) == values
    assert all(type(future.exception(0)) is DeliveryError for future in futures)
    assert {future.exception(0).persisted for future in futures} == {"no", "possibly"}
    assert "closed" in repr(producer) and len(producer) == 0 and whole(producer)
    producer.close()


@pytest.mark.slow
def test_a_close_with_less_time_ends_the_wait_of_another_thread(make, paused):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        raised = []

        def close(timeout):
            try:
                producer.close(timeout)
            except DeliveryError as error:
                raised.append(error)

        threads = [threading.Thread(target=close, args=(timeout,)) for timeout in (None, 600, 0.3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert len(raised) == 1 and [record.value for record in raised[0].records] == [b"v"]
        assert future.done() and "closed" in repr(producer)


def test_close_that_gives_up_says_so_even_if_everybody_was_told(make, paused):
    producer, told = make(), []
    with paused():
        for _ in range(10):
            producer.send(TOPIC, b"v", on_delivery=lambda _, error: told.append(error))
        with pytest.raises(DeliveryError, match="gave up 10 records") as raised:
            producer.close(0.1)
    assert (raised.value.count, raised.value.reasons, raised.value.records) == (
        0,
        {},
        [],
    )  # of those nobody was told of
    assert [type(error) for error in told] == [DeliveryError] * 10


def test_purge_gives_up_what_has_not_settled_and_the_producer_works_on(make, cluster, paused):
    producer = make(batch_size=1000, max_in_flight_requests_per_connection=1)
    for lingering in (False, True, False):
        with paused():
            futures = [producer.send(TOPIC, b"v" * 300, partition=i % 2) for i in range(0 if lingering else 100)]
            futures += [producer.send(TOPIC, b"lonely", partition=2)]
            time.sleep(0.2)  # the first of them are under way
            started = time.monotonic()
            producer.purge()
            assert time.monotonic() - started < 15
            errors = [future.exception(0) for future in futures]
            assert {type(error) for error in errors} == {DeliveryError}
            assert {error.persisted for error in errors} <= {"no", "possibly"}
            assert all("purge" in str(error) for error in errors)
            assert len(producer) == 0 and whole(producer)
            later = producer.send(TOPIC, b"later", partition=0)
        assert later.result(20).partition == 0
        assert producer.send(TOPIC, b"later", partition=1).result(20).partition == 1
    producer.purge()
    producer.flush()


def test_purge_ends_the_wait_of_others(make, paused):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        thread = threading.Thread(target=lambda: pytest.raises(DeliveryError, future.result))
        thread.start()
        producer.purge()
        thread.join(20)
        assert not thread.is_alive()
    with pytest.raises(ProducerClosedError):
        producer.close()
        producer.purge()


# buffer.memory


def fill(producer, size=1000):
    """Sends until buffer.memory is full; the futures of what was taken."""
    futures = []
    with pytest.raises(BufferExhaustedError) as caught:
        for i in range(10_000):
            futures.append(producer.send(TOPIC, b"%05d" % i + b"v" * size, partition=0))
    assert isinstance(caught.value, TimeoutError) and "max.block.ms" in str(caught.value)
    return futures


def test_a_full_buffer_refuses_after_max_block_ms_and_all_it_took_arrives(make, paused, cluster):
    producer = make(buffer_memory=100_000, max_block_ms=300)
    with paused():
        started = time.monotonic()
        futures = fill(producer)
        assert 0.25 < time.monotonic() - started < 20
        assert 50 <= len(futures) <= 100 and len(producer) == len(futures)
        with pytest.raises(BufferExhaustedError):
            producer.send(TOPIC, b"v" * 50_000)
        assert producer.metrics()["buffer-exhausted-total"] == 2
    producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(len(futures)))
    assert [value[:5] for value in read(cluster, 0, len(futures)).values()] == [
        b"%05d" % i for i in range(len(futures))
    ]
    assert len(producer) == 0 and whole(producer)


def test_whoever_waits_for_memory_goes_on_once_it_is_free(make, cluster, paused):
    producer = make(buffer_memory=50_000, max_block_ms=30_000)
    counts = []

    def work():
        for _ in range(100):
            producer.send(TOPIC, b"v" * 1000)
        counts.append(100)

    threads = [threading.Thread(target=work) for _ in range(4)]
    with paused():
        for thread in threads:
            thread.start()
        assert eventually(lambda: producer.metrics()["waiting-threads"] == 4)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    producer.flush(20)
    assert counts == [100] * 4 and whole(producer) and producer.metrics()["record-send-total"] == 401


def test_max_block_ms_0_works_once_metadata_is_known_and_fails_at_once_when_full(make, paused):
    producer = make(ready=False, buffer_memory=100_000, max_block_ms=0)
    with pytest.raises(MetadataTimeoutError):
        producer.send(TOPIC, b"v")

    def known():
        with contextlib.suppress(MetadataTimeoutError):
            return producer.send(TOPIC, b"first", partition=1)

    assert eventually(known)
    producer.flush(10)
    with paused():
        futures = fill(producer)
        started = time.monotonic()
        for _ in range(10):
            with pytest.raises(BufferExhaustedError):
                producer.send(TOPIC, b"v" * 20_000)
        assert time.monotonic() - started < 5
    producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(len(futures))) and whole(producer)


# Metadata


@pytest.mark.slow
def test_an_unknown_topic_is_an_error_soon_and_works_once_it_exists(make, cluster):
    producer = make(retry_backoff_ms=50)  # the pause between two questions
    started = time.monotonic()
    with pytest.raises(UnknownTopicOrPartitionError, match="'new'") as caught:
        producer.send("new", b"v")
    assert time.monotonic() - started < 15 and caught.value.code == 3
    with pytest.raises(UnknownTopicOrPartitionError):
        producer.partitions_for("new")
    cluster.create_topic("new", 2)
    assert producer.send("new", b"v", partition=1).result(10).offset == 0
    assert len(producer.partitions_for("new")) == 2 and whole(producer)


def test_an_unknown_topic_is_an_error_though_others_ask_for_it_all_the_time(make):
    """The threads come so fast that there are never ten answers between two of them."""
    producer = make(retry_backoff_ms=50, max_block_ms=10_000)
    raised, threads = [], []

    def send():
        try:
            producer.send("new", b"v")
        except KafkaError as error:
            raised.append(type(error))

    while not raised:
        threads.append(threading.Thread(target=send))
        threads[-1].start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(20)
    assert raised == [UnknownTopicOrPartitionError] * len(threads)


def test_a_topic_created_while_send_waits_is_found(make, cluster):
    producer = make()
    timer = threading.Timer(0.3, cluster.create_topic, ("late", 1))
    timer.start()
    try:
        assert producer.send("late", b"v").result(10).offset == 0
    finally:
        timer.join(20)


def test_a_partition_not_known_yet_is_a_timeout_while_no_broker_answers(make, paused):
    producer = make(max_block_ms=400)
    with paused():
        with pytest.raises(MetadataTimeoutError) as caught:
            producer.send(TOPIC, b"v", partition=PARTITIONS)
        assert caught.value.retriable
    with pytest.raises(UnknownTopicOrPartitionError, match="does not exist"):
        make().send(TOPIC, b"v", partition=PARTITIONS)


def test_close_ends_the_wait_for_a_partition_not_known_yet(make, paused):
    producer = make()
    with paused():
        timer = threading.Timer(0.3, producer.close, (0,))
        timer.start()
        with pytest.raises(ProducerClosedError):
            producer.send(TOPIC, b"v", partition=PARTITIONS)
        timer.join(20)


def test_a_log_handler_may_send_through_the_producer_that_logs(make, cluster, caplog):
    """The warning is of little memory, and comes when the first partitions are known."""
    cluster.create_topic("logs", 1)
    futures = []

    class Sending(logging.Handler):
        def emit(self, record):
            futures.append(producer.send("logs", record.getMessage()))

    handler = Sending(logging.WARNING)
    logging.getLogger("fastprod").addHandler(handler)
    try:
        producer = make(ready=False, buffer_memory=100_000, max_block_ms=5000)
        started = time.monotonic()
        producer.send(TOPIC, b"v").result(10)
        assert time.monotonic() - started < 3
        assert eventually(lambda: futures) and futures[0].result(10).topic == "logs"
    finally:
        logging.getLogger("fastprod").removeHandler(handler)


def test_what_runs_on_the_metadata_thread_by_chance_does_not_wait_for_it(make, cluster):
    """As a finalizer may, that the garbage collector finds there."""
    before = set(threading.enumerate())
    producer = make(max_block_ms=3000)
    (thread,) = (t for t in threading.enumerate() if t.name == "fastprod-metadata" and t not in before)
    cluster.create_topic("late", 1)
    raised = []

    def collecting(phase, _):
        if threading.current_thread() is thread and not raised:
            try:
                producer.send("unknown", b"v")
            except Exception as error:
                raised.append(error)

    threshold = gc.get_threshold()
    gc.callbacks.append(collecting)
    gc.set_threshold(1)
    try:
        assert producer.send("late", b"v").result(10).offset == 0
        assert eventually(lambda: raised)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(collecting)
    assert type(raised[0]) is RuntimeError and "metadata thread" in str(raised[0])


def test_without_a_broker_send_raises_within_max_block_ms(unreachable):
    started = time.monotonic()
    with pytest.raises(MetadataTimeoutError, match="max.block.ms") as caught:
        unreachable.send(TOPIC, b"v")
    assert 0.35 < time.monotonic() - started < 15
    assert isinstance(caught.value, TimeoutError) and caught.value.retriable
    assert len(unreachable) == 0 and whole(unreachable)


def test_wait_ready_returns_once_a_broker_answers(make):
    producer = make(ready=False)
    assert producer.wait_ready(10) is None
    assert producer.wait_ready() is None


def test_wait_ready_times_out_without_a_broker(unreachable):
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no broker answered within 0\.5 s"):
        unreachable.wait_ready(0.5)
    assert 0.4 < time.monotonic() - started < 15


# Ctrl-C


def test_an_interrupt_comes_out_of_send_that_waits_for_memory(make, paused):
    producer = make(buffer_memory=100_000, max_block_ms=60_000)
    futures = []
    with paused():
        with interrupted(0.5):
            while True:
                futures.append(producer.send(TOPIC, b"v" * 1000, partition=0))
        assert producer.metrics()["waiting-threads"] == 0 and len(producer) == len(futures) >= 50
    producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(len(futures)))
    assert producer.send(TOPIC, b"v").result(10) is not None and whole(producer)


def test_an_interrupt_comes_out_of_send_that_waits_for_metadata(make, paused):
    producer = make(ready=False, max_block_ms=60_000)
    with paused(), interrupted():
        producer.send(TOPIC, b"v")
    assert len(producer) == 0
    assert producer.send(TOPIC, b"v", partition=0).result(20).offset == 0 and whole(producer)


def test_an_interrupt_comes_out_of_flush(make, paused):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        with interrupted():
            producer.flush()
        assert len(producer) == 1
    producer.flush(20)
    assert future.result(0).offset == 0
    assert producer.send(TOPIC, b"v", partition=0).result(10).offset == 1 and whole(producer)


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_an_interrupt_comes_out_of_a_future(make, paused, ask):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        with interrupted():
            getattr(future, ask)()
        assert not future.done()
    assert future.result(20).offset == 0
    assert producer.send(TOPIC, b"v", partition=0).result(10).offset == 1
    producer.flush(10)
    assert whole(producer)


def test_an_interrupt_comes_out_of_close_which_can_be_called_again(make, paused):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        with interrupted():
            producer.close()
        with pytest.raises(ProducerClosedError):
            producer.send(TOPIC, b"v")
        assert len(producer) == 1
    producer.close(20)
    assert future.result(0).offset == 0 and "closed" in repr(producer)
    assert len(producer) == 0 and whole(producer)


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_signal_handler_may_call_close_while_close_is_under_way(make, cluster, paused, timeout):
    producer, closed = make(), []

    def close():
        producer.close(timeout)
        closed.append(producer.buffer_available)
        cluster.resume()

    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        with signalled(close):
            producer.close()
    assert closed and future.result(0).offset == 0 and whole(producer)


def test_a_close_in_a_signal_handler_can_make_the_one_under_way_give_up_sooner(make, paused):
    producer = make()
    with paused():
        producer.send(TOPIC, b"v", partition=0)
        started = time.monotonic()
        with (
            signalled(lambda: producer.close(0.1)),
            pytest.raises(DeliveryError, match=r"gave up 1 .* after \d+\.\d s;"),
        ):
            producer.close()
        assert time.monotonic() - started < 20
    assert "closed" in repr(producer) and whole(producer)


def test_close_can_be_called_again_when_librdkafka_has_gone_meanwhile_with_a_token_provider():
    def interrupt():
        raise Interrupted

    before = threading.enumerate()
    producer = Producer(
        bootstrap_servers="127.0.0.1:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauthbearer_token_provider=lambda _: ("a.b.c", time.time() + 3600, "me"),
    )
    started = {thread for thread in threading.enumerate() if thread not in before}
    with pytest.raises(TimeoutError):
        producer.wait_ready(0.3)  # the metadata thread asks on
    with contextlib.suppress(Interrupted), signalled(interrupt):
        producer.close()
    assert eventually(lambda: not any(thread.is_alive() for thread in started))
    producer.close()


@pytest.mark.parametrize("who", ["partitioner", "first interceptor", "nobody"])
def test_what_a_part_of_the_users_raises_in_its_close_hides_no_loss_nor_the_other_parts(make, paused, who):
    closed = []

    class Part:
        def __init__(self, name):
            self.name = name

        def partition(self, *_):
            return 0

        def on_send(self, record):
            return record

        def close(self):
            closed.append(self.name)
            if self.name == who:
                raise LookupError(who)

    names = ["partitioner", "first interceptor", "second interceptor"]
    partitioner, *interceptors = [Part(name) for name in names]
    for lost in (True, False):
        producer = make(partitioner=partitioner, interceptors=interceptors)
        if lost:
            with paused(), pytest.raises(DeliveryError, match="gave up 1 records") as caught:
                producer.send(TOPIC, b"v")
                producer.close(0)
            assert [record.value for record in caught.value.records] == [b"v"]
        elif who == "nobody":
            producer.close()
        else:
            with pytest.raises(LookupError, match=who):
                producer.close()
        producer.close()
        assert closed == names
        closed.clear()


def test_an_interrupt_while_close_lists_the_failures_loses_none(make, paused, monkeypatch):
    producer = make()

    def interrupt(*_):
        raise Interrupted

    with paused():
        for i in range(10):
            producer.send(TOPIC, b"%d" % i, partition=i % 2)
        with monkeypatch.context() as patched, pytest.raises(Interrupted):
            patched.setattr("fastprod._sender.FailedRecord", interrupt)
            producer.close(0)
        with pytest.raises(DeliveryError) as caught:
            producer.close()
    assert sorted(record.value for record in caught.value.records) == [b"%d" % i for i in range(10)]
    producer.close()


# Outages


def test_what_is_sent_while_the_broker_is_down_arrives_once_it_is_up(make, cluster):
    producer = make(reconnect_backoff_ms=10, reconnect_backoff_max_ms=100)
    futures = []
    for _ in range(2):
        cluster.broker_down(1)
        futures += [producer.send(TOPIC, b"%d" % len(futures), partition=0) for _ in range(50)]
        with pytest.raises(TimeoutError):
            producer.flush(0.1)
        cluster.broker_up(1)
        futures += [producer.send(TOPIC, b"%d" % len(futures), partition=0) for _ in range(50)]
        producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(200))
    assert len(producer) == 0 and whole(producer)


def test_a_pause_shorter_than_the_timeouts_goes_unnoticed(make, cluster, paused):
    producer = make(batch_size=500)
    futures = [producer.send(TOPIC, b"v", partition=0) for _ in range(100)]
    with paused():
        futures += [producer.send(TOPIC, b"v", partition=0) for _ in range(100)]
        time.sleep(0.2)
    producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(200))
    assert len(read(cluster, 0, 200)) == 200
