"""A cluster that can fail, and what tests of failures ask of a producer."""

import contextlib
import functools

import pytest
from confluent_kafka import Consumer, TopicPartition

from fastprod import DeliveryError, Producer
from tests.conftest import PARTITIONS, QUICK, READER, TOPIC, eventually, pausing

FORBIDDEN, TOO_LARGE, INVALID_RECORD = 29, 10, 87  # answers after which librdkafka does not retry
NOT_LEADER = 6  # and one after which it does
# Long enough for the first record of a producer, which has to get an id, and for a reconnection.
SHORT = {"delivery_timeout_ms": 1500, "request_timeout_ms": 500}


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
    return functools.partial(pausing, cluster)


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


def whole(producer):
    """Whether all of buffer.memory is free again and nobody waits for it."""
    total = producer.config.buffer_memory
    return eventually(lambda: producer.buffer_available == total and producer.metrics()["waiting-threads"] == 0)
