"""The order of a partition while brokers refuse requests."""

from __future__ import annotations

import pytest

from fastprod import Producer
from fastprod.testing import MockCluster

ONE_IN_FLIGHT = {"enable_idempotence": False, "max_in_flight_requests_per_connection": 1}


def burst(producer: Producer, count: int = 1500, size: int = 1) -> list[int]:
    """The offsets of a burst of records for the only partition, in the order of send()."""
    futures = [producer.send("t", b"x" * size) for _ in range(count)]
    return [future.result(60).offset for future in futures]


@pytest.mark.parametrize("linger_ms", [0, 5])
@pytest.mark.parametrize("acks", [1, "all"])
@pytest.mark.parametrize("code", [5, 6, 7, 19])  # no leader, another leader, timed out, too few replicas
def test_one_request_in_flight_keeps_the_order(code, acks, linger_ms):
    with (
        MockCluster(topics={"t": 1}) as cluster,
        Producer(
            bootstrap_servers=cluster.bootstrap_servers,
            acks=acks,
            linger_ms=linger_ms,
            retry_backoff_ms=20,
            **ONE_IN_FLIGHT,
        ) as producer,
    ):
        producer.send("t", b"first").result(60)
        for errors in [[code], [0, code], [code, 0, code]] * 12:
            cluster.push_request_errors("Produce", errors)
            offsets = burst(producer)
            assert offsets == sorted(offsets)


@pytest.mark.parametrize(
    "options, size",
    [
        ({"batch_size": 900_000}, 1000),
        ({"batch_size": 1000, "max_request_size": 10_000}, 100),
        ({"librdkafka.batch.num.messages": 100}, 10),
        ({"batch_size": 900_000, "linger_ms": 50}, 1),
    ],
    ids=["large batches", "small requests", "few records in a request", "tiny records"],
)
def test_one_request_in_flight_keeps_the_order_of_more_than_a_request_holds(options, size):
    with (
        MockCluster(topics={"t": 1}) as cluster,
        Producer(
            {"bootstrap.servers": cluster.bootstrap_servers, "acks": 1, "retry.backoff.ms": 20, **ONE_IN_FLIGHT},
            **{"linger_ms": 0, **options},
        ) as producer,
    ):
        producer.send("t", b"first").result(60)
        for errors in [[6], [0, 6]] * 6:
            cluster.push_request_errors("Produce", errors)
            offsets = burst(producer, 3000, size)
            assert offsets == sorted(offsets)


def test_with_idempotence_no_large_record_overtakes_a_refused_request():
    """The mock looks at no sequence numbers: it takes what a broker would refuse as out of order."""
    options = {"batch_size": 900_000, "linger_ms": 50, "retry_backoff_ms": 20}
    with (
        MockCluster(topics={"t": 1}) as cluster,
        Producer(bootstrap_servers=cluster.bootstrap_servers, **options) as producer,
    ):
        for _ in range(3):  # a new partition gets a single record, then little, then all that one request holds
            producer.send("t", b"first").result(60)
        for errors in [[6], [0, 6]] * 2:
            cluster.push_request_errors("Produce", errors)
            offsets = burst(producer, 12, 300_000)
            assert offsets == sorted(offsets)
