"""What send() waits for, memory and metadata, and for how long."""

import contextlib
import logging
import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest

import fastprod.internals.producer_metadata
from fastprod import (
    BufferExhaustedError,
    KafkaError,
    MetadataTimeoutError,
    Producer,
    ProducerClosedError,
    UnknownTopicOrPartitionError,
    partition_for_key,
)
from tests.conftest import PARTITIONS, QUICK, TOPIC, eventually, signalled
from tests.mock_failures.conftest import read, whole

pytestmark = pytest.mark.mock


# buffer.memory


def fill(producer, size=1000):
    """Sends until buffer.memory is full; the futures of what was taken."""
    futures = []
    with pytest.raises(BufferExhaustedError) as caught:
        for i in range(10_000):
            futures.append(producer.send(TOPIC, b"%05d" % i + b"v" * size, partition=0))
    assert isinstance(caught.value, TimeoutError) and "max.block.ms" in str(caught.value)
    assert caught.value.retriable
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


def test_a_thread_that_waits_for_memory_goes_on_once_it_is_free(make, cluster, paused):
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


@pytest.fixture(scope="module")
def unreachable():
    """A producer whose only address is a port where nobody listens, and nobody else will."""
    # One for all, since close() waits up to a second for the answer to the last metadata request.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with Producer(bootstrap_servers=f"127.0.0.1:{held.getsockname()[1]}", max_block_ms=400) as producer:
            yield producer


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
        producer = make(ready=False, buffer_memory=100_000, max_block_ms=60_000)
        started = time.monotonic()
        producer.send(TOPIC, b"v").result(50)
        assert time.monotonic() - started < 20
        assert eventually(lambda: futures) and futures[0].result(10).topic == "logs"
    finally:
        logging.getLogger("fastprod").removeHandler(handler)


def test_what_runs_on_the_metadata_thread_by_chance_does_not_wait_for_it(make, cluster, monkeypatch):
    """As a finalizer may, of an object that is freed there: here the one that makes an array."""
    producer = make(max_block_ms=3000)
    cluster.create_topic("late", 1)
    made = fastprod.internals.producer_metadata.array.array
    raised = []

    class Finalized:
        def __del__(self):
            for call in (lambda: producer.send("unknown", b"v"), producer.close):
                try:
                    call()
                except Exception as error:
                    raised.append(error)

    def array(*fields):
        monkeypatch.undo()
        Finalized()
        return made(*fields)

    monkeypatch.setattr(fastprod.internals.producer_metadata, "array", SimpleNamespace(array=array))
    assert producer.send("late", b"v").result(10).offset == 0
    assert eventually(lambda: len(raised) == 2)
    assert [type(error) for error in raised] == [RuntimeError] * 2
    assert "metadata thread" in str(raised[0]) and "on the metadata thread would wait for that thread" in str(raised[1])
    producer.close(10)


def test_a_signal_handler_may_close_during_partitions_for(make, monkeypatch):
    """What the metadata thread waits for meanwhile is not held: close() waits for that thread."""
    producer = make(metadata_max_age_ms=10)
    made = fastprod.internals.producer_metadata.PartitionInfo

    def slow(*fields):
        monkeypatch.undo()
        time.sleep(0.1)  # an answer comes
        signal.raise_signal(signal.SIGALRM)
        return made(*fields)

    with signalled(lambda: producer.close(10), seconds=0):
        monkeypatch.setattr("fastprod.internals.producer_metadata.PartitionInfo", slow)
        with contextlib.suppress(ProducerClosedError):
            producer.partitions_for(TOPIC)
    assert "closed" in repr(producer)


def test_a_topic_that_was_made_anew_with_fewer_partitions_is_used_as_it_is_now(make, cluster, caplog):
    producer = make(metadata_max_age_ms=20)
    keys = [b"%d" % i for i in range(40)]
    before = {key: producer.send(TOPIC, b"v", key).result(10).partition for key in keys}
    assert before == {key: partition_for_key(key, PARTITIONS) for key in keys}
    cluster.delete_topic(TOPIC)
    cluster.create_topic(TOPIC, 2)
    assert eventually(lambda: len(producer.partitions_for(TOPIC)) == 2)
    after = {key: producer.send(TOPIC, b"v", key).result(10).partition for key in keys}
    assert after == {key: partition_for_key(key, 2) for key in keys}
    assert {producer.send(TOPIC, b"v" * 20_000).result(10).partition for _ in range(10)} == {0, 1}
    with pytest.raises(UnknownTopicOrPartitionError, match="partition 3 .* 0 to 1"):
        producer.send(TOPIC, b"v", partition=3)
    assert eventually(lambda: "t has 2 partitions and had 4" in caplog.text) and whole(producer)


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


def test_tls_to_a_plaintext_port_is_reported_although_other_connections_ended(cluster):
    with Producer({**QUICK, "bootstrap.servers": cluster.bootstrap_servers, "security.protocol": "SSL"}) as producer:
        with pytest.raises(MetadataTimeoutError):
            producer.wait_ready(1)  # many a connection
        with pytest.raises(MetadataTimeoutError, match=r"connecting to a PLAINTEXT broker listener\?"):
            producer.wait_ready(0.1)
