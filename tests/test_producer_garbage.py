"""Answers that make no sense: truncated, of another request, of 2 GiB, or no Kafka at all."""

import collections
import contextlib
import logging
import time

import pytest

from fastprod import DeliveryError, Producer
from fastprod.testing import MockCluster
from tests.conftest import QUICK
from tests.corrupting_proxy import KINDS, CorruptingProxy, random_correlation_id
from tests.kafka.fixtures import consume_all

pytestmark = pytest.mark.slow
TOPIC = "t"
# What librdkafka fails a record with if it cannot read the answer to its request. It does not send it again.
BAD_MSG, UNDERFLOW = -199, -155
UNREADABLE = {BAD_MSG, UNDERFLOW}
OPTIONS = {
    **QUICK,
    "reconnect.backoff.max.ms": 50,
    "retry.backoff.ms": 10,
    "request.timeout.ms": 300,
    "delivery.timeout.ms": 20_000,
}


def corrupt_answers(kind):
    """How many answers in a row; one whose request waits for request.timeout.ms costs a second each."""
    return 1 if kind is random_correlation_id else 2


@pytest.fixture(scope="module")
def proxy():
    """Before a mock cluster."""
    with (
        MockCluster(topics={TOPIC: 1}, process=True) as cluster,
        CorruptingProxy(int(cluster.bootstrap_servers.rpartition(":")[2])) as proxy,
    ):
        yield proxy


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@contextlib.contextmanager
def open_producer(proxy):
    producer = Producer(OPTIONS, bootstrap_servers=f"127.0.0.1:{proxy.port}")
    try:
        yield producer
    finally:
        producer.close(20)


def check_works_on(producer, topic):
    deadline = time.monotonic() + 20
    while (error := producer.send(topic, b"afterwards").exception(20)) is not None:
        assert error.code in UNREADABLE and time.monotonic() < deadline  # an answer that is yet to be corrupted
    producer.flush(20)
    assert len(producer) == 0 and producer.buffer_available == producer.config.buffer_memory


@pytest.mark.mock
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("request_name", ["ApiVersions", "Metadata", "InitProducerId"])
def test_before_a_record_has_left_garbage_only_delays_it(proxy, request_name, kind):
    proxy.corrupt_next(request_name, kind, corrupt_answers(kind))
    with open_producer(proxy) as producer:
        futures = [producer.send(TOPIC, b"v") for _ in range(3)]
        assert [future.exception(20) for future in futures] == [None] * 3
        assert proxy.corrupted >= 1
        check_works_on(producer, TOPIC)


@pytest.mark.mock
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_record_whose_answer_is_garbage_settles_and_the_producer_works_on(proxy, kind):
    with open_producer(proxy) as producer:
        producer.send(TOPIC, b"first").result(20)
        proxy.corrupt_next("Produce", kind, corrupt_answers(kind))
        errors = [future.exception(20) for future in [producer.send(TOPIC, b"v") for _ in range(10)]]
        for error in errors:
            assert error is None or (type(error) is DeliveryError and error.code in UNREADABLE)
        assert proxy.corrupted >= 1
        check_works_on(producer, TOPIC)


@pytest.mark.mock
def test_an_answer_to_another_request_is_not_taken_for_ones_own(proxy):
    with open_producer(proxy) as producer:
        producer.send(TOPIC, b"first").result(20)
        proxy.corrupt_next("Produce", random_correlation_id, 1)
        started = time.monotonic()
        producer.send(TOPIC, b"v").result(20)
        assert time.monotonic() - started > 0.29  # it was the answer to the second request, after request.timeout.ms


@pytest.mark.kafka
def test_garbage_instead_of_acknowledgements_doubles_nothing_and_loses_nothing(kafka, kafka_topic):
    topic = kafka_topic(partitions=1)
    outcomes = {}
    with CorruptingProxy(kafka.port) as proxy:
        for kind in KINDS:
            with open_producer(proxy) as producer:
                producer.send(topic, b"afterwards").result(20)
                proxy.corrupt_next("Produce", kind, corrupt_answers(kind))
                futures = {f"{kind.__name__} {i}".encode(): None for i in range(10)}
                for value in futures:
                    futures[value] = producer.send(topic, value)
                outcomes |= {value: future.exception(20) for value, future in futures.items()}
                check_works_on(producer, topic)
    stored = collections.Counter(message.value() for message in consume_all(kafka.bootstrap_servers, topic))
    del stored[b"afterwards"]
    assert stored.keys() <= outcomes.keys() and set(stored.values()) == {1}
    delivered = {value for value, error in outcomes.items() if error is None}
    assert len(delivered) > 10 and delivered <= stored.keys()
    written = {value for value, error in outcomes.items() if error is not None and value in stored}
    assert {outcomes[value].persisted for value in written} == {"possibly"}
