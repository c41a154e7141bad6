"""What one run sends and what is broken meanwhile, all of it drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.kafka.cluster import BROKERS, SESSION_TIMEOUT

MIN_RECORDS = 20_000
MIN_FAULTS = 10

# A run with these takes down one broker at a time; all others leave the brokers alone.
KILL = "kill"
STOP = "stop"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    at: seconds after the first record.
    broker: whose; 0 where it is not about one broker.
    seconds: how long.
    amount: bytes, partitions, or the like, as `kind` has it.
    """

    at: float
    kind: str
    broker: int = 0
    seconds: float = 0.0
    amount: int = 0

    def __str__(self) -> str:
        return f"{self.at:5.2f} s  {_WORDS[self.kind].format(fault=self)}"


_WORDS = {
    KILL: "kill -9 broker {fault.broker}, start it again {fault.seconds:.2f} s later",
    STOP: "stop broker {fault.broker} (SIGSTOP) for {fault.seconds:.2f} s",
    "move": "move the leader of every partition divisible by {fault.amount} to its next replica",
    "storm": "reset all connections of all brokers {fault.amount} times within {fault.seconds:.2f} s",
    "lose": "lose the responses of broker {fault.broker} for {fault.seconds:.2f} s, then reset its connections",
    "stall": "forward nothing from or to broker {fault.broker} for {fault.seconds:.2f} s",
    "slow": "delay broker {fault.broker} by {fault.amount} ms each way for {fault.seconds:.2f} s",
    "throttle": "throttle broker {fault.broker} to {fault.amount} bytes/s for {fault.seconds:.2f} s",
    "cut": "reset the connection of broker {fault.broker} that takes the next {fault.amount} bytes there",
    "grow": "let the topic grow by {fault.amount} partitions",
}


@dataclass(frozen=True)
class Schedule:
    """A run: the records, the producer's options, the faults.

    seconds: over which the sending is spread.
    burst: records that a thread sends in one go before it looks at the clock.
    keys: how many different ones there are; 0: records have none.
    keyed: of how many records in ten have a key.
    assigned: whether every tenth record names its partition itself.
    value_sizes: smallest and largest usual value in bytes.
    giant: bytes of one value in 400; 0: there is none.
    producer: options that differ from the default.
    """

    seed: int
    acks: str
    seconds: float
    records: int
    threads: int
    partitions: int
    burst: int
    keys: int
    keyed: int
    assigned: bool
    headers: bool
    value_sizes: tuple[int, int]
    giant: int
    producer: dict[str, str | int] = field(hash=False)
    faults: tuple[Fault, ...] = ()

    @property
    def grows(self) -> bool:
        """Whether the topic gets more partitions on the way."""
        return any(fault.kind == "grow" for fault in self.faults)

    def __str__(self) -> str:
        low, high = self.value_sizes
        giant = f", one in 400 of {self.giant} bytes" if self.giant else ""
        keys = f"{self.keyed} of 10 with one of {self.keys} keys" if self.keys else "no keys"
        more = "".join(
            [", some with headers" if self.headers else "", ", some to a given partition" if self.assigned else ""]
        )
        options = ", ".join(f"{name}={value}" for name, value in self.producer.items())
        lines = [
            f"seed {self.seed}, acks={self.acks}",
            f"  {self.records} records from {self.threads} threads in {self.seconds:.1f} s, {self.burst} at a time",
            f"  values of {low} to {high} bytes{giant}; {keys}{more}; {self.partitions} partitions",
            f"  {options or 'default options'}",
        ]
        return "\n".join([*lines, *(f"  {fault}" for fault in self.faults)])


