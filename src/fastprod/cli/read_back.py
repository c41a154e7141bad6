"""Reads the embedded broker's topic back and compares it with what ``fastprod send --embedded`` has sent."""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from typing import Any

from .tally import Tally

MAX_KEYS = 200_000  # that are followed
MAX_UNREAD = 4 << 20  # bytes sent and not yet read back: below what a mock partition keeps
IDLE_SECONDS = 3.0  # without a record, after which no more are expected
SAMPLES = 3


def _size_in_log(key: bytes | None, value: bytes | None) -> int:
    """About how many bytes a record takes in the log, uncompressed."""
    return len(key or b"") + len(value or b"") + 20


def _checksum(value: bytes | None, before: int = 0) -> int:
    """Checksum of a value, and of those before it. A tombstone differs from an empty value."""
    return zlib.crc32(b"\x00" if value is None else b"\x01" + value, before)


class ReadBack:
    """Reads the embedded broker's topic while it is written, and compares it with what was sent.

    It keeps a checksum over the values of each key, once for the records sent and once for those read. The two are
    equal only if the same values came in the same order.
    """

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "fastprod-send",  # never used, but the consumer insists
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # if the broker has dropped records
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 5,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        self._sent: dict[bytes, int] = {}
        self._expected = 0  # records
        self._sent_keyless = 0  # sum of checksums: these have no order to keep
        self._received: dict[bytes, int] = {}
        self._received_keyless = 0
        self._partition_of: dict[bytes, int] = {}
        self._split: set[bytes] = set()  # keys seen in several partitions
        self._next_offset = [0] * partitions
        self._dropped = 0
        self._count = 0
        self._bytes_sent = 0
        self._bytes_read = 0
        self._samples: list[str] = []
        self._awaited: float = float("inf")  # records; known when all were sent
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="fastprod-read-back", daemon=True)

    def __enter__(self) -> ReadBack:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def expect(self, key: bytes | None, value: bytes | None) -> None:
        """Notes a record that was sent. Waits while much is unread, because the mock broker drops old records."""
        self._expected += 1
        if key is None:
            self._sent_keyless += _checksum(value)
        elif key in self._sent or len(self._sent) < MAX_KEYS:
            self._sent[key] = _checksum(value, self._sent.get(key, 0))
        self._bytes_sent += _size_in_log(key, value)
        if self._bytes_sent - self._bytes_read > MAX_UNREAD:
            self._catch_up()

    def _catch_up(self) -> None:
        read, since = self._bytes_read, time.monotonic()
        while self._bytes_sent - self._bytes_read > MAX_UNREAD:
            time.sleep(0.0005)
            if self._bytes_read != read:
                read, since = self._bytes_read, time.monotonic()
            elif time.monotonic() - since > IDLE_SECONDS:
                self._bytes_sent = read  # failed records do not arrive

    def finish(self, tally: Tally) -> tuple[bool, list[str]]:
        """Returns whether every acknowledged record arrived as it was sent, and the lines to print."""
        self._awaited = tally.acknowledged
        self._thread.join()
        lines = [f"read back: {self._count:,} of {tally.acknowledged:,} records"]
        lines += [f"  {sample}" for sample in self._samples]
        if self._sent:
            most = " (the topic has more; only these were checked)" if len(self._sent) == MAX_KEYS else ""
            lines.append(f"  {len(self._received):,} keys{most}, {len(self._split):,} of them in several partitions")
        if self._dropped:
            lines.append(f"  the broker dropped {self._dropped:,} records before they were read")
        intact = self._count + self._dropped == tally.acknowledged and not self._split
        if not (self._count == self._expected == tally.acknowledged) or tally.failed or tally.unsettled:
            lines.append("  the order was not checked: some of the records sent were not read back")
        elif self._same_keys() and self._received_keyless == self._sent_keyless:
            lines.append("  every record is unchanged, and the records of each key are in order")
        else:
            intact = False
            lines.append("  PROBLEM: records are changed or out of order")
        return intact, lines

    def _same_keys(self) -> bool:
        both = self._sent.keys() & self._received.keys()  # of more than MAX_KEYS, they need not be the same
        complete = len(self._sent) == MAX_KEYS or len(both) == len(self._sent) == len(self._received)
        return complete and all(self._sent[key] == self._received[key] for key in both)

    def _read(self) -> None:
        with contextlib.closing(self._consumer) as consumer:
            last = time.monotonic()
            while self._count + self._dropped < self._awaited and not self._stop.is_set():
                messages = [message for message in consumer.consume(500, 0.01) if not message.error()]
                for message in messages:
                    self._note(message)
                if messages:
                    last = time.monotonic()
                elif self._awaited < float("inf") and time.monotonic() - last > IDLE_SECONDS:
                    return

    def _note(self, message: Any) -> None:
        key, value, partition, offset = message.key(), message.value(), message.partition(), message.offset()
        self._dropped += offset - self._next_offset[partition]
        self._next_offset[partition] = offset + 1
        self._count += 1
        self._bytes_read += _size_in_log(key, value)
        if len(self._samples) < SAMPLES:
            shown = "a tombstone" if value is None else f"{value[:60]!r}..."
            self._samples.append(f"partition {partition}, offset {offset}: {key!r}, {shown}")
        if key is None:
            self._received_keyless += _checksum(value)
        elif key in self._received or len(self._received) < MAX_KEYS:  # it may come before it is expected
            self._received[key] = _checksum(value, self._received.get(key, 0))
            if self._partition_of.setdefault(key, partition) != partition:
                self._split.add(key)
