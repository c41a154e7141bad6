"""python -m tests.lifecycle.memory small|keys|headers down|stopped [--brokers N]: the growth until send() refuses.

Records without anybody to take them, and without futures kept: each of those is 64 bytes, and the application's.
Prints the peak of the resident set over what it was before, in bytes. Linux only.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

from fastprod import BufferExhaustedError, Producer, memory_in_use
from fastprod.testing import ALL_BROKERS, MockCluster
from tests.conftest import QUICK

TOPIC, PARTITIONS = "t", 12
BUFFER = 32 << 20
RECORDS: dict[str, dict[str, Any]] = {
    "small": {"value": b"v" * 10},
    "keys": {"value": b"v", "key": b"k" * 100_000},
    "headers": {"value": b"v", "headers": [(f"name{i:02}", b"value%02d" % i) for i in range(50)]},
}


def resident(name: str) -> int:
    """VmRSS or VmHWM, the peak of it, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) << 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", choices=RECORDS)
    parser.add_argument("form", choices=["down", "stopped"])
    parser.add_argument("--brokers", type=int, default=1)
    options = parser.parse_args()
    logging.disable()  # that the brokers are gone
    record = RECORDS[options.records]
    with MockCluster(options.brokers, {TOPIC: PARTITIONS}, process=True) as cluster:
        producer = Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, buffer_memory=BUFFER, max_block_ms=1000)
        for partition in range(PARTITIONS):  # so that each may have all of its window from then on
            for _ in range(2):
                producer.send(TOPIC, **record, partition=partition).result(60)
        if options.form == "down":
            cluster.broker_down(ALL_BROKERS)
        else:
            cluster.pause()
        before = resident("VmRSS")
        sent = 0
        try:
            while True:
                producer.send(TOPIC, **record)
                sent += 1
        except BufferExhaustedError:
            pass
        time.sleep(0.5)  # librdkafka has taken what it takes
        assert memory_in_use() == BUFFER - producer.buffer_available
        print(f"{sent} records, memory_in_use() {memory_in_use()}, peak {resident('VmHWM') - before}", flush=True)
    os._exit(0)  # a close() would have two million failures to raise


if __name__ == "__main__":
    main()
