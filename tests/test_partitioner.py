"""The partition of records without a key: KIP-794, KIP-480 and the others."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprod.internals.buffer_pool import BufferPool
from fastprod_core_access import ManualAccumulator, StickyPartitioner

SEEDS = st.integers(0, (1 << 64) - 1)
FLAGS = st.lists(st.booleans(), min_size=1, max_size=12)


def partitioner(kind, queue_lengths, available=None, **options):
    made = StickyPartitioner(kind, **options)
    made.set_partitions(queue_lengths, available)
    return made


def accumulator(partitions, *, batch_size, **options):
    made = ManualAccumulator(BufferPool(1 << 26, batch_size), batch_size=batch_size, **options)
    made.set_topic("t", [0] * partitions)
    return made


def draw(sticky, count):
    """The partitions of `count` stays, with stick 1."""
    drawn = []
    for _ in range(count):
        drawn.append(sticky.partition())
        sticky.update(1)
    return drawn


# KIP-794: the scenarios of Kafka's RecordAccumulatorTest and BuiltInPartitionerTest.


def test_a_partition_is_kept_for_batch_size_bytes():
    """testUniformBuiltInPartitioner."""
    topic = accumulator(3, batch_size=1024, linger_ms=10, adaptive=False, sequential_random=True)
    assert [topic.put("t", bytes(size))[0] for size in (5, 1024, 1024, 1024, 1024)] == [0, 0, 1, 2, 0]


def test_one_random_number_per_switch():
    """One switch behind Java's count at most: there, a batch of one large record is not full by some bytes."""
    topic = accumulator(3, batch_size=1024, linger_ms=10, adaptive=False, sequential_random=True)
    drawn = []
    for size in (5, 1024, 1024, 1024, 1024):
        topic.put("t", bytes(size))
        drawn.append(topic.random_draws("t"))
    for ours, java in zip(drawn, [1, 1, 2, 3, 4], strict=True):
        assert ours in (java, java + 1)


@pytest.mark.parametrize(
    ("queue_lengths", "cycle", "expected"),
    [
        ([1, 7, 2], 14, [14, 2, 12]),  # testAdaptiveBuiltInPartitioner
        ([5, 0, 3, 0, 1], 21, [2, 12, 6, 12, 10]),  # BuiltInPartitionerTest.adaptivePartitionsTest
        ([0, 3, 1], 8, [8, 2, 6]),
    ],
)
def test_long_queues_are_chosen_less_often(queue_lengths, cycle, expected):
    sticky = partitioner("uniform_sticky", queue_lengths, batch_size=1, sequential_random=True)
    counts = Counter(draw(sticky, 2 * cycle))
    assert [counts[p] for p in range(len(queue_lengths))] == expected


def test_of_eight_draws_weights_give_four_one_and_three():
    sticky = partitioner("uniform_sticky", [0, 3, 1], batch_size=1, sequential_random=True)
    assert draw(sticky, 8) == [0, 0, 0, 0, 1, 2, 2, 2]


def test_weights_leave_out_the_unavailable():
    sticky = partitioner("uniform_sticky", [0, 3, 9, 1], [1, 1, 0, 1], batch_size=1, sequential_random=True)
    assert draw(sticky, 8) == [0, 0, 0, 0, 1, 3, 3, 3]


def test_without_adaptive_queues_do_not_count():
    sticky = partitioner("uniform_sticky", [0, 30, 1], batch_size=1, adaptive=False)
    assert Counter(draw(sticky, 300)) == {0: 100, 1: 100, 2: 100}


def test_the_accumulator_weighs_the_queues_it_has():
    """The accumulator's own lengths, at the moment of the switch; 128-byte batches of one record each."""
    topic = accumulator(3, batch_size=128, linger_ms=10, sequential_random=True)
    for partition, batches in enumerate([1, 7, 2]):
        for _ in range(batches):
            topic.put("t", bytes(128), partition=partition)
    assert topic.queue_lengths("t") == [1, 7, 2]
    lengths, number = topic.queue_lengths("t"), 0
    for _ in range(60):
        weights = [max(lengths) + 1 - length for length in lengths]
        chosen = [p for p, weight in enumerate(weights) for _ in range(weight)]
        even = len(set(lengths)) == 1
        partition, _ = topic.put("t", bytes(128))
        assert even or partition == chosen[number % len(chosen)]
        lengths, number = topic.queue_lengths("t"), topic.random_draws("t") - 1


