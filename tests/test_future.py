"""FutureRecordMetadata without a producer: where it does not come from, and what a timeout may be."""

import pytest

from fastprod import FutureRecordMetadata
from fastprod.internals.produce_request_result import wait_deadline
from tests.conftest import shown

FOR_EVER = (1 << 63) - 1


def test_a_future_comes_from_send_only():
    with pytest.raises(TypeError, match=r"Producer\.send"):
        FutureRecordMetadata()
    with pytest.raises(TypeError):
        FutureRecordMetadata(1, 2, topic="t")


def test_the_class_is_final():
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (FutureRecordMetadata,), {})


def test_get_is_result():
    assert FutureRecordMetadata.get is FutureRecordMetadata.__dict__["result"]


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


@pytest.mark.parametrize(
    "ask",
    [
        lambda future: future.result(0),
        lambda future: future.exception(0),
        lambda future: future.done(),
        lambda future: future.add_done_callback(print),
        lambda future: next(future.__await__()),
        repr,
    ],
)
def test_a_future_that_no_send_made_is_an_error_and_no_crash(ask):
    with pytest.raises(TypeError, match="comes from Producer.send"):
        ask(FutureRecordMetadata.__new__(FutureRecordMetadata))
