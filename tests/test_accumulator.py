"""RecordAccumulator: when batches go, in which order, how many at once, and what they cost; by an injected clock."""

import gc
import itertools
import threading
import time
from collections import Counter, defaultdict

import pytest

from fastprod import BufferExhaustedError
from fastprod.internals.buffer_pool import BufferPool
from fastprod_core_access import PHASES, ManualAccumulator
from tests.conftest import eventually

LEADER_WINDOW = 10 << 20
TOTAL_WINDOW = 24 << 20
LEADER_SHARE = 1 << 20
RECORD_COST = 256  # what librdkafka allocates for a record, beside its payload
TURN_BYTES = 3 << 17


class Topic:
    """An accumulator with one topic, t, whose batches are settled by hand."""

    def __init__(self, leaders=(0,), *, memory=1 << 26, batch_size=1024, **options):
        self.pool = BufferPool(memory, batch_size)
        self.accumulator = ManualAccumulator(self.pool, batch_size=batch_size, **options)
        self.set_leaders(*leaders)

    def set_leaders(self, *leaders):
        self.accumulator.set_topic("t", leaders)

    def put(self, value=b"v", partition=0, **options):
        return self.accumulator.put("t", value, partition=partition, **options)

    def drain(self, now_ms=1, **options):
        return self.accumulator.drain_batches(now_ms, **options)

    def run(self, now_ms):
        """What the sender hands over before it sleeps."""
        batches = self.drain(now_ms)
        while True:
            self.next_wakeup_ms(now_ms)  # it looks once more before it sleeps
            more = self.drain(now_ms)
            if not more:
                return batches
            batches += more

    def expire(self, now_ms):
        return self.accumulator.expire_batches(now_ms)

    def next_wakeup_ms(self, now_ms=1, **options):
        return self.accumulator.next_wakeup_ms(now_ms, **options)

    @property
    def queued(self):
        return self.accumulator.queue_lengths("t")

    @property
    def used(self):
        return self.pool.total_memory - self.pool.available_memory


def values(batches):
    return [value for batch in batches for _, value, _, _ in batch.records]


def partitions(batches):
    return [batch.partition for batch in batches]


def settle(batches):
    for batch in batches:
        batch.settle()


# For how long records without a key stay with a partition.


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


def test_of_many_partitions_each_gets_a_turn_of_records_where_no_broker_keeps_up():
    topic = Topic([0, 1] * 150, batch_size=16384, adaptive=False)
    for partition in range(2):
        fill_window(topic, partition)
    chosen = [topic.put(bytes(1000), partition=-1)[0] for _ in range(5000)]
    lengths = [length for _, length in runs_of(chosen)][:-1]
    assert len(lengths) > 5
    assert all(TURN_BYTES <= length * 1010 <= TURN_BYTES + 2 * 16384 for length in lengths)


@pytest.mark.parametrize(("leaders", "behind"), [([0, 1] * 150, 1), ([0, 1] * 150, 0), ([0, 1] * 50, 2)])
def test_else_a_partition_gets_a_batch_or_two(leaders, behind):
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


# How far the application runs ahead.


def test_an_application_ahead_by_many_records_pauses_until_they_are_drained():
    topic = Topic(batch_size=16384)
    for _ in range(3000):
        topic.put(bytes(100))
    assert topic.accumulator.next_pause_ns() == 0
    for _ in range(2000):
        topic.put(bytes(100))
    assert topic.accumulator.next_pause_ns() == 200_000
    assert topic.accumulator.next_pause_ns() == 0  # no more since then
    settle(topic.drain())
    for _ in range(3000):
        topic.put(bytes(100))
    assert topic.accumulator.next_pause_ns() == 0


def test_an_application_ahead_by_large_records_does_not_pause():
    topic = Topic(batch_size=1 << 18)
    for _ in range(500):
        topic.put(bytes(100_000))
    assert topic.accumulator.next_pause_ns() == 0


def test_records_that_expired_make_no_application_pause():
    topic = Topic(batch_size=16384, delivery_timeout_ms=10)
    for _ in range(5000):
        topic.put(bytes(100), now_ms=1)
    settle(topic.expire(11))
    for _ in range(3000):
        topic.put(bytes(100), now_ms=12)
    assert topic.accumulator.next_pause_ns() == 0


# When a batch goes.


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


