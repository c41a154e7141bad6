"""One cluster behind proxies, on which one schedule after the other is run and judged."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from confluent_kafka import KafkaException

from fastprod import Producer
from tests.fault_bench.injector import Injector
from tests.fault_bench.lag import Lag
from tests.fault_bench.oracle import DUPLICATED, REORDERED, Headers, Logged, Oracle, Pool, Verdict
from tests.fault_bench.proxy import FaultProxy
from tests.fault_bench.schedule import Schedule
from tests.fault_bench.workload import SIDE_PARTITIONS, Workload, look_at_futures
from tests.kafka.cluster import KafkaCluster
from tests.kafka.fixtures import consume_all

TIMEOUT_S = 60.0  # seconds for each step that ends by itself when all is well
FREED_AFTER = 10.0  # seconds after which librdkafka, whose deadline counts from the hand-over, has freed what expired

# Seconds before each reading of the log; the third is done if the second lacked records. A new leader shows readers no
# more than it knows its followers to have, and learns that only from their next fetch. The second is done too if
# records failed: those that are reported as not written must not turn up later either.
SETTLING = (0.0, 0.5, 2.0)


@dataclass(frozen=True)
class Result:
    """What one schedule came to.

    problems: what went wrong besides the verdict: a step that did not end, a fault that could not be done.
    faults: how many began while records were not yet settled.
    """

    schedule: Schedule
    verdict: Verdict
    problems: tuple[str, ...]
    faults: int
    resets: int
    swallowed: int  # bytes of lost responses
    seconds: float

    @property
    def good(self) -> bool:
        return self.verdict.good and not self.problems

    def __str__(self) -> str:
        verdict = self.verdict
        counted = "".join(f", {count} {kind}" for kind, count in sorted(verdict.counted.items()))
        return (
            f"seed {self.schedule.seed}: {verdict.sent} records, {verdict.failed} failed "
            f"({verdict.failed_but_written} written), {verdict.without_offset} without offset{counted}; "
            f"{self.faults} faults, {self.resets} resets, {self.swallowed} bytes of responses lost; "
            f"latest outcome {verdict.latest:.2f} s; {self.seconds:.1f} s"
        )


def allowed(schedule: Schedule) -> frozenset[str]:
    """What a schedule's options do not keep from happening, and is only counted.

    Without idempotence a retry writes again.

    With it, librdkafka has a weakness when a record expires in its queues: it takes a new producer epoch, for all
    partitions (rdkafka_broker.c, rd_kafka_toppar_producer_serve: "message(s) timed out"), and what was written but not
    acknowledged at that moment is sent again under new sequence numbers.
    """
    if schedule.acks != "all":
        return DUPLICATED | REORDERED
    return DUPLICATED if "delivery.timeout.ms" in schedule.producer else frozenset()


class FaultBench:
    """A cluster whose clients come through proxies. A context manager: started on entry, gone on exit."""

    def __init__(self) -> None:
        self.cluster = KafkaCluster()
        self.proxies: dict[int, FaultProxy] = {}
        self._runs = itertools.count(1)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> FaultBench:
        with contextlib.ExitStack() as stack:
            for broker, port in self.cluster.client_ports.items():
                self.proxies[broker] = stack.enter_context(FaultProxy(port))
                self.cluster.advertised_ports[broker] = self.proxies[broker].port
            stack.enter_context(self.cluster)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def run(self, schedule: Schedule) -> Result:
        """Sends, breaks, waits until all is whole, reads the log and judges. Topics of its own, deleted afterwards."""
        began = time.monotonic()
        resets, swallowed = self._harm()
        # One replica where a leader alone answers for a record: an election would lose records by Kafka's own rules.
        replicas = 3 if schedule.acks == "all" else 1
        names = (
            self._create(f"seed-{schedule.seed}", schedule.partitions, replicas),
            self._create(f"side-{schedule.seed}", SIDE_PARTITIONS, replicas),
        )
        verdict, problems, faults = self._run(schedule, names)
        for name in names:
            self.cluster.delete_topic(name)
        now = self._harm()
        took = time.monotonic() - began
        return Result(schedule, verdict, problems, faults, now[0] - resets, now[1] - swallowed, took)

    def _create(self, name: str, partitions: int, replicas: int) -> str:
        """A new topic. A cluster that was broken a moment ago may need more than one attempt."""
        attempts = 3
        while True:
            topic = f"{name}-{next(self._runs)}"
            try:
                self.cluster.create_topic(topic, partitions, replicas)
                return topic
            except (KafkaException, TimeoutError):
                attempts -= 1
                if not attempts:
                    raise

    def _run(self, schedule: Schedule, names: tuple[str, str]) -> tuple[Verdict, tuple[str, ...], int]:
        problems: list[str] = []
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap_servers, **schedule.producer})
        workload = Workload(schedule, producer, names)
        injector = Injector(self.cluster, self.proxies, names)

        def step(what: str, act: Callable[[], None]) -> None:
            try:
                act()
            except Exception as error:
                problems.append(f"{what}: {type(error).__name__}: {error}")

        with Lag() as lag:
            workload.start()
            injector.start(schedule.faults)
            step("sending", lambda: workload.join(TIMEOUT_S))
            step("flush()", lambda: producer.flush(TIMEOUT_S))
        settled = time.monotonic()
        pool = drained_pool(producer)
        records = workload.records
        look_at_futures(records)
        step("close()", lambda: producer.close(TIMEOUT_S))
        step("faults", lambda: injector.join(TIMEOUT_S))
        problems += injector.errors

        counts = {names[0]: [schedule.partitions], names[1]: [SIDE_PARTITIONS]}
        if (now := self.cluster.partitions(names[0])) != schedule.partitions:
            counts[names[0]].append(now)
        oracle = Oracle(counts, producer.config.delivery_timeout_ms / 1000, allowed(schedule), lag.longest)
        for wait in SETTLING:
            time.sleep(wait)
            verdict = oracle.check(records, self._log(names), pool)
            if "lost" not in verdict.violations and (wait or not verdict.failed):
                break
        return verdict, tuple(problems), sum(at < settled for at in injector.done)

    def _log(self, names: tuple[str, str]) -> list[Logged]:
        return [
            Logged(
                cast(str, message.topic()),
                cast(int, message.partition()),
                cast(int, message.offset()),
                message.timestamp()[1],
                message.key(),
                message.value(),
                cast(Headers, tuple(message.headers() or ())),
            )
            for name in names
            for message in consume_all(
                self.cluster.direct_servers, name, timeout=TIMEOUT_S, config={"check.crcs": True}
            )
        ]

    def _harm(self) -> tuple[int, int]:
        proxies = self.proxies.values()
        return sum(proxy.resets for proxy in proxies), sum(proxy.swallowed for proxy in proxies)


def drained_pool(producer: Producer) -> Pool:
    """The pool once it is whole: what expired on its way keeps its memory until librdkafka frees it too."""
    deadline = time.monotonic() + FREED_AFTER
    while True:
        pool = Pool(producer.config.buffer_memory, producer.buffer_available, len(producer))
        if pool.available == pool.total or time.monotonic() >= deadline:
            return pool
        time.sleep(0.05)
