"""ArrowColumn: every type and layout that can be read, and what is malformed."""

import ctypes
import struct
import time

import duckdb
import pandas
import polars
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastprod import (
    BulkFuture,
    Producer,
    partition_for_key,
)
from tests.arrow.conftest import Reader
from tests.arrow.data import BINARY, BYTES_TYPES, COLUMN, TEXT_TYPES, WORD, WORDS, column, encoded, offsets, table
from tests.arrow_builder import ArrowBuilder, Type, Values
from tests.conftest import PARTITIONS, QUICK

pytestmark = pytest.mark.mock


# Whose data it is


@pytest.mark.parametrize("type", [*BYTES_TYPES, *TEXT_TYPES], ids=str)
@pytest.mark.parametrize("cut", ["whole", "sliced", "chunked"])
def test_every_layout_of_pyarrow(make, topic, read, type, cut):
    column = pa.array(encoded(WORDS)).cast(type)
    data = pa.table({"value": column, "key": column})
    expected = encoded(WORDS)
    if cut == "sliced":
        data, expected = data.slice(1, 6), expected[1:7]
    if cut == "chunked":
        data = pa.concat_tables([data, data.slice(2, 0), data.slice(3), data.slice(0, 1)])
        expected = [*expected, *expected[3:], expected[0]]
    future = make().send_arrow(topic, data, partition=1, key="key")
    assert isinstance(future, BulkFuture)
    size = 2 * sum(map(len, filter(None, expected)))
    assert future.result(10) == (topic, len(expected), size, {1: (len(expected), 0, len(expected) - 1)})
    assert [(m.key(), m.value()) for m in read(len(expected))] == [(word, word) for word in expected]


@pytest.mark.parametrize(
    "data",
    [
        lambda t: t,
        lambda t: t.to_batches()[0],
        lambda t: t.to_reader(3),
        lambda t: pa.RecordBatchReader.from_batches(t.schema, iter(t.to_batches(max_chunksize=2))),
        lambda t: t.to_struct_array().combine_chunks(),
        lambda t: t.to_struct_array(),
        lambda t: t["value"],
        lambda t: t["value"].combine_chunks(),
        lambda t: t["value"].chunk(0),
    ],
    ids=["table", "batch", "reader", "generator", "struct", "chunked-struct", "chunked", "array", "chunk"],
)
def test_every_container_of_pyarrow(make, topic, read, data):
    make().send_arrow(topic, data(table(encoded(WORDS))), partition=0).result(10)
    assert read.values(len(WORDS)) == encoded(WORDS)


@pytest.mark.parametrize("width", [0, 1, 16])
def test_fixed_size_binary(make, topic, read, width):
    words = [bytes([i]) * width if i % 3 else None for i in range(20)]
    make().send_arrow(topic, table(pa.array(words, pa.binary(width)).slice(1, 18)), partition=0).result(10)
    assert read.values(18) == words[1:19]


@pytest.mark.parametrize("index", [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(),
                                   pa.uint64()], ids=str)  # fmt: skip
@pytest.mark.parametrize("of", [pa.string(), pa.large_binary(), pa.binary_view(), pa.binary(3)], ids=str)
def test_dictionaries(make, topic, read, index, of):
    words = ["abc", None, "def", "ghi"] if of == pa.binary(3) else ["abc", None, "", "a word that no view holds itself"]
    indices = [0, 2, None, 1, 2, 2, 3, 0]
    dictionary = pa.array(encoded(["xyz", *words])).cast(of).slice(1)
    column = pa.DictionaryArray.from_arrays(pa.array(indices, index), dictionary)
    make().send_arrow(topic, table(column.slice(1)), partition=0).result(10)
    assert read.values(7) == encoded([None if i is None else words[i] for i in indices[1:]])


def test_columns_of_nothing_but_nulls(make, topic, read):
    nulls = pa.nulls(5)
    producer = make()
    data = table(nulls, key=nulls, partition=nulls, timestamp=nulls, header=nulls)
    before = int(time.time() * 1000)
    producer.send_arrow(
        topic, data, key="key", partition="partition", timestamp="timestamp", headers={"h": "header"}
    ).result(10)
    producer.send_arrow(topic, data, headers="header").result(10)
    messages = read(10)
    assert [(m.key(), m.value()) for m in messages] == [(None, None)] * 10
    assert sorted((m.headers() or [] for m in messages), key=len) == [[]] * 5 + [[("h", None)]] * 5
    assert all(before - 5 <= m.timestamp()[1] <= time.time() * 1000 + 5 for m in messages)


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 70_000])
def test_any_number_of_rows(make, topic, read, rows):
    words = [b"%d" % i for i in range(rows)]
    future = make().send_arrow(topic, table(pa.array(words, pa.binary())), partition=3)
    assert future.result(10).count == rows == future.count
    assert read.values(rows) == words


