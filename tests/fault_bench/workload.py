"""Sends the records of a schedule and keeps what the producer said of each."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

from fastprod import KafkaError, Producer, RecordMetadata
from tests.fault_bench.oracle import Headers, Outcome, Sent, name_of
from tests.fault_bench.schedule import Schedule

SIDE_SHARE = 8  # one record in so many goes to the second topic, so that a buffer given to the wrong batch shows
SIDE_PARTITIONS = 2


class Workload:
    """The threads that send. `records` grow in them; look at it after join().

    topics: the one that the schedule's partitions, keys and assignments are for, and the second one.
    """

    def __init__(self, schedule: Schedule, producer: Producer, topics: tuple[str, str]) -> None:
        self._schedule = schedule
        self._producer = producer
        self._main, self._side = topics
        # Letters of three bits in bytes of eight: for codecs to work on. Long enough for every value.
        filler = random.Random(f"filler {schedule.seed}").choices(b"abcdefgh", k=1 << 17)
        self._filler = bytes(filler) * (2 + schedule.giant // len(filler))
        self._shares: list[list[Sent]] = [[] for _ in range(schedule.threads)]
        self._threads = [
            threading.Thread(target=self._send, args=(number, share), name=f"sends-{number}", daemon=True)
            for number, share in enumerate(self._shares)
        ]
        self._started = 0.0

    def start(self) -> None:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()

    def join(self, timeout: float) -> None:
        """Returns when all records are sent. Raises TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"{thread.name} has not sent all of its records after {timeout} s")

    @property
    def records(self) -> list[Sent]:
        return [record for share in self._shares for record in share]

    def _send(self, thread: int, share: list[Sent]) -> None:
        plan = self._schedule
        rng = random.Random(f"records {plan.seed} {thread}")
        count = plan.records // plan.threads + (thread < plan.records % plan.threads)
        for number in range(count):
            if number % plan.burst == 0:
                due = self._started + plan.seconds * number / count
                time.sleep(max(0.0, due - time.monotonic()))
            self._send_one(self._draw(rng, thread, number), share)

    def _draw(self, rng: random.Random, thread: int, number: int) -> Sent:
        plan = self._schedule
        topic = self._side if rng.randrange(SIDE_SHARE) == 0 else self._main
        name = name_of(topic, thread, number)
        size = plan.giant if plan.giant and rng.randrange(400) == 0 else rng.randint(*plan.value_sizes)
        begin = rng.randrange(1 << 16)
        value = name + self._filler[begin : begin + max(0, size - len(name))]
        key = None
        if plan.keys and rng.randrange(10) < plan.keyed:
            key = b"key %d" % rng.randrange(plan.keys)
        headers: Headers = ()
        if plan.headers and rng.randrange(3) == 0:
            headers = tuple((f"h{n}", rng.choice([None, b"", b"%d" % number])) for n in range(rng.randint(1, 3)))
        partition = None
        if plan.assigned and rng.randrange(10) == 0:
            partition = rng.randrange(SIDE_PARTITIONS if topic == self._side else plan.partitions)
        return Sent(topic, thread, number, key, value, headers, partition)

    def _send_one(self, record: Sent, share: list[Sent]) -> None:
        def on_delivery(metadata: RecordMetadata | None, error: KafkaError | None) -> None:
            record.outcomes.append(Outcome(metadata, error, time.monotonic()))

        share.append(record)
        before = time.time() * 1000
        try:
            record.promise = self._producer.send(
                record.topic,
                record.value,
                record.key,
                partition=record.partition,
                headers=record.headers or None,
                on_delivery=on_delivery,
            )
        except KafkaError as error:
            record.refused = f"{type(error).__name__}: {error}"
        record.sent_at = time.monotonic()
        record.wall = (before, time.time() * 1000)


def look_at_futures(records: Sequence[Sent]) -> None:
    """Writes down what each future says now."""
    for record in records:
        promise, record.promise = record.promise, None
        if promise is not None and promise.done():
            error = promise.exception(0)
            record.future = Outcome(None if error else promise.result(0), error, time.monotonic())
