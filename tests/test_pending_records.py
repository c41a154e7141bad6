"""PendingRecords: how a thread waits until records have settled, and what it says if they have not."""

import pytest

from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from fastprod_core_access import ManualPendingRecords
from tests.senders import Parts, Repeating

pytestmark = pytest.mark.mock


@pytest.fixture
def parts(mock_cluster, topic):
    with Parts(mock_cluster.bootstrap_servers, topic) as made:
        yield made


@pytest.fixture
def pending(parts):
    return ManualPendingRecords(parts.accumulator, Callbacks(BufferPool(1 << 20, 1 << 14)), parts.sender)


def test_without_records_there_is_nothing_to_wait_for(pending):
    assert pending.wait(0)
    assert pending.unfinished() == "0 records had not settled"


def test_a_wait_ends_at_its_deadline_and_says_what_is_pending(parts, pending):
    for value in (b"one", b"two"):
        parts.put(value)
    assert not pending.wait(0)
    assert not pending.wait(0.01)
    assert pending.unfinished() == "2 records had not settled"
    with Repeating(parts.sender.do_step):
        assert pending.wait(20)


def test_a_wait_makes_records_leave_that_linger(mock_cluster, topic):
    with Parts(mock_cluster.bootstrap_servers, topic, linger_ms=60_000) as parts:
        pending = ManualPendingRecords(parts.accumulator, Callbacks(BufferPool(1 << 20, 1 << 14)), parts.sender)
        parts.put(b"value")
        with Repeating(parts.sender.do_step):
            assert pending.wait(20)
        assert parts.sender.delivered == 1
