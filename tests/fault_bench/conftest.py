"""The cluster behind proxies that all tests here share, since it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault_bench.bench import FaultBench


@pytest.fixture(scope="package")
def bench(kafka_libs: Path) -> Iterator[FaultBench]:
    """Each test leaves it whole: all brokers up, nothing stalled."""
    with FaultBench() as made:
        yield made
