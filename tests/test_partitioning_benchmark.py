"""The code of benchmarks/partitioning, in short runs whose figures mean nothing."""

import socket
import struct
import threading
import time

import pytest

from benchmarks.partitioning import load, report
from benchmarks.partitioning.clients import SLOW_BROKER, STICKY_CLAIM
from benchmarks.partitioning.slow_proxy import SlowProxy
from fastprod.testing import MockCluster


class Clock:
    """Time that passes by waiting, and by `cost` with each record."""

    def __init__(self, cost=0):
        self.now = 0
        self.cost = cost
        self.sent_at = []

    def send(self, i):
        assert i == len(self.sent_at)
        self.sent_at.append(self.now)
        self.now += self.cost

    def wait(self, ns):
        self.now += ns


def test_the_load_comes_in_bursts_at_its_rate():
    clock = Clock()
    assert load.pace(2048, 60, clock.send, lambda: clock.now, clock.wait) == 122_880
    assert clock.sent_at == sorted(clock.sent_at)
    late = [at - i * 1e9 / 2048 for i, at in enumerate(clock.sent_at)]
    assert min(late) >= 0
    assert max(late) <= load.BURST_NS
    assert len(set(clock.sent_at)) == pytest.approx(60e9 / load.BURST_NS, rel=0.01)


def test_a_load_that_the_producer_does_not_take_is_caught_up_with_or_cut_short():
    clock = Clock(cost=2_000_000)
    assert load.pace(1000, 1, clock.send, lambda: clock.now, clock.wait) == 1000
    assert clock.now == 2_000_000_000
    clock = Clock(cost=10_000_000)
    assert load.pace(1000, 1, clock.send, lambda: clock.now, clock.wait) < 1000
    assert clock.now <= 4.1e9  # the burst that it comes in is sent


def test_measured_records_meet_every_partition():
    for rate in (1000, 2048, 10_000, 100_000, 1_000_000):
        every = load.stride(rate)
        assert rate / every <= 2 * load.MEASURED_RATE
        for partitions in (3, 12, 100):
            assert {i * every % partitions for i in range(partitions)} == set(range(partitions))


def request(api_key, correlation_id):
    return struct.pack(">ihhi", 8, api_key, 0, correlation_id)


def receive(connection, count):
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data))
    return data


@pytest.fixture
def echo():
    """A broker that answers each request with its correlation id."""

    def serve():
        connection, _ = listener.accept()
        with connection:
            while head := connection.recv(4, socket.MSG_WAITALL):
                body = connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                connection.sendall(struct.pack(">i", 4) + body[4:8])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_the_slow_broker_takes_its_time_for_each_answer_to_produce_and_for_no_other(echo):
    with SlowProxy(echo, 0.05) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.settimeout(30)
        start = time.monotonic()
        client.sendall(request(3, 1) + request(0, 2) + request(0, 3) + request(18, 4))
        answers = [struct.unpack(">ii", receive(client, 8)) for _ in range(4)]
        took = time.monotonic() - start
        assert answers == [(4, 1), (4, 2), (4, 3), (4, 4)]
        assert proxy.delayed == 2
        assert took >= 0.1  # one after the other


@pytest.mark.mock
@pytest.mark.parametrize("library", sorted(load.LIBRARIES))
def test_a_short_run_measures_each_library(library):
    with MockCluster(brokers=3, topics={"t": 3}) as cluster:
        cluster.set_round_trip_time(1, 5)
        options = {"linger.ms": "0", "enable.idempotence": "false", "acks": "1"}
        client = load.LIBRARIES[library](cluster.bootstrap_servers, options, "t")
        result = load.measure(client, "t", rate=2000, seconds=0.5, size=512)
        client.close()
    assert result["sent"] == result["sent_before"] == len(result["latencies_us"]) == 1000
    assert result["failed"] == 0
    assert 0 < result["requests"] <= 1000
    assert result["cpu_seconds"] > 0 and min(result["latencies_us"]) > 0


def run_of(client, **more):
    return {
        "client": client.title,
        "partitions": 100,
        "rate": 1000,
        "linger_ms": 0,
        "records": 4000,
        "records_per_second": 1000.0,
        "requests": 2000,
        "cpu_us_per_record": 5.0,
        "average_ms": 40.0,
        "quantiles_ms": [float(i) for i in range(1, 104)],
        "slow_share": 0.25,
        **more,
    }


def test_the_tables_show_medians():
    slow = [run_of(SLOW_BROKER[0], average_ms=ms) for ms in (30.0, 50.0, 31.0)]
    assert (
        "| fastprod, `uniform_sticky` | 31.0 ms | 51.0 ms | 100 ms | 102 ms | 25 % | 2.0 | 5 | 3 |"
        in report.slow_broker_table(slow)
    )
    table = report.sticky_table([run_of(client) for client in STICKY_CLAIM])
    assert "| 100 | 0 | 1,000 | Java | 500 | 2.0 | 40.00 ms | 100.0 ms | 5.0 |" in table
    assert "(reached 500)" in report.sticky_table([run_of(STICKY_CLAIM[0], records_per_second=500.0)])
