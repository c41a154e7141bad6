"""Where records without a key go when a broker is slow, and when memory is short: on a mock cluster."""

import time
from collections import Counter

import pytest

from fastprod import Producer
from fastprod.testing import MockCluster
from tests.conftest import QUICK

pytestmark = [pytest.mark.mock, pytest.mark.slow]
DELAY_MS = 5000


@pytest.mark.parametrize(("timeout_ms", "most"), [(20, 0.02), (0, 0.25)], ids=["timeout", "adaptive weights"])
def test_records_avoid_a_broker_that_does_not_answer(timeout_ms, most):
    with MockCluster(brokers=3, topics={"t": 3}) as cluster:
        for partition in range(3):
            cluster.set_leader("t", partition, partition + 1)
        with Producer(
            bootstrap_servers=cluster.bootstrap_servers, partitioner_availability_timeout_ms=timeout_ms
        ) as producer:
            for partition in range(3):
                producer.send("t", b"warm up", partition=partition).result(20)
            cluster.set_round_trip_time(1, DELAY_MS)
            began = time.monotonic()
            sent = []
            while (now := time.monotonic() - began) < 3.5:
                sent.append((now, producer.send("t", b"x" * 1000)))
                time.sleep(0.002)
            cluster.set_round_trip_time(1, 0)
            chosen = Counter(future.result(60).partition for at, future in sent if at > 1)
    assert chosen[0] <= most * chosen.total()


@pytest.mark.parametrize("partitioner", ["round_robin", "sticky"])
def test_a_record_that_waits_for_memory_is_placed_once(partitioner):
    with MockCluster(topics={"t": 2}) as cluster:
        cluster.set_round_trip_time(1, 3)
        with Producer(
            {"bootstrap.servers": cluster.bootstrap_servers, **QUICK}, buffer_memory=25_000, partitioner=partitioner
        ) as producer:
            futures = [producer.send("t", b"x" * 20_000) for _ in range(200)]
            chosen = Counter(future.result(60).partition for future in futures)
    assert chosen == {0: 100, 1: 100}
