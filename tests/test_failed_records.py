"""Failures that the program has not observed: what flush() and close() get of them, and how much memory they take."""

import pytest

from fastprod import DeliveryError
from fastprod.internals import failed_records
from fastprod_core_access import FailedBatches

INVALID_RECORD, TIMED_OUT, TOO_LARGE = 87, -192, 10


def values(taken):
    return [record.value for record in taken[2]]


def test_failures_are_taken_once_in_the_order_in_which_their_batches_failed():
    failed = FailedBatches()
    failed.keep([b"a", b"b"])
    failed.keep([b"c"], topic="u", codes=[TIMED_OUT])
    count, reasons, records, kinds = taken = failed.take()
    assert (count, values(taken)) == (3, [b"a", b"b", b"c"])
    assert [record.topic for record in records] == ["t", "t", "u"]
    assert sorted(reasons.values()) == [1, 2]
    assert kinds == {(INVALID_RECORD, "no"), (TIMED_OUT, "no")}
    assert failed.take() == (0, {}, [], set())
    assert failed.bytes == 0


def test_delivered_and_observed_records_are_left_out():
    failed = FailedBatches()
    number = failed.keep([b"a", b"b", b"c"], codes=[INVALID_RECORD, 0, INVALID_RECORD])
    failed.observe(number, 0)
    assert values(failed.take()) == [b"c"]


def test_observed_batches_at_the_front_are_freed_when_the_next_one_fails():
    failed = FailedBatches()
    first, second = failed.keep([bytes(100)]), failed.keep([bytes(200)])
    both = failed.bytes
    failed.observe(second, 0)
    failed.keep([b""])
    assert failed.bytes > both  # the first is in front of it
    failed.observe(first, 0)
    failed.keep([b""])
    assert failed.bytes < 100
    assert values(failed.take()) == [b"", b""]


def test_past_the_limit_only_the_outcomes_are_kept():
    failed = FailedBatches(limit=250)
    failed.keep([bytes(200)])
    failed.keep([bytes(200)])
    failed.keep([b"small"])
    count, reasons, *_ = taken = failed.take()
    assert count == sum(reasons.values()) == 3
    assert values(taken) == [bytes(200), b"small"]


def test_a_batch_without_records_is_counted_with_its_reasons():
    failed = FailedBatches()
    failed.keep([b"a", b"b"], codes=[TOO_LARGE, INVALID_RECORD], with_records=False)
    count, reasons, records, kinds = failed.take()
    assert (count, len(reasons), records) == (2, 2, [])
    assert kinds == {(TOO_LARGE, "no"), (INVALID_RECORD, "no")}


def test_a_take_that_is_interrupted_leaves_everything_to_the_next(monkeypatch):
    failed = FailedBatches()

    def interrupted(*arguments):
        failed.keep([b"meanwhile"])
        raise KeyboardInterrupt

    failed.keep([b"a"])
    failed.keep([b"b"])
    size = failed.bytes
    with monkeypatch.context() as patched:
        patched.setattr(failed_records, "ProducerRecord", interrupted)
        with pytest.raises(KeyboardInterrupt):
            failed.take()
    assert failed.bytes > size
    assert values(failed.take()) == [b"a", b"b", b"meanwhile"]


def test_discarded_failures_are_not_taken():
    failed = FailedBatches()
    failed.keep([b"a"])
    failed.discard()
    assert failed.bytes == 0
    assert failed.take() == (0, {}, [], set())


def test_all_failures_are_raised_once_the_most_frequent_reason_first():
    failed = FailedBatches()
    failed.keep([b"a"], codes=[TOO_LARGE])
    failed.keep([b"b", b"c"])
    with pytest.raises(
        DeliveryError, match=r"^late; 3 records failed, .*: 2 x .*; 1 x .*; they are in \.records\."
    ) as caught:
        failed.raise_all("late; ")
    assert [record.value for record in caught.value.records] == [b"a", b"b", b"c"]
    failed.raise_all()


def test_the_error_says_how_many_records_it_holds_if_some_are_not_kept():
    failed = FailedBatches()
    failed.keep([b"a", b"b"], with_records=False)
    failed.keep([b"c"])
    with pytest.raises(DeliveryError, match=r"3 records failed, .*; 1 of them, as many as fit into a quarter of"):
        failed.raise_all()


def test_close_raises_for_records_that_it_failed_though_each_failure_was_observed():
    with pytest.raises(DeliveryError, match="^gave up 2; their futures and callbacks carry the errors$") as caught:
        FailedBatches().raise_all("gave up 2; ")
    assert caught.value.count == 0
