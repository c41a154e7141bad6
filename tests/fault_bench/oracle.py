"""Compares what a producer said with what the log holds. Knows neither the producer nor the cluster."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastprod import FutureRecordMetadata, RecordMetadata, partition_for_key

DUPLICATED = frozenset(("duplicated", "duplicated, though failed"))
REORDERED = frozenset(("reordered",))
FALSE_NO = 'written, though reported with persisted="no"'

EXAMPLES = 3  # of each kind of violation that are kept as text
GRACE = 2.0  # seconds that an outcome may come after delivery.timeout.ms

Headers = tuple[tuple[str, bytes | None], ...]


class Outcome(NamedTuple):
    """What the producer said of a record: one of the first two, and when, in seconds of the monotonic clock."""

    metadata: RecordMetadata | None
    error: BaseException | None
    at: float


@dataclass(slots=True)
class Sent:
    """A record that was given to send(). Its value names it: see name_of().

    partition: the one that was asked for, if any.
    sent_at: seconds of the monotonic clock when the call returned: it may have waited for metadata or for memory.
    wall: milliseconds since the epoch, before and after the call.
    outcomes: one for each call of on_delivery.
    promise: the future itself, until it is asked.
    future: what it says in the end; None while it is not done.
    refused: what send() raised, if it did.
    """

    topic: str
    thread: int
    number: int
    key: bytes | None
    value: bytes
    headers: Headers = ()
    partition: int | None = None
    sent_at: float = 0.0
    wall: tuple[float, float] = (0.0, 0.0)
    outcomes: list[Outcome] = field(default_factory=list)
    promise: FutureRecordMetadata | None = None
    future: Outcome | None = None
    refused: str = ""

    def __str__(self) -> str:
        said = "; ".join(_words(outcome) for outcome in self.outcomes) or "no outcome"
        return f"record {self.number} of thread {self.thread} for {self.topic}, key {self.key!r}: {said}"


class Logged(NamedTuple):
    """A record as a consumer read it; the timestamp in ms since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    def __str__(self) -> str:
        begin = (self.value or b"")[:40]
        where = f"{self.topic} [{self.partition}] offset {self.offset}"
        return f"{where} of {self.timestamp} ms, key {self.key!r}, value {begin!r}"


class Pool(NamedTuple):
    """The producer after flush(): bytes of buffer.memory, bytes that are free, records not settled."""

    total: int
    available: int
    unsettled: int


