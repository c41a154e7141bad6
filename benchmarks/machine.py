"""What every benchmark reports: the machine, and how many records a topic has."""

from __future__ import annotations

import datetime
import os
import platform

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

import fastprod.librdkafka.loader


def machine() -> str:
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "?")
    return (
        f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}, "
        f"librdkafka {fastprod.librdkafka.loader.version()}, {datetime.date.today()}"
    )


def log_ends(admin: AdminClient, topic: str, partitions: int) -> dict[int, int]:
    """How many records each partition has."""
    wanted = {TopicPartition(topic, i): OffsetSpec.latest() for i in range(partitions)}
    return {asked.partition: found.result(30).offset for asked, found in admin.list_offsets(wanted).items()}
