"""The programs of this directory, in short. FASTPROD_FULL=1, or `make lifecycle`, runs them in full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from fastprod.testing import ALL_BROKERS, MockCluster

pytestmark = pytest.mark.mock
FULL = os.environ.get("FASTPROD_FULL") == "1"
TIMEOUT_S = 240  # seconds after which a program counts as hung


def run(program: str, *arguments: object) -> str:
    """What the program prints; the test fails if it fails, hangs or has something to say on stderr."""
    command = [sys.executable, "-X", "faulthandler", "-m", f"tests.lifecycle.{program}", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    print(ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    return ended.stdout


def test_forks_under_load_harm_neither_parent_nor_child() -> None:
    run("forks", "--forks", 500 if FULL else 50)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_producers_in_processes_of_multiprocessing(method: str) -> None:
    run("processes", method)


# Memory

LIMIT = 1.25 * (32 << 20) + (16 << 20)  # bytes, with buffer.memory=32 MiB


@pytest.mark.parametrize("form", ["down", "stopped"])
@pytest.mark.parametrize("records", ["small", "keys", "headers"])
def test_a_process_grows_little_beyond_buffer_memory_while_brokers_take_nothing(records: str, form: str) -> None:
    assert int(run("memory", records, form, "--brokers", 4).split()[-1]) <= LIMIT


# Exit without close()

RECORDS = 100_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    with MockCluster(topics={}, process=True) as cluster:
        yield cluster


def stored(cluster: MockCluster, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": "g"})
    try:
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, i), timeout=20)[1] for i in range(4))
    finally:
        consumer.close()


def leave(cluster: MockCluster, topic: str, way: str) -> subprocess.CompletedProcess[str]:
    """How a process ended that sent RECORDS records and did not close its producer."""
    arguments = (cluster.bootstrap_servers, topic, RECORDS, way)
    command = [sys.executable, "-m", "tests.lifecycle.exits", *map(str, arguments)]
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    print(ended.stdout, f"the process took {time.monotonic() - began:.1f} s")
    return ended


WAYS = {"end": 0, "exit": 3, "exception": 1, "daemon": 0}
EXITS = [(way, trip) for way in WAYS for trip in (0, 50, 200) if FULL or way == "end" or trip == 50]


@pytest.mark.parametrize(("way", "round_trip"), EXITS)
def test_exit_without_close_delivers_100000_records(cluster: MockCluster, way: str, round_trip: int) -> None:
    topic = f"{way}-{round_trip}"
    cluster.create_topic(topic, 4)
    cluster.set_round_trip_time(ALL_BROKERS, round_trip)
    try:
        ended = leave(cluster, topic, way)
    finally:
        cluster.set_round_trip_time(ALL_BROKERS, 0)
    assert ended.returncode == WAYS[way]
    assert ended.stderr == "" or way == "exception" and ended.stderr.endswith("LookupError: the job failed\n")
    count = stored(cluster, topic)
    assert count == RECORDS or way == "daemon" and count > RECORDS


if FULL:  # it takes the 30 s that an exit grants the records

    def test_exit_without_close_says_how_many_records_a_silent_broker_did_not_take(cluster: MockCluster) -> None:
        cluster.create_topic("silent", 4)
        script = f"""
import os, signal
from fastprod import Producer
from tests.conftest import QUICK
producer = Producer(QUICK, bootstrap_servers={cluster.bootstrap_servers!r})
producer.send("silent", b"v").result(30)
os.kill({cluster.pid}, signal.SIGSTOP)
for _ in range({RECORDS}):
    producer.send("silent", b"v")
"""
        try:
            ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S)
        finally:
            os.kill(cluster.pid, signal.SIGCONT)
        assert ended.returncode == 0
        assert f"close() gave up {RECORDS} records after 30 s; {RECORDS} records failed" in ended.stderr
