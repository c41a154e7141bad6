"""Records, the metadata of acknowledged records, and the cluster metadata that partitioners get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

HeaderValue = bytes | bytearray | memoryview | str | None  # a str is sent as UTF-8

_SHOWN = 40  # bytes or characters of a key or value that a repr shows


class ProducerRecord:
    """One record to send. Two records with equal fields are equal.

    * `topic`: the name of the topic.
    * `value`, `key`: objects for the serializers. Without serializers they are `bytes`, `bytearray`, `memoryview`,
      `str` (sent as UTF-8) or `None`. A `None` value is a tombstone on a compacted topic.
    * `partition`: a number from 0, or `None` to let the partitioner choose.
    * `timestamp`: milliseconds since the epoch, or `None` for the moment of `send()`.
    * `headers`: a mapping, or pairs of name and value. A header's value has one of the types of `value`
      without a serializer.

    The constructor checks nothing. `Producer.send()` checks types, sizes and the topic's name.

    ```python
    producer.send(ProducerRecord("orders", b"value", b"key", headers={"trace": b"1"}))
    ```
    """

    __slots__ = ("topic", "value", "key", "partition", "timestamp", "headers")
    __match_args__ = ("topic", "value", "key", "partition", "timestamp", "headers")
    __hash__ = None  # type: ignore[assignment]  # the fields can be changed

    def __init__(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp: int | None = None,
        headers: Sequence[tuple[str, HeaderValue]] | Mapping[str, HeaderValue] | None = None,
    ) -> None:
        self.topic = topic
        self.value = value
        self.key = key
        self.partition = partition
        self.timestamp = timestamp
        self.headers = headers

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProducerRecord):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        return repr_of(self, self.__slots__)


class RecordMetadata(NamedTuple):
    """The place of an acknowledged record in the log.

    ```python
    metadata = producer.send("orders", b"value").result(timeout=10)
    print(metadata.topic, metadata.partition, metadata.offset)
    ```
    """

    topic: str
    partition: int
    offset: int  # -1: not known, with acks=0 or if the acknowledgement was lost and librdkafka knows of the write
    timestamp: int  # milliseconds since the epoch
    serialized_key_size: int  # bytes; -1 for a null key
    serialized_value_size: int  # bytes; -1 for a null value

    @property
    def has_offset(self) -> bool:
        """Whether the broker gave the offset."""
        return self.offset >= 0


class _BulkMetadata(NamedTuple):
    topic: str
    count: int  # type: ignore[assignment]
    bytes: int
    partitions: Mapping[int, tuple[int, int, int]]


class BulkMetadata(_BulkMetadata):
    """The places of the acknowledged records of one `send_many()` or `send_arrow()`.

    * `topic`: the topic of the call.
    * `count`: how many records the call has sent.
    * `bytes`: the size of their keys and values.
    * `partitions`: maps each partition of the topic to `(count, first offset, last offset)`. An offset is -1 if the
      broker gave none.
    * `other_topics`: the same for records that interceptors moved to other topics. It maps each of these topics to a
      mapping like `partitions`. It is an attribute, not an item of the tuple.

    ```python
    report = producer.send_many("orders", [b"one", b"two"]).result(timeout=10)
    for partition, (count, first, last) in report.partitions.items():
        print(partition, count, first, last)
    ```
    """

    other_topics: Mapping[str, Mapping[int, tuple[int, int, int]]] = MappingProxyType({})

    def __repr__(self) -> str:
        return super().__repr__() + (f" and {self.other_topics!r}" if self.other_topics else "")


class TopicPartition(NamedTuple):
    """One partition of one topic.

    ```python
    print(TopicPartition("orders", 3))
    ```
    """

    topic: str
    partition: int


class PartitionInfo(NamedTuple):
    """A partition as the cluster's metadata shows it.

    ```python
    for info in producer.partitions_for("orders"):
        print(info.partition, info.leader)
    ```
    """

    topic: str
    partition: int
    leader: int | None  # the broker id of the leader; None while there is no leader


class Cluster:
    """The metadata that a partitioner gets: a snapshot that never changes.

    ```python
    class FirstWithLeader:
        def partition(self, topic, key, key_bytes, value, value_bytes, cluster):
            return cluster.available_partitions_for_topic(topic)[0].partition


    with Producer(bootstrap_servers="localhost:9092", partitioner=FirstWithLeader()) as first:
        first.send("orders", b"value").result(timeout=10)
    ```
    """

    __slots__ = ("_available", "_partitions")

    def __init__(self, partitions: Iterable[PartitionInfo] = ()) -> None:
        self._partitions: dict[str, list[PartitionInfo]] = {}
        for info in sorted(partitions, key=lambda info: info.partition):
            self._partitions.setdefault(info.topic, []).append(info)
        self._available = {
            topic: [info for info in infos if info.leader is not None] for topic, infos in self._partitions.items()
        }

    def partitions_for_topic(self, topic: str) -> list[PartitionInfo]:
        """The topic's partitions, ordered by number. The list is empty if the topic is not known."""
        return self._partitions.get(topic, [])[:]

    def available_partitions_for_topic(self, topic: str) -> list[PartitionInfo]:
        """The topic's partitions that have a leader now, ordered by number."""
        return self._available.get(topic, [])[:]

    def __repr__(self) -> str:
        counts = ", ".join(f"{topic!r}: {len(infos)}" for topic, infos in self._partitions.items())
        return f"Cluster({{{counts}}})"


def repr_of(record: object, names: Sequence[str]) -> str:
    fields = ", ".join(f"{name}={_short(getattr(record, name))}" for name in names)
    return f"{type(record).__name__}({fields})"


def _short(value: object) -> str:
    # Cut before repr: the repr of a 100 MB value must not be built for a log line.
    if isinstance(value, (bytes, bytearray, str)) and len(value) > _SHOWN:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:_SHOWN]!r}... ({len(value)} {unit})"
    text = repr(value)
    return text if len(text) <= 4 * _SHOWN else text[: 4 * _SHOWN] + "..."
