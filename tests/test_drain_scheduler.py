"""DrainScheduler: which batches go, in which order, and how many at once; by an injected clock."""

import threading
from collections import Counter, defaultdict

import pytest

from fastprod_core_access import PHASES
from tests.accumulators import Topic, partitions, settle, values
from tests.conftest import eventually

WINDOW_COST = 10 << 20
TOTAL_COST = 24 << 20
SMALL_WINDOW_COST = 1 << 20
RECORD_COST = 256  # what librdkafka allocates for a record, beside its payload
QUANTUM_BYTES = 3 << 17


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


def test_a_batch_younger_than_the_clock_of_the_drain_has_waited_for_nothing():
    topic = Topic(batch_size=1)
    topic.put(now_ms=10)
    (batch,) = topic.drain(now_ms=5)
    assert topic.accumulator.total_queue_time_ns == 0
    batch.settle()


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


def test_each_partition_gets_a_quantum_in_turn():
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
        assert QUANTUM_BYTES * 0.9 < size < QUANTUM_BYTES + 2 * 16384


@pytest.mark.parametrize("settled", [[1] * 36, [2] * 18, [5] * 7, [4, 1, 3, 7, 2, 9, 1, 1, 4]])
def test_a_partition_goes_on_with_its_quantum_when_its_broker_has_room_again(settled):
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
    assert len(order) == WINDOW_COST // 150_300 + sum(settled)
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


def test_blocked_partitions_go_in_order_as_the_window_opens():
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
    assert counts == {0: WINDOW_COST // 250_300, 1: WINDOW_COST // 250_300}
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
    assert WINDOW_COST * 0.9 < records * (RECORD_COST + 3) <= WINDOW_COST
    settle(drained)
    assert len(values(topic.drain())) > 0


def test_a_batch_larger_than_the_window_goes_alone():
    topic = Topic(batch_size=1024)
    for _ in range(2):
        topic.put(bytes(WINDOW_COST + 1))
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
    assert TOTAL_COST <= len(drained) * 250_300 <= TOTAL_COST + 2 * 250_300
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
        assert 0 < len(drained) * 250_300 <= SMALL_WINDOW_COST + 250_300
        assert set(partitions(drained)) == {4}
        settle(drained)
        gone += drained
    assert len(gone) >= 19


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


def test_batches_without_a_leader_go_too():
    """The transport knows better who leads by then, or waits."""
    topic = Topic([-1])
    topic.put(b"a")
    assert values(topic.drain()) == [b"a"]


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