def test_no_batch_at_all(make, topic):
    producer = make()
    assert producer.send_arrow(topic, ArrowBuilder(Type("+s", children=[Type("u", "value")]), [])).result(0).count == 0
    assert producer.send_arrow(topic, pa.table({"value": pa.chunked_array([], pa.string())})).result(0).count == 0
    empty = Values(0, [None], children=[Values(0, [None, None, None])])
    assert (
        producer.send_arrow(topic, ArrowBuilder(Type("+s", children=[Type("u", "value")]), [empty])).result(0).count
        == 0
    )


@pytest.mark.parametrize(
    "value",
    [
        polars.Series("value", WORDS),
        polars.Series("value", encoded(WORDS)),
        polars.Series("value", WORDS).cast(polars.Categorical),
        polars.Series("value", WORDS).cast(polars.Enum(sorted({word for word in WORDS if word is not None}))),
    ],
    ids=lambda series: str(series.dtype)[:11],
)
def test_polars(make, topic, read, value):
    producer = make()
    frame = polars.DataFrame({"value": value, "number": range(len(WORDS))})
    frame = frame.with_columns(
        partition=polars.lit(2, polars.UInt8),
        at=polars.from_epoch(polars.col("number") + 1, "s"),
        headers=polars.concat_list(polars.struct(name=polars.lit("n"), text=polars.col("value").cast(polars.String))),
    )
    producer.send_arrow(topic, frame, key="value", partition="partition", timestamp="at", headers="headers").result(10)
    messages = read(len(WORDS))
    assert [(m.key(), m.value()) for m in messages] == [(word, word) for word in encoded(WORDS)]
    assert [m.timestamp()[1] for m in messages] == [1000 * (i + 1) for i in range(len(WORDS))]
    assert [m.headers() for m in messages] == [[("n", word)] for word in encoded(WORDS)]
    producer.send_arrow(topic, frame[2:7], partition=0).result(10)
    assert read.values(5) == encoded(WORDS)[2:7]
    producer.send_arrow(topic, polars.concat([value, value], rechunk=False), partition=0).result(10)
    assert read.values(2 * len(WORDS)) == encoded(WORDS) * 2


def test_polars_nulls_without_a_type(make, topic, read):
    frame = polars.DataFrame({"value": [None, None], "nothing": [None, None]})
    columns = {"key": "nothing", "partition": "nothing", "timestamp": "nothing", "headers": {"h": "nothing"}}
    make().send_arrow(topic, frame, **columns).result(10)
    assert [(m.key(), m.value(), m.headers()) for m in read(2)] == [(None, None, [("h", None)])] * 2


@pytest.mark.parametrize("values", [WORDS, encoded(WORDS), pandas.Categorical(WORDS)], ids=["str", "bytes", "category"])
def test_pandas(make, topic, read, values):
    producer = make()
    frame = pandas.DataFrame({"value": values, "partition": 1, "at": pandas.to_datetime([1234567] * len(WORDS))})
    producer.send_arrow(topic, frame, partition="partition", timestamp="at", headers={"h": "value"}).result(10)
    messages = read(len(WORDS))
    assert [m.value() for m in messages] == encoded(WORDS)
    assert [m.headers() for m in messages] == [[("h", word)] for word in encoded(WORDS)]
    assert {m.timestamp()[1] for m in messages} == {1}
    producer.send_arrow(topic, frame[1::2], partition=1).result(10)
    assert read.values(4) == encoded(WORDS)[1::2]
    if isinstance(values, list) and hasattr(frame["value"], "__arrow_c_stream__"):  # pandas 3, for Python 3.11 on
        producer.send_arrow(topic, frame["value"].astype(pandas.ArrowDtype(pa.large_string())), partition=1).result(10)
        assert read.values(len(WORDS)) == encoded(WORDS)


