"""A partition that is paused while records are handed over sends them in one request."""

import pytest

from tests.transports import now_ms, serve

pytestmark = pytest.mark.mock


def test_a_partition_of_a_topic_that_is_not_known_is_not_paused(make_transport):
    assert not make_transport().pause("nowhere", 0)


@pytest.mark.parametrize("batches", [2, 50])
def test_what_is_handed_over_meanwhile_is_one_request(make_transport, topic, batches):
    transport = make_transport(linger_ms="0")
    transport.hand([b"first"], now_ms())
    serve(transport, 1)
    for round in range(1, 4):
        assert transport.pause(topic, 0)
        for _ in range(batches):
            transport.hand([b"v" * 100] * 100, now_ms())
        transport.resume(0)
        serve(transport, 1 + round * batches * 100)
        assert transport.produce_requests == 1 + round


def test_another_partition_is_not_paused(make_transport, topic):
    transport = make_transport(linger_ms="0")
    for partition in (0, 1):
        transport.hand([b"first"], now_ms(), partition=partition)
    serve(transport, 2)
    assert transport.pause(topic, 0)
    transport.hand([b"v"], now_ms(), partition=1)
    serve(transport, 3)
    transport.resume(0)
