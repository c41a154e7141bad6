"""IncompleteBatches: linger, expiry and flush points; by an injected clock."""

import itertools

import pytest

from fastprod_core_access import FlushWait
from tests.accumulators import Topic, partitions, settle, values


def test_a_batch_lingers():
    topic = Topic(linger_ms=10)
    topic.put(b"a", now_ms=100)
    assert topic.drain(100) == []
    topic.put(b"b", now_ms=109)  # the first record's time is what counts
    assert topic.drain(109.999) == []
    assert topic.queued == [1]
    assert values(topic.drain(110)) == [b"a", b"b"]
    assert topic.queued == [0]


def test_a_batch_may_linger_for_longer_than_the_clock_counts():
    topic = Topic(linger_ms=1e300)
    topic.put(now_ms=1)
    assert topic.drain(now_ms=1e9) == []


def test_without_linger_a_batch_goes_at_once():
    topic = Topic(linger_ms=0)
    topic.put(b"a", now_ms=100)
    assert values(topic.drain(100)) == [b"a"]


def test_each_batch_lingers_by_its_own_clock():
    topic = Topic([0, 0, 0], linger_ms=10)
    for partition, now in enumerate([100, 105, 109]):
        topic.put(now_ms=now, partition=partition)
    assert [partitions(topic.drain(now)) for now in (109, 110, 114, 115, 119)] == [[], [0], [], [1], [2]]


def test_a_queued_batch_expires_after_delivery_timeout():
    topic = Topic(linger_ms=10_000, delivery_timeout_ms=1000)
    topic.put(b"a", now_ms=100)
    topic.put(b"b", now_ms=1000)
    assert topic.expire(1099.999) == []
    (batch,) = topic.expire(1100)
    assert not batch.in_transit
    assert values([batch]) == [b"a", b"b"]
    assert topic.queued == [0]
    batch.settle()
    assert (topic.used, topic.accumulator.unsettled_records) == (0, 0)
    assert topic.expire(10_000) == []
    assert topic.drain(20_000) == []


def test_the_batches_that_are_too_old_expire_in_order():
    topic = Topic([0, 0], linger_ms=10_000, delivery_timeout_ms=1000)
    for number, now in enumerate([1, 2, 3, 500]):
        topic.put(bytes(900) + bytes([number]), partition=number % 2, now_ms=now)
    expired = topic.expire(1100)
    assert [value[-1] for value in values(expired)] == [0, 1, 2]
    assert topic.queued == [0, 1]
    settle(expired)
    assert [value[-1] for value in values(topic.expire(1500))] == [3]


def test_a_batch_in_transit_has_some_grace():
    """librdkafka knows more exactly what became of it."""
    topic = Topic(delivery_timeout_ms=1000, transit_grace_ms=500)
    topic.put(b"a", now_ms=100)
    (batch,) = topic.drain(100)
    assert topic.expire(1599) == []
    (expired,) = topic.expire(1600)
    assert expired.in_transit
    assert values([expired]) == [b"a"]
    assert topic.used > 0  # librdkafka reads its arena still
    batch.settle()
    assert topic.used == 0


def test_a_settled_batch_does_not_expire():
    topic = Topic(delivery_timeout_ms=1000)
    topic.put()
    settle(topic.drain())
    assert topic.expire(1_000_000) == []


def test_a_queued_batch_expires_although_an_older_one_is_in_transit():
    topic = Topic([0, 1], linger_ms=10, delivery_timeout_ms=1000, transit_grace_ms=500)
    topic.put(b"travels", now_ms=1)
    assert len(topic.drain(11)) == 1
    topic.put(b"waits", partition=1, now_ms=20)
    assert values(topic.expire(1020)) == [b"waits"]
    assert topic.drain(1020) == []


def test_records_go_on_after_an_expiry():
    topic = Topic(linger_ms=10, delivery_timeout_ms=1000)
    topic.put(b"a", now_ms=1)
    settle(topic.expire(1001))
    assert topic.put(b"b", now_ms=1002) == (0, 0)
    assert topic.drain(1011) == []
    assert values(topic.drain(1012)) == [b"b"]


def test_a_drained_batch_that_was_not_handed_over_expires_without_grace():
    topic = Topic(delivery_timeout_ms=1000, transit_grace_ms=500)
    topic.put(b"a", now_ms=100)
    (batch,) = topic.accumulator.drain_batches(100, handed_over=False)
    assert topic.expire(1099) == []
    assert values(topic.expire(1100)) == [b"a"]
    batch.settle()


def test_an_expired_batch_in_transit_settles_at_once_but_keeps_its_window_until_its_report():
    topic = Topic([0, 0], max_in_flight=1, delivery_timeout_ms=1000, transit_grace_ms=0)
    topic.put(now_ms=1)
    (travelling,) = topic.drain(1)
    topic.put(b"waits", partition=1, now_ms=500)
    (expired,) = topic.expire(1001)
    expired.drop_expired()
    assert topic.accumulator.unsettled_records == 1
    assert topic.drain(1001) == []
    travelling.settle()
    assert values(topic.drain(1001)) == [b"waits"]


def test_records_that_settle_early_count_once():
    topic = Topic([0, 0])
    topic.put(partition=0)
    topic.put(partition=1)
    first, second = topic.drain()
    first.settle_records()
    assert topic.accumulator.unsettled_records == 1
    first.settle_records()
    first.settle()
    assert topic.accumulator.unsettled_records == 1
    second.settle()
    assert topic.accumulator.unsettled_records == 0


def test_a_flush_of_nothing_is_done_at_once():
    assert FlushWait(Topic().accumulator).done


def test_a_flush_waits_for_the_batches_that_exist_when_it_begins():
    topic = Topic([0, 0, 0])
    topic.put(partition=0)
    topic.put(partition=1)
    flush = FlushWait(topic.accumulator)
    topic.put(partition=2)
    first, second, newer = topic.drain()
    second.settle()
    assert not flush.done
    first.settle()
    assert flush.done
    flush.end()
    newer.settle()


def test_a_flush_waits_for_a_batch_that_expires():
    topic = Topic(linger_ms=10_000, delivery_timeout_ms=1000)
    topic.put(now_ms=1)
    flush = FlushWait(topic.accumulator)
    (batch,) = topic.expire(1001)
    assert not flush.done
    batch.drop_expired()
    assert flush.done
    flush.end()
    batch.settle()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_flushes_may_end_in_any_order(order):
    topic = Topic([0, 0, 0])
    flushes = []
    for partition in range(3):
        topic.put(partition=partition)
        flushes.append(FlushWait(topic.accumulator))
    batches = topic.drain()
    for index in order:
        flushes[index].end()
        settle([batches.pop()])
    assert topic.accumulator.unsettled_records == 0


def test_while_a_flush_waits_no_batch_lingers():
    topic = Topic([0, 0], linger_ms=10_000)
    topic.put(b"old", now_ms=1)
    assert topic.drain(1) == []
    flush = FlushWait(topic.accumulator)
    topic.put(b"new", partition=1, now_ms=1)
    assert values(topic.drain(1)) == [b"old", b"new"]
    flush.end()
    topic.put(b"lingers", now_ms=1)
    assert topic.drain(1) == []
