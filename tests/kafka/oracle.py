"""Kafka's own key hashing and its producer's own options, asked of its Java classes."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.kafka.server import JVM_OPTIONS, assemble, java_command

HERE = Path(__file__).parent


def java_partitions(keys: Sequence[bytes], counts: Sequence[int]) -> list[tuple[int, ...]]:
    """For each key `(murmur2, partition for counts[0], partition for counts[1], ...)`; murmur2 is a signed int32.

    One JVM does all keys, and takes about a second to start: ask once for many.
    Raises KafkaUnavailable, or RuntimeError with Java's words (a plain JRE cannot compile the source).
    """
    frames = b"".join(struct.pack(">i", len(key)) + key for key in keys)
    rows = [tuple(map(int, line.split())) for line in _ask("PartitionOracle.java", *map(str, counts), given=frames)]
    if len(rows) != len(keys):
        raise RuntimeError(f"PartitionOracle.java answered {len(rows)} of {len(keys)} keys")
    return rows


def java_options() -> dict[str, tuple[str, str]]:
    """Every option of Java's producer: name -> (type, default), both in Java's words; "null" and "required" too."""
    found = {}
    for line in _ask("ConfigOracle.java"):
        name, kind, default = line.split("\t")
        found[name] = (kind, default)
    return found


def _ask(source: str, *arguments: str, given: bytes = b"") -> list[str]:
    """The lines that a program beside this file prints, when `given` is its input. Raises as java_partitions()."""
    command = [java_command(), *JVM_OPTIONS, "-cp", f"{assemble()}/*", str(HERE / source), *arguments]
    done = subprocess.run(command, input=given, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{source} failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode().splitlines()
