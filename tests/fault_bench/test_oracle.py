"""The oracle passes a good run and finds each violation that is planted into it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from fastprod import DeliveryTimeoutError, RecordMetadata, partition_for_key
from tests.fault_bench.oracle import (
    DUPLICATED,
    FALSE_NO,
    REORDERED,
    Logged,
    Oracle,
    Outcome,
    Pool,
    Sent,
    Verdict,
    name_of,
)

PARTITIONS = 4
TIMEOUT = 10.0
WHOLE = Pool(1000, 1000, 0)


@dataclass
class Run:
    """What the oracle is given."""

    sent: list[Sent]
    log: list[Logged]
    pool: Pool = WHOLE
    oracle: Oracle = Oracle({"t": [PARTITIONS], "other": [2]}, TIMEOUT)

    def check(self) -> Verdict:
        return self.oracle.check(self.sent, self.log, self.pool)

    def copy_of(self, record: Sent) -> int:
        """Where in the log the record is."""
        return next(n for n, logged in enumerate(self.log) if logged.value == record.value)

    def change(self, record: Sent, **fields: object) -> None:
        """Changes the record in the log, as if the broker had written something else."""
        at = self.copy_of(record)
        self.log[at] = self.log[at]._replace(**fields)  # type: ignore[arg-type]

    def answer(self, record: Sent, **fields: object) -> None:
        """Changes what the producer said of the record, on both ways."""
        (outcome,) = record.outcomes
        assert outcome.metadata is not None
        record.future = Outcome(outcome.metadata._replace(**fields), None, outcome.at)  # type: ignore[arg-type]
        record.outcomes = [record.future]


def fail(record: Sent, persisted: str, after: float = TIMEOUT + 1) -> None:
    """Has the producer say that the record was not acknowledged."""
    record.future = Outcome(None, DeliveryTimeoutError("too late", persisted=persisted), record.sent_at + after)
    record.outcomes = [record.future]


@pytest.fixture
def run() -> Run:
    """Two threads, 200 records, with keys and without; all went well."""
    sent: list[Sent] = []
    log: list[Logged] = []
    ends = {("t", partition): 0 for partition in range(PARTITIONS)}
    rng = random.Random(1)
    for number in range(100):
        for thread in (0, 1):
            key = b"key %d" % (number % 7) if number % 2 else None
            partition = rng.randrange(PARTITIONS) if key is None else partition_for_key(key, PARTITIONS)
            value = name_of("t", thread, number) + b"-" * (number % 9)
            headers = (("h", b"1"),) if number % 3 == 0 else ()
            asked = partition if number % 10 == 0 else None
            record = Sent("t", thread, number, key, value, headers, asked, sent_at=number, wall=(number, number + 1))
            metadata = RecordMetadata(
                "t", partition, ends["t", partition], number, -1 if key is None else len(key), len(value)
            )
            record.future = Outcome(metadata, None, number + 0.5)
            record.outcomes = [record.future]
            sent.append(record)
            log.append(Logged("t", partition, ends["t", partition], number, key, value, headers))
            ends["t", partition] += 1
    return Run(sent, log)


def keyed(run: Run) -> Sent:
    return next(record for record in run.sent[50:] if record.key is not None)


def keyless(run: Run) -> Sent:
    return next(record for record in run.sent[50:] if record.key is None and record.partition is None)


def test_a_good_run_passes(run: Run) -> None:
    verdict = run.check()
    assert verdict.good and str(verdict) == "no violation"
    assert (verdict.sent, verdict.acked, verdict.failed) == (200, 200, 0)
    assert verdict.latest == 0.5


def lose(run: Run) -> None:
    del run.log[run.copy_of(run.sent[20])]


def lose_what_is_reported_as_written(run: Run) -> None:
    fail(run.sent[20], "yes")
    lose(run)


def duplicate(run: Run) -> None:
    run.log.append(run.log[20]._replace(offset=999))


def reorder(run: Run) -> None:
    """Two records of a thread change places, and the producer says so."""
    one = keyless(run)
    place = run.log[run.copy_of(one)]
    two = next(
        record
        for record in run.sent
        if record.thread == one.thread
        and record.number > one.number
        and run.log[run.copy_of(record)].partition == place.partition
    )
    other = run.log[run.copy_of(two)]
    run.change(one, offset=other.offset)
    run.change(two, offset=place.offset)
    run.answer(one, offset=other.offset)
    run.answer(two, offset=place.offset)


def move_a_key(run: Run) -> None:
    """Within what other partition counts would allow, so that only the key's own order shows it."""
    run.oracle = Oracle({"t": [PARTITIONS]}, TIMEOUT)
    record = next(
        record
        for record in run.sent[50:]
        if record.key is not None and run.log[run.copy_of(record)].partition != 0 and record.partition is None
    )
    run.change(record, partition=0, offset=999)
    run.answer(record, partition=0, offset=999)


