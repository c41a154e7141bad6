"""A schedule is its seed's: the same everywhere, and within the bounds in which acknowledged data must survive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_bench.schedule import KILL, MIN_FAULTS, MIN_RECORDS, STOP, draw

SEEDS = range(400)
ROOT = Path(__file__).parents[2]


def test_a_seed_has_one_schedule_in_every_process() -> None:
    code = "from tests.fault_bench.schedule import draw; print(draw(7)); print(draw(8, '1'))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == f"{draw(7)}\n{draw(8, '1')}\n"
    assert draw(7) == draw(7)


def test_seeds_and_acks_differ() -> None:
    schedules = [draw(seed) for seed in SEEDS]
    assert len({str(schedule) for schedule in schedules}) == len(SEEDS)
    assert draw(7).faults != draw(7, "1").faults


def test_each_is_large_enough_and_within_its_bounds() -> None:
    for seed in SEEDS:
        for acks in ("all", "1"):
            schedule = draw(seed, acks)
            assert schedule.records >= MIN_RECORDS
            assert len(schedule.faults) >= MIN_FAULTS
            assert 1 <= schedule.threads <= 8
            assert 2 <= schedule.partitions <= 64
            assert [f.at for f in schedule.faults] == sorted(f.at for f in schedule.faults)
            assert all(0 <= f.at < schedule.seconds for f in schedule.faults)


def test_no_more_than_one_broker_is_down_at_a_time() -> None:
    for seed in SEEDS:
        kinds = [fault.kind for fault in draw(seed).faults]
        assert kinds.count(KILL) <= 1
        assert not (KILL in kinds and STOP in kinds)
        assert kinds.count("grow") <= 1


def test_with_acks_1_no_leader_is_taken_from_its_records() -> None:
    for seed in SEEDS:
        assert not {fault.kind for fault in draw(seed, "1").faults} & {KILL, STOP, "move"}


@pytest.mark.parametrize("kind", [KILL, STOP, "move", "storm", "lose", "stall", "slow", "throttle", "cut", "grow"])
def test_every_kind_of_fault_is_drawn_and_reads_as_words(kind: str) -> None:
    found = [fault for seed in SEEDS for fault in draw(seed).faults if fault.kind == kind]
    assert len(found) >= len(SEEDS) // 10
    assert str(found[0]).startswith(f"{found[0].at:5.2f} s  ")


def test_every_codec_and_number_of_threads_is_drawn() -> None:
    schedules = [draw(seed) for seed in SEEDS]
    codecs = {schedule.producer.get("compression.type", "none") for schedule in schedules}
    assert codecs == {"none", "gzip", "snappy", "lz4", "zstd"}
    assert {schedule.threads for schedule in schedules} == set(range(1, 9))
    assert {min(schedule.partitions for schedule in schedules), max(s.partitions for s in schedules)} == {2, 64}


def test_delivery_timeouts_leave_room_for_linger_and_a_request() -> None:
    for seed in SEEDS:
        options = draw(seed).producer
        if "delivery.timeout.ms" in options:
            linger, request = int(options.get("linger.ms", 0)), int(options["request.timeout.ms"])
            assert int(options["delivery.timeout.ms"]) >= linger + request
