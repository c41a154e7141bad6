"""What a VIP, a router or a cluster that moves does to connections, and how soon records flow again.

The figures are printed; what the tests demand is looser, since a machine may be slow, but less than what goes wrong
would take. FASTPROD_ROUNDS=n repeats each of them n times as often.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastprod import Producer
from tests.fault_bench.bench import FaultBench
from tests.fault_bench.lag import Lag
from tests.fault_bench.proxy import FaultProxy
from tests.kafka.cluster import BROKERS
from tests.kafka.fixtures import consume_all
from tests.kafka.node import free_ports, wait_until
from tests.kafka.server import KafkaServer

pytestmark = pytest.mark.kafka
TIMES = int(os.environ.get("FASTPROD_ROUNDS", "1"))
PARTITIONS = 6


@pytest.fixture(scope="module")
def topic(bench: FaultBench) -> str:
    bench.cluster.create_topic("connections", PARTITIONS)
    return "connections"


@contextlib.contextmanager
def producers(count: int, servers: str, topic: str, **options: Any) -> Iterator[list[Producer]]:
    """So many, each with a connection to each leader."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Producer({"bootstrap.servers": servers}, **options)) for _ in range(count)]
        for producer in made:
            warm_up(producer, topic)
        yield made


def warm_up(producer: Producer, topic: str) -> None:
    for future in [producer.send(topic, b"warm up", partition=number) for number in range(PARTITIONS)]:
        future.result(30)


def delivery(producer: Producer, topic: str, partition: int) -> float:
    """Seconds from send() to the broker's acknowledgement of a record."""
    began = time.monotonic()
    producer.send(topic, b"v", partition=partition).result(60)
    return time.monotonic() - began


def noting(settled: list[tuple[float, BaseException | None]]) -> Callable[[object, BaseException | None], None]:
    """An on_delivery that adds when it was called, and the error."""
    return lambda _, error: settled.append((time.monotonic(), error))


def partitions_of(producer: Producer, topic: str, broker: int) -> list[int]:
    return [info.partition for info in producer.partitions_for(topic) if info.leader == broker]


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[int(share * (len(seconds) - 1))]


def report(what: str, seconds: list[float]) -> None:
    shown = ", ".join(f"p{share:g} {1000 * percentile(seconds, share / 100):.1f}" for share in (50, 90, 99, 100))
    print(f"{what}: {len(seconds)} times, {shown} ms")


# Idle connections


def test_the_first_send_after_a_vip_reset_the_idle_connections_is_delivered_at_once(
    bench: FaultBench, topic: str, rng: random.Random
) -> None:
    """200 times: of one broker, or of all brokers at once."""
    seconds: dict[str, list[float]] = {"of all brokers": [], "of one broker": []}
    # After a connection that did not last for reconnect.backoff.max.ms the next one has to wait.
    options = {"reconnect_backoff_max_ms": 50}
    with producers(10, bench.cluster.bootstrap_servers, topic, **options) as made, Lag() as lag:
        for number in range(20 * TIMES):
            time.sleep(0.2)
            which, brokers = list(seconds)[number % 2], list(BROKERS)
            if which == "of one broker":
                brokers = [rng.choice(BROKERS)]
            assert sum(bench.proxies[broker].reset() for broker in brokers) >= len(made)
            time.sleep(0.05)  # for the resets to arrive
            for producer in made:
                partition = rng.choice(partitions_of(producer, topic, rng.choice(brokers)))
                seconds[which].append(delivery(producer, topic, partition))
            for producer in made:
                warm_up(producer, topic)
        assert all(producer.metrics()["record-error-total"] == 0 for producer in made)
    for which, found in seconds.items():
        report(f"first send after a reset {which}", found)
        assert len(found) == 100 * TIMES
        # librdkafka by itself looks for a broker to connect to once a second.
        assert percentile(found, 0.8) < 0.4 + lag.longest