def misplace(run: Run) -> None:
    record = keyless(run)
    partition = run.log[run.copy_of(record)].partition
    run.change(record, partition=(partition + 1) % PARTITIONS, offset=999)


def misplace_what_was_assigned(run: Run) -> None:
    record = next(record for record in run.sent if record.partition is not None)
    other = (run.log[run.copy_of(record)].partition + 1) % PARTITIONS
    run.change(record, partition=other, offset=999)
    run.answer(record, partition=other, offset=999)


def change_offset(run: Run) -> None:
    run.answer(run.sent[20], offset=888)


def write_to_another_topic(run: Run) -> None:
    run.change(run.sent[20], topic="other", partition=1)


def alter_value(run: Run) -> None:
    run.change(run.sent[20], value=run.sent[20].value + b"!")


def alter_key(run: Run) -> None:
    run.log[run.copy_of(keyed(run))] = run.log[run.copy_of(keyed(run))]._replace(key=None)


def alter_headers(run: Run) -> None:
    run.change(run.sent[20], headers=(("h", None),))


def write_a_stranger(run: Run) -> None:
    run.log.append(Logged("t", 0, 999, 0, None, b"who am I"))


def settle_twice(run: Run) -> None:
    run.sent[20].outcomes *= 2


def settle_never(run: Run) -> None:
    run.sent[20].outcomes = []


def leave_the_future_open(run: Run) -> None:
    run.sent[20].future = None


def answer_in_two_ways(run: Run) -> None:
    run.sent[20].outcomes = [Outcome(None, DeliveryTimeoutError("too late"), run.sent[20].sent_at + TIMEOUT)]


def write_what_failed(run: Run) -> None:
    fail(run.sent[20], "no")


def settle_late(run: Run) -> None:
    record = run.sent[20]
    record.outcomes = [record.outcomes[0]._replace(at=record.sent_at + TIMEOUT + 2.1)]


def fail_early(run: Run) -> None:
    """Sooner than even the first record of the run could have expired."""
    fail(run.sent[0], "possibly", after=TIMEOUT - 0.1)


def keep_memory(run: Run) -> None:
    run.pool = Pool(1000, 999, 0)


def keep_a_record(run: Run) -> None:
    run.pool = Pool(1000, 1000, 1)


def refuse(run: Run) -> None:
    record = run.sent[20]
    record.refused, record.outcomes, record.future = "BufferExhaustedError", [], None
    lose(run)


def answer_with_an_earlier_time(run: Run) -> None:
    run.answer(run.sent[20], timestamp=run.sent[20].number - 1)


def stamp_at_another_moment(run: Run) -> None:
    run.change(run.sent[20], timestamp=12345)
    run.answer(run.sent[20], timestamp=12345)