def test_after_the_only_batch_has_gone_there_is_nothing_to_wake_up_for_but_its_time():
    topic = Topic(linger_ms=0, delivery_timeout_ms=1000, transit_grace_ms=100)
    topic.put(b"a", now_ms=100)
    assert values(topic.drain(100, limit=1)) == [b"a"]
    assert topic.next_wakeup_ms(100) == 1200


def test_a_batch_younger_than_the_clock_of_the_drain_has_waited_for_nothing():
    topic = Topic(batch_size=1)
    topic.put(now_ms=10)
    (batch,) = topic.drain(now_ms=5)
    assert topic.accumulator.total_queue_time_ns == 0
    batch.settle()


def test_each_batch_lingers_by_its_own_clock():
    topic = Topic([0, 0, 0], linger_ms=10)
    for partition, now in enumerate([100, 105, 109]):
        topic.put(now_ms=now, partition=partition)
    assert [partitions(topic.drain(now)) for now in (109, 110, 114, 115, 119)] == [[], [0], [], [1], [2]]


def test_a_full_batch_goes_at_once():
    topic = Topic(linger_ms=10)
    for number in range(9):
        topic.put(bytes([number]) * 100)
    (batch,) = topic.drain(1)
    assert len(batch.records) == 8
    assert topic.drain(10) == []
    assert len(values(topic.drain(11))) == 1


def test_a_batch_filled_to_the_byte_goes_at_once():
    topic = Topic(linger_ms=10, batch_size=61 + 2 * 109)
    topic.put(bytes(100))
    assert topic.drain(1) == []
    topic.put(bytes(100))
    assert len(values(topic.drain(1))) == 2


def test_a_record_larger_than_batch_size_has_a_batch_of_its_own():
    topic = Topic(linger_ms=10)
    for value in (b"before", b"large" * 1000, b"after"):
        topic.put(value)
    assert [values([batch]) for batch in topic.drain(11)] == [[b"before"], [b"large" * 1000], [b"after"]]


def test_a_record_larger_than_batch_size_goes_at_once():
    """Nothing can join it, so there is nothing to linger for."""
    topic = Topic(linger_ms=10)
    topic.put(bytes(5000))
    assert [len(value) for value in values(topic.drain(1))] == [5000]


def test_while_someone_waits_for_memory_every_batch_goes():
    topic = Topic([0, 0], memory=2048, linger_ms=1_000_000)
    topic.put(b"a")
    topic.put(b"b", partition=1)
    assert topic.drain(1) == []
    waiter = threading.Thread(target=topic.put, args=(bytes(2000),), kwargs={"max_block_ms": 20_000}, daemon=True)
    waiter.start()
    assert eventually(lambda: topic.pool.queued)
    batches = topic.drain(1)
    assert values(batches) == [b"a", b"b"]
    settle(batches)
    waiter.join(20)
    assert topic.queued == [1, 0]
    settle(topic.drain(1_000_001))
    assert topic.used == 0


def test_a_failed_wait_hurries_nobody_afterwards():
    topic = Topic(memory=1024, linger_ms=10)
    topic.put(b"a")
    with pytest.raises(BufferExhaustedError):
        topic.put(bytes(1000))
    (batch,) = topic.drain(1)  # it was closed for the record that did not come
    batch.settle()
    topic.put(b"b")
    assert topic.drain(1) == []


def test_the_sender_is_woken_for_a_full_batch_though_the_record_goes_to_another_partition():
    """The record finds no room, closes the batch, and lands in the other partition's open one: no batch is new."""
    topic = Topic([0, 0], batch_size=16384, linger_ms=1_000_000, adaptive=False)
    topic.put(partition=0)
    topic.put(partition=1)
    before = topic.put(bytes(100), partition=-1)
    topic.next_wakeup_ms(1)  # the sender sleeps until linger.ms has passed
    while True:
        batches = topic.drain(1)
        placed = topic.put(bytes(100), partition=-1)
        if placed[0] != before[0]:
            break
        before = placed
    assert not batches and placed[1] == 1  # the second record of a batch that was open already
    assert topic.accumulator.woke
    assert len(topic.drain(1)) == 1


# Order, and how much at once.


def test_a_partition_keeps_its_order():
    topic = Topic([0, 0])
    for number in range(1000):
        topic.put(b"%d" % number, partition=number % 2)
    drained = defaultdict(list)
    while batches := topic.drain():
        for batch in batches:
            drained[batch.partition] += values([batch])
        settle(batches)
    assert drained == {0: [b"%d" % n for n in range(0, 1000, 2)], 1: [b"%d" % n for n in range(1, 1000, 2)]}


