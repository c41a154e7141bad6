"""ProduceRequestResult: outcomes of records, which of them the program has observed, callbacks, and waiting for it."""

import os
import threading
import time

import pytest

from fastprod import DeliveryError
from fastprod.internals.produce_request_result import wait_deadline
from fastprod_core_access import RESULTS_PER_SLAB, Flag, ManualPool, Result
from tests.conftest import shown

INVALID_RECORD, TIMED_OUT = 87, -192
CALLBACK_COST = 256  # bytes of buffer.memory


def outcomes(result, count):
    return [result.outcome(i) for i in range(count)]


# Outcomes


def test_records_that_were_delivered_one_after_the_other_share_an_entry():
    result = Result()
    result.record(0, 3, offset=100)
    result.record(3, 2, offset=103)
    assert result.segments == 1
    assert outcomes(result, 5) == [(0, 100), (0, 101), (0, 102), (0, 103), (0, 104)]


@pytest.mark.parametrize(
    "second",
    [
        {"offset": 200},
        {"offset": -1},
        {"code": INVALID_RECORD},
        {"offset": 102, "timestamp": 5},
    ],
    ids=["another request", "no offset", "failed", "another timestamp"],
)
def test_records_with_another_outcome_have_an_entry_of_their_own(second):
    result = Result()
    result.record(0, 2, offset=100)
    result.record(2, 1, **second)
    assert result.segments == 2
    assert outcomes(result, 3) == [(0, 100), (0, 101), (second.get("code", 0), second.get("offset", -1))]


def test_records_without_an_offset_share_an_entry():
    result = Result()
    result.record(0, 2)
    result.record(2, 2)
    assert result.segments == 1
    assert outcomes(result, 4) == [(0, -1)] * 4


def test_records_may_be_reported_in_any_order(rng):
    result, count = Result(), 200
    expected = [(INVALID_RECORD, -1) if rng.random() < 0.3 else (0, 1000 + i) for i in range(count)]
    for i in rng.sample(range(count), count):
        code, offset = expected[i]
        result.record(i, 1, code=code, offset=offset)
    assert outcomes(result, count) == expected


def test_the_errors_of_a_record_are_equal_and_not_the_same():
    result = Result(partition=3)
    result.record(0, 1, offset=0)
    result.record(1, 1, code=INVALID_RECORD)
    assert result.error(0) is None
    first, second = result.error(1), result.error(1)
    assert type(first) is DeliveryError and first is not second
    assert (first.code, first.topic, first.partition, first.persisted) == (INVALID_RECORD, "t", 3, "no")
    assert str(first) == str(second)


# What the program has observed


def failing(count=3):
    result = Result()
    result.record(0, count, code=TIMED_OUT)
    return result


def test_failures_that_nobody_has_asked_for_are_counted_when_the_batch_completes():
    result = failing(3)
    result.observe(1)
    result.complete(3)
    assert result.unobserved == 2


def test_a_failure_that_is_observed_later_is_subtracted_once():
    result = failing(3)
    result.complete(3)
    for index, left in ((0, 2), (0, 2), (2, 1)):
        result.observe(index)
        assert result.unobserved == left
    result.observe_all()
    result.observe(1)
    assert result.unobserved == 0


def test_only_failures_are_counted():
    result = Result()
    result.record(0, 2, offset=0)
    result.record(2, 1, code=TIMED_OUT)
    result.complete(3)
    result.observe(0)
    assert result.unobserved == 1


@pytest.mark.parametrize(("kind", "left"), [("on_delivery", 0), ("done_callback", 0), ("on_acknowledgement", 1)])
def test_a_callback_observes_the_outcome_and_an_interceptor_does_not(kind, left):
    result = failing(1)
    assert result.add_callback(0, kind)
    assert result.complete(1) == 1
    assert result.unobserved == left


# Callbacks


