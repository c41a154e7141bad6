"""ProduceRequests: which records librdkafka gets, and what becomes of those that it refuses."""

import pytest

from fastprod.internals.in_flight_partition import first_phase
from tests.senders import NOBODY, Parts

SMALL = {"log_level": "0", "message.max.bytes": "1000"}


def test_a_record_that_librdkafka_refuses_fails_and_the_rest_of_its_batch_is_submitted():
    with Parts(NOBODY, "t", properties=SMALL) as parts:
        parts.submit(b"a", bytes(2000), b"b")
        assert (parts.sender.failed, parts.accumulator.outstanding("t", 0)) == (1, 2)


def test_a_batch_that_is_refused_as_a_whole_leaves_nothing_in_transit():
    with Parts(NOBODY, "t", properties=SMALL) as parts:
        parts.submit(bytes(2000), bytes(3000))
        assert (parts.sender.failed, parts.sender.in_transit, parts.accumulator.unsettled_records) == (2, 0, 0)


def test_a_batch_whose_time_is_over_fails_without_being_submitted():
    with Parts(NOBODY, "t", properties=SMALL, delivery_timeout_ms=1000) as parts:
        parts.submit(b"late", seconds_ago=2)
        assert (parts.sender.failed, parts.sender.in_transit) == (1, 0)
        parts.submit(b"in time")
        assert (parts.sender.failed, parts.sender.in_transit) == (1, 1)


@pytest.mark.parametrize(("ordered", "submitted"), [(False, 2), (True, 1)], ids=["unordered", "ordered"])
def test_only_where_the_order_lasts_a_batch_waits_for_the_one_before(ordered, submitted):
    with Parts(NOBODY, "t", properties=SMALL, ordered=ordered) as parts:
        parts.submit(b"first")
        parts.submit(b"second")
        assert (parts.sender.in_transit, parts.accumulator.outstanding("t", 0)) == (2, submitted)


@pytest.mark.parametrize(
    ("limits", "submitted"),
    [({}, 10), ({"batch.num.messages": "4"}, 4), ({"batch.size": "1000"}, 2), ({"message.max.bytes": "1000"}, 2)],
    ids=str,
)
def test_where_the_order_lasts_a_submission_fits_into_one_request(limits, submitted):
    with Parts(NOBODY, "t", properties=SMALL, ordered=True, limits=limits) as parts:
        parts.submit(*[b"v" * 100] * 10)
        assert parts.accumulator.outstanding("t", 0) == submitted


@pytest.mark.mock
@pytest.mark.parametrize(("idempotent", "submitted"), [(True, 1), (False, 3)], ids=["idempotent", "not"])
def test_only_an_idempotent_producer_starts_a_partition_with_a_single_record(
    mock_cluster, topic, idempotent, submitted
):
    phase = first_phase("all", idempotent)
    with Parts(mock_cluster.bootstrap_servers, topic, ordered=True, idempotent=True, first_phase=phase) as parts:
        parts.submit(b"a", b"b", b"c")
        assert parts.accumulator.outstanding(topic, 0) == submitted
        assert parts.step_until(lambda: parts.sender.delivered == 3)
