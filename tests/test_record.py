"""A record in a batch: what goes in comes out, and its size is that of Kafka's format v2."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastprod import BufferExhaustedError
from fastprod.internals.buffer_pool import BufferPool
from fastprod_core_access import ManualAccumulator

BATCH_HEADER = 61
BASE = 1_700_000_000_000

AROUND_VARINTS = [63, 64, 127, 128, 8191, 8192, 16383, 16384]
DATA = st.one_of(st.none(), st.binary(max_size=300))
SMALL = st.one_of(st.none(), st.binary(max_size=180))  # key and value together fit into 512 bytes
RECORDS = st.lists(st.tuples(DATA, DATA, st.integers(0, 1 << 61)), min_size=1, max_size=30)


def varint(number):
    """A zigzag varint, as in protobuf's sint64."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(out) + bytes([rest])


def nullable(data):
    return varint(-1) if data is None else varint(len(data)) + data


def format_v2(records):
    """The records as they are on the wire, one by one; a batch header of 61 bytes comes before them."""
    for offset, (key, value, timestamp) in enumerate(records):
        body = b"\0" + varint(timestamp - records[0][2]) + varint(offset) + nullable(key) + nullable(value) + varint(0)
        yield varint(len(body)) + body


def wire_size(records):
    return BATCH_HEADER + sum(len(record) for record in format_v2(records))


def round_trip(records, batch_size=1 << 20):
    """The one batch that the records make."""
    accumulator = ManualAccumulator(BufferPool(1 << 22, batch_size), batch_size=batch_size)
    accumulator.set_topic("t", [0])
    for index, (key, value, timestamp) in enumerate(records):
        assert accumulator.put("t", value, key, partition=0, timestamp=timestamp) == (0, index)
    (batch,) = accumulator.drain_batches(1)
    assert batch.records == [(key, value, [], timestamp) for key, value, timestamp in records]
    assert batch.wire_size == wire_size(records)
    batch.settle()


@pytest.mark.parametrize("key", [None, b"", b"k"], ids=repr)
@pytest.mark.parametrize("value", [None, b"", b"v"], ids=repr)
def test_null_and_empty_are_two_things(key, value):
    round_trip([(key, value, BASE)])


@pytest.mark.parametrize("size", AROUND_VARINTS)
def test_a_length_may_take_any_number_of_bytes(size):
    data = bytes(range(256)) * 64
    round_trip([(data[:size], data[:size], BASE), (None, data[:size], BASE), (data[:size], None, BASE)])


@pytest.mark.parametrize("body", [63, 64, 8191, 8192])
def test_the_size_around_a_longer_body_length(body):
    for size in range(body - 10, body + 3):
        round_trip([(None, bytes(size), BASE)])


def test_every_byte_survives():
    data = bytes(range(256))
    round_trip([(data, data[::-1], BASE), (data[::-1], data, BASE)])


@pytest.mark.parametrize(
    "delta", [0, 63, 64, 8191, 8192, 1 << 20, 1 << 31, 1 << 40, (1 << 62) - 1, 1 << 62, (1 << 63) - 1 - BASE]
)
def test_timestamps_may_jump(delta):
    round_trip([(None, b"a", BASE), (None, b"b", BASE + delta), (None, b"c", BASE), (b"k", b"d", BASE + delta)])


@pytest.mark.parametrize("delta", [1, 64, 65, 8192, 8193, BASE])
def test_timestamps_may_go_back(delta):
    round_trip([(None, b"a", BASE), (None, b"b", BASE - delta), (None, b"c", BASE), (b"k", b"d", BASE - delta)])


def test_timestamps_may_be_extreme():
    round_trip([(None, b"a", 0), (None, b"b", (1 << 63) - 1)])
    round_trip([(None, b"a", (1 << 63) - 1), (None, b"b", 0), (None, b"c", 1)])
    round_trip([(None, b"a", -1), (None, b"b", -(1 << 62)), (None, b"c", 5)])


def test_the_offset_takes_a_second_byte_from_the_65th_record_on():
    """Null key, 100 bytes: 109 bytes up to offset 63, then 110."""
    records = [(None, bytes(100), BASE)] * 70
    assert [len(record) for record in format_v2(records)] == [109] * 64 + [110] * 6
    round_trip(records)


@given(RECORDS)
def test_round_trip(records):
    round_trip(records)


@given(
    st.lists(st.tuples(SMALL, SMALL, st.integers(BASE - 10**6, BASE + 10**6)), min_size=20, max_size=60),
    st.sampled_from([512, 1000, 1024, 4096, 5000]),
)
@example([(b"", b"", BASE)] * 60, 512)
@example([(None, None, BASE)] * 60, 512)
def test_batch_size_bytes_of_arena_hold_what_javas_batch_holds(records, batch_size):
    """The pool has one arena's worth: if a batch needed more, it would end before it is full."""
    accumulator = ManualAccumulator(BufferPool(batch_size, batch_size), batch_size=batch_size, linger_ms=10)
    accumulator.set_topic("t", [0])
    start = 0
    for number, (key, value, timestamp) in enumerate(records):
        try:
            accumulator.put("t", value, key, partition=0, timestamp=timestamp)
        except BufferExhaustedError:
            assert wire_size(records[start : number + 1]) > batch_size
            (batch,) = accumulator.drain_batches(1)
            assert batch.records == [(key, value, [], timestamp) for key, value, timestamp in records[start:number]]
            assert batch.wire_size <= batch_size
            batch.settle()
            start = number
            accumulator.put("t", value, key, partition=0, timestamp=timestamp)


def test_a_batch_ends_where_javas_ends():
    """16384 bytes: 148 records of 100 bytes, 16277 bytes; the next one would make 16387."""
    accumulator = ManualAccumulator(BufferPool(1 << 20, 16384), batch_size=16384, linger_ms=10)
    accumulator.set_topic("t", [0])
    places = [accumulator.put("t", bytes(100), partition=0) for _ in range(149)]
    assert places[-2:] == [(0, 147), (0, 0)]
    (batch,) = accumulator.drain_batches(1)
    assert (len(batch.records), batch.wire_size) == (148, 16277)
    batch.settle()


def test_a_record_that_fills_a_batch_to_the_byte_belongs_to_it():
    for missing, batches in ((0, 1), (1, 2)):
        records = [(None, bytes(100), BASE), (None, bytes(200), BASE)]
        batch_size = wire_size(records) - missing
        accumulator = ManualAccumulator(BufferPool(1 << 20, batch_size), batch_size=batch_size)
        accumulator.set_topic("t", [0])
        for key, value, timestamp in records:
            accumulator.put("t", value, key, partition=0, timestamp=timestamp)
        drained = accumulator.drain_batches(1)
        assert len(drained) == batches
        for batch in drained:
            batch.settle()


def test_a_record_larger_than_the_pool_is_refused():
    accumulator = ManualAccumulator(BufferPool(1000, 500), batch_size=500)
    accumulator.set_topic("t", [0])
    with pytest.raises(BufferExhaustedError, match="raise buffer.memory"):
        accumulator.put("t", bytes(1000), partition=0, max_block_ms=10_000)
    assert accumulator.unsettled_records == 0