def test_a_connection_that_a_vip_has_forgotten_costs_one_retry(
    bench: FaultBench, topic: str, rng: random.Random
) -> None:
    """Only who writes learns that it is dead, so the first request is lost, and sent again after retry.backoff.ms."""
    seconds: dict[int, list[float]] = {100: [], 10: []}
    with contextlib.ExitStack() as stack:
        servers = bench.cluster.bootstrap_servers
        sets = {
            ms: stack.enter_context(producers(5, servers, topic, retry_backoff_ms=ms, reconnect_backoff_max_ms=50))
            for ms in seconds
        }
        lag = stack.enter_context(Lag())
        for _ in range(4 * TIMES):
            time.sleep(0.2)
            assert sum(proxy.forget() for proxy in bench.proxies.values()) >= 10
            for backoff, made in sets.items():
                for producer in made:
                    seconds[backoff].append(delivery(producer, topic, rng.randrange(PARTITIONS)))
                    warm_up(producer, topic)
    for backoff, found in seconds.items():
        report(f"first send on a forgotten connection, retry.backoff.ms={backoff}", found)
        assert percentile(found, 0.8) < 0.4 + lag.longest


def test_connections_are_given_up_after_connections_max_idle_ms_before_a_vip_cuts_them(
    bench: FaultBench, topic: str
) -> None:
    def count() -> tuple[int, int]:
        proxies = bench.proxies.values()
        return sum(proxy.accepted for proxy in proxies), sum(proxy.resets for proxy in proxies)

    with producers(1, bench.cluster.bootstrap_servers, topic, connections_max_idle_ms=1000) as (producer,):
        accepted, resets = count()
        # librdkafka keeps one connection to the cluster, and makes it anew when that one too was idle for too long.
        wait_until(lambda: count()[0] >= accepted + 2, 30, "new connections in the place of idle ones")
        for partition in range(PARTITIONS):
            producer.send(topic, b"v", partition=partition).result(30)
        assert producer.metrics()["record-error-total"] == 0
    assert count()[1] == resets


# Acknowledgements that do not come


@pytest.mark.parametrize("request_timeout", [3])
def test_a_partition_whose_acknowledgement_is_swallowed_moves_again_after_request_timeout(
    bench: FaultBench, topic: str, rng: random.Random, request_timeout: int
) -> None:
    """And with a delivery.timeout.ms twice as long no record is reported as failed, since all are in the log."""
    options = {"request_timeout_ms": 1000 * request_timeout, "delivery_timeout_ms": 2000 * request_timeout}
    over: list[float] = []
    with producers(6, bench.cluster.bootstrap_servers, topic, **options) as made, Lag() as lag:
        for _ in range(2 * TIMES):
            for producer in made:
                warm_up(producer, topic)
            time.sleep(rng.random())  # librdkafka looks once a second: at any moment of that
            assert sum(proxy.silence() for proxy in bench.proxies.values()) >= 3 * len(made)
            settled: list[tuple[float, BaseException | None]] = []
            began = time.monotonic()
            for producer in made:
                for partition in range(PARTITIONS):
                    producer.send(topic, b"v", partition=partition, on_delivery=noting(settled))
            for producer in made:
                producer.flush(60)
            assert [error for _, error in settled if error is not None] == []
            over += [at - began - request_timeout for at, _ in settled]
    report(f"moving again after request.timeout.ms={1000 * request_timeout}", over)
    assert len(over) == 2 * TIMES * 6 * PARTITIONS
    assert max(over) < 1.1 + lag.longest  # 1.5 if librdkafka is left to itself


# Brokers that go, come back, or move