def test_duckdb(make, topic, read):
    producer = make()
    query = """select 'value ' || i as value, encode('k' || i % 7) as key, (i % 4)::utinyint as partition,
               make_timestamp(i * 1000) as at, ('e' || i % 2)::enum('e0', 'e1') as kind, map {'a': 'x' || i} as headers
               from range(1, 10001) t(i) order by i"""
    relation = duckdb.sql(query)
    columns = {"key": "key", "partition": "partition", "timestamp": "at"}
    producer.send_arrow(topic, relation, **columns, headers={"kind": "kind"}).result(10)
    messages = read(10_000)
    assert {m.partition() for m in messages} == {0, 1, 2, 3}
    for m in messages:
        i = int(m.value().split()[1])
        assert (m.key(), m.partition(), m.timestamp()[1]) == (b"k%d" % (i % 7), i % 4, i)
        assert m.headers() == [("kind", b"e%d" % (i % 2))]
    producer.send_arrow(topic, duckdb.sql(query), partition="partition", headers="headers").result(10)
    assert all(m.headers() == [("a", b"x" + m.value().split()[1])] for m in read(10_000))


# What the data's producer does wrong


def view(length, *rest):
    return struct.pack("i12s", length, rest[0]) if len(rest) == 1 else struct.pack("i4sii", length, *rest)


VIEW, FIXED = Type("vz", "value"), Type("w:2", "value")
ENCODED = Type("c", "value", dictionary=Type("z"))
MALFORMED = {
    "negative length": column(BINARY, Values(-1, [None, offsets(0, 1), b"a"])),
    "negative offset": column(BINARY, Values(1, [None, offsets(0, 1), b"a"], offset=-1)),
    "huge offset": column(BINARY, Values(1, [None, offsets(0, 1), b"a"], offset=(1 << 63) - 1)),
    "short column": column(BINARY, Values(1, [None, offsets(0, 1), b"a"]), 2),
    "no buffers": column(BINARY, Values(1)),
    "too few buffers": column(BINARY, Values(1, [None, offsets(0, 1)])),
    "too many buffers": column(BINARY, Values(1, [None, offsets(0, 1), b"a", b""])),
    "no offsets": column(BINARY, Values(1, [None, None, b"a"])),
    "no data": column(BINARY, Values(1, [None, offsets(0, 1), None])),
    "nulls without validity": column(BINARY, Values(1, [None, offsets(0, 1), b"a"], null_count=1)),
    "children": column(BINARY, Values(1, [None, offsets(0, 1), b"a"], children=[WORD])),
    "a dictionary": column(BINARY, Values(1, [None, offsets(0, 1), b"a"], dictionary=WORD)),
    "offsets back": column(BINARY, Values(2, [None, offsets(0, 3, 2), b"abc"])),
    "negative offsets": column(BINARY, Values(1, [None, offsets(-1, 2), b"abc"])),
    "large offsets back": column(Type("Z", "value"), Values(1, [None, struct.pack("2q", 1, 0), b"abc"])),
    "view without sizes": column(VIEW, Values(1, [None, view(20, b"aaaa", 0, 0), b"a" * 20])),
    "view of no buffer": column(VIEW, Values(1, [None, view(20, b"aaaa", 1, 0), b"a" * 20, struct.pack("q", 20)])),
    "view of a negative buffer": column(
        VIEW, Values(1, [None, view(20, b"aaaa", -1, 0), b"a" * 20, struct.pack("q", 20)])
    ),
    "view past the end": column(VIEW, Values(1, [None, view(20, b"aaaa", 0, 1), b"a" * 20, struct.pack("q", 20)])),
    "view before the start": column(VIEW, Values(1, [None, view(20, b"aaaa", 0, -1), b"a" * 20, struct.pack("q", 20)])),
    "view of a NULL buffer": column(VIEW, Values(1, [None, view(20, b"aaaa", 0, 0), None, struct.pack("q", 20)])),
    "view of negative length": column(VIEW, Values(1, [None, view(-1, b""), None])),
    "views that are NULL": column(VIEW, Values(1, [None, None, None])),
    "sizes that are NULL": column(VIEW, Values(1, [None, view(20, b"aaaa", 0, 0), b"a" * 20, None])),
    "fixed-size NULL": column(FIXED, Values(1, [None, None])),
    "index past the dictionary": column(ENCODED, Values(1, [None, b"\1"], dictionary=WORD)),
    "negative index": column(ENCODED, Values(1, [None, b"\xff"], dictionary=WORD)),
    "no dictionary": column(ENCODED, Values(1, [None, b"\0"])),
    "malformed word": column(ENCODED, Values(1, [None, b"\0"], dictionary=Values(1, [None, offsets(2, 1), b"abc"]))),
    "malformed dictionary": column(ENCODED, Values(1, [None, b"\0"], dictionary=Values(-1, [None, offsets(0), b""]))),
    "no column": ArrowBuilder(COLUMN, [Values(1, [None])]),
    "one column more": ArrowBuilder(COLUMN, [Values(1, [None], children=[WORD, WORD])]),
    "batch without buffers": ArrowBuilder(COLUMN, [Values(1, children=[WORD])]),
    "negative batch": ArrowBuilder(COLUMN, [Values(-1, [None], children=[WORD])]),
    "batch at a negative offset": ArrowBuilder(COLUMN, [Values(1, [None], children=[WORD], offset=-1)]),
    "batch past its column": ArrowBuilder(COLUMN, [Values(1, [None], children=[WORD], offset=1)]),
    "null rows without validity": ArrowBuilder(COLUMN, [Values(1, [None], children=[WORD], null_count=1)]),
}


