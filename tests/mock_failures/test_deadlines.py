"""From delivery.timeout.ms on a record is neither handed over nor kept, and close() keeps its time."""

import signal
import subprocess
import sys
import time

import pytest

from fastprod import Producer
from fastprod.testing import MockCluster
from tests.conftest import QUICK, TOPIC, eventually
from tests.mock_failures.conftest import failures, read, whole

pytestmark = [pytest.mark.mock, pytest.mark.slow]

# Long enough to distinguish a close() that keeps its time from one that waits for librdkafka to free its records.
OPTIONS = {"delivery_timeout_ms": 6000, "request_timeout_ms": 1000}
SOON = 3.0  # seconds


def fail_all(producer, count=20, size=1000):
    """Sends records to a broker that does not answer, one after the other, and waits until all have failed."""
    for _ in range(count):
        producer.send(TOPIC, b"x" * size, partition=0)
        time.sleep(0.01)
    return failures(producer.flush)


@pytest.mark.parametrize(("timeout", "idempotent"), [(0, True), (1, False)])
def test_close_keeps_its_time_though_librdkafka_holds_records_for_longer(make, paused, timeout, idempotent):
    producer = make(enable_idempotence=idempotent, acks="all", **OPTIONS)
    with paused():
        assert fail_all(producer).count == 20 and len(producer) == 0
        started = time.monotonic()
        producer.close(timeout)
        assert time.monotonic() - started < timeout + SOON
    assert "closed" in repr(producer) and whole(producer)


@pytest.mark.parametrize("timeout", [0, 1])
def test_close_of_records_that_wait_behind_a_frozen_broker_keeps_its_time(make, paused, timeout):
    producer = make(delivery_timeout_ms=120_000)
    with paused():
        futures = [producer.send(TOPIC, b"x" * 1000, partition=i % 4) for i in range(2000)]
        started = time.monotonic()
        assert "gave up 2000 records" in str(failures(producer.close, timeout))
        assert time.monotonic() - started < timeout + SOON
    assert all(future.exception(0).persisted in ("no", "possibly") for future in futures)
    assert len(producer) == 0 and whole(producer)


def test_a_signal_handlers_close_keeps_its_time(make, paused):
    producer = make(delivery_timeout_ms=120_000)
    took = []

    def close(*_):
        started = time.monotonic()
        failures(producer.close, 0.5)
        took.append(time.monotonic() - started)

    with paused():
        for _ in range(1000):
            producer.send(TOPIC, b"x" * 1000, partition=0)
        before = signal.signal(signal.SIGALRM, close)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            producer.flush()
        finally:
            signal.signal(signal.SIGALRM, before)
    assert took and took[0] < 0.5 + SOON


EXIT = """
import sys
from fastprod import DeliveryError, Producer

producer = Producer(bootstrap_servers=sys.argv[1], delivery_timeout_ms=6000, request_timeout_ms=1000)
producer.send("t", b"warm up", partition=0).result(10)
print("paused?", flush=True)
sys.stdin.readline()
for _ in range(20):
    producer.send("t", b"x" * 1000, partition=0)
try:
    producer.flush()
except DeliveryError as error:
    print(error.count, flush=True)
"""


def test_an_exit_without_close_does_not_wait_for_what_librdkafka_holds(cluster):
    with MockCluster(topics={"t": 1}, process=True) as frozen:
        process = subprocess.Popen(
            [sys.executable, "-c", EXIT, frozen.bootstrap_servers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout.readline() == "paused?\n"
        frozen.pause()
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "20\n"
        started = time.monotonic()
        assert process.wait(30) == 0
        assert time.monotonic() - started < SOON
        process.stdin.close()
        process.stdout.close()


def test_memory_of_failed_records_is_free_for_brokers_that_answer():
    with MockCluster(brokers=2, topics={TOPIC: 2}) as cluster:
        cluster.set_leader(TOPIC, 0, 1)
        cluster.set_leader(TOPIC, 1, 2)
        producer = Producer(
            {"bootstrap.servers": cluster.bootstrap_servers, **QUICK},
            buffer_memory=4 << 20, max_block_ms=3000, **OPTIONS,
        )  # fmt: skip
        for partition in range(2):
            producer.send(TOPIC, b"warm up", partition=partition).result(20)
        cluster.set_round_trip_time(1, 60_000)
        futures = []
        with pytest.raises(TimeoutError):
            while True:
                futures.append(producer.send(TOPIC, b"x" * 1000, partition=0))
        assert all(future.exception(30) for future in futures)
        # librdkafka may keep up to 1 MiB for a broker.
        assert eventually(lambda: producer.buffer_available >= 3 << 20, 2)
        assert producer.send(TOPIC, b"y" * 20_000, partition=1).result(20).partition == 1
        producer.close(0)


@pytest.mark.parametrize("idempotent", [True, False])
def test_what_librdkafka_keeps_of_a_broker_that_does_not_answer_is_little(make, paused, idempotent):
    """Records are sent all the time while it is frozen, so some are handed over when others have timed out."""
    producer = make(enable_idempotence=idempotent, acks="all", buffer_memory=8 << 20, **OPTIONS)
    with paused():
        until = time.monotonic() + OPTIONS["delivery_timeout_ms"] / 1000 + 2
        futures = []
        while time.monotonic() < until:
            futures.append(producer.send(TOPIC, b"x" * 1000, partition=len(futures) % 4))
            if len(futures) % 100 == 0:
                time.sleep(0.02)
        assert all(future.exception(40) for future in futures)
        assert eventually(lambda: producer.buffer_available >= 7 << 20, 2)
        producer.close(0)


def test_a_record_that_was_not_handed_over_in_time_fails_as_not_written_and_is_not(make, cluster, paused):
    producer = make(delivery_timeout_ms=4000, request_timeout_ms=500)
    first_offset = producer.send(TOPIC, b"warm up", partition=0).result(10).offset
    requests = producer.metrics()["request-total"]
    with paused():
        first = producer.send(TOPIC, b"first", partition=0)
        assert eventually(lambda: producer.metrics()["request-total"] > requests)
        second = producer.send(TOPIC, b"second", partition=0)
        assert first.exception(20).persisted == "possibly"
        assert second.exception(20).persisted == "no"
        assert "it was not written" in str(second.exception(0))
        producer.purge()
    last = producer.send(TOPIC, b"last", partition=0).result(20)
    values = read(cluster, 0, last.offset + 1)
    assert b"second" not in values.values() and last.offset - first_offset in (1, 2)


def test_a_record_that_was_not_handed_over_fails_at_its_time(make, paused):
    producer = make(delivery_timeout_ms=4000, request_timeout_ms=500)
    times = {}
    with paused():
        first = producer.send(TOPIC, b"first", partition=0)
        started = time.monotonic()
        future = producer.send(
            TOPIC, b"second", partition=0, on_delivery=lambda *_: times.setdefault("failed", time.monotonic())
        )
        assert future.exception(20).persisted == "no"
        assert eventually(lambda: "failed" in times)
        assert 3.9 < times["failed"] - started < 4.0 + SOON
        assert first.exception(20) is not None


def test_purge_does_not_wait_for_librdkafka(make, paused):
    producer = make(delivery_timeout_ms=120_000)
    with paused():
        futures = [producer.send(TOPIC, b"x" * 1000, partition=i % 4) for i in range(2000)]
        started = time.monotonic()
        producer.purge()
        assert time.monotonic() - started < SOON
        assert all(future.exception(0) for future in futures)
        assert whole(producer)
