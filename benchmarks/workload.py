"""What is sent, alike by all: the records, and the settings they are sent with."""

from __future__ import annotations

import functools
import random
from dataclasses import asdict, dataclass, replace

DISTINCT = 10_000  # texts of values and keys; they repeat after that
LINGER_MS = 5
BATCH_SIZE = 65536
SEED = 20201117


@dataclass(frozen=True)
class Workload:
    """size: bytes of a value. headers: how many. acks is "all" with idempotence, else 1. note: for the title.

    warm_up: records sent before those that count.
    """

    records: int = 1_000_000
    size: int = 100
    keyed: bool = False
    compression: str = "none"
    headers: int = 0
    partitions: int = 12
    idempotence: bool = False
    note: str = ""
    warm_up: int = 1000

    @property
    def acks(self) -> str:
        return "all" if self.idempotence else "1"

    @property
    def title(self) -> str:
        parts = [f"{self.size} B" if self.size < 1000 else f"{self.size // 1000} kB"]
        parts += ["keyed"] * self.keyed
        parts += [self.compression] * (self.compression != "none")
        parts += [f"{self.headers} headers"] * bool(self.headers)
        parts += [f"{self.partitions} partition{'s' * (self.partitions > 1)}"] * (self.partitions != 12)
        parts += ["idempotent"] * self.idempotence
        parts += [self.note] * bool(self.note)
        return ", ".join(parts)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def values(self) -> list[bytes]:
        return copies(distinct_values(self.size), self.records)

    def keys(self) -> list[bytes] | None:
        if not self.keyed:
            return None
        return copies(distinct_keys(), self.records)

    def header_list(self) -> list[tuple[str, bytes]] | None:
        return [(f"header-{i}", b"sixteen bytes ok") for i in range(self.headers)] or None


def copies(distinct: list[bytes], records: int) -> list[bytes]:
    """Each record has memory of its own, as the rows of a job have, and is no longer in a cache when it is sent."""
    return [bytes(memoryview(distinct[i % DISTINCT])) for i in range(records)]


def first(column: list[bytes] | None, records: int) -> list[bytes] | None:
    """The first of a column. All of them without a copy, which would touch each and count as time of the client's."""
    return column if column is None or records == len(column) else column[:records]


@functools.cache
def distinct_values(size: int) -> list[bytes]:
    """Text that compresses as rows of a table do: numbers among words that recur. Without a newline."""
    rng = random.Random(SEED)
    carriers, cities = ("UA", "DL", "AA", "B6"), ("Boston", "Houston", "Miami", "Denver", "Atlanta")
    values = []
    for i in range(DISTINCT):
        text = ""
        while len(text) < size:
            text += (
                f'{{"flight": {i}, "carrier": "{rng.choice(carriers)}", "to": "{rng.choice(cities)}", '
                f'"delay": {rng.randrange(-20, 400)}, "miles": {rng.randrange(80, 5000)}}} '
            )
        values.append(text[:size].encode())
    return values


@functools.cache
def distinct_keys() -> list[bytes]:
    return [b"N%015d" % (i * 7919) for i in range(DISTINCT)]


BASE = Workload()
KEYED = replace(BASE, keyed=True)
# Long enough that what a process does but once, and what the machine does meanwhile, weigh little: a million records
# take plain C a sixth of a second.
SHORT = (replace(BASE, records=3_000_000), replace(KEYED, records=3_000_000))
# What a record costs is to be the same along each of these, in a process that has its memory: the kernel gives that
# page by page, which makes the first records of any client's dearer, those of plain C too.
WARM = replace(BASE, note="warm", warm_up=1_000_000)
BY_RECORDS = (
    replace(WARM, records=100_000, note="100,000"),
    WARM,
    replace(WARM, records=10_000_000, note="10 million"),
)
BY_PARTITIONS = (replace(WARM, partitions=1), WARM, replace(WARM, partitions=100), replace(WARM, partitions=1000))
GROWTH = (
    *BY_RECORDS,
    *(workload for workload in BY_PARTITIONS if workload is not WARM),
    replace(KEYED, partitions=1000),
)
FULL = (
    *SHORT,
    replace(BASE, size=1000, records=300_000),
    replace(BASE, compression="lz4"),
    replace(BASE, compression="zstd"),
    replace(BASE, headers=3),
    replace(BASE, partitions=1),
    replace(BASE, partitions=1000),
    replace(KEYED, partitions=1000),
    replace(BASE, idempotence=True),
)
