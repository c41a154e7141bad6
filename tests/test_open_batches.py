"""OpenBatches: when a batch is full, how it grows, and what a record without room or memory does."""

import threading

import pytest

from fastprod import BufferExhaustedError
from tests.accumulators import Topic, settle, values
from tests.conftest import eventually


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


def test_a_record_that_needs_a_new_batch_can_be_left_to_the_caller():
    topic = Topic(linger_ms=10)
    assert topic.put(b"a", abort_on_new_batch=True) is None  # there is none yet
    assert topic.put(b"a") == (0, 0)
    assert topic.put(b"b", abort_on_new_batch=True) == (0, 1)
    assert topic.put(bytes(1000), abort_on_new_batch=True) is None
    assert topic.queued == [1]
    assert topic.accumulator.unsettled_records == 2
    assert values(topic.drain(1)) == [b"a", b"b"]  # it was full


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


def test_an_arena_does_not_grow_past_threads_that_wait():
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
    large = Topic([0] * 8, memory=1 << 20, batch_size=1000, partitioner=partitioner, sequential_random=True)
    for number in range(40):
        without.append(large.put(b"v" * 900, partition=-1, now_ms=1 + 1000 * number)[0])
    assert with_waits == without
