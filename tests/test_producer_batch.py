"""ProducerBatch: records in an arena, how it grows, and how many of them a request takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprod.internals.buffer_pool import BufferPool
from fastprod_core_access import Batch

MEMORY = 1 << 16
RECORDS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.binary(max_size=200)),
        st.one_of(st.none(), st.binary(max_size=40)),
        st.one_of(st.integers(0, 1000), st.integers(0, 1 << 41)),
    ),
    min_size=1,
    max_size=20,
)


@pytest.fixture
def pool():
    return BufferPool(MEMORY, 1024)


def batch_of(records, capacity=1 << 14):
    batch = Batch(BufferPool(MEMORY, 1024), capacity)
    for index, record in enumerate(records):
        assert batch.append(*record) == index
    return batch


def state(batch):
    return batch.records, batch.wire_size, batch.used


@given(records=RECORDS)
def test_records_are_read_as_they_were_appended(records):
    assert batch_of(records).records == [(key, value, [], timestamp) for value, key, timestamp in records]


@given(records=RECORDS)
def test_every_way_of_appending_gives_the_same_batch(records):
    expected = state(batch_of(records))
    fast, run = batch_of(records[:1]), batch_of(records[:1])
    assert all(fast.append_fast_path(*record) for record in records[1:])
    assert records[1:] == [] or run.append_run(records[1:], [3] * (len(records) - 1)) == len(records) - 1
    assert state(fast) == state(run) == expected


@given(records=RECORDS, limit=st.integers(0, 3000))
def test_a_run_stays_below_its_limit_and_takes_what_one_by_one_would_have(records, limit):
    first = (b"first", None, 0)
    run, fast = batch_of([first]), batch_of([first])
    taken = run.append_run(records, [0] * len(records), limit=limit)
    expected = 0
    while expected < len(records) and fast.append_fast_path(*records[expected], limit=limit):
        expected += 1
    assert taken == expected
    assert state(run) == state(fast)
    assert taken == 0 or run.wire_size < limit


@pytest.mark.parametrize(("partitions", "taken"), [([0, 0, 0], 3), ([0, 0, 1], 2), ([1, 0, 0], 1), ([-1, -1, 0], 2)])
def test_a_run_has_one_partition(partitions, taken):
    assert batch_of([(b"first", None, 0)]).append_run([(b"v", None, 0)] * 3, partitions) == taken


def test_a_run_stops_where_the_arena_ends():
    batch = batch_of([(bytes(100), None, 0)], capacity=500)
    taken = batch.append_run([(bytes(100), None, 0)] * 10, [0] * 10)
    assert 0 < taken < 4
    assert batch.used <= batch.capacity
    assert not batch.append_fast_path(bytes(500))
    assert batch.append(bytes(500)) is None
    assert len(batch.records) == 1 + taken


def test_a_batch_takes_records_until_its_arena_is_full_to_the_byte(pool):
    batch = Batch(pool, 100)
    while batch.append(b"") is not None:
        pass
    size = batch.used // len(batch.records)
    assert batch.capacity - batch.used < size + 1


def test_an_arena_grows_and_keeps_its_records(pool):
    batch = Batch(pool, 200)
    batch.append(b"first", b"key", 5)
    before = state(batch)
    assert batch.grow(5000)
    assert (batch.capacity, state(batch)) == (5000, before)
    assert MEMORY - pool.available_memory == 5000
    assert batch.append(bytes(4000)) == 1


def test_an_arena_that_cannot_grow_stays_as_it_is(pool):
    batch = Batch(pool, 200)
    batch.append(b"first")
    before = state(batch)
    assert not batch.grow(MEMORY + 1)
    assert (batch.capacity, state(batch)) == (200, before)
    assert MEMORY - pool.available_memory == 200


def test_records_move_to_another_arena_and_the_old_one_goes_back(pool):
    batch = Batch(pool, 200)
    batch.append(b"first", b"key", 5)
    before = state(batch)
    batch.move(1024)
    assert (batch.capacity, state(batch)) == (1024, before)
    assert MEMORY - pool.available_memory == 1024


def test_a_batch_that_is_freed_gives_its_arena_back(pool):
    batch = Batch(pool, 200)
    batch.append(b"v")
    del batch
    assert pool.available_memory == MEMORY


@given(records=RECORDS, limit=st.integers(0, 6000), first=st.integers(0, 19))
def test_a_request_gets_as_many_records_as_fit(records, limit, first):
    batch = batch_of(records)
    first = min(first, len(records) - 1)
    sizes = [batch.request_size(first, count) for count in range(len(records) - first + 1)]
    assert sizes == sorted(sizes)
    assert batch.records_within(first, limit) == max(
        count for count, size in enumerate(sizes) if size <= limit or not count
    )


@given(records=RECORDS)
def test_a_request_is_never_larger_than_it_is_estimated(records):
    batch = batch_of(records)
    assert batch.wire_size - 61 <= batch.request_size(0, len(records))
