"""What goes in and what comes back: records, their metadata, and the view of a topic that partitioners get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import KafkaError

HeaderValue = bytes | bytearray | memoryview | str | None  # a str is sent as UTF-8

_SHOWN = 40  # bytes or characters of a key or value that a repr shows


class ProducerRecord:
    """One record to send; two with equal fields are equal.

    Nothing is checked here: :meth:`Producer.send` checks types, sizes and the topic's name.

    topic: name of the topic.
    value, key: what the serializers take; without serializers ``bytes``, ``bytearray``, ``memoryview``,
        ``str`` (sent as UTF-8) or ``None``. A ``None`` value is a tombstone on a compacted topic.
    partition: number from 0, or None to let the partitioner choose.
    timestamp: milliseconds since the epoch, or None for the moment of ``send()``.
    headers: sequence of pairs of ``str`` and what a value may be without a serializer, or a mapping.
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
        return _repr_of(self, self.__slots__)


class RecordMetadata(NamedTuple):
    """Where an acknowledged record is."""

    topic: str
    partition: int
    offset: int  # -1 where the broker gave none: acks=0, or an acknowledgement inferred after a lost one
    timestamp: int  # milliseconds since the epoch
    serialized_key_size: int  # bytes; -1 for a null key
    serialized_value_size: int  # bytes; -1 for a null value

    @property
    def has_offset(self) -> bool:
        """Whether the broker told the offset."""
        return self.offset >= 0


class _BulkMetadata(NamedTuple):
    topic: str
    count: int  # type: ignore[assignment]
    bytes: int
    partitions: Mapping[int, tuple[int, int, int]]


class BulkMetadata(_BulkMetadata):
    """Where the acknowledged records of one ``send_many()`` or ``send_arrow()`` are.

    topic: that of the call.
    count: all records of the call.
    bytes: of their keys and values.
    partitions: partition of that topic -> (count, first offset, last offset); an offset is -1 where the broker gave
        none.
    other_topics: topic -> the same, for records that interceptors sent elsewhere; mostly empty. It is an attribute,
        not an item of the tuple.
    """

    other_topics: Mapping[str, Mapping[int, tuple[int, int, int]]] = MappingProxyType({})

    def __repr__(self) -> str:
        return super().__repr__() + (f" and {self.other_topics!r}" if self.other_topics else "")


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class FailedRecord(NamedTuple):
    """A record that was not acknowledged, whole, so that it can be sent again or put aside."""

    topic: str
    partition: int
    key: bytes | None  # as serialized
    value: bytes | None  # as serialized
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int  # milliseconds since the epoch
    error: KafkaError  # ``error.persisted`` says whether it may be in the log all the same

    def __repr__(self) -> str:
        return _repr_of(self, self._fields)


class PartitionInfo(NamedTuple):
    """A partition as the cluster's metadata shows it."""

    topic: str
    partition: int
    leader: int | None  # the leader's broker id; None while there is no leader


class Cluster:
    """The metadata a partitioner chooses by: a snapshot that never changes."""

    __slots__ = ("_available", "_partitions")

    def __init__(self, partitions: Iterable[PartitionInfo] = ()) -> None:
        self._partitions: dict[str, list[PartitionInfo]] = {}
        for info in sorted(partitions, key=lambda info: info.partition):
            self._partitions.setdefault(info.topic, []).append(info)
        self._available = {
            topic: [info for info in infos if info.leader is not None] for topic, infos in self._partitions.items()
        }

    def partitions_for_topic(self, topic: str) -> list[PartitionInfo]:
        """The topic's partitions by number; empty if the topic is not known. The list is the caller's own."""
        return self._partitions.get(topic, [])[:]

    def available_partitions_for_topic(self, topic: str) -> list[PartitionInfo]:
        """Those of them that have a leader now, by number."""
        return self._available.get(topic, [])[:]

    def __repr__(self) -> str:
        counts = ", ".join(f"{topic!r}: {len(infos)}" for topic, infos in self._partitions.items())
        return f"Cluster({{{counts}}})"


def _repr_of(record: object, names: Sequence[str]) -> str:
    fields = ", ".join(f"{name}={_short(getattr(record, name))}" for name in names)
    return f"{type(record).__name__}({fields})"


def _short(value: object) -> str:
    # Cut before repr: the repr of a 100 MB value must not be built for a log line.
    if isinstance(value, (bytes, bytearray, str)) and len(value) > _SHOWN:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:_SHOWN]!r}... ({len(value)} {unit})"
    text = repr(value)
    return text if len(text) <= 4 * _SHOWN else text[: 4 * _SHOWN] + "..."
