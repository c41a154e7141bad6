"""Counts acknowledged, failed and unsettled records of ``fastprod send``."""

from __future__ import annotations

import collections
import contextlib
import time
from typing import Any, Protocol

from ..errors import (
    AuthenticationError,
    AuthorizationError,
    BulkDeliveryError,
    KafkaError,
    UnknownTopicOrPartitionError,
)
from ..records import BulkMetadata, RecordMetadata

LOOK_RECORDS = 10_000  # records, or seconds, after which it looks for futures that are done
LOOK_SECONDS = 0.5
MAX_OUTSTANDING = 200_000  # records whose outcome is not counted yet
_GIVEN_UP = (-152, -151)  # librdkafka's _PURGE_QUEUE and _PURGE_INFLIGHT: close() came first
# After one of these every further record fails too.
_HOPELESS = (AuthenticationError, AuthorizationError, UnknownTopicOrPartitionError)


class HopelessError(Exception):
    """The next records would fail too."""


class Future(Protocol):
    """The methods of ``FutureRecordMetadata`` and ``BulkFuture`` that the command uses."""

    def done(self) -> bool: ...

    def result(self, timeout: float | None = None) -> RecordMetadata | BulkMetadata: ...


class Tally:
    """Counts the outcomes of records. Only the sending thread writes it; the progress thread reads it."""

    def __init__(self) -> None:
        self.partitions: collections.Counter[int] = collections.Counter()
        self.bytes = 0  # of keys and values that were acknowledged
        self.acknowledged = 0
        self.failed = 0
        self.unsettled = 0  # pending when a signal ended the wait; they may have been written
        self.reasons: dict[tuple[str, int | None], list[Any]] = {}  # kind of error -> [records, first message]

    def acknowledge(self, metadata: RecordMetadata | BulkMetadata) -> None:
        if isinstance(metadata, BulkMetadata):
            self.acknowledged += metadata.count
            self.partitions.update({number: count for number, (count, _, _) in metadata.partitions.items()})
            self.bytes += metadata.bytes
            return
        self.acknowledged += 1
        self.partitions[metadata.partition] += 1
        self.bytes += max(0, metadata.serialized_key_size) + max(0, metadata.serialized_value_size)

    def fail(self, error: KafkaError, place: str = "") -> None:
        if error.code in _GIVEN_UP:
            self.unsettled += 1
            return
        self.failed += 1
        reason = self.reasons.setdefault((type(error).__name__, error.code), [0, f"{place}{error}"])
        reason[0] += 1


class Outstanding:
    """Holds the futures that are not counted yet, oldest first, for at most MAX_OUTSTANDING records."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._futures: collections.deque[tuple[Future, int]] = collections.deque()  # with the number of its records
        self._records = 0
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._added = 0  # since the last look

    @property
    def begun(self) -> bool:
        """Whether a record has been added."""
        return bool(self._futures or self.tally.acknowledged or self.tally.failed)

    def add(self, future: Future, records: int = 1) -> None:
        """Adds the future of `records` records. Now and then it counts the futures that are done."""
        self._futures.append((future, records))
        self._records += records
        self._added += records
        if self._added < LOOK_RECORDS and time.monotonic() < self._next_look:
            return
        self._added = 0
        self._next_look = time.monotonic() + LOOK_SECONDS
        futures = self._futures
        while futures and (futures[0][0].done() or self._records > MAX_OUTSTANDING):
            future, records = futures.popleft()
            self._records -= records
            self._count(future, records)

    def finish(self) -> None:
        """Counts the rest, after a flush. Futures that are not done by now count as unsettled."""
        for future, records in self._futures:
            if not future.done():
                self.tally.unsettled += records
                continue
            with contextlib.suppress(HopelessError):
                self._count(future, records)
        self._futures.clear()
        self._records = 0

    def _count(self, future: Future, records: int) -> None:
        try:
            self.tally.acknowledge(future.result())
            return
        except BulkDeliveryError as error:
            failures = [failure for _, failure in error.failures]
            self.tally.acknowledged += records - len(failures)  # the error does not say to which partitions
        except KafkaError as error:
            failures = [error]
        for failure in failures:
            self.tally.fail(failure)
        if any(failure.fatal or isinstance(failure, _HOPELESS) for failure in failures):
            raise HopelessError("further records would fail in the same way")
