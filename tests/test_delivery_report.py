"""next_report(): consecutive records of a batch become one report."""

import pytest

from tests.transports import now_ms, outcomes, serve

pytestmark = pytest.mark.mock
TOO_LARGE = 10


def test_each_record_is_reported_once_with_its_offset(make_transport):
    transport = make_transport()
    for number in range(3):
        assert transport.hand([b"%d" % i for i in range(1000)], now_ms()) == number
    serve(transport, 3000)
    assert outcomes(transport) == {(n, i): (0, 1000 * n + i) for n in range(3) for i in range(1000)}
    assert len(transport.reports) < 100  # consecutive records together


def test_without_acknowledgements_there_are_no_offsets(make_transport):
    transport = make_transport(acks="0")
    transport.hand([b"a", b"b"], now_ms())
    serve(transport, 2)
    assert outcomes(transport) == {(0, 0): (0, -1), (0, 1): (0, -1)}


def test_without_acknowledgements_no_number_of_librdkafkas_is_taken_for_an_offset(make_transport):
    transport = make_transport(acks="0")
    transport.hand([b"v"] * 3000, now_ms())
    serve(transport, 3000)
    assert {offset for _, _, _, _, offset in transport.reports} == {-1}
    assert len(transport.reports) < 100


def test_a_report_ends_where_a_record_is_missing(make_transport):
    transport = make_transport(message_max_bytes="1000")
    transport.hand([b"a", b"b", bytes(2000), b"c"], now_ms())
    serve(transport, 4)
    assert transport.reports == [(0, 2, 1, TOO_LARGE, -1), (0, 0, 2, 0, 0), (0, 3, 1, 0, 2)]


def test_a_report_holds_records_of_one_batch(make_transport):
    transport = make_transport(linger_ms="50")  # both in one request
    for _ in range(2):
        transport.hand([b"a", b"b"], now_ms())
    serve(transport, 4)
    assert transport.reports == [(0, 0, 2, 0, 0), (1, 0, 2, 0, 2)]


def test_a_timestamp_is_reported_if_librdkafka_gave_it(make_transport):
    began = now_ms()
    transport = make_transport(acks="0")  # else the mock broker gives one
    transport.hand([b"a", b"b", b"c", b"d"], now_ms(), timed=[False, False, True, True])
    serve(transport, 4)
    assert [report[:3] for report in transport.reports] == [(0, 0, 2), (0, 2, 2)]
    given, own = transport.timestamps
    assert began <= given <= now_ms() and own == -1
