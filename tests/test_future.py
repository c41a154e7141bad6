"""FutureRecordMetadata without a producer: where it does not come from, and what a timeout may be."""

import pytest

from fastprod import FutureRecordMetadata


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