PLANTED: dict[Callable[[Run], None], str] = {
    lose: "lost",
    lose_what_is_reported_as_written: "lost",
    duplicate: "duplicated",
    reorder: "reordered",
    move_a_key: "key in two partitions",
    misplace: "not in the partition of its metadata",
    misplace_what_was_assigned: "in the wrong partition",
    change_offset: "not at the offset of its metadata",
    write_to_another_topic: "in the wrong topic",
    alter_value: "altered",
    alter_key: "altered",
    alter_headers: "altered",
    write_a_stranger: "unknown record in the log",
    settle_twice: "not settled once",
    settle_never: "not settled once",
    leave_the_future_open: "future not done",
    answer_in_two_ways: "future and on_delivery differ",
    write_what_failed: FALSE_NO,
    settle_late: "late",
    fail_early: "failed before its time",
    keep_memory: "pool not whole",
    keep_a_record: "pool not whole",
    refuse: "refused by send()",
    answer_with_an_earlier_time: "not of the timestamp of its metadata",
    stamp_at_another_moment: "timestamp not of the moment of send()",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_violation_is_found_with_an_example(run: Run, plant: Callable[[Run], None]) -> None:
    plant(run)
    verdict = run.check()
    kind = PLANTED[plant]
    assert not verdict.good
    assert verdict.violations[kind] == 1, verdict
    assert len(verdict.examples[kind]) == 1
    assert f"{kind}: 1\n  {verdict.examples[kind][0]}" in str(verdict)


def test_without_idempotence_duplicates_and_order_are_only_counted(run: Run) -> None:
    duplicate(run)
    reorder(run)
    verdict = replace(run.oracle, only_counted=DUPLICATED | REORDERED).check(run.sent, run.log, run.pool)
    assert verdict.good
    assert verdict.counted == {"duplicated": 1, "reordered": 1}


def test_a_failed_record_may_be_in_the_log_if_the_error_says_so(run: Run) -> None:
    fail(run.sent[20], "possibly")
    fail(run.sent[21], "possibly")
    fail(run.sent[22], "no")
    for record in (run.sent[21], run.sent[22]):
        del run.log[run.copy_of(record)]
    verdict = run.check()
    assert verdict.good, verdict
    assert (verdict.acked, verdict.failed, verdict.failed_but_written) == (197, 3, 1)


def test_what_the_machine_took_is_not_the_producers_delay(run: Run) -> None:
    settle_late(run)
    run.oracle = replace(run.oracle, lag=0.5)
    assert run.check().good


def test_a_timestamp_a_little_late_is_counted(run: Run) -> None:
    late = run.sent[20].number + 10
    run.change(run.sent[20], timestamp=late)
    run.answer(run.sent[20], timestamp=late)
    verdict = run.check()
    assert verdict.good, verdict
    assert verdict.counted == {"stamped late": 1}


def test_the_timestamp_of_a_deduplicated_batch_is_counted(run: Run) -> None:
    run.answer(run.sent[20], timestamp=12345)
    verdict = run.check()
    assert verdict.good, verdict
    assert verdict.counted == {"timestamped as the batch": 1}


def test_a_record_that_failed_and_is_there_twice_is_distinguished(run: Run) -> None:
    duplicate(run)
    fail(next(record for record in run.sent if record.value == run.log[20].value), "possibly")
    assert run.check().violations == {"duplicated, though failed": 1}


def test_an_acknowledgement_without_an_offset_is_counted(run: Run) -> None:
    run.answer(run.sent[20], offset=-1)
    verdict = run.check()
    assert verdict.good, verdict
    assert verdict.without_offset == 1


def test_a_key_may_move_when_partitions_were_added(run: Run) -> None:
    run.oracle = Oracle({"t": [PARTITIONS, 9]}, TIMEOUT)
    record = next(
        record
        for record in reversed(run.sent)
        if record.key is not None and partition_for_key(record.key, 9) != partition_for_key(record.key, PARTITIONS)
    )
    assert record.key is not None
    place = partition_for_key(record.key, 9)
    run.change(record, partition=place, offset=999)
    run.answer(record, partition=place, offset=999)
    assert run.check().good, run.check()


def test_examples_are_few(run: Run) -> None:
    run.log.clear()
    verdict = run.check()
    assert verdict.violations["lost"] == 200
    assert len(verdict.examples["lost"]) == 3