def test_the_limit_of_a_drain_is_kept_to_the_batch():
    topic = Topic()
    for _ in range(80):
        topic.put(bytes(100))
    for limit, count in ((0, 0), (1, 1), (1000, 2), (1 << 40, 6)):
        batches = topic.drain(limit=limit)
        assert len(batches) == count
        settle(batches)


def test_partitions_take_turns():
    topic = Topic([0] * 3, batch_size=16384, memory=1 << 24)
    for partition in range(3):
        for _ in range(1500):
            topic.put(bytes(1000), partition=partition)
    batches = topic.drain()
    turns = [(batches[0].partition, 0)]
    for batch in batches:
        partition, size = turns[-1]
        if batch.partition != partition:
            turns.append((batch.partition, 0))
        turns[-1] = (batch.partition, turns[-1][1] + batch.wire_size)
    assert [partition for partition, _ in turns[:6]] == [0, 1, 2, 0, 1, 2]
    for _, size in turns[:3]:
        assert TURN_BYTES * 0.9 < size < TURN_BYTES + 2 * 16384


@pytest.mark.parametrize("settled", [[1] * 36, [2] * 18, [5] * 7, [4, 1, 3, 7, 2, 9, 1, 1, 4]])
def test_a_partition_goes_on_with_its_turn_when_its_leader_has_room_again(settled):
    topic = Topic([0, 0, 0, 1], batch_size=1 << 18, memory=1 << 26)
    for partition in range(4):
        for _ in range(40):
            topic.put(bytes(150_000), partition=partition)
    batches = [batch for batch in topic.drain() if batch.partition != 3]  # turns of three batches each
    order = partitions(batches)
    for count in settled:
        settle(batches[:count])
        batches = batches[count:] + topic.drain()
        order += partitions(batches[-count:])
    assert len(order) == LEADER_WINDOW // 150_300 + sum(settled)
    assert order == ([0, 0, 0, 1, 1, 1, 2, 2, 2] * len(order))[: len(order)]


def test_a_partition_that_waits_for_its_turn_keeps_its_place_as_it_gets_more():
    topic = Topic([0, 0, 0], batch_size=1 << 18, memory=1 << 26)
    for partition in range(3):
        for _ in range(40):
            topic.put(bytes(150_000), partition=partition)
    batches = topic.drain()
    order = partitions(batches)
    for batch in batches[:18]:
        topic.put(bytes(150_000), partition=(order[-1] + 1) % 3)  # closes a batch of the one that is next
        batch.settle()
        order += partitions(topic.drain())
    assert order == ([0, 0, 0, 1, 1, 1, 2, 2, 2] * len(order))[: len(order)]


@pytest.mark.parametrize("max_in_flight", [1, 2, 5])
def test_a_partial_batch_waits_behind_max_in_flight_others(max_in_flight):
    topic = Topic([0] * 10, max_in_flight=max_in_flight)
    for partition in range(max_in_flight):
        topic.put(partition=partition)
    travelling = topic.drain()
    assert len(travelling) == max_in_flight
    topic.put(b"first", partition=9)
    assert topic.drain() == []
    topic.put(b"second", partition=9)  # it fills meanwhile
    assert topic.next_wakeup_ms() > 1
    travelling[0].settle()
    assert topic.next_wakeup_ms() == 1
    assert values(topic.drain()) == [b"first", b"second"]


def test_four_times_as_many_partial_batches_go_while_someone_waits_for_memory():
    """They cannot fill, and give memory back."""
    topic = Topic([0] * 12, memory=12 * 1024, max_in_flight=2)
    for partition in range(12):
        topic.put(partition=partition)
    travelling = topic.drain()
    assert partitions(travelling) == [0, 1]
    waiter = threading.Thread(target=topic.put, args=(bytes(1500),), kwargs={"max_block_ms": 20_000}, daemon=True)
    waiter.start()
    assert eventually(lambda: topic.pool.queued)
    travelling.pop(0).settle()  # gives back 1024 bytes, which is not enough
    travelling += topic.drain()
    assert partitions(travelling) == [1, 2, 3, 4, 5, 6, 7, 8]
    travelling.pop(0).settle()
    waiter.join(20)
    travelling += topic.drain()
    assert partitions(travelling) == [2, 3, 4, 5, 6, 7, 8, 0]  # the large record alone: partial batches wait again
    settle(travelling)