def test_records_find_the_brokers_that_moved_while_the_bootstrap_address_still_answers(kafka_libs: Path) -> None:
    """As they do in Java with metadata.recovery.strategy=rebootstrap, which is the default there too.

    librdkafka's own way is not used: see config.py.
    """
    (client_port,) = free_ports(1)
    server = KafkaServer({"broker.session.timeout.ms": 1500, "broker.heartbeat.interval.ms": 200})
    common = dict(server.properties)

    def advertise(port: int) -> None:
        server.properties["listeners"] = f"{common['listeners']},CLIENT://127.0.0.1:{client_port}"
        server.properties["advertised.listeners"] = f"{common['advertised.listeners']},CLIENT://127.0.0.1:{port}"
        server.properties["listener.security.protocol.map"] = (
            f"{common['listener.security.protocol.map']},CLIENT:PLAINTEXT"
        )
        server.properties["inter.broker.listener.name"] = "PLAINTEXT"

    with FaultProxy(client_port) as bootstrap, FaultProxy(client_port) as old, FaultProxy(client_port) as new:
        advertise(old.port)
        with server:
            server.create_topic("t")
            with Producer(bootstrap_servers=f"127.0.0.1:{bootstrap.port}") as producer:
                before = [producer.send("t", b"%d" % number) for number in range(10)]
                producer.flush(30)
                assert (old.connections, new.accepted) == (1, 0)
                server.kill()
                old.close()
                advertise(new.port)
                after = [producer.send("t", b"%d" % number) for number in range(10, 20)]
                server.start()
                began = time.monotonic()
                assert [future.result(60).offset for future in before + after] == list(range(20))
                print(f"delivered {time.monotonic() - began:.2f} s after the broker answered at its new address")
                assert new.connections > 0


def test_all_brokers_gone_and_back_within_delivery_timeout_lose_nothing(bench: FaultBench, topic: str) -> None:
    cluster = bench.cluster
    cluster.create_topic("gone-and-back", PARTITIONS)
    with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        warm_up(producer, "gone-and-back")
        for broker in BROKERS:
            cluster.kill(broker)
        futures = [producer.send("gone-and-back", b"%d" % number, partition=number % 6) for number in range(600)]
        with ThreadPoolExecutor(len(BROKERS)) as pool:
            list(pool.map(cluster.restart, BROKERS))
        began = time.monotonic()
        assert [future.result(60).offset for future in futures] == [1 + number // 6 for number in range(600)]
        print(f"all delivered {time.monotonic() - began:.2f} s after the brokers answered")
    cluster.wait_whole(["gone-and-back", topic])
    assert len(consume_all(cluster.direct_servers, "gone-and-back")) == 600 + PARTITIONS


def test_records_follow_a_leader_that_moves(bench: FaultBench) -> None:
    """Timed from the moment that the new leader shows to a client of any broker."""
    cluster = bench.cluster
    cluster.create_topic("led", 1)

    def leader() -> int:
        return cluster.admin.list_topics("led", timeout=5).topics["led"].partitions[0].leader

    def is_led_anew(before: int) -> bool:
        return leader() not in (before, -1)

    seconds: list[float] = []
    outcomes: list[BaseException | None] = []
    over = threading.Event()
    with (
        Producer(bootstrap_servers=cluster.bootstrap_servers) as producer,
        ThreadPoolExecutor(1) as pool,
        Lag() as lag,
    ):

        def send() -> None:
            while not over.wait(0.002):
                producer.send("led", b"v", on_delivery=lambda _, error: outcomes.append(error))

        sending = threading.Thread(target=send)
        sending.start()
        try:
            for _ in range(5 * TIMES):
                moved = functools.partial(is_led_anew, leader())
                moving = pool.submit(cluster.move_leaders, "led")
                wait_until(moved, 30, "another leader")
                seconds.append(delivery(producer, "led", 0))
                assert moving.result(30) == 1
                cluster.wait_whole(["led"])
        finally:
            over.set()
            sending.join()
        producer.flush(30)
    report("first record after a leader moved", seconds)
    assert set(outcomes) == {None}
    assert percentile(seconds, 0.5) < 2 + lag.longest
    assert len(consume_all(cluster.direct_servers, "led")) == len(outcomes) + len(seconds)