def draw(seed: int, acks: str = "all") -> Schedule:
    """The schedule of a seed, and of that alone.

    With acks other than "all" a record is the leader's alone, and goes with it; such a run has no fault that moves a
    leader.
    """
    rng = random.Random(f"schedule {acks} {seed}")
    kills = acks == "all" and rng.random() < 0.3
    seconds = rng.uniform(5.0, 6.0) if kills else rng.uniform(3.5, 4.5)
    sizes = rng.choice([(20, 120), (20, 120), (50, 600), (20, 2000)])
    return Schedule(
        seed=seed,
        acks=acks,
        seconds=round(seconds, 2),
        records=rng.randrange(MIN_RECORDS, MIN_RECORDS * 5 // 4),
        threads=rng.randint(1, 8),
        partitions=rng.choice([2, 3, 6, 12, 24, 64, rng.randint(2, 64)]),
        burst=rng.choice([1, 20, 200, 1000]),
        keys=rng.choice([0, 0, 1, 16, 1000, 20_000]),
        keyed=rng.choice([5, 10, 10]),
        assigned=rng.random() < 0.2,
        headers=rng.random() < 0.4,
        value_sizes=sizes,
        giant=rng.choice([0, 0, 20_000, 200_000]),
        producer=_options(rng, acks),
        faults=tuple(_faults(rng, acks, kills, seconds)),
    )


def _options(rng: random.Random, acks: str) -> dict[str, str | int]:
    options: dict[str, str | int] = {}
    if acks != "all":
        options["acks"] = acks
    if (codec := rng.choice(["none", "gzip", "snappy", "lz4", "zstd"])) != "none":
        options["compression.type"] = codec
    if linger := rng.choice([0, 0, 1, 5, 20, 100]):
        options["linger.ms"] = linger
    if (size := rng.choice([16_384, 16_384, 1_000, 65_536, 500_000])) != 16_384:
        options["batch.size"] = size
    if rng.random() < 0.2:
        options["buffer.memory"] = 1 << 20
    if rng.random() < 0.25:
        # Records that expire while a broker is away; all others have two minutes.
        options["request.timeout.ms"] = rng.randrange(500, 1000)
        options["delivery.timeout.ms"] = rng.randrange(1200, 3000)
    return options


def _faults(rng: random.Random, acks: str, kills: bool, seconds: float) -> list[Fault]:
    """At least MIN_FAULTS, in the order of time, spread over the sending."""
    kinds = ["storm", "storm", "lose", "lose", "lose", "stall", "slow", "throttle", "cut", "cut"]
    found = []
    if acks == "all":
        kinds += ["move", "move"]
        if kills:
            found.append(_fault(rng, KILL, rng.uniform(0.3, 1.0)))
        else:
            kinds.append(STOP)
    count = rng.randint(MIN_FAULTS, MIN_FAULTS + 6)
    if rng.random() < 0.35:
        found.append(_fault(rng, "grow", rng.uniform(0.1, 0.7) * seconds))
    while len(found) < count:
        kind = rng.choice(kinds)
        if kind == STOP and sum(fault.kind == STOP for fault in found) == 2:
            kinds.remove(STOP)
        else:
            found.append(_fault(rng, kind, rng.uniform(0.05, 0.85) * seconds))
    return sorted(found, key=lambda fault: fault.at)


def _fault(rng: random.Random, kind: str, at: float) -> Fault:
    seconds, amount = 0.0, 0
    if kind == KILL:
        seconds = rng.choice([0.1, 0.5, SESSION_TIMEOUT + 0.5])  # back before its leaders have moved, or after
    elif kind == STOP:
        seconds = rng.choice([rng.uniform(0.1, 0.8), SESSION_TIMEOUT + rng.uniform(0.3, 0.8)])
    elif kind == "move":
        amount = rng.choice([1, 1, 2, 3])
    elif kind == "storm":
        amount = rng.randint(2, 6)
        seconds = amount * rng.uniform(0.02, 0.1)
    elif kind == "lose":
        seconds = rng.uniform(0.02, 0.4)
    elif kind == "stall":
        seconds = rng.uniform(0.1, 0.6)
    elif kind == "slow":
        seconds, amount = rng.uniform(0.3, 0.8), rng.randint(5, 150)
    elif kind == "throttle":
        seconds, amount = rng.uniform(0.3, 0.8), rng.choice([20_000, 100_000, 1_000_000])
    elif kind == "cut":
        amount = rng.choice([rng.randrange(1, 200), rng.randrange(200, 100_000)])
    elif kind == "grow":
        amount = rng.randint(1, 16)
    broker = 0 if kind in ("move", "storm", "grow") else rng.choice(BROKERS)
    return Fault(round(at, 3), kind, broker, round(seconds, 3), amount)
