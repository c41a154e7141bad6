"""The end of a producer. That of one whose broker does not answer is in mock_failures/test_interrupts.py."""

import threading

import pytest

from fastprod import DeliveryError, Producer, ProducerClosedError
from tests.conftest import TOPIC, eventually, pausing

pytestmark = pytest.mark.mock


@pytest.fixture
def producer(make):
    return make()


def test_the_context_manager_delivers_and_closes(mock_cluster, topic, read):
    with Producer(bootstrap_servers=mock_cluster.bootstrap_servers, linger_ms=80_000) as producer:
        producer.send(topic, b"v")
    assert "closed" in repr(producer)
    assert len(read(topic, 1)) == 1


def test_the_context_manager_delivers_and_closes_when_its_body_raises(mock_cluster, topic, read):
    with (
        pytest.raises(LookupError, match="body"),
        Producer(bootstrap_servers=mock_cluster.bootstrap_servers, linger_ms=80_000) as producer,
    ):
        producer.send(topic, b"v")
        raise LookupError("body")
    assert "closed" in repr(producer)
    assert len(read(topic, 1)) == 1


def test_closing_twice_is_fine(producer):
    producer.close()
    producer.close()
    producer.close(0)


def test_closing_from_two_threads_at_once(make, topic):
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v")
    threads = [threading.Thread(target=producer.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert future.result(0).offset == 0


def test_a_close_that_has_less_time_ends_the_one_under_way(cluster, make):
    """The record fails. The other close() raises if it still finds the record pending then."""
    producer, raised = make(cluster.bootstrap_servers), []
    producer.send(TOPIC, b"v", partition=0).result(20)

    def close():
        try:
            producer.close()
        except DeliveryError as error:
            raised.append(str(error))

    def is_closing():
        try:
            producer.send(TOPIC, b"v", on_delivery=observe)
        except ProducerClosedError:
            return True
        return False

    def observe(metadata, error):
        pass

    with pausing(cluster):
        future = producer.send(TOPIC, b"v", partition=0, on_delivery=observe)
        thread = threading.Thread(target=close)
        thread.start()
        assert eventually(is_closing)
        producer.close(0.1)
        thread.join(20)
        assert not thread.is_alive()
    assert future.exception(0) is not None and "closed" in repr(producer)
    assert all(text.startswith("close() gave up ") for text in raised)