def test_fractional_batches_stay_whole():
    """testBuiltInPartitionerFractionalBatches: the switch waits for the end of a batch."""
    topic = accumulator(3, batch_size=512, linger_ms=0, adaptive=False, sequential_random=True)
    seen = []
    for now in range(1, 11):
        for _ in range(10):
            topic.put("t", bytes(32), now_ms=now)
        (batch,) = topic.drain_batches(now)
        assert len(batch.records) == 10
        assert batch.wire_size == 451
        seen.append(batch.partition)
        batch.settle()
    assert seen == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("batch_size", "value_size", "in_a_batch", "batch_bytes"),
    [
        (16384, 100, 148, 16277),
        (16384, 1000, 16, 16205),
        (131072, 100, 1191, 131007),
        (1000000, 100, 9082, 999907),
    ],
)
@pytest.mark.parametrize("adaptive", [True, False])
def test_a_run_at_full_speed_is_two_full_batches(batch_size, value_size, in_a_batch, batch_bytes, adaptive):
    topic = accumulator(3, batch_size=batch_size, linger_ms=10, adaptive=adaptive)
    value = bytes(value_size)
    partitions = [topic.put("t", value)[0] for _ in range(6 * in_a_batch + 1)]
    for start in range(0, 6 * in_a_batch, 2 * in_a_batch):
        run = partitions[start : start + 2 * in_a_batch]
        assert set(run) == {run[0]}
    sizes = []
    while batches := topic.drain_batches(1):  # in several turns, as the window allows
        for batch in batches:
            sizes.append((len(batch.records), batch.wire_size))
            batch.settle()
    assert sizes == [(in_a_batch, batch_bytes)] * 6


def test_records_with_a_partition_do_not_move_the_sticky_one():
    topic = accumulator(3, batch_size=1024, linger_ms=10, sequential_random=True)
    topic.put("t", b"first")
    for i in range(300):
        topic.put("t", bytes(100), partition=i % 3)
    assert topic.random_draws("t") == 1


def test_a_switch_waits_for_a_batch_to_end_until_twice_the_limit():
    sticky = partitioner("uniform_sticky", [0] * 3, batch_size=100, sequential_random=True)
    sticky.partition()
    assert not sticky.update(99)
    assert not sticky.update(99, enable_switch=False)
    assert not sticky.update(1, enable_switch=False)
    assert sticky.update(1, enable_switch=False)
    assert not sticky.update(99)  # the overshoot is dropped
    assert sticky.update(1)


def test_a_batch_size_of_zero_sticks_for_one_record():
    sticky = partitioner("uniform_sticky", [0] * 3, batch_size=0)
    assert not sticky.update(0)
    assert sticky.update(1)


# Evener than Java: without weights, every partition has its turn before one comes again.


@given(SEEDS, st.integers(1, 20), st.integers(0, 100))
def test_counts_differ_by_at_most_one(seed, partitions, count):
    sticky = partitioner("uniform_sticky", [2] * partitions, batch_size=1, seed=seed)
    drawn = draw(sticky, count)
    for start in range(0, count - partitions + 1, partitions):
        assert sorted(drawn[start : start + partitions]) == list(range(partitions))
    assert len(set(drawn[count - count % partitions :])) == count % partitions


@given(SEEDS, FLAGS)
def test_a_cycle_runs_over_the_available(seed, available):
    sticky = partitioner("uniform_sticky", [0] * len(available), available, batch_size=1, seed=seed)
    expected = [p for p, flag in enumerate(available) if flag] or list(range(len(available)))
    for _ in range(3):
        assert sorted(draw(sticky, len(expected))) == expected


@given(SEEDS, st.lists(FLAGS, max_size=8))
def test_an_unavailable_partition_is_never_chosen(seed, changes):
    """Whatever has happened to the cycle meanwhile, growth included."""
    sticky = partitioner("uniform_sticky", [0], batch_size=1, seed=seed)
    draw(sticky, 1)
    for available in sorted(changes, key=len):
        sticky.set_partitions([0] * len(available), available)
        sticky.update(1)
        for partition in draw(sticky, 5):
            assert available[partition] or not any(available)


def test_the_order_of_the_cycle_is_random():
    firsts = Counter()
    orders = set()
    for seed in range(400):
        drawn = draw(partitioner("uniform_sticky", [0] * 4, batch_size=1, seed=seed), 8)
        firsts[drawn[0]] += 1
        orders.add(tuple(drawn))
    assert min(firsts[p] for p in range(4)) > 50  # 100 expected, 5.8 standard deviations
    assert len(orders) > 50


def test_two_topics_go_different_ways():
    topic = ManualAccumulator(BufferPool(1 << 26, 128), batch_size=128)
    for name in "ab":
        topic.set_topic(name, [0] * 50)
    runs = [[topic.put(name, bytes(128))[0] for _ in range(50)] for name in "ab"]
    assert runs[0] != runs[1]


def test_a_burst_over_the_accumulator_is_even():
    """One run, two batches, of difference between partitions at most."""
    topic = accumulator(5, batch_size=1024, linger_ms=10, adaptive=False)
    sent = Counter()
    for _ in range(3000):
        sent[topic.put("t", bytes(90))[0]] += 1
    assert max(sent.values()) - min(sent.values()) <= 2 * 1024 // 90


# KIP-480.


@given(SEEDS, st.integers(2, 12))
def test_sticky_moves_to_another_partition_with_each_batch(seed, partitions):
    sticky = partitioner("sticky", [0] * partitions, seed=seed)
    current = sticky.partition()
    for _ in range(20):
        assert sticky.partition() == current
        following = sticky.on_new_batch()
        assert following != current
        current = following


