"""What send() waits for, and for how long."""

import contextlib
import logging
import threading
import time

import pytest

from fastprod import BufferExhaustedError, MetadataTimeoutError
from tests.conftest import TOPIC, eventually
from tests.mock_failures.conftest import read, whole

pytestmark = pytest.mark.mock


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
