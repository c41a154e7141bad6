"""What the tests of bad input share: a producer that is given every bad thing, and what a refusal must leave intact."""

import contextlib

import pytest

from fastprod import Producer
from tests.conftest import QUICK

PARTITIONS = 4
TOPIC = "bad-input"


@pytest.fixture(scope="module")
def producer(mock_cluster):
    """One producer for every bad thing in a file."""
    with contextlib.suppress(ValueError):  # another file has created it
        mock_cluster.create_topic(TOPIC, PARTITIONS)
    with Producer(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers, linger_ms=0) as producer:
        producer.send(TOPIC, b"first").result(20)
        yield producer


def check_refused(producer, call, expected, said):
    """The call raises that very class with that message, takes nothing, and the producer still delivers."""
    producer.flush(20)
    with pytest.raises(Exception, match=said) as caught:
        call()
    assert type(caught.value) is expected
    assert len(producer) == 0
    assert producer.send(TOPIC, b"good", b"key", headers=[("h", b"v")]).result(20).topic == TOPIC


class LongRepr:
    def __repr__(self):
        return "<" + "long" * 1000 + ">"
