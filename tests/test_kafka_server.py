"""The test bed itself: the broker from tests/kafka and what is asked of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from tests.kafka import jars as bed
from tests.kafka.fixtures import CreateTopic, consume_all
from tests.kafka.jars import KafkaUnavailable
from tests.kafka.node import KafkaStartError
from tests.kafka.oracle import java_partitions
from tests.kafka.server import KafkaServer

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).parents[1]


def produce(server: KafkaServer, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, "enable.idempotence": True, "log_level": 0})
    for n in range(count):
        producer.produce(topic, f"value {n}".encode(), key=f"key {n}".encode())
    assert producer.flush(30) == 0


def test_what_is_produced_is_read_back_and_in_the_log(kafka: KafkaServer, kafka_topic: CreateTopic) -> None:
    topic = kafka_topic(partitions=4, config={"retention.ms": 3_600_000})
    produce(kafka, topic, 1000)

    messages = consume_all(kafka.bootstrap_servers, topic, 1000)
    assert {m.value() for m in messages} == {f"value {n}".encode() for n in range(1000)}
    assert len(messages) == 1000

    logs = kafka.dump_logs(topic)
    assert sorted(logs) == [0, 1, 2, 3]
    for partition, batches in logs.items():
        assert sum(b.count for b in batches) == sum(m.partition() == partition for m in messages)
        assert all(b.is_valid and b.producer_id >= 0 and b.compresscodec == "none" for b in batches)
        assert batches[0].base_offset == batches[0].base_sequence == batches[0].position == 0
    first = logs[0][0]
    assert abs(first.create_time / 1000 - time.time()) < 120
    assert 0 < first.size <= (kafka.log_dir / f"{topic}-0" / f"{0:020}.log").stat().st_size
    assert kafka.dump_log(topic, 0) == logs[0]
    assert "payload: value " in kafka.dump_text(topic, [0], "--print-data-log")


def test_an_empty_topic_reads_as_empty(kafka: KafkaServer, kafka_topic: CreateTopic) -> None:
    topic = kafka_topic(partitions=2)
    assert consume_all(kafka.bootstrap_servers, topic) == []
    assert kafka.dump_logs(topic) == {0: [], 1: []}
    with pytest.raises(TimeoutError, match="0 of 1 records"):
        consume_all(kafka.bootstrap_servers, topic, 1, timeout=0.3)


def test_a_deleted_topic_is_gone_and_use_does_not_bring_it_back(kafka: KafkaServer) -> None:
    kafka.create_topic("short-lived", 2)
    kafka.delete_topic("short-lived")
    with pytest.raises(KafkaException):
        kafka.delete_topic("short-lived")
    assert "short-lived" not in kafka.admin.list_topics(timeout=5).topics


def test_deliveries_wait_while_the_broker_is_paused(kafka: KafkaServer, kafka_topic: CreateTopic) -> None:
    topic = kafka_topic(partitions=1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 0, "log_level": 0})
    producer.produce(topic, b"before")
    assert producer.flush(10) == 0
    with kafka.paused():
        producer.produce(topic, b"during")
        assert producer.flush(0.5) == 1
    assert producer.flush(10) == 0
    assert [m.value() for m in consume_all(kafka.bootstrap_servers, topic, 2)] == [b"before", b"during"]


def test_a_killed_broker_comes_back_with_its_data_and_leaves_nothing_when_stopped(kafka_libs: Path) -> None:
    server = KafkaServer({"broker.session.timeout.ms": 1000, "broker.heartbeat.interval.ms": 300})
    with server:
        home = server.log_dir.parent
        server.create_topic("t", 1)
        produce(server, "t", 10)
        server.kill()
        assert not server.running
        assert sum(b.count for b in server.dump_log("t", 0)) == 10
        server.start()
        produce(server, "t", 5)
        assert len(consume_all(server.bootstrap_servers, "t", 15)) == 15
        server.pause()
    assert not home.exists()
    assert not server.running


def test_a_broker_that_cannot_start_says_why(kafka_libs: Path) -> None:
    server = KafkaServer({"num.io.threads": 0})
    with pytest.raises(KafkaStartError, match=r"num\.io\.threads"):
        server.start()
    server = KafkaServer({"listeners": "PLAINTEXT://127.0.0.1:1,CONTROLLER://256.0.0.1:1"})
    with pytest.raises(KafkaStartError):
        server.start()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.log_dir


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the watchdog is for Linux")
def test_broker_and_data_go_when_the_test_process_is_killed(kafka_libs: Path) -> None:
    code = (
        "import os, signal\n"
        "from tests.kafka.server import KafkaServer\n"
        "server = KafkaServer(); server.start()\n"
        "print(server._process.pid, server.log_dir.parent, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    pid, home = done.stdout.split()
    deadline = time.monotonic() + 10
    while (Path(home).exists() or Path(f"/proc/{pid}").exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(home).exists()
    assert not Path(f"/proc/{pid}").exists()


def test_java_answers_with_its_own_vectors(kafka_libs: Path) -> None:
    rows = java_partitions([b"foobar", b"21", b""], [10, 100])
    assert [row[0] for row in rows] == [-790332482, -973932308, 275646681]
    assert rows == [(h, (h & 0x7FFFFFFF) % 10, (h & 0x7FFFFFFF) % 100) for h, _, _ in rows]


def test_what_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTPROD_KAFKA_HOME", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    java = tmp_path / "bin" / "java"
    monkeypatch.setenv("PATH", str(java.parent))

    def reason() -> str:
        bed.java_command.cache_clear()
        with pytest.raises(KafkaUnavailable) as caught:
            bed.assemble()
        return str(caught.value)

    def script(path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    try:
        assert reason() == "no java on PATH"
        script(java, "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
        assert "Java 17 or newer needed" in reason()
        script(java, "echo 'openjdk version \"21\" 2023-09-19' >&2")
        assert "no mvn on PATH" in reason()
        script(java.with_name("mvn"), "echo 'no network'; exit 3")
        assert reason() == "mvn failed with status 3:\nno network"
    finally:
        bed.java_command.cache_clear()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "lock"]
