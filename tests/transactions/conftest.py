"""Producers with a transactional id, on a mock cluster of the test's own."""

import contextlib

import pytest
from confluent_kafka import Consumer

from fastprod import DeliveryError, Producer
from tests.conftest import QUICK, TOPIC
from tests.kafka.fixtures import consume_all

LONG = 60_000  # ms: as linger.ms, nothing leaves the accumulator by itself


@pytest.fixture
def make(cluster):
    """make(**options): a transactional producer, closed at the end; initialized unless ready=False."""
    producers = []

    def make(*, ready=True, transactional_id="tx", **options):
        options.setdefault("request_timeout_ms", 5000)
        options.setdefault("delivery_timeout_ms", 70_000)
        servers = cluster.bootstrap_servers
        producers.append(Producer(QUICK, bootstrap_servers=servers, transactional_id=transactional_id, **options))
        if ready:
            producers[-1].init_transactions(20)
        return producers[-1]

    yield make
    for producer in producers:
        with contextlib.suppress(DeliveryError):
            producer.close(10)


@pytest.fixture
def consumer(cluster):
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": "g", "enable.auto.commit": False})
    yield consumer
    consumer.close()


def values(cluster):
    """Everything in the log, of aborted transactions too: the mock cluster does not distinguish them."""
    return [message.value() for message in consume_all(cluster.bootstrap_servers, TOPIC)]


def group_metadata(consumer):
    return consumer.consumer_group_metadata()


CALLS = {
    "init": lambda p: p.init_transactions(),
    "begin": lambda p: p.begin_transaction(),
    "send": lambda p: p.send(TOPIC, b"v"),
    "offsets": lambda p: p.send_offsets_to_transaction({(TOPIC, 0): 1}, b"CGMDv2:\xff\xff\xff\xffg\0\0\1"),
    "commit": lambda p: p.commit_transaction(),
    "abort": lambda p: p.abort_transaction(),
}
