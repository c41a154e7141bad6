"""Runs one Kafka broker, makes topics on it and looks into its logs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.kafka.node import KafkaNode, free_ports, new_cluster_id, wait_until


@dataclass(frozen=True)
class LogBatch:
    """One record batch as the broker stored it. Sizes and positions in bytes, the time in ms since 1970."""

    partition: int
    base_offset: int
    last_offset: int
    count: int
    base_sequence: int  # -1: sent without idempotence
    last_sequence: int
    producer_id: int  # -1: sent without idempotence
    producer_epoch: int
    is_transactional: bool
    is_control: bool
    position: int
    create_time: int  # of the newest record; the append time when the topic says so
    size: int
    compresscodec: str
    is_valid: bool


def parse_dump(text: str) -> list[LogBatch]:
    """The batches in the output of DumpLogSegments, in its order."""
    batches = []
    partition = -1
    for line in text.splitlines():
        if named := re.match(r"Dumping .*-(\d+)/\d+\.log$", line):
            partition = int(named[1])
        elif line.startswith("baseOffset: "):
            batches.append(_parse_batch(partition, dict(re.findall(r"(\w+): (\S+)", line))))
    return batches


def _parse_batch(partition: int, field: Mapping[str, str]) -> LogBatch:
    return LogBatch(
        partition=partition,
        base_offset=int(field["baseOffset"]),
        last_offset=int(field["lastOffset"]),
        count=int(field["count"]),
        base_sequence=int(field["baseSequence"]),
        last_sequence=int(field["lastSequence"]),
        producer_id=int(field["producerId"]),
        producer_epoch=int(field["producerEpoch"]),
        is_transactional=field["isTransactional"] == "true",
        is_control=field["isControl"] == "true",
        position=int(field["position"]),
        create_time=int(field.get("CreateTime") or field["LogAppendTime"]),
        size=int(field["size"]),
        compresscodec=field["compresscodec"],
        is_valid=field["isvalid"] == "true",
    )


class KafkaServer(KafkaNode):
    """One Kafka node, broker and controller in one process, on loopback ports of its own.

    `properties` are added to the server's own and win over them. `client_config` is what a client needs besides the
    address (security settings when `properties` ask for them). Timeouts are in seconds.

    A context manager: started on entry, stopped and its data removed on exit. Topics are not created by use.
    """

    def __init__(
        self,
        properties: Mapping[str, object] | None = None,
        client_config: Mapping[str, str | int | float] | None = None,
    ) -> None:
        port, self.controller_port = free_ports(2)
        own = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        }
        super().__init__({**own, **(properties or {})}, port, new_cluster_id())
        self.client_config = dict(client_config or {})
        self._admin: AdminClient | None = None

    def __enter__(self) -> KafkaServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            quick: dict[str, str | int | float] = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100}
            quick["log_level"] = 0  # refused connections are expected here
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, **quick, **self.client_config})
        return self._admin

    def stop(self, timeout: float = 15.0) -> None:
        self._admin = None
        super().stop(timeout)

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, object] | None = None, timeout: float = 15.0
    ) -> None:
        """Creates a topic and returns when each partition has a leader. Raises KafkaException, TimeoutError."""
        strings = {key: str(value) for key, value in (config or {}).items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=strings)
        self.admin.create_topics([topic])[name].result(timeout)
        wait_until(lambda: self._leaders(name) == partitions, timeout, f"leaders of {name}")

    def delete_topic(self, name: str, timeout: float = 15.0) -> None:
        """Deletes a topic and returns when it is no longer listed. Raises KafkaException, TimeoutError."""
        self.admin.delete_topics([name])[name].result(timeout)
        wait_until(lambda: self._leaders(name) == 0, timeout, f"the end of {name}")

    def dump_log(self, topic: str, partition: int) -> list[LogBatch]:
        """The batches of one partition in the order of the log, without looking at the records inside."""
        return parse_dump(self.dump_text(topic, [partition]))

    def dump_logs(self, topic: str) -> dict[int, list[LogBatch]]:
        """dump_log() of all partitions in one run of the tool, which takes half a second to start."""
        found: dict[int, list[LogBatch]] = {partition: [] for partition in self._partitions(topic)}
        for batch in parse_dump(self.dump_text(topic, sorted(found))):
            found[batch.partition].append(batch)
        return found

    def dump_text(self, topic: str, partitions: Iterable[int], *options: str) -> str:
        """What Kafka's DumpLogSegments prints; options such as `--print-data-log`, `--deep-iteration`.

        Let deliveries end first: a batch that is just being written looks cut short.
        """
        segments = [path for p in partitions for path in sorted((self.log_dir / f"{topic}-{p}").glob("*.log"))]
        if not segments:
            raise FileNotFoundError(f"no log of topic {topic}")
        return self._tool(_dump_class(self._need_libs()), "--files", ",".join(map(str, segments)), *options)

    def _answers(self) -> bool:
        """Whether a client can list the cluster."""
        if super()._answers():
            with contextlib.suppress(KafkaException):
                return bool(self.admin.list_topics(timeout=1.0).brokers)
        return False

    def _leaders(self, topic: str) -> int:
        """How many partitions of `topic` have a leader; 0 when there is no such topic."""
        found = self.admin.list_topics(timeout=5.0).topics.get(topic)
        return sum(p.leader >= 0 for p in found.partitions.values()) if found else 0

    def _partitions(self, topic: str) -> list[int]:
        named = (re.fullmatch(re.escape(topic) + r"-(\d+)", path.name) for path in self.log_dir.iterdir())
        return sorted(int(match[1]) for match in named if match)


def _dump_class(libs: Path) -> str:
    """DumpLogSegments moved out of the core jar during 4.x."""
    moved = "org/apache/kafka/tools/DumpLogSegments"
    for jar in libs.glob("kafka-tools-[0-9]*.jar"):
        with ZipFile(jar) as entries:
            if f"{moved}.class" in entries.namelist():
                return moved.replace("/", ".")
    return "kafka.tools.DumpLogSegments"
