"""RecordAccumulator: when the sender is woken, threads that wait, and what is left at the end."""

import gc
import threading
import time
from collections import defaultdict

import pytest

from fastprod import BufferExhaustedError, ProducerClosedError
from tests.accumulators import Topic, settle, values
from tests.conftest import eventually


def test_after_the_only_batch_has_gone_the_sender_wakes_only_for_its_expiry():
    topic = Topic(linger_ms=0, delivery_timeout_ms=1000, transit_grace_ms=100)
    topic.put(b"a", now_ms=100)
    assert values(topic.drain(100, limit=1)) == [b"a"]
    assert topic.next_wakeup_ms(100) == 1200


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


def test_after_a_failed_wait_batches_linger_again():
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


def test_batches_linger_on_when_an_abort_is_about_to_drop_them():
    topic = Topic(linger_ms=1_000_000)
    topic.put(b"a")
    topic.accumulator.refuse_appends()
    with pytest.raises(ProducerClosedError):
        topic.put(b"b")
    assert topic.drain(1) == []


def test_close_does_not_let_batches_linger():
    topic = Topic(linger_ms=1_000_000)
    topic.put(b"a")
    topic.accumulator.close()
    with pytest.raises(ProducerClosedError):
        topic.put(b"b")
    assert values(topic.drain(1)) == [b"a"]


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


def test_the_sender_does_not_wake_for_a_batch_that_expires_before_the_next_look():
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
