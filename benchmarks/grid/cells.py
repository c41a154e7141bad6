"""What is measured: tables of rows of cells."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

CLIFF = 0.7  # of the best cell of its row
MEMORY = 32 << 20
MAX_RECORDS = int(os.environ.get("GRID_MAX_RECORDS", "1000000"))  # fewer in the tests
MAX_BYTES = 200_000_000  # of the values of a measurement


@dataclass(frozen=True)
class Cell:
    """One measurement. client: send, send_many, send_arrow, or produce, which is confluent-kafka's.

    every_ms: 0 sends as fast as it goes; else a record comes each so many milliseconds.
    """

    client: str = "send"
    size: int = 100
    batch_size: int = 65536
    partitions: int = 12
    keyed: bool = False
    buffer_memory: int = MEMORY
    linger_ms: float = 5
    idempotence: bool = False
    every_ms: float = 0

    @property
    def records(self) -> int:
        if self.every_ms:
            return int(4000 / self.every_ms)
        return min(MAX_RECORDS, MAX_BYTES // self.size)

    @property
    def acks(self) -> str:
        return "all" if self.idempotence else "1"

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Table:
    """rows and cells have titles. key: the figure that is compared. others: titles of cells that are no part of the
    row's best, since they do something else. real: on Apache Kafka too, in the full form.
    """

    name: str
    title: str
    rows: dict[str, dict[str, Cell]]
    key: str = "records_per_s"
    others: tuple[str, ...] = ()
    real: bool = False


def kilobytes(size: int) -> str:
    return f"{size} B" if size < 1000 else f"{size // 1000} kB"


def thousands(partitions: int) -> str:
    return f"{partitions} partition{'s' * (partitions > 1)}"


def clients(cell: Cell, names: Iterable[str] = ("send", "send_many", "send_arrow", "produce")) -> dict[str, Cell]:
    return {f"{name}()": replace(cell, client=name) for name in names}


def by_batch_size(sizes: Iterable[int], batch_sizes: Iterable[int]) -> Table:
    rows = {}
    for size in sizes:
        cell = Cell(size=size)
        rows[kilobytes(size)] = {
            **{str(batch_size): replace(cell, batch_size=batch_size) for batch_size in batch_sizes},
            **clients(cell, ("send_many", "send_arrow", "produce")),
        }
    return Table(
        "batch-size", "Value size and `batch.size`: `send()` with each, the others with 65536, 12 partitions, acks=1",
        rows, others=("send_many()", "send_arrow()", "produce()"),
    )  # fmt: skip


def by_memory(partitions: Iterable[int], memories: Iterable[int]) -> Table:
    rows = {}
    for count in partitions:
        cell = Cell(partitions=count, keyed=True, batch_size=16384)
        rows[thousands(count)] = {
            **{f"{memory / 1e6:g} MB": replace(cell, buffer_memory=memory) for memory in memories},
            **clients(cell, ("produce",)),
        }
    return Table(
        "memory", "`buffer.memory`: keyed, 100 B, `batch.size` 16384, `send()`, acks=1", rows, others=("produce()",)
    )


def by_partitions(partitions: Iterable[int], idempotence: Iterable[bool]) -> Table:
    rows = {
        thousands(count) + ", idempotent" * idempotent: clients(
            Cell(partitions=count, idempotence=idempotent, batch_size=16384)
        )
        for count in partitions
        for idempotent in idempotence
    }
    return Table("partitions", "Partitions: unkeyed, 100 B, `batch.size` 16384", rows, others=("produce()",), real=True)


def by_linger(lingers: Iterable[float], sizes: Iterable[int]) -> Table:
    rows = {
        kilobytes(size): {
            **{f"{linger:g} ms": Cell(size=size, linger_ms=linger, batch_size=16384) for linger in lingers},
            **clients(Cell(size=size), ("produce",)),
        }
        for size in sizes
    }
    return Table(
        "linger", "`linger.ms`: `send()`, `batch.size` 16384, 12 partitions, acks=1", rows, others=("produce()",)
    )


def by_interval(intervals: Iterable[float]) -> Table:
    rows = {
        f"each {interval:g} ms": clients(Cell(linger_ms=0, every_ms=interval), ("send", "produce"))
        for interval in intervals
    }
    return Table("interval", "A record now and then, `linger.ms=0`: CPU us a record", rows, key="cpu_us", real=True)


SHORT = (
    by_batch_size((100, 1000, 10_000, 100_000), (16384, 65536, 131072, 262144, 524288, 1_000_000)),
    by_memory((12, 100, 1000), (1_000_000, 4_000_000, MEMORY)),
    by_partitions((12, 1000), (True,)),
    by_linger((0, 5, 100), (100, 1000)),
    by_interval((1,)),
)
FULL = (
    by_batch_size(
        (10, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 500_000),
        (1024, 4096, 16384, 32768, 65536, 131072, 196608, 262144, 393216, 524288, 750_000, 1_000_000),
    ),
    by_memory(
        (1, 12, 30, 100, 300, 1000), (100_000, 300_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000, MEMORY)
    ),
    by_partitions((1, 12, 100, 1000), (False, True)),
    by_linger((0, 1, 5, 20, 100), (100, 1000, 10_000)),
    by_interval((0.2, 1, 5)),
)