def test_callbacks_take_memory_for_two_at_first_and_then_for_a_quarter_more():
    pool = ManualPool(1 << 20, 1 << 10)
    result = Result(pool=pool)
    taken = []
    for _ in range(20):
        assert result.add_callback(0)
        taken.append((pool.total_memory - pool.available_memory) // CALLBACK_COST)
    assert taken == [2, 2, 4, 4, 7, 7, 7, 10, 10, 10, 14, 14, 14, 14, 19, 19, 19, 19, 19, 25]


def test_a_callback_without_memory_is_added_only_if_it_is_forced():
    pool = ManualPool(3 * CALLBACK_COST, 1 << 10)
    result = Result(pool=pool)
    assert [result.add_callback(0) for _ in range(3)] == [True, True, False]
    assert result.add_callback(0, forced=True)
    assert result.complete(1) == 3


def test_a_batch_that_is_complete_takes_no_callback():
    pool = ManualPool(1 << 20, 1 << 10)
    result = Result(pool=pool)
    result.complete(1)
    assert not result.add_callback(0, forced=True)
    assert pool.available_memory == pool.total_memory


# Waiting


def test_a_wait_ends_when_the_batch_completes():
    for _ in range(50):  # mostly the thread waits already
        result, done = Result(), []
        waiting = threading.Thread(target=lambda result=result, done=done: done.append(result.wait(wait_deadline(20))))
        waiting.start()
        time.sleep(0)  # lets the thread run
        result.complete(1)
        completed = wait_deadline(0)
        waiting.join(20)
        assert done == [True] and wait_deadline(0) < completed + 10_000_000_000


def test_a_wait_ends_at_its_deadline():
    result = Result()
    assert not result.wait(0)
    assert not result.wait(wait_deadline(0.01))
    result.complete(1)
    assert result.wait(0)


def test_a_batch_that_completes_ends_no_wait_for_something_else():
    flag, done = Flag(), []
    waiting = threading.Thread(target=lambda: done.append(flag.wait(wait_deadline(60))))
    waiting.start()
    for _ in range(1000):
        Result().complete(1)
        time.sleep(0)  # lets the other thread run
    assert done == []
    flag.set()
    waiting.join(20)
    assert done == [True]


# Memory and forks


def test_the_memory_of_a_result_is_used_again():
    kept, addresses = Result(), set()  # kept: its slab stays
    for _ in range(1000):
        addresses.add(Result().address)
    assert RESULTS_PER_SLAB == 1 or len(addresses) == 1 and kept.address not in addresses


def test_a_forked_child_leaves_the_results_of_its_parent_alone():
    inherited = [Result() for _ in range(100)]
    addresses = {result.address for result in inherited}
    process = os.fork()
    if process == 0:
        inherited.clear()  # gives nothing back to the parent's slabs
        made = {result.address for result in [Result() for _ in range(1000)]}
        os._exit(bool(made & addresses))
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0


FOR_EVER = (1 << 63) - 1


def test_no_timeout_is_for_ever():
    assert wait_deadline(None) == FOR_EVER


@pytest.mark.parametrize("timeout", [1e300, float("inf"), 1 << 64])
def test_a_long_timeout_does_not_overflow(timeout):
    assert wait_deadline(0) + 10**17 < wait_deadline(timeout) <= FOR_EVER


def test_a_timeout_is_seconds():
    before = wait_deadline(0)
    assert wait_deadline(2) >= before + 2_000_000_000
    assert wait_deadline(0.5) < wait_deadline(100) <= wait_deadline(0) + 100_000_000_000


@pytest.mark.parametrize("timeout", [True, "1", b"1", [], object()], ids=shown)
def test_a_timeout_of_the_wrong_kind(timeout):
    with pytest.raises(TypeError, match="timeout must be seconds or None"):
        wait_deadline(timeout)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("-inf")])
def test_a_timeout_that_is_none(timeout):
    with pytest.raises(ValueError, match="0 or more seconds"):
        wait_deadline(timeout)