def test_a_full_batch_does_not_wait_behind_max_in_flight():
    topic = Topic([0] * 2, max_in_flight=1)
    topic.put(partition=0)
    assert len(topic.drain()) == 1
    topic.put(b"partial", partition=1)
    assert topic.drain() == []
    while topic.queued[1] == 1:
        topic.put(bytes(100), partition=1)
    (batch,) = topic.drain()
    assert values([batch])[0] == b"partial"
    assert topic.queued[1] == 1


def test_a_partition_with_a_request_limit_has_no_more_in_transit():
    topic = Topic(first_phase=PHASES["FIRST_RECORD"])
    for _ in range(30):
        topic.put(bytes(100))
    (first,) = topic.drain()
    assert topic.drain() == []
    assert topic.next_wakeup_ms() is None or topic.next_wakeup_ms() > 1
    first.settle()
    (second,) = topic.drain()
    topic.accumulator.limit_requests("t", 0, 10_000)
    others = topic.drain()
    topic.accumulator.limit_requests("t", 0, 1)
    topic.put(bytes(2000))
    for batch in others:
        batch.settle()
    assert topic.drain() == []
    second.settle()
    assert len(topic.drain()) == 1


def test_a_partition_at_its_request_limit_leaves_the_others_alone():
    topic = Topic([0, 0], first_phase=PHASES["FIRST_RECORD"])
    for _ in range(30):
        topic.put(bytes(100), partition=0)
    assert len(topic.drain()) == 1
    topic.put(b"other", partition=1)
    assert values(topic.drain()) == [b"other"]


def test_partial_batches_of_one_leader_do_not_wait_for_another_leader():
    topic = Topic([0, 1, 0, 1], max_in_flight=1)
    topic.put(partition=0)
    assert partitions(topic.drain()) == [0]
    for partition in range(4):
        topic.put(partition=partition)
    assert partitions(topic.drain()) == [1]


def test_those_who_wait_go_in_order_as_the_window_opens():
    topic = Topic([0] * 5, max_in_flight=2)
    for partition in range(5):
        topic.put(partition=partition)
    gone = []
    outstanding = topic.drain()
    while outstanding:
        assert len(outstanding) <= 2
        batch = outstanding.pop(0)
        gone.append(batch.partition)
        batch.settle()
        outstanding += topic.drain()
    assert gone == [0, 1, 2, 3, 4]


def test_a_batch_that_waits_for_room_is_not_overtaken():
    topic = Topic([0, 0, 0], batch_size=1 << 17, memory=1 << 26)
    for _ in range(60):
        topic.put(bytes(150_000), partition=0)
    travelling = topic.drain()
    assert len(travelling) == 60
    topic.put(bytes(5_000_000), partition=1)
    assert topic.drain() == []
    topic.put(bytes(150_000), partition=2)  # for this there would be room
    order = []
    for batch in travelling:
        order += partitions(topic.drain())
        batch.settle()
    assert order == [1, 2]


def test_full_batches_do_not_wait_behind_one_that_is_not_full():
    topic = Topic([0, 0], batch_size=1 << 17)
    for _ in range(30):
        topic.put(bytes(150_000), partition=0)
    assert len(topic.drain(limit=1_000_000)) == 7
    topic.put(b"v", partition=1)  # waits behind these, until the others have had their turn
    assert Counter(partitions(topic.drain())) == {0: 23, 1: 1}