@given(SEEDS, FLAGS)
def test_sticky_avoids_the_leaderless(seed, available):
    sticky = partitioner("sticky", [0] * len(available), available, seed=seed)
    chosen = {sticky.partition()} | {sticky.on_new_batch() for _ in range(20)}
    if any(available):
        assert all(available[p] for p in chosen)
    else:
        assert chosen <= set(range(len(available)))


def test_sticky_uses_all_while_none_has_a_leader():
    sticky = partitioner("sticky", [0] * 3, [0, 0, 0])
    assert {sticky.on_new_batch() for _ in range(100)} == {0, 1, 2}


def test_sticky_stays_where_only_one_is_available():
    sticky = partitioner("sticky", [0] * 3, [0, 1, 0])
    assert sticky.partition() == 1
    assert [sticky.on_new_batch() for _ in range(3)] == [1, 1, 1]


def test_sticky_leaves_a_partition_that_lost_its_leader():
    sticky = partitioner("sticky", [0, 0], [1, 0])
    assert sticky.partition() == 0
    sticky.set_partitions([0, 0], [0, 1])
    assert sticky.on_new_batch() == 1


def test_sticky_in_the_accumulator_moves_when_a_batch_is_full():
    topic = accumulator(4, batch_size=1024, linger_ms=10, partitioner="sticky")
    partitions = []
    for _ in range(200):
        partition, index = topic.put("t", bytes(100))
        partitions.append((partition, index))
    for (before, _), (partition, index) in zip(partitions, partitions[1:], strict=False):
        assert partition == before or index == 0 or topic.queue_lengths("t")[partition]
    switches = sum(a[0] != b[0] for a, b in zip(partitions, partitions[1:], strict=False))
    assert switches >= 200 // 9 - 1  # 8 records a batch


# The others.


def test_timed_sticky_moves_after_its_interval():
    sticky = partitioner("timed_sticky", [0] * 5, interval_ms=100, sequential_random=True)
    assert [sticky.partition(now) for now in (1000, 1050, 1099.999, 1100, 1199, 1200, 5000, 5099)] == [
        0, 0, 0, 1, 1, 2, 3, 3,
    ]  # fmt: skip


def test_timed_sticky_in_the_accumulator_follows_the_clock():
    topic = accumulator(5, batch_size=16384, partitioner="timed_sticky", sticky_interval_ms=100, sequential_random=True)
    times = [1, 50, 100.9, 101, 200, 201, 1000]
    assert [topic.put("t", b"v", now_ms=now)[0] for now in times] == [0, 0, 0, 1, 1, 2, 3]


def test_timed_sticky_chooses_among_the_available():
    sticky = partitioner("timed_sticky", [0] * 4, [0, 1, 0, 1], interval_ms=1)
    assert {sticky.partition(now) for now in range(100)} == {1, 3}


def test_round_robin_takes_one_after_the_other():
    sticky = partitioner("round_robin", [0] * 3)
    assert [sticky.partition() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_skips_the_leaderless():
    sticky = partitioner("round_robin", [0] * 4, [1, 0, 1, 1])
    assert [sticky.partition() for _ in range(6)] == [0, 2, 3, 0, 2, 3]
    sticky.set_partitions([0] * 4, [0] * 4)
    assert sorted(sticky.partition() for _ in range(4)) == [0, 1, 2, 3]


def test_random_reaches_every_available_partition():
    sticky = partitioner("random", [0] * 4, [1, 0, 1, 1], seed=1)
    counts = Counter(sticky.partition() for _ in range(600))
    assert set(counts) == {0, 2, 3}
    assert min(counts.values()) > 120  # 200 expected, 7 standard deviations


@pytest.mark.parametrize("kind", ["uniform_sticky", "sticky", "timed_sticky", "round_robin", "random"])
def test_one_partition_is_all_there_is(kind):
    for available in ([0], [1]):
        sticky = partitioner(kind, [3], available, batch_size=1)
        assert draw(sticky, 3) == [0, 0, 0]
        assert sticky.partition(10**6) == 0


@pytest.mark.parametrize("kind", ["uniform_sticky", "sticky", "timed_sticky", "round_robin", "random"])
def test_the_accumulator_prefers_partitions_with_a_leader(kind):
    topic = accumulator(4, batch_size=128, partitioner=kind)
    topic.set_topic("t", [-1, 3, -1, 4])
    assert {topic.put("t", bytes(100), now_ms=now)[0] for now in range(1, 6000, 60)} == {1, 3}
    topic.set_topic("t", [-1, -1, -1, -1])
    topic.put("t", bytes(128))  # a sticky partition is left at the end of a batch
    topic.put("t", bytes(128))
    seen = {topic.put("t", bytes(128), now_ms=now)[0] for now in range(6000, 12000, 60)}
    assert seen == {0, 1, 2, 3}


def test_an_unknown_kind_is_refused():
    with pytest.raises(KeyError):
        StickyPartitioner("stickier")
