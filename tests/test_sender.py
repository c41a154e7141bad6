"""The states of the sender thread, and the work step that application threads share with it."""

import time

import pytest

from tests.conftest import eventually
from tests.senders import Parts, Repeating

pytestmark = pytest.mark.mock


@pytest.fixture
def parts(mock_cluster, topic):
    with Parts(mock_cluster.bootstrap_servers, topic) as made:
        yield made


def test_it_polls_until_it_is_woken(parts):
    assert parts.sender.thread_state == "WORKING"
    with Repeating(parts.sender.do_poll):
        assert eventually(lambda: parts.sender.thread_state == "POLLING")
        assert eventually(lambda: parts.sender.wake() == "WAKING")
        assert eventually(lambda: parts.sender.thread_state != "WAKING")
    assert parts.sender.thread_state == "WORKING"


def test_only_a_thread_that_polls_is_woken(parts):
    assert parts.sender.wake() == "WORKING"


def test_only_a_thread_that_has_overslept_is_woken_by_the_check(parts):
    with Repeating(parts.sender.do_poll):
        assert eventually(lambda: parts.sender.thread_state == "POLLING")
        assert all(parts.sender.check_sleep(False) != "WAKING" for _ in range(100))
        assert eventually(lambda: parts.sender.check_sleep(True) == "WAKING")


def test_it_yields_while_an_application_assists(parts):
    def assisted():
        parts.sender.do_assist()
        parts.sender.do_yield()

    with Repeating(assisted):
        assert eventually(lambda: parts.sender.thread_state == "YIELDING")
    assert parts.sender.thread_state == "WORKING"


def test_it_ends_once_everything_has_settled(parts):
    parts.put(b"value")
    parts.sender.stop()
    parts.sender.do_poll()
    assert parts.sender.thread_state == "WORKING"
    assert eventually(lambda: parts.sender.do_step() or parts.sender.delivered)
    while parts.sender.thread_state != "ENDED":
        parts.sender.do_poll()
    assert parts.sender.delivered == 1
    assert parts.sender.wake() == "ENDED"


def test_a_step_submits_and_collects(parts):
    assert eventually(lambda: not parts.sender.do_step())  # lines of librdkafka's log are events too
    parts.put(b"value")
    assert parts.sender.do_step()
    assert eventually(lambda: parts.sender.do_step() and parts.sender.delivered == 1)
    assert eventually(lambda: not parts.sender.do_step())


def test_an_assisting_thread_submits_but_leaves_reports_to_a_thread_that_polls(parts):
    parts.put(b"value")
    with Repeating(parts.sender.do_poll):
        assert eventually(lambda: parts.sender.thread_state == "POLLING")
        parts.sender.do_assist()
        assert eventually(lambda: parts.sender.delivered == 1)


@pytest.mark.parametrize("state", ["POLLING", "WAKING"])
def test_no_other_thread_collects_reports_while_the_sender_thread_may_have_an_event(parts, state):
    for value in (b"one", b"two"):  # a lone record's future would not wait for its report
        parts.put(value)
    parts.sender.do_step()
    parts.sender.pretend(state)
    deadline = time.monotonic() + 0.5  # by then the report has come
    while time.monotonic() < deadline:
        parts.sender.do_assist()
        assert parts.sender.delivered == 0
    parts.sender.pretend("WORKING")
    assert eventually(lambda: parts.sender.do_step() and parts.sender.delivered == 2)
