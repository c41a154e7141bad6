"""Pytest fixtures over the real broker, and a reader of whole topics."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.kafka.jars import KafkaUnavailable, assemble
from tests.kafka.security import SecureKafka
from tests.kafka.server import KafkaServer

CreateTopic = Callable[..., str]


def _give_up(reason: KafkaUnavailable) -> NoReturn:
    """Skips, or fails where FASTPROD_REQUIRE_KAFKA=1 says that Kafka must be there."""
    if os.environ.get("FASTPROD_REQUIRE_KAFKA") == "1":
        pytest.fail(f"Kafka is required here: {reason}", pytrace=False)
    pytest.skip(f"no Kafka: {reason}")


@pytest.fixture(scope="session")
def kafka_libs() -> Path:
    """Directory with Kafka's jars."""
    try:
        return assemble()
    except KafkaUnavailable as reason:
        _give_up(reason)


@pytest.fixture(scope="session")
def kafka(kafka_libs: Path) -> Iterator[KafkaServer]:
    """The broker that the whole run shares. A test that kills or reconfigures a broker starts its own KafkaServer."""
    with KafkaServer() as server:
        yield server


@pytest.fixture(scope="session")
def secure_kafka(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker with a listener for each way to encrypt and to authenticate, and a topic t of one partition."""
    server = SecureKafka(tmp_path_factory.mktemp("certificates"))
    with server:
        server.create_topic("t")
        yield server


@pytest.fixture
def kafka_topic(kafka: KafkaServer, request: pytest.FixtureRequest) -> Iterator[CreateTopic]:
    """`kafka_topic(partitions=12, config={})` creates a topic and returns its name; deleted after the test."""
    created: list[str] = []
    stem = "".join(c if c.isalnum() and c.isascii() else "-" for c in request.node.name)[:60]
    number = itertools.count()

    def create(partitions: int = 12, config: Mapping[str, object] | None = None) -> str:
        name = f"{stem}-{next(number)}-{uuid.uuid4().hex[:8]}"
        kafka.create_topic(name, partitions, config)
        created.append(name)
        return name

    yield create
    for name in created:
        kafka.delete_topic(name)


def consume_all(
    bootstrap: str,
    topic: str,
    count: int = 0,
    timeout: float = 30.0,
    config: Mapping[str, object] | None = None,
) -> list[Message]:
    """Every record of `topic` from the beginning, in the order of each partition.

    Reads each partition to its end, so that records beyond `count` show, and on until there are `count` of them.
    `config`: further consumer settings. Raises TimeoutError when `timeout` seconds were not enough, KafkaException.
    """
    deadline = time.monotonic() + timeout
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": f"consume-all-{uuid.uuid4().hex}",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 10,
        "queued.min.messages": 500_000,
    }
    consumer = Consumer({**settings, **(config or {})})
    try:
        partitions = set(consumer.list_topics(topic, timeout).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        messages: list[Message] = []
        unread: set[int | None] = set(partitions)
        while unread or len(messages) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{topic}: {len(messages)} of {count} records read in {timeout} s, "
                    f"{len(unread)} of {len(partitions)} partitions not to their end"
                )
            _take(consumer.consume(10_000, timeout=0.05), messages, unread)
        return messages
    finally:
        consumer.close()


def _take(batch: list[Message], messages: list[Message], unread: set[int | None]) -> None:
    """Sorts a batch into records and ends of partitions.

    The broker's word that a partition ends is surer than its watermark: that also counts the markers of transactions,
    which no consumer sees.
    """
    for message in batch:
        error, partition = message.error(), message.partition()
        if error is None:
            messages.append(message)
            unread.add(partition)
        elif error.code() == KafkaError._PARTITION_EOF:
            unread.discard(partition)
        else:
            raise KafkaException(error)
