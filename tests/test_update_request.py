"""UpdateRequest: what the metadata thread is asked for, and how it waits for that."""

import threading

import pytest

from fastprod_core_access import ManualUpdateRequest

LONG_S = 60


@pytest.fixture
def update():
    return ManualUpdateRequest()


@pytest.fixture
def waiter(update):
    """A thread that waits for a request; it appends what it gets."""
    found = []
    thread = threading.Thread(target=lambda: found.append(update.wait(LONG_S)))
    thread.start()
    yield found, thread
    update.end()
    thread.join(LONG_S)


def test_requests_before_the_thread_looks_are_one(update):
    update.ask("AWAITED")
    update.ask("AWAITED")
    assert update.wait() == "AWAITED"
    assert update.wait() is None


@pytest.mark.parametrize("order", [("AWAITED", "EVERYTHING"), ("EVERYTHING", "AWAITED")])
def test_a_request_for_everything_includes_the_awaited_topics(update, order):
    for what in order:
        update.ask(what)
    assert update.wait() == "EVERYTHING"


def test_a_request_wakes_the_thread(update, waiter):
    found, thread = waiter
    update.ask("AWAITED")
    thread.join(LONG_S)
    assert found == ["AWAITED"]


def test_close_wakes_the_thread_for_good(update, waiter):
    found, thread = waiter
    update.end()
    thread.join(LONG_S)
    assert found == [None]
    assert update.wait_until_closed(LONG_S)


def test_a_request_does_not_end_the_wait_for_close(update):
    update.ask("EVERYTHING")
    assert not update.wait_until_closed(0.01)