@pytest.mark.parametrize("built", MALFORMED.values(), ids=MALFORMED)
def test_malformed_data_is_refused_and_released(make, topic, built):
    producer = make()
    with pytest.raises(ValueError, match="malformed Arrow data") as caught:
        producer.send_arrow(topic, built)
    built.check()
    assert caught.value.sent.result(10).count == caught.value.index
    assert producer.send_arrow(topic, ArrowBuilder(BINARY, [WORD])).result(10).count == 1


def test_buffers_may_start_anywhere(make, topic, read):
    held = [ctypes.create_string_buffer(b"-" + data) for data in (offsets(0, 3, 3, 6), struct.pack("3q", 5, 6, 7))]
    values = Values(3, [None, ctypes.addressof(held[0]) + 1, b"abcdef"])
    times = Values(3, [None, ctypes.addressof(held[1]) + 1])
    type = Type("+s", children=[Type("u", "value"), Type("l", "at")])
    built = ArrowBuilder(type, [Values(3, [None], children=[values, times])])
    make().send_arrow(topic, built, timestamp="at", partition=0).result(10)
    assert [(m.value(), m.timestamp()[1]) for m in read(3)] == [(b"abc", 5), (b"", 6), (b"def", 7)]


def test_offsets_of_batch_column_and_dictionary_add_up(make, topic, read):
    words = Values(3, [None, offsets(0, 0, 1, 2, 3), b"abc"], offset=1)
    indices = Values(4, [b"\xf7", bytes([9, 9, 9, 0, 1, 2, 1])], dictionary=words, offset=2, null_count=-1)
    plain = Values(3, [None, offsets(0, 1, 2, 3), b"xyz"])
    type = Type("+s", children=[Type("c", "key", dictionary=Type("z")), Type("z", "value")])
    # Row 0 of the batch is the third index, which is null in the bitmap 11110111; row 1 is the word 1.
    built = ArrowBuilder(type, [Values(2, [None], children=[indices, plain], offset=1)])
    make().send_arrow(topic, built, key="key", partition=0).result(10)
    assert [(m.key(), m.value()) for m in read(2)] == [(None, b"y"), (b"b", b"z")]
    built.check()


# Any layout at all

TEXTS = st.sampled_from(["", "a", "ä", "twelve bytes", "thirteen bytes", "x" * 40])
LAYOUTS = [
    *BYTES_TYPES,
    *TEXT_TYPES,
    pa.binary(5),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.uint64(), pa.large_binary()),
    pa.null(),
]


@st.composite
def columns(draw, rows):
    """(pyarrow's chunks, the bytes) of a column of any layout."""
    type = draw(st.sampled_from(LAYOUTS))
    nulls = draw(st.booleans())
    word = st.binary(min_size=5, max_size=5) if type == pa.binary(5) else TEXTS.map(str.encode)
    if type == pa.null():
        word = st.none()
    words = draw(st.lists(st.one_of(st.none(), word) if nulls else word, min_size=rows, max_size=rows))
    pad = [draw(word)] * draw(st.integers(0, 3))
    given = [*pad, *words, *pad]
    of = type.value_type if pa.types.is_dictionary(type) else type
    if of in TEXT_TYPES:
        given = [word if word is None else word.decode() for word in given]
    if pa.types.is_dictionary(type):
        column = pa.array(given, of).dictionary_encode().cast(type)
    else:
        column = pa.array(given, type)
    return column.slice(len(pad), rows), words


