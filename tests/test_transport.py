"""Transport: what is handed over to librdkafka is reported exactly once, and what replaces a librdkafka producer."""

import threading
import time

import pytest

from fastprod_core_access import ManualMetadataRequests
from tests.conftest import eventually, pausing
from tests.transports import now_ms, outcomes, serve

pytestmark = pytest.mark.mock
TOO_LARGE, PURGED_QUEUE, PURGED_IN_FLIGHT = 10, -152, -151
LONG_AGO = 1_600_000_000_000  # ms


def test_both_calls_of_librdkafka_keep_the_order(make_transport, topic, read):
    transport = make_transport(enable_idempotence="true")
    values = [b"%d" % i for i in range(1000)]
    transport.hand(values, now_ms(), timed=[i // 3 % 2 == 0 for i in range(1000)])
    serve(transport, 1000)
    assert [message.value() for message in read(topic, 1000)] == values


def test_a_record_of_another_time_keeps_it(make_transport, topic, read):
    transport = make_transport()
    transport.hand([b"v"], LONG_AGO)  # produce_batch would stamp it with the present
    serve(transport, 1)
    assert read(topic, 1)[0].timestamp()[1] == LONG_AGO


@pytest.mark.parametrize("timed", [False, True])
def test_a_record_that_librdkafka_refuses_is_reported_at_once(make_transport, timed):
    transport = make_transport(message_max_bytes="1000")
    transport.hand([b"small", bytes(2000), b"small"], now_ms(), timed=timed)
    assert transport.reports == [(0, 1, 1, TOO_LARGE, -1)]
    serve(transport, 3)
    assert outcomes(transport) == {(0, 0): (0, 0), (0, 1): (TOO_LARGE, -1), (0, 2): (0, 1)}


def test_only_a_record_that_is_alone_in_its_batch_is_reported_early(make_transport):
    transport = make_transport()
    transport.hand([b"a", b"b"], now_ms())
    serve(transport, 2)
    assert transport.early_reports == 0
    transport.hand([b"alone"], now_ms())
    serve(transport, 3)
    assert transport.early_reports == 1


def test_a_wake_ends_the_wait_for_an_event_or_the_next_one(make_transport, cluster):
    transport = make_transport(cluster.bootstrap_servers, log_level="0")
    assert eventually(lambda: not transport.serve_one(0))
    transport.do_wake()
    began = time.monotonic()
    assert not transport.serve_one(30_000)
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(transport.serve_one(30_000)))
    waiting.start()
    transport.do_wake()
    waiting.join(20)
    assert ended == [False] and time.monotonic() - began < 20


def test_what_is_purged_is_reported(make_transport, cluster):
    transport = make_transport(cluster.bootstrap_servers, "t", linger_ms="0")
    transport.hand([b"v"], now_ms())
    serve(transport, 1)
    with pausing(cluster):
        transport.hand([b"in flight"], now_ms())
        assert eventually(lambda: transport.produce_requests == 2)
        transport.do_purge()
        serve(transport, 2)
    assert {code for _, _, _, code, _ in transport.reports[1:]} == {PURGED_IN_FLIGHT}


def test_a_record_without_a_broker_is_purged_from_the_queue(make_transport):
    transport = make_transport("127.0.0.1:1", log_level="0")
    transport.hand([b"v"], now_ms())
    transport.do_purge()
    serve(transport, 1)
    assert outcomes(transport) == {(0, 0): (PURGED_QUEUE, -1)}


def test_the_next_librdkafka_producer_takes_over_and_the_former_still_reports(make_transport, cluster):
    transport = make_transport(cluster.bootstrap_servers, "t", linger_ms="0")
    with pausing(cluster):
        transport.hand([b"former"], now_ms())
    assert ManualMetadataRequests(transport).do_prepare(["t"]) == 0
    assert transport.number == 1
    transport.do_switch_over()
    assert transport.number == 2
    transport.open("t")
    transport.hand([b"current"], now_ms())

    def both_reported():
        transport.serve_one(10)
        transport.serve_retired(10)
        return transport.reported == 2

    assert eventually(both_reported)
    assert sorted(outcomes(transport).values()) == [(0, 0), (0, 1)]
    assert transport.end_retired()
    assert not transport.end_retired()


def test_a_transport_can_be_closed_twice_and_after_a_switch(make_transport):
    transport = make_transport()
    assert ManualMetadataRequests(transport).do_prepare([]) == 0
    transport.do_switch_over()
    transport.close()
    transport.close()
