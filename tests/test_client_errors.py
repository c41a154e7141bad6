"""ClientErrors: which error events count, and the fatal error."""

import pytest

from fastprod.internals.produce_request_result import wait_deadline
from fastprod_core_access import ManualClientErrors

TRANSPORT, ALL_BROKERS_DOWN, SSL, FENCED = -195, -187, -181, -144
NONE = (0, "")


@pytest.fixture
def errors():
    return ManualClientErrors()


def now():
    """Monotonic, in nanoseconds."""
    return wait_deadline(0)


def test_at_first_there_is_none(errors):
    assert errors.last_error(0) == NONE
    assert (errors.fatal, errors.fatal_reason, errors.refused_certificate) == (0, "", 0)


def test_the_newest_error_counts_if_it_is_recent_enough(errors):
    errors.add(TRANSPORT, b"broker 1: Connection refused")
    before = now()
    errors.add(SSL, b"broker 2: handshake failed")
    assert errors.last_error(before) == (SSL, "broker 2: handshake failed")
    assert errors.last_error(now()) == NONE


def test_that_all_brokers_are_down_does_not_hide_the_cause(errors):
    errors.add(TRANSPORT, b"broker 1: Connection refused")
    errors.add(ALL_BROKERS_DOWN, b"2/2 brokers are down")
    assert errors.last_error(0) == (TRANSPORT, "broker 1: Connection refused")


def test_if_no_cause_is_known_the_advice_is_to_check_security_protocol(errors):
    errors.add(TRANSPORT, b"an old error")
    before = now()
    errors.add(ALL_BROKERS_DOWN, b"2/2 brokers are down")
    code, text = errors.last_error(before)
    assert code == ALL_BROKERS_DOWN and text.endswith("check security.protocol")


def test_a_broken_pipe_is_no_cause(errors):
    errors.add(SSL, b"handshake failed")
    errors.add(TRANSPORT, b"broker 1: Send failed: Broken pipe")
    assert errors.last_error(0) == (SSL, "handshake failed")


def test_the_end_of_a_handshake_does_not_hide_that_the_port_is_plaintext(errors):
    advice = b"SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"
    errors.add(SSL, advice)
    before = now()
    errors.add(TRANSPORT, b"Disconnected (after 1ms in state SSL_HANDSHAKE)")
    assert errors.last_error(before) == (TRANSPORT, advice.decode())
    errors.add(TRANSPORT, b"Disconnected (after 1ms in state UP)")
    assert errors.last_error(before) == (TRANSPORT, "Disconnected (after 1ms in state UP)")


@pytest.mark.parametrize("fatal", [False, True])
def test_a_long_text_is_cut_off(errors, fatal):
    errors.add(SSL, b"x" * 5000, fatal)
    assert errors.last_error(0) == (SSL, "x" * 511)
    assert errors.fatal_reason == "x" * 511 * fatal


def test_a_text_that_is_not_utf_8_is_readable(errors):
    errors.add(SSL, b"caf\xe9", True)
    assert errors.last_error(0) == (SSL, "caf\ufffd")
    assert errors.fatal_reason == "caf\ufffd"


def test_a_fatal_error_stays(errors):
    errors.add(FENCED, b"Fatal error: Broker: Producer fenced", True)
    errors.add(TRANSPORT, b"broker 1: Connection refused")
    assert (errors.fatal, errors.fatal_reason) == (FENCED, "Broker: Producer fenced")