@st.composite
def tables(draw):
    """Batches of one schema, each cut out of larger ones, and the records that they are."""
    names = ["value", "key", "h1", "h2"]
    rows = draw(st.integers(0, 12))
    made = {name: draw(columns(rows)) for name in names}
    partitions = draw(st.lists(st.one_of(st.none(), st.integers(0, PARTITIONS - 1)), min_size=rows, max_size=rows))
    times = draw(st.lists(st.integers(1_000, 1 << 40), min_size=rows, max_size=rows))
    pairs = st.lists(
        st.tuples(st.sampled_from(["n", "other"]), st.one_of(st.none(), st.binary(max_size=15))), max_size=3
    )
    lists = draw(st.lists(st.one_of(st.none(), pairs), min_size=rows, max_size=rows))
    arrays = {name: column for name, (column, _) in made.items()}
    integer = draw(st.sampled_from([pa.int8(), pa.uint16(), pa.int64()]))
    arrays["partition"] = pa.array([None, *partitions], integer).slice(1)
    unit = draw(st.sampled_from(["s", "ms", "us"]))
    arrays["at"] = pa.array([5, *times], pa.int64()).slice(1).cast(pa.timestamp(unit))
    item = pa.struct([("k", pa.string()), ("v", pa.binary())])
    kind = draw(st.sampled_from([pa.map_(pa.string(), pa.binary()), pa.list_(item), pa.large_list(item)]))
    as_given = lists if pa.types.is_map(kind) else [row and [{"k": k, "v": v} for k, v in row] for row in lists]
    arrays["headers"] = pa.array([None, *as_given], kind).slice(1)
    batch = pa.RecordBatch.from_pydict(arrays)
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=3)))
    slices = [batch.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]
    ms = [{"s": time * 1000, "ms": time, "us": time // 1000}[unit] for time in times]
    records = list(zip(*(made[name][1] for name in names), partitions, ms, lists, strict=True))
    return pa.Table.from_batches(slices, slices[0].schema), records


@pytest.fixture(scope="module")
def placed(mock_cluster):
    """A producer and a reader of a topic that the examples share."""
    mock_cluster.create_topic("placed", PARTITIONS)
    with Producer({"bootstrap.servers": mock_cluster.bootstrap_servers, **QUICK}) as producer:
        reader = Reader(mock_cluster.bootstrap_servers, "placed")
        yield producer, reader
        reader.consumer.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tables(), st.sampled_from(["table", "struct", "batch"]), st.booleans(), st.booleans())
def test_any_table_is_sent_as_by_send(placed, made, container, keyed, listed):
    producer, read = placed
    data, records = made
    options = {"partition": "partition", "timestamp": "at"}
    options["key"] = "key" if keyed else None
    options["headers"] = "headers" if listed else {"one": "h1", "two": "h2"}
    if container == "struct":
        data = data.to_struct_array()
    elif container == "batch":
        data = data.combine_chunks().to_batches()[0] if len(data) else data
    metadata = producer.send_arrow("placed", data, **options).result(10)
    assert metadata.count == len(records)
    expected = {partition: [] for partition in range(PARTITIONS)}
    unplaced = []
    for value, key, h1, h2, partition, ms, lists in records:
        headers = (lists or None) if listed else [("one", h1), ("two", h2)]
        record = (key if keyed else None, value, ms, headers)
        if partition is None and record[0] is not None:
            partition = partition_for_key(key, PARTITIONS)
        (unplaced if partition is None else expected[partition]).append(record)
    found = {partition: [] for partition in range(PARTITIONS)}
    for m in read(len(records)):
        found[m.partition()].append((m.key(), m.value(), m.timestamp()[1], m.headers()))
    for partition, rows in expected.items():
        for row in rows:  # in this order, between those that the producer placed
            while found[partition][0] != row:
                unplaced.remove(found[partition].pop(0))
            found[partition].pop(0)
        for row in found[partition]:
            unplaced.remove(row)
    assert not unplaced
