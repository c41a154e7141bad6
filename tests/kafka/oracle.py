"""Kafka's own key hashing, error codes and options of its producer, asked of its Java classes."""

from __future__ import annotations

import base64
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kafka.jars import JVM_OPTIONS, assemble, java_command

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


def java_takes(configs: Sequence[Mapping[str, object]]) -> list[bool]:
    """For each configuration whether Java's producer starts with it; bootstrap.servers and serializers are added."""
    arguments = [";".join(f"{name}={value}" for name, value in config.items()) for config in configs]
    answers = [line for line in _ask("CheckOracle.java", *arguments) if line in ("taken", "refused")]
    if len(answers) != len(configs):
        raise RuntimeError(f"CheckOracle.java answered {len(answers)} of {len(configs)} configurations")
    return [answer == "taken" for answer in answers]


def java_reads(values: Sequence[tuple[str, str]]) -> list[str | None]:
    """How Java reads each (kind, value), the kinds being ReadOracle.java's; None if it refuses it."""
    arguments = [part for kind, value in values for part in (kind, base64.b64encode(value.encode()).decode())]
    answers = [line for line in _ask("ReadOracle.java", *arguments) if line.split()[0] in ("taken", "refused")]
    if len(answers) != len(values):
        raise RuntimeError(f"ReadOracle.java answered {len(answers)} of {len(values)} values")
    return [base64.b64decode(answer[6:]).decode() if answer != "refused" else None for answer in answers]


def java_errors() -> dict[int, tuple[str, bool]]:
    """Every error code of the protocol: code -> (name, whether Java's producer sends the record again after it)."""
    rows = [line.split("\t") for line in _ask("ErrorOracle.java")]
    return {int(code): (name, retriable == "true") for code, name, retriable in rows}


def _ask(source: str, *arguments: str, given: bytes = b"") -> list[str]:
    """The lines that a program beside this file prints, when `given` is its input. Raises as java_partitions()."""
    command = [java_command(), *JVM_OPTIONS, "-cp", f"{assemble()}/*", str(HERE / source), *arguments]
    done = subprocess.run(command, input=given, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{source} failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode().splitlines()
