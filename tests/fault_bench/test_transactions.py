"""Exactly-once through the death of brokers. FASTPROD_TRANSACTIONS=500 runs that many; the suite runs fewer."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from fastprod import KafkaError, Producer
from tests.fault_bench.bench import FaultBench
from tests.kafka.cluster import BROKERS, KafkaCluster
from tests.kafka.fixtures import consume_all

pytestmark = pytest.mark.kafka
COUNT = int(os.environ.get("FASTPROD_TRANSACTIONS", "120"))
OUTAGES = max(2, COUNT // 60)
PARTITIONS = 6
TIMEOUT = 120.0  # seconds, for a call that is repeated until its outcome is known
ENOUGH = 10.0  # seconds, after which a new producer is the sooner way on


class Application:
    """Copies a source whose n-th record stands for the n-th transaction, and does what docs/transactions.md says.

    The position in the source is committed with the records, and shows whether a transaction whose producer was lost
    has taken effect.
    """

    def __init__(self, servers: str, topic: str, group: str) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._servers = servers
        self._topic = topic
        self._source = TopicPartition("source", 0)
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False})
        self._group = group
        self._producer = self._start()

    def close(self) -> None:
        self._producer.close(TIMEOUT)
        self._consumer.close()

    def run(self, number: int, values: list[bytes], abort: bool, before_end: Callable[[], None]) -> list[bytes]:
        """The n-th transaction, as often as it takes. Returns what it wrote in the end; nothing, if it is to abort."""
        for attempt in range(100):
            written = [b"%s, attempt %d" % (value, attempt) for value in values]
            try:
                self._producer.begin_transaction()
                for place, value in enumerate(written):
                    self._producer.send(self._topic, value, partition=place % PARTITIONS)
                if not abort:
                    self._producer.send_offsets_to_transaction(
                        {("source", 0): number + 1}, self._consumer.consumer_group_metadata()
                    )
                before_end()
                self._until_known(self._producer.abort_transaction if abort else self._producer.commit_transaction)
                self.counts["aborted" if abort else "committed"] += 1
                return [] if abort else written
            except (KafkaError, TimeoutError) as error:
                if self._recover(error) and not abort and self._position() == number + 1:
                    self.counts["committed, as the position says"] += 1
                    return written
                if abort:
                    return []
        raise AssertionError(f"transaction {number} was tried 100 times")

    def _recover(self, error: Exception) -> bool:
        """Ends what failed. Returns whether that took a new producer."""
        if not getattr(error, "fatal", False):
            try:
                # When a coordinator dies librdkafka may never end send_offsets_to_transaction(), and nothing else then.
                self._until_known(self._producer.abort_transaction, ENOUGH)
                self.counts["repeated"] += 1
                return False
            except (KafkaError, TimeoutError) as worse:
                error = worse
        self.counts[f"new producer, after {type(error).__name__}"] += 1
        with contextlib.suppress(KafkaError, TimeoutError):
            self._producer.close(10)
        self._producer = self._start()
        return True

    def _start(self) -> Producer:
        producer = Producer(
            bootstrap_servers=self._servers, transactional_id=self._group, max_block_ms=int(1000 * ENOUGH)
        )
        self._until_known(producer.init_transactions)
        return producer

    def _until_known(self, call: Callable[..., Any], timeout: float = TIMEOUT) -> None:
        """A call that did not end in its time has an open outcome, and is to be made again."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                call(timeout=1)
                return
            except TimeoutError as error:
                if isinstance(error, KafkaError) or time.monotonic() > deadline:
                    raise
                self.counts["called again"] += 1

    def _position(self) -> int:
        return int(self._consumer.committed([self._source], TIMEOUT)[0].offset)


class Outages:
    """Kills brokers, one at a time, and starts them again.

    due: whether the next begin_if_due() is to kill one.
    """

    def __init__(self, cluster: KafkaCluster, topic: str, rng: random.Random) -> None:
        self.due = False
        self.killed: list[int] = []
        self._cluster = cluster
        self._topic = topic
        self._rng = rng
        self._thread = threading.Thread()
        self._error: Exception | None = None

    def begin_if_due(self) -> None:
        """Kills a broker, the first time the coordinator of the transactions. Waits for the end of the last outage."""
        if not self.due:
            return
        self.due = False
        self.end()
        topics = self._cluster.admin.list_topics(timeout=5).topics
        coordinator = topics["__transaction_state"].partitions[0].leader
        self.killed.append(self._rng.choice(BROKERS) if self.killed else coordinator)
        self._cluster.kill(self.killed[-1])
        self._thread = threading.Thread(target=self._repair, args=(self._rng.uniform(0.5, 3),))
        self._thread.start()

    def end(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _repair(self, seconds: float) -> None:
        try:
            time.sleep(seconds)
            self._cluster.restart(self.killed[-1])
            self._cluster.wait_whole([self._topic, "__transaction_state", "__consumer_offsets"])
        except Exception as error:
            self._error = error


@pytest.fixture
def topic(bench: FaultBench, request: pytest.FixtureRequest) -> Iterator[str]:
    bench.cluster.create_topic("transactions", PARTITIONS)
    yield "transactions"
    bench.cluster.delete_topic("transactions")


def test_what_is_committed_is_seen_once_and_nothing_else_though_brokers_are_killed(
    bench: FaultBench, topic: str, rng: random.Random
) -> None:
    bench.cluster.create_topic("source", 1)
    application = Application(bench.cluster.bootstrap_servers, topic, f"copier-{uuid.uuid4().hex}")
    outages = Outages(bench.cluster, topic, rng)
    # Brokers die as a transaction begins, or late: when it is about to end.
    late = {number: rng.choice((True, False)) for number in rng.sample(range(COUNT // 10, COUNT), OUTAGES)}
    expected: dict[int, list[bytes]] = {}
    began = time.monotonic()
    for number in range(COUNT):
        outages.due = number in late
        if not late.get(number):
            outages.begin_if_due()
        values = [b"transaction %d, record %d" % (number, i) for i in range(rng.randrange(1, 60))]
        written = application.run(number, values, rng.random() < 0.3, outages.begin_if_due)
        for place, value in enumerate(written):
            expected.setdefault(place % PARTITIONS, []).append(value)
    took = time.monotonic() - began
    outages.end()
    application.close()
    print(f"{COUNT} transactions in {took:.1f} s, killed {outages.killed}, {dict(application.counts)}")
    found: dict[int, list[bytes]] = {}
    config = {"isolation.level": "read_committed"}
    for message in consume_all(bench.cluster.direct_servers, topic, config=config):
        found.setdefault(message.partition() or 0, []).append(message.value() or b"")
    assert found == expected
    assert len(outages.killed) == OUTAGES
    assert application.counts["aborted"] > COUNT // 10
