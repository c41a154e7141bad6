"""Kafka's own key hashing, asked of its Java classes."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.kafka.server import JVM_OPTIONS, assemble, java_command

SOURCE = Path(__file__).with_name("PartitionOracle.java")


def java_partitions(keys: Sequence[bytes], counts: Sequence[int]) -> list[tuple[int, ...]]:
    """For each key `(murmur2, partition for counts[0], partition for counts[1], ...)`; murmur2 is a signed int32.

    One JVM does all keys, and takes about a second to start: ask once for many.
    Raises KafkaUnavailable, or RuntimeError with Java's words (a plain JRE cannot compile the source).
    """
    libs = assemble()
    frames = b"".join(struct.pack(">i", len(key)) + key for key in keys)
    command = [java_command(), *JVM_OPTIONS, "-cp", f"{libs}/*", str(SOURCE), *map(str, counts)]
    done = subprocess.run(command, input=frames, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"PartitionOracle.java failed: {done.stderr.decode(errors='replace')[-2000:]}")
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    if len(rows) != len(keys):
        raise RuntimeError(f"PartitionOracle.java answered {len(rows)} of {len(keys)} keys")
    return rows
