"""What librdkafka has of one partition: its phases, and the records that are submitted again."""

import pytest

from fastprod.internals.in_flight_partition import first_phase
from fastprod_core_access import PHASES, InFlight

TOO_LARGE, PURGED, FIRST_REQUEST_BYTES = 10, -152, 700_000


def refused(phase, size=100, count=10):
    """A partition in this phase whose broker has refused a request as too large."""
    flight = InFlight(phase)
    batch = flight.add(count, size)
    flight.submit(batch, count)
    assert flight.refuse(batch, 0, count, TOO_LARGE)
    return flight, batch


def splitting():
    flight, batch = refused("STEADY")
    flight.rewind()
    return flight, batch


@pytest.mark.parametrize(
    ("acks", "idempotent", "phase"),
    [("all", True, "FIRST_RECORD"), ("all", False, "FIRST_REQUEST"), ("1", False, "FIRST_REQUEST")]
    + [("0", False, "STEADY")],
)
def test_the_first_phase_follows_from_acks_and_idempotence(acks, idempotent, phase):
    assert first_phase(acks, idempotent) == PHASES[phase]


@pytest.mark.parametrize(
    ("phase", "limit"), [("FIRST_RECORD", 1), ("FIRST_REQUEST", FIRST_REQUEST_BYTES), ("STEADY", 0)]
)
def test_each_phase_has_its_limit(phase, limit):
    assert InFlight(phase).limit == limit


@pytest.mark.parametrize(
    ("phase", "next_phase", "changed"),
    [("FIRST_RECORD", "FIRST_REQUEST", True), ("FIRST_REQUEST", "STEADY", True), ("STEADY", "STEADY", False)],
)
def test_a_delivery_ends_a_first_phase(phase, next_phase, changed):
    flight = InFlight(phase)
    batch = flight.add(1)
    flight.submit(batch, 1)
    assert flight.deliver(batch, 1) == changed
    assert flight.phase == next_phase


@pytest.mark.parametrize("phase", ["FIRST_RECORD", "FIRST_REQUEST"])
def test_a_first_phase_lasts_while_records_are_outstanding(phase):
    flight = InFlight(phase)
    batch = flight.add(3)
    flight.submit(batch, 3)
    assert not flight.deliver(batch, 2)
    assert flight.phase == phase and flight.outstanding == 1
    assert flight.deliver(batch, 1)
    assert flight.phase != phase


@pytest.mark.parametrize("phase", ["FIRST_REQUEST", "STEADY"])
def test_a_request_that_was_too_large_is_split_in_halves(phase):
    flight, batch = refused(phase)
    assert (flight.phase, flight.limit) == ("SPLITTING", FIRST_REQUEST_BYTES)
    assert flight.first_refused == batch and not flight.is_reported(batch)
    assert flight.rewind()
    assert 500 < flight.limit < 1000  # half of ten records of 100 bytes
    assert (flight.next_to_submit, flight.first_refused, flight.submitted(batch)) == (batch, None, 0)


def test_each_refusal_halves_the_limit_down_to_a_byte():
    flight, batch = splitting()
    limits = [flight.limit]
    while flight.limit > 1:
        flight.submit(batch, 10)
        assert flight.refuse(batch, 0, 10, TOO_LARGE)
        assert flight.rewind()
        limits.append(flight.limit)
    assert limits[1:] == [max(limit // 2, 1) for limit in limits[:-1]]


def test_splitting_lasts():
    flight, batch = splitting()
    limit = flight.limit
    flight.submit(batch, 10)
    assert not flight.deliver(batch, 10)
    assert not flight.restart("FIRST_RECORD")
    assert (flight.phase, flight.limit) == ("SPLITTING", limit)


@pytest.mark.parametrize("phase", ["FIRST_RECORD", "FIRST_REQUEST", "STEADY"])
def test_another_librdkafka_producer_begins_with_the_first_phase(phase):
    flight = InFlight(phase)
    assert flight.restart("FIRST_RECORD")
    assert flight.phase == "FIRST_RECORD"


def test_records_that_a_retired_producer_gave_back_do_not_change_the_phase():
    flight = InFlight("STEADY")
    batch = flight.add(2)
    flight.submit(batch, 2)
    assert flight.refuse(batch, 0, 2, PURGED)
    assert not flight.rewind()
    assert (flight.phase, flight.submitted(batch)) == ("STEADY", 0)


def test_refused_records_of_several_batches_are_submitted_again_in_order():
    flight = InFlight("STEADY")
    first, second, third = (flight.add(4) for _ in range(3))
    for batch in (first, second):
        flight.submit(batch, 4)
    assert not flight.deliver(first, 1)
    assert flight.refuse(first, 1, 2, TOO_LARGE) and flight.refuse(first, 3, 1, TOO_LARGE)
    assert flight.refuse(second, 0, 4, TOO_LARGE)
    assert flight.first_refused == first and flight.outstanding == 0
    flight.rewind()
    assert [flight.submitted(batch) for batch in (first, second, third)] == [1, 0, 0]
    assert flight.next_to_submit == first


def test_only_records_that_continue_the_refused_ones_are_kept():
    flight = InFlight("STEADY")
    batch = flight.add(10)
    flight.submit(batch, 10)
    assert flight.refuse(batch, 0, 2, TOO_LARGE)
    assert not flight.refuse(batch, 2, 1, PURGED)  # for another reason
    assert not flight.refuse(batch, 3, 1, TOO_LARGE)  # one in between is missing
    assert flight.outstanding == 6


def test_a_batch_that_fails_leaves_the_refused_ones_behind_it():
    flight = InFlight("STEADY")
    first, second = flight.add(1), flight.add(1)
    for batch in (first, second):
        flight.submit(batch, 1)
        assert flight.refuse(batch, 0, 1, TOO_LARGE)
    flight.drop_retry(first)
    assert flight.first_refused == second and flight.is_reported(first)
    flight.drop_retry(second)
    assert flight.first_refused is None


def test_a_request_is_a_single_record_only_with_nothing_else_outstanding():
    flight = InFlight("STEADY")
    batch = flight.add(3)
    flight.submit(batch, 1)
    assert flight.single_record_request
    flight.submit(batch, 1)
    assert not flight.single_record_request and flight.outstanding == 2


def test_batches_are_in_transit_until_they_are_removed():
    flight = InFlight("STEADY")
    first, second, third = (flight.add(2) for _ in range(3))
    assert flight.in_transit == [first, second, third] and flight.next_to_submit == first
    flight.remove(first)  # it expired before its turn
    assert flight.in_transit == [second, third] and flight.next_to_submit == second
    flight.remove(third)
    flight.remove(second)
    assert flight.in_transit == [] and flight.next_to_submit is None


@pytest.mark.parametrize(("limit", "exceeds"), [(4, True), (5, False), (6, False)])
def test_records_that_wait_for_submission_are_counted_from_the_first(limit, exceeds):
    flight = InFlight("STEADY")
    first, _ = flight.add(4), flight.add(3)
    flight.submit(first, 2)
    assert flight.unsubmitted_exceed(limit) == exceeds
