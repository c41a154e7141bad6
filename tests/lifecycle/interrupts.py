"""python -m tests.lifecycle.interrupts [--interrupts 500] [--seed S]: Ctrl-C at random moments, in every waiting call.

A record whose send() raised must be nowhere; one whose send() returned must settle once. The log, the callbacks and the
futures are compared at the end. Prints how long after the signal each call ended.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import gc
import logging
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from fastprod import KafkaError, Producer
from fastprod.testing import MockCluster
from tests.conftest import QUICK
from tests.kafka.fixtures import consume_all

TOPIC, PARTITIONS = "t", 4
BUFFER = 64 << 10
LATEST = 10  # seconds after the signal; it is 0.05 where the machine has time, which a test must not count on
TIMEOUT_S = 60  # seconds that a wait may take once nothing holds it up


class Interrupter:
    """Interrupts calls, and notes how long after the signal they ended."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.late: dict[str, list[float]] = collections.defaultdict(list)
        self.beside = 0  # signals whose exception did not come out of the call, but before or after it
        self.count = 0

    def during(self, name: str, call: Callable[[], object], within: float) -> bool:
        """Calls, with a signal at a random time of up to `within` seconds. Whether it came out of the call itself."""
        delay = self.rng.uniform(1e-5, within)
        due = time.monotonic() + delay
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            call()
            if signal.setitimer(signal.ITIMER_REAL, 0)[0] == 0:
                # The timer is over and the signal on its way; or less than a microsecond was left, and none will come.
                for _ in range(200):
                    time.sleep(0.001)
        except KeyboardInterrupt as error:
            late = time.monotonic() - due
            self.count += 1
            if any(frame.filename.endswith(".pyx") for frame in traceback.extract_tb(error.__traceback__)):
                self.late[name].append(late)
                return True
            self.beside += 1
        return False

    def table(self) -> Iterator[str]:
        for name, late in sorted(self.late.items()):
            late.sort()
            p99 = late[min(len(late) - 1, int(len(late) * 0.99))]
            yield f"{name:24} {len(late):4} interrupted, p99 {p99 * 1e3:6.1f} ms, worst {late[-1] * 1e3:6.1f} ms later"