@dataclass
class Verdict:
    """What was found. Kinds of violation that were only counted are in `counted`."""

    sent: int = 0
    acked: int = 0
    failed: int = 0
    failed_but_written: int = 0  # as "possibly" and "yes" allow
    without_offset: int = 0
    latest: float = 0.0  # seconds from send() to outcome
    violations: collections.Counter[str] = field(default_factory=collections.Counter)
    counted: collections.Counter[str] = field(default_factory=collections.Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.violations

    def __str__(self) -> str:
        lines = []
        for kind, count in sorted(self.violations.items()):
            lines.append(f"{kind}: {count}")
            lines += [f"  {example}" for example in self.examples[kind]]
        return "\n".join(lines) or "no violation"


def name_of(topic: str, thread: int, number: int) -> bytes:
    """How the value of a record begins; all up to the first `|` names it."""
    return b"%s %d %d|" % (topic.encode(), thread, number)


@dataclass(frozen=True)
class Oracle:
    """Checks one run.

    partitions: topic -> numbers of partitions it had, in the order of time; the last is what it has.
    delivery_timeout: seconds.
    only_counted: kinds of violation that this run is allowed.
    lag: seconds for which the machine kept the process waiting.
    """

    partitions: Mapping[str, Sequence[int]]
    delivery_timeout: float
    only_counted: frozenset[str] = frozenset()
    lag: float = 0.0

    def check(self, sent: Sequence[Sent], log: Iterable[Logged], pool: Pool) -> Verdict:
        """Looks at each record from both sides, and at each partition's order."""
        verdict = Verdict(sent=len(sent))
        first = min((record.sent_at for record in sent), default=0.0)
        by_name = {record.value.partition(b"|")[0]: record for record in sent}
        found: dict[int, list[Logged]] = collections.defaultdict(list)
        for logged in sorted(log, key=lambda logged: logged[:3]):
            record = by_name.get((logged.value or b"").partition(b"|")[0])
            if record is None:
                self._note(verdict, "unknown record in the log", logged)
            else:
                found[id(record)].append(logged)
                self._check_bytes(verdict, record, logged)
                self._check_partition(verdict, record, logged)
        for record in sent:
            copies = found.get(id(record), [])
            self._check_settled(verdict, record)
            if record.refused:
                self._note(verdict, "refused by send()", record, record.refused)
            for outcome in record.outcomes[:1]:
                self._check_time(verdict, record, outcome, first)
                if outcome.metadata is not None:
                    verdict.acked += 1
                    self._check_acked(verdict, record, outcome.metadata, copies)
                elif outcome.error is not None:
                    verdict.failed += 1
                    self._check_failed(verdict, record, outcome.error, copies)
            if len(copies) > 1:
                failed = record.outcomes and record.outcomes[0].error is not None
                self._note(verdict, "duplicated, though failed" if failed else "duplicated", record, *copies)
        self._check_order(verdict, sent, found)
        if pool.available != pool.total or pool.unsettled:
            self._note(verdict, "pool not whole", pool)
        return verdict

    def _note(self, verdict: Verdict, kind: str, *what: object) -> None:
        if kind in self.only_counted:
            verdict.counted[kind] += 1
            return
        verdict.violations[kind] += 1
        examples = verdict.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(" / ".join(map(str, what)))

    def _check_bytes(self, verdict: Verdict, record: Sent, logged: Logged) -> None:
        if logged.topic != record.topic:
            self._note(verdict, "in the wrong topic", record, logged)
        if (logged.key, logged.value, logged.headers) != (record.key, record.value, record.headers):
            self._note(verdict, "altered", record, logged)

    def _check_partition(self, verdict: Verdict, record: Sent, logged: Logged) -> None:
        """A record without partition and key may go anywhere, one with a key where Java would put it."""
        if record.partition is not None:
            allowed = {record.partition}
        elif record.key is not None:
            allowed = {partition_for_key(record.key, count) for count in self.partitions.get(logged.topic, ())}
        else:
            return
        if logged.partition not in allowed:
            self._note(verdict, "in the wrong partition", record, logged)

    def _check_settled(self, verdict: Verdict, record: Sent) -> None:
        expected = 0 if record.refused else 1
        if len(record.outcomes) != expected:
            self._note(verdict, "not settled once", record)
        if record.refused:
            return
        if record.future is None:
            self._note(verdict, "future not done", record)
        elif record.outcomes and not _same(record.future, record.outcomes[0]):
            self._note(verdict, "future and on_delivery differ", record, _words(record.future))

    def _check_time(self, verdict: Verdict, record: Sent, outcome: Outcome, first: float) -> None:
        took = outcome.at - record.sent_at
        verdict.latest = max(verdict.latest, took)
        if took > self.delivery_timeout + GRACE + self.lag:
            self._note(verdict, "late", record, f"after {took:.2f} s")
        # A batch expires as a whole, as in Java, when its oldest record does: that one was not sent before all others.
        if outcome.error is not None and outcome.at - first < self.delivery_timeout:
            self._note(verdict, "failed before its time", record, f"after {took:.2f} s")

    def _check_acked(self, verdict: Verdict, record: Sent, metadata: RecordMetadata, copies: Sequence[Logged]) -> None:
        if metadata.topic != record.topic:
            self._note(verdict, "metadata of another topic", record)
        sizes = (-1 if record.key is None else len(record.key), len(record.value))
        if (metadata.serialized_key_size, metadata.serialized_value_size) != sizes:
            self._note(verdict, "metadata of other sizes", record, metadata)
        if not copies:
            self._note(verdict, "lost", record)
            return
        verdict.without_offset += not metadata.has_offset
        here = [copy for copy in copies if copy.partition == metadata.partition]
        if not here:
            self._note(verdict, "not in the partition of its metadata", record, *copies)
        elif metadata.has_offset and metadata.offset not in [copy.offset for copy in here]:
            self._note(verdict, "not at the offset of its metadata", record, *copies)
        self._check_timestamp(verdict, record, metadata, copies[0])

    def _check_timestamp(self, verdict: Verdict, record: Sent, metadata: RecordMetadata, logged: Logged) -> None:
        before, after = record.wall
        if not before - 2 <= logged.timestamp <= after + 1000 * (1 + self.lag):
            self._note(verdict, "timestamp not of the moment of send()", record, logged, record.wall)
        elif logged.timestamp > after + 6:  # a thread that had to wait for a core; no fault where cores are short
            verdict.counted["stamped late"] += 1
        # A broker that gets a batch for the second time answers with the newest timestamp of the first, in the field of
        # the append time, and any client has to believe it.
        if metadata.timestamp > logged.timestamp:
            verdict.counted["timestamped as the batch"] += 1
        elif metadata.timestamp != logged.timestamp:
            self._note(verdict, "not of the timestamp of its metadata", record, logged, metadata)

    def _check_failed(self, verdict: Verdict, record: Sent, error: BaseException, copies: Sequence[Logged]) -> None:
        persisted = getattr(error, "persisted", None)
        if persisted not in ("no", "possibly", "yes"):
            self._note(verdict, "failed without a word on the log", record)
        elif persisted == "no" and copies:
            self._note(verdict, FALSE_NO, record, *copies)
        elif persisted == "yes" and not copies:
            self._note(verdict, "lost", record)
        verdict.failed_but_written += bool(copies)

    def _check_order(self, verdict: Verdict, sent: Sequence[Sent], found: Mapping[int, Sequence[Logged]]) -> None:
        """A thread's records come in the order of send() in each partition; with a key in one partition."""
        last: dict[tuple[int, str, int], tuple[int, Sent]] = {}
        homes: dict[tuple[str, bytes], int] = {}
        for record in sorted(sent, key=lambda record: (record.thread, record.number)):
            for copy in list(found.get(id(record), ()))[:1]:
                place = (record.thread, copy.topic, copy.partition)
                offset, before = last.get(place, (-1, record))
                if copy.offset < offset:
                    self._note(verdict, "reordered", before, record, copy)
                last[place] = max((offset, before), (copy.offset, record), key=lambda pair: pair[0])
                # Where no partitions were added, the order of a key is that of its partition.
                fixed = record.partition is None and len(self.partitions[record.topic]) == 1
                if fixed and record.key is not None:
                    home = homes.setdefault((record.topic, record.key), copy.partition)
                    if home != copy.partition:
                        self._note(verdict, "key in two partitions", record, copy)


def _same(one: Outcome, other: Outcome) -> bool:
    if one.metadata is not None or other.metadata is not None:
        return one.metadata == other.metadata
    # Each reader gets an exception of its own.
    return type(one.error) is type(other.error) and str(one.error) == str(other.error)


def _words(outcome: Outcome) -> str:
    if outcome.metadata is not None:
        return f"acknowledged as [{outcome.metadata.partition}] offset {outcome.metadata.offset}"
    persisted = getattr(outcome.error, "persisted", None)
    return f"failed, persisted={persisted!r}: {type(outcome.error).__name__}: {outcome.error}"
