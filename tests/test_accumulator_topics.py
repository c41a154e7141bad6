"""Topics of the accumulator: partitions that come and go, and for how long records without a key stay with one."""

import itertools
from collections import Counter

import pytest

from tests.accumulators import Topic, partitions, settle, values

QUANTUM_BYTES = 3 << 17


def runs_of(chosen):
    """[partition, how many of its records come one after the other] each."""
    return [(partition, len(list(run))) for partition, run in itertools.groupby(chosen)]


def fill_window(topic, partition):
    """Until full batches wait for room; returns those that have it."""
    batches = []
    while topic.queued[partition] < 3:
        topic.put(bytes(1000), partition=partition)
        batches += topic.drain()
    return batches


def test_of_many_partitions_each_gets_a_quantum_of_records_if_no_broker_keeps_up():
    topic = Topic([0, 1] * 150, batch_size=16384, adaptive=False)
    for partition in range(2):
        fill_window(topic, partition)
    chosen = [topic.put(bytes(1000), partition=-1)[0] for _ in range(5000)]
    lengths = [length for _, length in runs_of(chosen)][:-1]
    assert len(lengths) > 5
    assert all(QUANTUM_BYTES <= length * 1010 <= QUANTUM_BYTES + 2 * 16384 for length in lengths)


@pytest.mark.parametrize(("leaders", "behind"), [([0, 1] * 150, 1), ([0, 1] * 150, 0), ([0, 1] * 50, 2)])
def test_otherwise_a_partition_gets_a_batch_or_two(leaders, behind):
    topic = Topic(leaders, batch_size=16384, adaptive=False)
    for partition in range(behind):
        fill_window(topic, partition)
    chosen = [topic.put(bytes(1000), partition=-1)[0] for _ in range(5000)]
    assert all(length <= 33 for _, length in runs_of(chosen))


def test_once_a_broker_keeps_up_the_partition_changes():
    topic = Topic([0] * 300, batch_size=16384, adaptive=False)
    batches = fill_window(topic, 0)
    first = [topic.put(bytes(1000), partition=-1)[0] for _ in range(100)]
    assert len(set(first)) == 1
    while batches:
        settle(batches)
        batches = topic.drain()
    chosen = [topic.put(bytes(1000), partition=-1)[0] for _ in range(500)]
    assert all(length <= 33 for _, length in runs_of(chosen))


def test_partitions_may_be_added():
    topic = Topic([0], linger_ms=10)
    topic.put(b"old")
    topic.set_leaders(0, 1, 2)
    assert topic.queued == [1, 0, 0]
    assert topic.put(b"new", partition=2) == (2, 0)
    assert topic.put(b"old too") == (0, 1)
    assert values(topic.drain(11)) == [b"old", b"old too", b"new"]


def test_many_partitions_may_be_added_one_by_one():
    topic = Topic([0])
    for count in range(1, 300):
        topic.set_leaders(*range(count))
        topic.put(b"%d" % count, partition=count - 1)
    assert sorted(partitions(topic.drain())) == list(range(299))


def test_partitions_that_are_gone_keep_their_batches_and_get_no_more():
    topic = Topic([0, 0, 0], linger_ms=1000)
    for _ in range(30):  # each sticks to one of them for two, and so the last gets some
        topic.put(bytes(1000), partition=-1, now_ms=1)
    assert any(topic.put(partition=-1, now_ms=1)[0] == 2 for _ in range(10_000))  # with the last it is now
    topic.set_leaders(0, 0)
    before = topic.queued
    assert all(before)
    for _ in range(30):
        topic.put(bytes(1000), partition=-1, now_ms=1)
    assert topic.queued[2] == before[2] and topic.queued[0] > before[0] and topic.queued[1] > before[1]
    topic.set_leaders(0, 0, 0, 0)
    assert topic.put(partition=3, now_ms=1) == (3, 0)
    drained = Counter()
    while batches := topic.run(2000):
        drained.update(partitions(batches))
        settle(batches)
    assert drained[2] == before[2] and set(drained) == {0, 1, 2, 3} and topic.used == 0


def where_records_go(topic, now_ms):
    """Where the sticky partitioner puts records, once it has left the partition it had."""
    places = [topic.put(bytes(250_000), partition=-1, now_ms=now_ms)[0] for _ in range(20)]
    return set(places[4:])


def test_a_leader_that_takes_nothing_is_avoided():
    """partitioner.availability.timeout.ms; only one of two leaders reports."""
    topic = Topic([0, 1], batch_size=1 << 18, availability_timeout_ms=100, adaptive=False)
    for _ in range(30):
        topic.put(bytes(250_000), partition=0)
    drained = topic.drain(1000)
    assert topic.queued[0] > 0  # its window is full since 1000 ms
    assert where_records_go(topic, 1100) == {0, 1}
    assert where_records_go(topic, 1101) == {1}
    settle(drained)
    assert where_records_go(topic, 1101) == {0, 1}


def test_a_leader_that_stalls_after_a_report_is_avoided():
    topic = Topic([0, 1, 0], batch_size=1 << 18, availability_timeout_ms=100, adaptive=False)
    topic.put(b"a little", partition=2)
    for _ in range(30):
        topic.put(bytes(250_000), partition=0)
    drained = topic.drain(1000)
    assert drained[0].partition == 2
    drained[0].settle()  # its window has room now, but not for the next batch
    assert topic.drain(1001) == []
    assert where_records_go(topic, 5000) == {1}


def test_a_leader_that_stalls_as_a_turn_ends_is_avoided():
    topic = Topic([0, 1, 0, 0], batch_size=1 << 18, availability_timeout_ms=100, adaptive=False)
    for partition in (0, 2, 3):
        for _ in range(30):
            topic.put(bytes(150_000), partition=partition)
    drained = topic.drain(1000)
    turn = []
    for batch in drained[:3]:  # the window has room for one more each time
        batch.settle()
        turn += partitions(topic.drain(1001))
    assert len(turn) == 3 and len(set(turn)) == 1
    assert where_records_go(topic, 5000) == {1}


def test_a_leader_that_stalls_while_one_waits_for_room_is_avoided():
    topic = Topic([0, 0, 1], batch_size=1 << 17, availability_timeout_ms=100, adaptive=False)
    for _ in range(70):
        topic.put(bytes(150_000), partition=0)
    travelling = topic.drain(1000)
    assert len(travelling) == 69
    topic.put(bytes(5_000_000), partition=1)
    assert topic.drain(1000) == []
    travelling[0].settle()
    assert partitions(topic.drain(1001)) == [0]  # there is none behind it, and too little room for the other
    assert topic.queued == [0, 1, 0]
    assert where_records_go(topic, 5000) == {2}


def test_records_avoid_a_partition_whose_batches_wait_for_an_answer():
    topic = Topic([0, 1], batch_size=100, availability_timeout_ms=20, adaptive=False)
    topic.accumulator.wait_in_transit("t", 0, 1)
    chosen = [topic.put(b"v" * 100, partition=-1, now_ms=22)[0] for _ in range(20)]
    assert set(chosen[1:]) == {1}  # the first one's partition was chosen before the timeout had passed