class Ledger:
    """What was sent and what was heard of it, by the number that is a record's value."""

    def __init__(self) -> None:
        self.numbers = 0
        self.returned: dict[bytes, Any] = {}  # whose send() returned: its future
        self.refused: set[bytes] = set()  # whose send() raised
        self.notified: collections.Counter[bytes] = collections.Counter()  # callbacks
        self.failed: set[bytes] = set()

    def new(self, size: int) -> bytes:
        self.numbers += 1
        return b"%06d" % self.numbers + b"." * size

    def on_delivery(self, value: bytes, metadata: object, error: KafkaError | None) -> None:
        self.notified[value] += 1
        if error is not None:
            self.failed.add(value)

    def send(self, producer: Producer, value: bytes, topic: str = TOPIC) -> None:
        self.returned[value] = producer.send(topic, value, on_delivery=functools.partial(self.on_delivery, value))

    def check(self, log: collections.Counter[bytes]) -> None:
        for value in self.refused:
            assert not self.notified[value] and not log[value], f"send() raised, but {value[:6]!r} was taken"
        for value, future in self.returned.items():
            assert future.done(), f"{value[:6]!r} never settled"
            assert self.notified[value] == 1, f"{value[:6]!r} was notified {self.notified[value]} times"
        # Between send() and the name that its future gets, a signal loses the future, but not the record.
        for value, times in self.notified.items():
            assert times == 1 and log[value] == (value not in self.failed), (value[:6], times, log[value])
        assert sum(log.values()) + len(self.failed) == len(self.notified), "the log has more than was notified"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interrupts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    logging.getLogger("fastprod").setLevel(logging.CRITICAL)  # broken connections are what is wanted here
    rig = Rig(random.Random(options.seed))
    began = time.monotonic()
    with rig.cluster:
        # Each of these adds some until the count is reached, the same number each.
        parts = (rig.full_buffer, rig.running, rig.closing, rig.making, rig.transactions)
        for i, part in enumerate(parts):
            part(options.interrupts * (i + 1) // len(parts))
        rig.end()
    for line in rig.interrupter.table():
        print(line)
    worst = max(max(late) for late in rig.interrupter.late.values())
    assert worst < LATEST, f"a call went on for {worst:.1f} s after the signal"
    ledger = rig.ledger
    print(
        f"{rig.interrupter.count} interrupts, {rig.interrupter.beside} of them between two calls; "
        f"{len(ledger.refused)} records refused, {len(ledger.notified)} accepted, of which {len(ledger.failed)} failed "
        f"and the futures of {len(ledger.notified) - len(ledger.returned)} were lost; {time.monotonic() - began:.1f} s"
    )


class Rig:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.interrupter = Interrupter(rng)
        self.ledger = Ledger()
        self.cluster = MockCluster(topics={TOPIC: PARTITIONS}, process=True)
        self.threads = threads()

    def make(self, **options: Any) -> Producer:
        return Producer(
            QUICK, bootstrap_servers=self.cluster.bootstrap_servers, buffer_memory=BUFFER, batch_size=4096, **options
        )

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.cluster.pause()
        try:
            yield
        finally:
            self.cluster.resume()

    def send(self, name: str, producer: Producer, within: float, topic: str = TOPIC) -> bool:
        """Whether send() was interrupted."""
        value = self.ledger.new(1000)
        refused = self.interrupter.during(name, lambda: self.ledger.send(producer, value, topic), within)
        if refused:
            self.ledger.refused.add(value)
        return refused

    def full_buffer(self, count: int) -> None:
        """Everything waits: the broker is stopped and buffer.memory is full."""
        during, rng = self.interrupter.during, self.rng
        producer = self.make(max_block_ms=TIMEOUT_S * 1000)
        self.ledger.send(producer, self.ledger.new(0))
        while self.interrupter.count < count:
            with self.paused():
                while not self.send("send, full buffer", producer, 0.02):
                    pass
                for _ in range(40):
                    name = rng.choice(("send", "send", "send", "send, new topic", "flush", "result", "partitions_for"))
                    if name == "send":
                        self.send("send, full buffer", producer, 0.02)
                    elif name == "send, new topic":
                        self.send(name, producer, 0.02, f"new-{rng.randrange(1 << 32)}")
                    elif name == "flush":
                        during(name, producer.flush, 0.02)
                    elif name == "result":
                        during(name, rng.choice(list(self.ledger.returned.values())).result, 0.02)
                    else:
                        during(name, lambda: producer.partitions_for(f"new-{rng.randrange(1 << 32)}"), 0.02)
                assert producer.metrics()["waiting-threads"] == 0
            producer.flush(TIMEOUT_S)
            assert producer.buffer_available == BUFFER and not len(producer)
        producer.close(TIMEOUT_S)

    def running(self, count: int) -> None:
        """Nothing waits for long: the signal comes in any line of send() or flush()."""
        producer = self.make(linger_ms=1)
        self.ledger.send(producer, self.ledger.new(0))
        while self.interrupter.count < count:
            self.send("send", producer, 50e-6)
            if self.rng.random() < 0.02:
                self.interrupter.during("flush", producer.flush, 0.003)
        producer.flush(TIMEOUT_S)
        assert producer.buffer_available == BUFFER and not len(producer)
        producer.close(TIMEOUT_S)

    def closing(self, count: int) -> None:
        while self.interrupter.count < count:
            producer = self.make()
            for _ in range(10):
                self.ledger.send(producer, self.ledger.new(100))
            with self.paused() if self.rng.random() < 0.5 else contextlib.nullcontext():
                for _ in range(4):
                    self.interrupter.during("close", producer.close, 0.01)
            producer.close(TIMEOUT_S)

    def making(self, count: int) -> None:
        made: list[Producer] = []
        while self.interrupter.count < count:
            self.interrupter.during("Producer()", lambda: made.append(self.make()), 0.004)
            while made:
                made.pop().close(TIMEOUT_S)

    def transactions(self, count: int) -> None:
        during, rng = self.interrupter.during, self.rng
        while self.interrupter.count < count:
            producer = self.make(transactional_id=f"tx-{rng.randrange(1 << 32)}", request_timeout_ms=5000)
            with self.paused():
                during("init_transactions", producer.init_transactions, 0.02)
            producer.init_transactions(TIMEOUT_S)
            for _ in range(5):
                producer.begin_transaction()
                for _ in range(5):
                    self.ledger.send(producer, self.ledger.new(10))
                name = rng.choice(("commit_transaction", "abort_transaction"))
                end = getattr(producer, name)
                with self.paused() if rng.random() < 0.5 else contextlib.nullcontext():
                    done = not during(name, end, 0.02)
                if not done:
                    end(TIMEOUT_S)
            producer.begin_transaction()
            self.ledger.send(producer, self.ledger.new(10))
            with self.paused():
                during("close, open transaction", producer.close, 0.02)
            producer.close(TIMEOUT_S)

    def end(self) -> None:
        servers = self.cluster.bootstrap_servers
        log = collections.Counter(message.value() for message in consume_all(servers, TOPIC, timeout=120))
        self.ledger.check(log)
        gc.collect()
        deadline = time.monotonic() + TIMEOUT_S
        while threads() > self.threads and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threads() == self.threads, threading.enumerate()


def threads() -> int:
    """How many this process has; 0 where that is not known."""
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0


if __name__ == "__main__":
    main()