def test_the_window_of_a_leader_bounds_bytes():
    topic = Topic([0, 1], batch_size=1 << 18)
    for partition in range(2):
        for _ in range(80):
            topic.put(bytes(250_000), partition=partition)
    drained = topic.drain()
    counts = Counter(partitions(drained))
    assert counts == {0: LEADER_WINDOW // 250_300, 1: LEADER_WINDOW // 250_300}
    assert topic.drain() == []
    topic.next_wakeup_ms()
    stalled, moving = ([batch for batch in drained if batch.partition == p] for p in range(2))
    assert len(stalled) == counts[0]
    while topic.queued[1] > 1:  # leader 0 says nothing; leader 1 goes on
        moving.pop(0).settle()
        (batch,) = topic.drain()
        assert batch.partition == 1
        moving.append(batch)
    assert topic.queued[0] == 80 - counts[0]
    stalled.pop(0).settle()
    assert partitions(topic.drain()) == [0]


def test_the_window_of_a_leader_counts_what_records_cost():
    topic = Topic(batch_size=16384)
    for _ in range(60_000):
        topic.put(b"")
    drained = topic.drain()
    records = len(values(drained))
    assert LEADER_WINDOW * 0.9 < records * (RECORD_COST + 3) <= LEADER_WINDOW
    settle(drained)
    assert len(values(topic.drain())) > 0


def test_a_batch_larger_than_the_window_goes_alone():
    topic = Topic(batch_size=1024)
    for _ in range(2):
        topic.put(bytes(LEADER_WINDOW + 1))
    for _ in range(2):
        (batch,) = topic.drain()
        assert topic.drain() == []
        batch.settle()
    assert topic.queued == [0]


def test_all_windows_together_are_bounded():
    topic = Topic(range(8), batch_size=1 << 18)
    for partition in range(8):
        for _ in range(20):
            topic.put(bytes(250_000), partition=partition)
    drained = topic.drain()
    assert TOTAL_WINDOW <= len(drained) * 250_300 <= TOTAL_WINDOW + 2 * 250_300
    assert topic.drain() == []
    assert topic.next_wakeup_ms() > 1  # nothing to do but to wait for reports
    settle(drained[:4])
    assert len(topic.drain()) > 0


def test_leaders_that_stall_leave_room_for_one_that_answers():
    topic = Topic(range(5), batch_size=1 << 18)
    for partition in range(4):
        for _ in range(40):
            topic.put(bytes(250_000), partition=partition)
    topic.drain()  # takes up the total window, and is never settled
    for _ in range(20):
        topic.put(bytes(250_000), partition=4)
    gone = []
    while topic.queued[4] > 1:
        drained = topic.drain()
        assert 0 < len(drained) * 250_300 <= LEADER_SHARE + 250_300
        assert set(partitions(drained)) == {4}
        settle(drained)
        gone += drained
    assert len(gone) >= 19


# Partitions and leaders.


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


def test_partitions_that_are_gone_keep_what_they_have_and_get_no_more():
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


def test_a_batch_that_waits_for_its_leader_goes_to_a_new_leader_at_once():
    topic = Topic([0, 0], max_in_flight=1)
    topic.put(partition=0)
    (travelling,) = topic.drain()
    topic.put(b"waits", partition=1)
    assert topic.drain() == []
    topic.set_leaders(0, 1)
    assert topic.next_wakeup_ms() == 1
    (batch,) = topic.drain()
    assert values([batch]) == [b"waits"]
    settle([batch, travelling])
    assert topic.used == 0


def test_a_leader_change_does_not_mix_up_the_windows():
    """What was charged to the old leader is given back to the old leader."""
    topic = Topic([0, 0], max_in_flight=1)
    topic.put(partition=0)
    (old,) = topic.drain()
    topic.set_leaders(1, 0)
    topic.put(partition=0)
    (new,) = topic.drain()
    topic.put(b"0", partition=1)  # led by 0, which still has one
    assert topic.drain() == []
    new.settle()
    assert topic.drain() == []
    old.settle()
    assert values(topic.drain()) == [b"0"]


def test_those_behind_a_batch_that_changes_its_leader_are_not_forgotten():
    topic = Topic([0, 0, 0], max_in_flight=1)
    topic.put(partition=0)
    (travelling,) = topic.drain()
    topic.put(partition=1)
    topic.put(partition=2)
    assert topic.drain() == []
    travelling.settle()  # now it is partition 1's turn, and its leader changes
    topic.set_leaders(0, 1, 0)
    assert sorted(partitions(topic.run(1))) == [1, 2]


def test_those_behind_a_batch_that_expires_are_not_forgotten():
    topic = Topic([0, 0, 0], max_in_flight=1, delivery_timeout_ms=1000)
    topic.put(partition=0)
    (travelling,) = topic.drain()
    topic.put(partition=1)
    topic.put(partition=2, now_ms=500)
    assert topic.drain(500) == []
    travelling.settle()
    assert partitions(topic.expire(1001)) == [1]
    assert partitions(topic.run(1001)) == [2]


def test_without_a_leader_batches_go_all_the_same():
    """The transport knows better who leads by then, or waits."""
    topic = Topic([-1])
    topic.put(b"a")
    assert values(topic.drain()) == [b"a"]


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


# Expiry.


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


def test_a_partition_that_waited_for_its_leader_goes_on_after_an_expiry():
    topic = Topic([0, 0], max_in_flight=1, delivery_timeout_ms=1000)
    topic.put(partition=0)
    (travelling,) = topic.drain()
    topic.put(b"a", partition=1, now_ms=1)
    assert topic.drain() == []
    settle(batch for batch in topic.expire(1001))
    topic.put(b"b", partition=1, now_ms=1002)
    assert topic.drain(1002) == []
    travelling.settle()
    assert values(topic.drain(1002)) == [b"b"]


# abort_on_new_batch.


def test_a_record_that_needs_a_new_batch_can_be_held_back():
    topic = Topic(linger_ms=10)
    assert topic.put(b"a", abort_on_new_batch=True) is None  # there is none yet
    assert topic.put(b"a") == (0, 0)
    assert topic.put(b"b", abort_on_new_batch=True) == (0, 1)
    assert topic.put(bytes(1000), abort_on_new_batch=True) is None
    assert topic.queued == [1]
    assert topic.accumulator.unsettled_records == 2
    assert values(topic.drain(1)) == [b"a", b"b"]  # it was full


# Memory.


def test_a_partition_starts_small():
    topic = Topic([0] * 1000, memory=1 << 25, batch_size=16384)
    for partition in range(1000):
        topic.put(b"v", partition=partition)
    assert topic.used <= 1000 * 1024
    batches = topic.drain()
    settle(batches)
    while batches := topic.drain():
        settle(batches)
    assert topic.used == 0


def test_an_arena_grows_by_half_up_to_batch_size():
    topic = Topic(batch_size=5000, linger_ms=10)
    used = []
    while topic.queued[0] < 2:
        topic.put(bytes(100))
        used.append(topic.used)
    assert list(dict.fromkeys(used[:-1])) == [1024, 1536, 2304, 3456, 5000]
    for count, arena in enumerate(used[:-1], 1):
        assert count * 103 <= arena  # what the records take in there


def test_a_large_first_record_has_the_arena_it_needs():
    topic = Topic(batch_size=16384, linger_ms=10)
    topic.put(bytes(5000))
    assert 5000 < topic.used < 5030
    topic.put(bytes(5000))
    assert topic.used < 1.5 * 5030 * 1.5


def test_a_partition_that_fills_batches_has_whole_arenas_at_once():
    topic = Topic(batch_size=16384, linger_ms=10)
    while topic.queued[0] < 2:
        topic.put(bytes(100))
    assert topic.used == 2 * 16384
    settle(topic.drain(11))
    topic.put(b"v")  # the last one went before it was full: small again
    assert topic.used == 1024


def test_arenas_that_grow_whole_do_not_pile_up_when_they_come_back():
    """Each begins small, since the batch before went unfilled, and ends on the pool's list of whole ones."""
    topic = Topic(batch_size=4096, linger_ms=10)
    for now in range(0, 100_000, 100):
        for _ in range(30):
            topic.put(bytes(100), now_ms=now)
        settle(topic.drain(now + 10))
    assert topic.pool.available_memory - topic.pool.unallocated_memory <= 2 * 4096


def test_a_batch_that_cannot_grow_ends_and_the_record_waits_in_line():
    topic = Topic([0, 0], memory=2048, batch_size=1024, linger_ms=10)
    topic.put(bytes(100))
    topic.put(bytes(100), partition=1)
    with pytest.raises(BufferExhaustedError):
        topic.put(bytes(1000))
    (batch,) = topic.drain(1)
    assert (batch.partition, len(batch.records)) == (0, 1)


def test_an_arena_does_not_grow_past_those_who_wait():
    topic = Topic([0, 0], memory=8192, batch_size=4096, linger_ms=1_000_000)
    topic.put(bytes(800))  # an arena of 1024 bytes
    held = topic.pool.allocate_buffer(3000)
    waiter = threading.Thread(
        target=topic.put, args=(bytes(5000),), kwargs={"partition": 1, "max_block_ms": 20_000}, daemon=True
    )
    waiter.start()
    assert eventually(lambda: topic.pool.queued)
    with pytest.raises(BufferExhaustedError, match="4168 of 8192 bytes are free"):
        topic.put(bytes(800))  # there is enough, to grow or to begin, but somebody was here before
    held.deallocate()
    waiter.join(20)
    assert topic.queued == [1, 1]
    batches = topic.drain(1_000_001)
    assert sorted(len(value) for value in values(batches)) == [800, 5000]
    settle(batches)


def test_a_batch_that_waits_for_memory_to_grow_stays_open_and_grows():
    topic = Topic(memory=8192, batch_size=4096, linger_ms=1_000_000)
    topic.put(bytes(800))  # an arena of 1024 bytes
    held = topic.pool.allocate_buffer(7000)
    waiter = threading.Thread(target=topic.put, args=(bytes(800),), kwargs={"max_block_ms": 20_000}, daemon=True)
    waiter.start()
    assert eventually(lambda: topic.pool.queued)
    held.deallocate()
    waiter.join(20)
    assert topic.queued == [1]
    assert topic.used == 2304
    (batch,) = topic.drain(1_000_001)
    assert [len(value) for _, value, _, _ in batch.records] == [800, 800]
    settle([batch])
    assert topic.used == 0


def test_a_batch_that_went_while_its_record_waited_is_followed_by_a_new_one():
    topic = Topic(memory=8192, batch_size=4096, linger_ms=1_000_000)
    topic.put(bytes(800))
    held = topic.pool.allocate_buffer(7000)
    waiter = threading.Thread(target=topic.put, args=(bytes(800),), kwargs={"max_block_ms": 20_000}, daemon=True)
    waiter.start()
    assert eventually(lambda: topic.pool.queued)
    settle(topic.drain(1_000_001))  # somebody waits for memory, so it goes
    held.deallocate()
    waiter.join(20)
    assert topic.queued == [1]
    batches = topic.drain(2_000_002)
    assert [len(value) for value in values(batches)] == [800]
    settle(batches)
    assert topic.used == 0


def test_a_record_that_was_refused_leaves_nothing():
    topic = Topic(memory=1024, linger_ms=10)
    topic.put(b"a")
    for _ in range(3):
        with pytest.raises(BufferExhaustedError):
            topic.put(bytes(1000), max_block_ms=1)
    assert topic.accumulator.unsettled_records == 1
    batches = topic.drain(1)
    assert values(batches) == [b"a"]
    settle(batches)
    assert topic.used == 0
    assert topic.put(bytes(1000)) == (0, 0)


def test_a_dropped_accumulator_gives_its_memory_back():
    topic = Topic([0] * 10, linger_ms=10)
    for partition in range(10):
        for _ in range(20):
            topic.put(bytes(100), partition=partition)
    assert topic.used > 0
    del topic.accumulator
    gc.collect()
    assert topic.used == 0


def test_a_dropped_accumulator_in_a_reference_cycle_gives_its_memory_back():
    topic = Topic()
    topic.put()
    cycle = [topic.accumulator]
    cycle.append(cycle)
    del topic.accumulator, cycle
    gc.collect()
    assert topic.used == 0


# When the sender looks again.


def test_there_is_nothing_to_wake_for_without_records():
    topic = Topic()
    assert topic.next_wakeup_ms(5) is None
    topic.put(now_ms=5)
    settle(topic.drain(5))
    assert topic.next_wakeup_ms(5) is None


def test_the_sender_wakes_when_the_oldest_batch_has_lingered():
    topic = Topic([0, 0], linger_ms=10)
    topic.put(now_ms=100)
    topic.put(partition=1, now_ms=105)
    assert topic.next_wakeup_ms(107) == 110
    assert topic.next_wakeup_ms(110) == 110  # there is something to do
    assert len(topic.drain(110)) == 1
    assert topic.next_wakeup_ms(110) == 115


def test_the_sender_does_not_sleep_over_a_full_batch():
    topic = Topic(linger_ms=10)
    while topic.queued[0] < 2:
        topic.put(bytes(100), now_ms=100)
    assert topic.next_wakeup_ms(101) <= 101
    assert len(topic.drain(101)) == 1
    assert topic.next_wakeup_ms(101) == 110


def test_the_sender_wakes_when_a_batch_expires():
    topic = Topic([0, 0], max_in_flight=1, delivery_timeout_ms=1000, transit_grace_ms=500)
    topic.put(now_ms=100)
    (batch,) = topic.drain(100)
    assert topic.next_wakeup_ms(101) == 100 + 1000 + 500
    topic.put(partition=1, now_ms=200)
    assert topic.drain(200) == []
    batch.settle()
    (batch,) = topic.drain(201)
    assert topic.next_wakeup_ms(201) == 200 + 1000 + 500


def test_the_sender_does_not_wake_for_what_expires_before_it_looks_at_that_again():
    topic = Topic(linger_ms=10_000, delivery_timeout_ms=1000)
    topic.put(now_ms=100)
    assert topic.next_wakeup_ms(1101) <= 1101
    assert topic.next_wakeup_ms(1101, next_expiry_ms=1150) == 1150
    assert topic.next_wakeup_ms(900, next_expiry_ms=950) == 1100


def test_the_sender_wakes_when_a_batch_that_waits_for_its_leader_expires():
    topic = Topic([0, 0], max_in_flight=1, delivery_timeout_ms=1000)
    topic.put(partition=1, now_ms=100)
    topic.put(partition=0, now_ms=101)
    (batch,) = topic.drain(101)
    batch_left = 1 - batch.partition
    assert topic.queued[batch_left] == 1
    batch.settle()
    topic.put(partition=batch.partition, now_ms=300)
    assert topic.next_wakeup_ms(300) == 300


# Threads.


def test_threads_append_while_batches_are_drained():
    topic = Topic([0, 1, 2], memory=1 << 16, batch_size=2048)
    senders, each = 4, 2000
    failures = []

    def send(sender):
        try:
            for number in range(each):
                topic.put(b"%d %d" % (sender, number), partition=number % 3, max_block_ms=20_000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(senders)]
    for thread in threads:
        thread.start()
    arrived = defaultdict(list)
    while any(thread.is_alive() for thread in threads) or any(topic.queued):
        batches = topic.drain()
        for batch in batches:
            for value in values([batch]):
                sender, number = map(int, value.split())
                arrived[sender, batch.partition].append(number)
        settle(batches)
        if not batches:
            time.sleep(0.001)
    assert not failures
    assert arrived == {(s, p): list(range(p, each, 3)) for s in range(senders) for p in range(3)}
    assert (topic.used, topic.accumulator.unsettled_records) == (0, 0)


# What was drained and waits in transit for an answer to what was handed over before.


def test_a_drained_batch_that_was_not_handed_over_expires_without_grace():
    topic = Topic(delivery_timeout_ms=1000, transit_grace_ms=500)
    topic.put(b"a", now_ms=100)
    (batch,) = topic.accumulator.drain_batches(100, handed_over=False)
    assert topic.expire(1099) == []
    assert values(topic.expire(1100)) == [b"a"]
    batch.settle()


def test_a_batch_counts_as_queued_until_it_is_handed_over():
    topic = Topic([0, 0])
    topic.put(b"a", partition=0)
    topic.put(b"b", partition=1)
    first, second = topic.accumulator.drain_batches(1, handed_over=False)
    assert topic.queued == [1, 1]
    first.settle()
    assert topic.queued == [0, 1]
    second.settle()
    assert topic.queued == [0, 0]


def test_records_avoid_a_partition_whose_batches_wait_for_an_answer():
    topic = Topic([0, 1], batch_size=100, availability_timeout_ms=20, adaptive=False)
    topic.accumulator.wait_in_transit("t", 0, 1)
    chosen = [topic.put(b"v" * 100, partition=-1, now_ms=22)[0] for _ in range(20)]
    assert set(chosen[1:]) == {1}  # the first one's partition was chosen before the timeout had passed


@pytest.mark.parametrize("partitioner", ["round_robin", "sticky", "timed_sticky", "random"])
def test_a_record_that_waits_for_memory_keeps_its_choice(partitioner):
    topic = Topic([0] * 8, memory=2000, batch_size=1000, partitioner=partitioner, sequential_random=True)
    with_waits, without = [], []
    for number in range(40):
        while True:
            try:
                with_waits.append(topic.put(b"v" * 900, partition=-1, now_ms=1 + 1000 * number)[0])
                break
            except BufferExhaustedError:
                settle(topic.drain(1 + 1000 * number))
    roomy = Topic([0] * 8, memory=1 << 20, batch_size=1000, partitioner=partitioner, sequential_random=True)
    for number in range(40):
        without.append(roomy.put(b"v" * 900, partition=-1, now_ms=1 + 1000 * number)[0])
    assert with_waits == without
