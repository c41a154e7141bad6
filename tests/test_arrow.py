"""send_arrow(): what send() does for one record, for the rows of Arrow data, whoever made it."""

import contextlib
import ctypes
import datetime
import decimal
import errno
import os
import signal
import struct
import threading
import time

import duckdb
import pandas
import polars
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastprod
from fastprod import (
    BufferExhaustedError,
    BulkFuture,
    DeliveryError,
    ForkedProducerError,
    MetadataTimeoutError,
    Producer,
    ProducerClosedError,
    RecordTooLargeError,
    SerializationError,
    UnknownTopicOrPartitionError,
    partition_for_key,
)
from tests.conftest import PARTITIONS, QUICK, READER, TOPIC, interrupted
from tests.lender import Lender, Type, Values

pytestmark = pytest.mark.mock
# "b" twice, a value longer than a view holds itself, and what is empty or null.
WORDS = ["a", None, "", "b", "longer than a view holds", "b", "another one, as long as that", None]
BYTES_TYPES = [pa.binary(), pa.large_binary(), pa.binary_view()]
MAP = pa.map_(pa.string(), pa.binary())
BYTE_MAP = pa.map_(pa.binary(), pa.binary())
NAMED_PAIRS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view()]


class Bystander:
    """An interceptor: records go through send() one by one."""

    def on_send(self, record):
        return record


class Reader:
    """Reads what has come to a topic since it was read last."""

    def __init__(self, servers, topic):
        self.consumer = Consumer({"bootstrap.servers": servers, **READER})
        self.consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])

    def __call__(self, count):
        """The messages, in the order of partition and offset."""
        messages = []
        while len(messages) < count and (found := self.consumer.consume(count - len(messages), 10)):
            messages += found
        assert len(messages) == count
        return sorted(messages, key=lambda message: (message.partition(), message.offset()))

    def values(self, count):
        return [message.value() for message in self(count)]


@pytest.fixture
def topic(mock_cluster, request):
    """A topic that no test has, not one of the same name elsewhere either."""
    name = "arrow-" + "".join(c if c.isalnum() and c.isascii() else "-" for c in request.node.name)[:200]
    mock_cluster.create_topic(name, PARTITIONS)
    return name


@pytest.fixture
def read(mock_cluster, topic):
    reader = Reader(mock_cluster.bootstrap_servers, topic)
    yield reader
    reader.consumer.close()


def encoded(words):
    return [word.encode() if isinstance(word, str) else word for word in words]


def table(values=WORDS, **columns):
    return pa.table({"value": pa.array(values), **columns})


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
    assert producer.send_arrow(topic, Lender(Type("+s", children=[Type("u", "value")]), [])).result(0).count == 0
    assert producer.send_arrow(topic, pa.table({"value": pa.chunked_array([], pa.string())})).result(0).count == 0
    empty = Values(0, [None], children=[Values(0, [None, None, None])])
    assert producer.send_arrow(topic, Lender(Type("+s", children=[Type("u", "value")]), [empty])).result(0).count == 0


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


# Fields


def test_keys_are_placed_as_by_send(make, topic, read, rng):
    keys = [rng.choice([None, b"%d" % rng.randrange(50)]) for _ in range(5_000)]
    values = [b"%d" % i for i in range(5_000)]
    make().send_arrow(topic, table(values, k=pa.array(keys)), key="k").result(10)
    last = [-1] * PARTITIONS
    for message in read(5_000):
        number = int(message.value())
        assert message.key() == keys[number]
        if message.key() is not None:
            assert message.partition() == partition_for_key(message.key(), PARTITIONS)
        assert number > last[message.partition()]
        last[message.partition()] = number


@pytest.mark.parametrize("type", [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(),
                                  pa.uint64()], ids=str)  # fmt: skip
def test_partitions_of_every_integer_type(make, topic, read, type):
    partitions = [0, 3, None, 1, 2, None, 3]
    keys = ["k"] * 7
    data = table(list("abcdefg"), key=keys, partition=pa.array(partitions, type)).slice(1)
    make().send_arrow(topic, data, key="key", partition="partition").result(10)
    chosen = partition_for_key(b"k", PARTITIONS)
    assert {m.value(): m.partition() for m in read(6)} == {
        word.encode(): chosen if partition is None else partition
        for word, partition in zip("bcdefg", partitions[1:], strict=True)
    }


@pytest.mark.parametrize(
    ("type", "given", "expected"),
    [
        (pa.int64(), [0, 1, 1_700_000_000_000], [0, 1, 1_700_000_000_000]),
        (pa.timestamp("s"), [0, 1, 1_700_000_000], [0, 1_000, 1_700_000_000_000]),
        (pa.timestamp("ms", "Europe/Berlin"), [0, 1, 1_700_000_000_000], [0, 1, 1_700_000_000_000]),
        (pa.timestamp("us"), [0, 999, 1_000, 1_999, 1_700_000_000_000_999], [0, 0, 1, 1, 1_700_000_000_000]),
        (pa.timestamp("ns"), [0, 999_999, 1_000_000, 1_999_999, 2_000_000], [0, 0, 1, 1, 2]),
    ],
    ids=str,
)
def test_timestamps_of_every_unit_are_rounded_down(make, topic, read, type, given, expected):
    column = pa.array([None, *given, None], pa.int64()).cast(type)
    before = time.time() * 1000
    make().send_arrow(topic, table(["v"] * len(column), at=column), timestamp="at", partition=0).result(10)
    first, *found, last = [m.timestamp()[1] for m in read(len(column))]
    assert found == expected
    assert all(before - 5 <= now <= time.time() * 1000 + 5 for now in (first, last))


def test_timestamps_of_this_moment_arrive_to_the_millisecond(make, topic, read):
    now = int(time.time() * 1000)
    given = [now + i % 100 for i in range(1000)]  # some are those of the hand-over
    make().send_arrow(topic, table([str(ms) for ms in given], at=given), timestamp="at").result(10)
    assert all(int(message.value()) == message.timestamp()[1] for message in read(1000))
    make().send_arrow(topic, table(["v"] * 100), timestamp=now).result(10)
    assert {message.timestamp()[1] for message in read(100)} == {now}


def test_one_partition_timestamp_and_header_serve_all(make, topic, read):
    make().send_arrow(topic, table(["v"] * 3), partition=2, timestamp=7, headers={"h": b"1", "n": None}).result(10)
    assert [(m.partition(), m.timestamp()[1], m.headers()) for m in read(3)] == [(2, 7, [("h", b"1"), ("n", None)])] * 3


NO_UTF8 = [b"\xff", b"a\x80", b"\xc3", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80",
           b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xe2\x98", b"\xf0\x9f\x98\x80\xfe"]  # fmt: skip


@pytest.mark.parametrize("name", NO_UTF8, ids=bytes.hex)
@pytest.mark.parametrize("plain", [True, False])
def test_a_header_name_that_is_no_text_is_refused_with_its_index(make, topic, name, plain):
    producer = make(interceptors=[] if plain else [Bystander()])
    data = table(["v"] * 4, headers=pa.array([[], [(b"good", b"1")], [(b"good", b""), (name, b"v")], []], BYTE_MAP))
    with pytest.raises(SerializationError, match="the column 'headers' has a header whose name is not valid text") as e:
        producer.send_arrow(topic, data, headers="headers")
    assert (e.value.index, e.value.topic) == (2, topic)
    assert repr(name) in str(e.value)
    assert e.value.sent.result(10).count == 2
    producer.flush(10)


def test_header_names_are_text_of_any_kind_and_may_be_empty(make, topic, read):
    names = ["", "a", "\N{SNOWMAN}", "\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff", "x" * 300, ""]
    for type in (MAP, BYTE_MAP):
        column = pa.array([[(name, b"v") for name in names], [("", None)]], MAP).cast(type)
        make().send_arrow(topic, table(["v"] * 2, headers=column), headers="headers", partition=0).result(10)
        assert [m.headers() for m in read(2)] == [[(name, b"v") for name in names], [("", None)]]
    make().send_arrow(topic, table(["v"]), headers={"": "value"}).result(10)
    assert read(1)[0].headers() == [("", b"v")]


def test_flush_reports_records_with_headers_of_arrow_data_that_failed(cluster):
    cluster.push_request_errors("Produce", [29] * 20)
    with Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers) as producer:
        headers = pa.array([[(b"", b"1"), ("\N{SNOWMAN}".encode(), b"\xff")], [(b"\xff", b"")]], BYTE_MAP)
        with pytest.raises(SerializationError):
            producer.send_arrow(TOPIC, table(["v", "w"], headers=headers), headers="headers")
        with pytest.raises(DeliveryError) as lost:
            producer.flush(10)
        assert [record.headers for record in lost.value.records] == [[("", b"1"), ("\N{SNOWMAN}", b"\xff")]]


def test_a_header_is_a_column_or_the_same_for_all(make, topic, read):
    data = table(["v"] * 4, a=["x", None, "", "y" * 300], b=pa.array([b"1", b"2", b"3", b"4"]).dictionary_encode())
    headers = [("one", "a"), ("two", bytearray(b"same")), ("one", "b"), ("three", None)]
    make().send_arrow(topic, data, headers=headers, partition=0).result(10)
    assert [m.headers() for m in read(4)] == [
        [("one", a), ("two", b"same"), ("one", b), ("three", None)]
        for a, b in [(b"x", b"1"), (None, b"2"), (b"", b"3"), (b"y" * 300, b"4")]
    ]


PAIRS = [[("a", b"1"), ("a", None)], None, [], [("b", b"x" * 200)], [("c", b""), ("d", b"2"), ("e", b"3")]]


@pytest.mark.parametrize(
    "type",
    [
        pa.map_(pa.string(), pa.binary()),
        pa.map_(pa.large_string(), pa.string()),
        pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())])),
        pa.large_list(pa.struct([("k", pa.string_view()), ("v", pa.large_binary())])),
        pa.list_(pa.struct([("k", pa.dictionary(pa.int8(), pa.string())), ("v", pa.binary_view())])),
    ],
    ids=str,
)
@pytest.mark.parametrize("cut", ["whole", "sliced"])
def test_headers_in_one_column(make, topic, read, type, cut):
    if pa.types.is_map(type):
        column = pa.array(PAIRS, type)
    else:
        names = [field.name for field in type.value_type]
        column = pa.array([pairs and [dict(zip(names, pair, strict=True)) for pair in pairs] for pairs in PAIRS], type)
    data = table(["v"] * 5, headers=column)
    expected = [pairs or None for pairs in PAIRS]
    if cut == "sliced":
        data, expected = data.slice(2), expected[2:]
    make().send_arrow(topic, data, headers="headers", partition=0).result(10)
    assert [m.headers() for m in read(len(expected))] == expected


def test_headers_in_lists_of_one_size(make, topic, read):
    pair = pa.struct([("k", pa.string()), ("v", pa.binary())])
    column = pa.array([[("a", b"1"), ("b", b"2")], None, [("c", None), ("d", b"4")]], pa.list_(pair, 2))
    make().send_arrow(topic, table(["v"] * 2, h=column.slice(1)), headers="h", partition=0).result(10)
    assert [m.headers() for m in read(2)] == [None, [("c", None), ("d", b"4")]]


def test_many_large_headers(make, topic, read):
    words = [str(i) * 20_000 for i in range(300)]
    data = table(["v"] * 300, h=words)
    future = make(batch_size=1_000_000).send_arrow(topic, data, headers={"h": "h"}, timestamp=5)
    assert future.result(20).count == 300
    # The mock broker keeps 5 MiB of a partition.
    assert {m.headers()[0][1].decode() for m in read(100)} <= set(words)


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"value": "v"}, ValueError, r"no column is named 'v' to take the value from; the columns are value, number"),
        ({"key": "k"}, ValueError, r"no column is named 'k' to take the key from; the columns are value"),
        ({"key": "twice"}, ValueError, r"2 columns are named 'twice'"),
        ({"value": "number"}, TypeError, r"'number' is int64, but must be string or binary.* value .*cast it"),
        ({"key": "decimal"}, TypeError, r"'decimal' is decimal\(4,2\), but must be string or binary.* key"),
        ({"key": "numbers"}, TypeError, r"'numbers' is dictionary<int64, indices int32>, but must be string"),
        ({"partition": "value"}, TypeError, r"'value' is string, but must be of an integer type.* partition"),
        ({"partition": "at"}, TypeError, r"'at' is timestamp\[us, UTC\], but must be of an integer type"),
        ({"timestamp": "small"}, TypeError, r"'small' is int32, but must be int64, .* or timestamp"),
        ({"timestamp": "day"}, TypeError, r"'day' is date32, but must be int64"),
        ({"headers": "value"}, TypeError, r"'value' is string, but must be a map, or list of structs"),
        ({"headers": "list"}, TypeError, r"'list' is list<struct<string, int64>>, but must be a map"),
        ({"headers": {"h": "number"}}, TypeError, r"'number' is int64, but must be string or binary.* header"),
        ({"headers": {"h": "x"}}, ValueError, r"no column is named 'x' to take the header from"),
        ({"headers": {"h": 5}}, TypeError, r"header's value must be bytes"),
        ({"headers": {"\0": "value"}}, ValueError, r"must not hold a NUL"),
        ({"headers": [("h",)]}, TypeError, r"pair"),
        ({"headers": 5}, TypeError, r"headers must be the name of a column"),
        ({"headers": {b"h": "value"}}, TypeError, r"name must be str"),
        ({"value": None}, TypeError, r"value must be the name of a column, not NoneType"),
        ({"key": b"k"}, TypeError, r"key must be the name of a column or None, not bytes"),
        ({"partition": 1.0}, TypeError, r"partition must be the name of a column, an int or None"),
        ({"partition": True}, TypeError, r"partition must be an int"),
        ({"partition": -1}, ValueError, r"partition is -1"),
        ({"partition": 4}, UnknownTopicOrPartitionError, r"0 to 3"),
        ({"timestamp": [1]}, TypeError, r"timestamp must be the name of a column"),
        ({"timestamp": -1}, ValueError, r"timestamp is -1"),
        ({"timestamp": False}, TypeError, r"timestamp must be an int"),
    ],
    ids=lambda given: str(given)[:40] if isinstance(given, dict) else "",
)
def test_what_is_not_understood_is_refused_before_anything_is_sent(make, topic, options, error, message):
    struct = pa.struct([("a", pa.string()), ("b", pa.int64())])
    data = pa.table(
        [["v"], [1], [decimal.Decimal("1.5")], pa.array([5]).dictionary_encode(), pa.array([1], pa.int32()),
         pa.array([0], pa.timestamp("us", "UTC")), [datetime.date(2020, 1, 1)], pa.array([[]], pa.list_(struct)), ["x"],
         ["y"]],
        ["value", "number", "decimal", "numbers", "small", "at", "day", "list", "twice", "twice"],
    )  # fmt: skip
    producer = make()
    data = data.set_column(2, "decimal", data["decimal"].cast(pa.decimal128(4, 2)))
    with pytest.raises(error, match=message) as caught:
        producer.send_arrow(topic, data, **options)
    assert caught.value.index == caught.value.sent.count == len(producer) == 0
    assert producer.send_arrow(topic, data).result(10).count == 1


@pytest.mark.parametrize("data", [None, [b"a"], b"abc", {"value": [b"a"]}, 5])
def test_what_is_no_arrow_data_is_refused(make, topic, data):
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        make().send_arrow(topic, data)


@pytest.mark.parametrize("given", [None, 5, (), (1, 2), "capsule"])
def test_what_is_no_capsule_is_refused(make, topic, given):
    class Stream:
        def __arrow_c_stream__(self, requested_schema=None):
            return given

    class Array:
        def __arrow_c_array__(self, requested_schema=None):
            return given

    for wrong in (Stream(), Array()):
        with pytest.raises(TypeError, match="capsule"):
            make().send_arrow(topic, wrong)


def test_a_single_column_of_another_type_is_refused(make, topic):
    producer = make()
    with pytest.raises(TypeError, match="the data is double|the data is float64, but must be string or binary"):
        producer.send_arrow(topic, pa.array([1.5]))
    with pytest.raises(ValueError, match="a single column of string, .* no column is named 'k' to take the key from"):
        producer.send_arrow(topic, pa.array(["a"]), key="k")
    with pytest.raises(ValueError, match="the data has no columns"):
        producer.send_arrow(topic, pa.table({}))


@pytest.mark.parametrize(
    ("field", "column", "error"),
    [
        ("value", pa.array([b"x"] * 700 + [b"x" * 2_000_000] + [b"x"] * 299), RecordTooLargeError),
        ("key", pa.array([b"x"] * 700 + [b"x" * 2_000_000] + [b"x"] * 299), RecordTooLargeError),
        ("headers", pa.array([b"x"] * 700 + [b"x" * 2_000_000] + [b"x"] * 299), RecordTooLargeError),
        ("partition", pa.array([None] * 700 + [-1] + [0] * 299), ValueError),
        ("partition", pa.array([None] * 700 + [PARTITIONS] + [0] * 299, pa.int8()), UnknownTopicOrPartitionError),
        ("partition", pa.array([None] * 700 + [1 << 63] + [0] * 299, pa.uint64()), ValueError),
        ("timestamp", pa.array([None] * 700 + [-1] + [1] * 299), ValueError),
        ("timestamp", pa.array([1] * 700 + [1 << 62] + [1] * 299).cast(pa.timestamp("s")), ValueError),
        ("timestamp", pa.array([2_000] * 700 + [-1] + [1_000] * 299).cast(pa.timestamp("us")), ValueError),
        ("timestamp", pa.array([2_000] * 700 + [-5_000] + [1_000] * 299).cast(pa.timestamp("us")), ValueError),
        ("pairs", pa.array([[("", b"")]] * 700 + [[(None, b"")]] + [None] * 299, NAMED_PAIRS), ValueError),
        ("pairs", pa.array([[(b"a", b"")]] * 700 + [[(b"\xff", b"")]] + [None] * 299, BYTE_MAP), SerializationError),
        ("pairs", pa.array([[("a", b"")]] * 700 + [[("a\0", b"")]] + [None] * 299, MAP), ValueError),
        ("pairs", pa.array([[]] * 700 + [[("a", b"x" * 2_000_000)]] + [None] * 299, MAP), RecordTooLargeError),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
@pytest.mark.parametrize("plain", [True, False])
def test_what_is_wrong_with_one_row_is_raised_with_its_index(make, topic, read, field, column, error, plain):
    options = {"headers": "wrong"} if field == "pairs" else {field: {"h": "wrong"} if field == "headers" else "wrong"}
    values = pa.array([b"%d" % i for i in range(1_000)])
    data = pa.table({"value": values, "wrong": column})
    if field == "value":
        options = {"value": "wrong", "key": "value"}
    producer = make(interceptors=[] if plain else [Bystander()])
    with pytest.raises(error) as caught:
        producer.send_arrow(topic, data, **options)
    assert caught.value.index == 700
    assert caught.value.sent.result(10).count == 700
    assert producer.send_arrow(topic, data.slice(701), **options).result(10).count == 299
    messages = read(999)
    expected = {b"%d" % i for i in range(1_000) if i != 700}
    assert {m.key() if field == "value" else m.value() for m in messages} == expected


@pytest.mark.parametrize("batch", [0, 1])
def test_a_row_that_is_null_as_a_whole_is_no_record(make, topic, read, batch):
    rows = [{"value": "a"}, {"value": None}, {"value": "b"}]
    with_null = pa.array([*rows[:2], None, rows[2]])
    data = pa.chunked_array([*[pa.array(rows)] * batch, with_null.slice(1)])
    with pytest.raises(ValueError, match="row 1 of a record batch is null as a whole") as caught:
        make().send_arrow(topic, data, partition=0)
    assert caught.value.index == 3 * batch + 1
    assert read.values(3 * batch + 1) == [b"a", None, b"b"][: 3 * batch] + [None]


# What the data's producer does wrong

COLUMN = Type("+s", children=[Type("z", "value")])


def offsets(*given):
    return struct.pack(f"{len(given)}i", *given)


def column(type, values, length=None):
    """A record batch with that column, as it is."""
    length = values.length if length is None else length
    return Lender(Type("+s", children=[type]), [Values(length, [None], children=[values])])


def view(length, *rest):
    return struct.pack("i12s", length, rest[0]) if len(rest) == 1 else struct.pack("i4sii", length, *rest)


BINARY, VIEW, FIXED = Type("z", "value"), Type("vz", "value"), Type("w:2", "value")
WORD = Values(1, [None, offsets(0, 3), b"abc"])
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
    "unsound word": column(ENCODED, Values(1, [None, b"\0"], dictionary=Values(1, [None, offsets(2, 1), b"abc"]))),
    "unsound dictionary": column(ENCODED, Values(1, [None, b"\0"], dictionary=Values(-1, [None, offsets(0), b""]))),
    "no column": Lender(COLUMN, [Values(1, [None])]),
    "one column more": Lender(COLUMN, [Values(1, [None], children=[WORD, WORD])]),
    "batch without buffers": Lender(COLUMN, [Values(1, children=[WORD])]),
    "negative batch": Lender(COLUMN, [Values(-1, [None], children=[WORD])]),
    "batch at a negative offset": Lender(COLUMN, [Values(1, [None], children=[WORD], offset=-1)]),
    "batch past its column": Lender(COLUMN, [Values(1, [None], children=[WORD], offset=1)]),
    "null rows without validity": Lender(COLUMN, [Values(1, [None], children=[WORD], null_count=1)]),
}


@pytest.mark.parametrize("lender", MALFORMED.values(), ids=MALFORMED)
def test_unsound_data_is_refused_and_released(make, topic, lender):
    producer = make()
    with pytest.raises(ValueError, match="not as its specification has it") as caught:
        producer.send_arrow(topic, lender)
    lender.check()
    assert caught.value.sent.result(10).count == caught.value.index
    assert producer.send_arrow(topic, Lender(BINARY, [WORD])).result(10).count == 1


@pytest.mark.parametrize(
    "type",
    [
        Type("+s", children=[Type("u", "value"), Type("+l", "h", children=[None])]),
        Type("+s", children=[Type("u", "value"), Type("+l", "h", children=[Type("+s", children=[None, Type("u")])])]),
        Type("+s", children=[Type("u", "value"), None]),
        Type("+s", children=[Type("c", "value", dictionary=Type(None)), Type("u", "h")]),
        Type("+s", children=[Type("u", "value"), Type("+m", "h", children=[Type(None)])]),
        Type(None),
    ],
    ids=["no list", "no key", "no column", "dictionary of no format", "list of no format", "no format"],
)
def test_a_schema_with_something_missing_is_refused(make, topic, type):
    lender = Lender(type, [])
    with pytest.raises(ValueError, match="not as its specification has it: the schema"):
        make().send_arrow(topic, lender, headers="h")


@pytest.mark.parametrize(
    ("first", "last", "pairs"),
    [(0, 3, 2), (-1, 1, 2), (2, 1, 2), (0, 1, 0)],
)
def test_unsound_lists_of_headers_are_refused(make, topic, first, last, pairs):
    item = Type("+s", "item", children=[Type("u", "key"), Type("u", "value")])
    type = Type("+s", children=[Type("u", "value"), Type("+l", "h", children=[item])])
    names = Values(2, [None, offsets(0, 1, 2), b"ab"])
    items = Values(pairs, [None], children=[names, names])
    lists = Values(1, [None, offsets(first, last)], children=[items])
    lender = Lender(type, [Values(1, [None], children=[WORD, lists])])
    with pytest.raises(ValueError, match="not as its specification has it: the column 'h'"):
        make().send_arrow(topic, lender, headers="h")
    lender.check()


def test_buffers_may_start_anywhere(make, topic, read):
    held = [ctypes.create_string_buffer(b"-" + data) for data in (offsets(0, 3, 3, 6), struct.pack("3q", 5, 6, 7))]
    values = Values(3, [None, ctypes.addressof(held[0]) + 1, b"abcdef"])
    times = Values(3, [None, ctypes.addressof(held[1]) + 1])
    type = Type("+s", children=[Type("u", "value"), Type("l", "at")])
    lender = Lender(type, [Values(3, [None], children=[values, times])])
    make().send_arrow(topic, lender, timestamp="at", partition=0).result(10)
    assert [(m.value(), m.timestamp()[1]) for m in read(3)] == [(b"abc", 5), (b"", 6), (b"def", 7)]


def test_offsets_of_batch_column_and_dictionary_add_up(make, topic, read):
    words = Values(3, [None, offsets(0, 0, 1, 2, 3), b"abc"], offset=1)
    indices = Values(4, [b"\xf7", bytes([9, 9, 9, 0, 1, 2, 1])], dictionary=words, offset=2, null_count=-1)
    plain = Values(3, [None, offsets(0, 1, 2, 3), b"xyz"])
    type = Type("+s", children=[Type("c", "key", dictionary=Type("z")), Type("z", "value")])
    # Row 0 of the batch is the third index, which is null in the bitmap 11110111; row 1 is the word 1.
    lender = Lender(type, [Values(2, [None], children=[indices, plain], offset=1)])
    make().send_arrow(topic, lender, key="key", partition=0).result(10)
    assert [(m.key(), m.value()) for m in read(2)] == [(None, b"y"), (b"b", b"z")]
    lender.check()


def test_a_stream_that_fails_is_told_with_its_own_words(make, topic):
    def fail():
        raise OSError(errno.EIO, "the disk is gone")

    def no_memory():
        raise OSError(errno.ENOMEM, "too large")

    batch = Values(1, [None], children=[WORD])
    producer = make()
    for ends, error, message in ((fail, OSError, "the disk is gone"), (no_memory, MemoryError, "too large")):
        lender = Lender(COLUMN, [batch, batch, ends])
        with pytest.raises(error, match=message) as caught:
            producer.send_arrow(topic, lender)
        assert caught.value.index == 2
        assert caught.value.sent.result(10).count == 2
        lender.check()
    lender = Lender(OSError(errno.EINVAL, ""), [])
    with pytest.raises(OSError, match="Invalid argument") as caught:
        producer.send_arrow(topic, lender)
    assert (caught.value.index, caught.value.errno) == (0, errno.EINVAL)
    lender.check()


def test_a_generator_behind_a_stream_may_raise(make, topic):
    data = table(["v"] * 100)

    def batches():
        yield from data.to_batches()
        raise LookupError("no more")

    with pytest.raises(OSError, match="no more") as caught:
        make().send_arrow(topic, pa.RecordBatchReader.from_batches(data.schema, batches()))
    assert caught.value.index == 100


def test_ctrl_c_in_a_generator_behind_a_stream_is_one(make, topic):
    data = table(["v"])

    def batches():
        yield from data.to_batches()
        os.kill(os.getpid(), signal.SIGINT)
        yield from data.to_batches()

    with pytest.raises(KeyboardInterrupt) as caught:
        make().send_arrow(topic, pa.RecordBatchReader.from_batches(data.schema, batches()))
    assert caught.value.sent.result(10).count == caught.value.index <= 1


# Everything is released once


def batches(count, rows=1_000, size=100):
    """`count` record batches; the arrays are the same, the structures are not."""
    value = Values(rows, [None, offsets(*range(0, (rows + 1) * size, size)), b"x" * rows * size])
    return [Values(rows, [None], children=[value])] * count


@pytest.mark.parametrize("lend", ["stream", "array"])
@pytest.mark.parametrize("options", [{}, {"value": "v"}, {"key": "value", "timestamp": "value"}, {"partition": 99}])
def test_structures_are_released_however_it_ends(make, topic, lend, options):
    lender = Lender(COLUMN, batches(3), lend)
    with contextlib.suppress(TypeError, ValueError, UnknownTopicOrPartitionError):
        future = make().send_arrow(topic, lender, **options)
        assert future.result(10).count == (3_000 if lend == "stream" else 1_000)
    if lender.lent:
        lender.check()
    else:
        assert options == {"partition": 99}


def test_data_is_not_opened_before_the_topic_is_known(make):
    lender = Lender(COLUMN, batches(1))
    with pytest.raises((UnknownTopicOrPartitionError, MetadataTimeoutError)) as caught:
        make(max_block_ms=300).send_arrow("nowhere", lender)
    assert caught.value.index == caught.value.sent.count == 0
    assert not lender.lent


def test_a_stream_can_be_taken_once(make, topic):
    lender = Lender(COLUMN, batches(1))
    capsule = lender.stream_capsule()
    lender.__arrow_c_stream__ = lambda requested_schema: capsule
    producer = make()
    assert producer.send_arrow(topic, lender).result(10).count == 1_000
    with pytest.raises(ValueError, match="released or read before"):
        producer.send_arrow(topic, lender)
    lender.check()


def test_a_producer_closed_in_between_releases_the_data(make, topic):
    producer = make()

    def close():
        producer.close(10)
        return batches(1)[0]

    lender = Lender(COLUMN, [*batches(2), close, *batches(2)])
    with pytest.raises(ProducerClosedError) as caught:
        producer.send_arrow(topic, lender)
    assert caught.value.index == caught.value.sent.result(10).count == 2_000
    lender.check()


def test_ctrl_c_releases_the_data_and_leaves_what_was_sent(cluster, make):
    producer = make(cluster.bootstrap_servers, buffer_memory=100_000)
    producer.send(TOPIC, b"first").result(10)
    cluster.pause()
    lender = Lender(COLUMN, batches(20))
    sent = []

    def send():
        try:
            producer.send_arrow(TOPIC, lender)
        except BaseException as error:
            sent.append((error.index, error.sent))
            raise

    with interrupted():
        send()
    lender.check()
    cluster.resume()
    index, future = sent[0]
    assert 0 < index < 20_000
    assert future.result(20).count == index


def test_ctrl_c_reaches_a_call_that_never_waits(make, topic):
    lender = Lender(Type("w:0"), [Values(1 << 50, [None, None])])
    producer = make()
    with interrupted():
        producer.send_arrow(topic, lender)
    lender.check()


def test_ctrl_c_comes_through_serializers_that_run_no_python(make, topic):
    lender = Lender(Type("w:1"), [Values(1_000_000, [None, b"v" * 1_000_000])])
    producer = make(value_serializer=bytes, buffer_memory=1 << 28)
    producer.send(topic, b"first").result(10)
    with interrupted(0.05) as caught:
        producer.send_arrow(topic, lender)
    assert 0 < caught.value.index < 1_000_000
    assert caught.value.sent.result(20).count == caught.value.index
    lender.check()


def test_memory_that_does_not_come_releases_the_data(cluster, make):
    producer = make(cluster.bootstrap_servers, buffer_memory=100_000, max_block_ms=2_000)
    producer.send(TOPIC, b"first").result(10)
    cluster.pause()
    lender = Lender(COLUMN, batches(20))
    with pytest.raises(BufferExhaustedError) as caught:
        producer.send_arrow(TOPIC, lender)
    lender.check()
    cluster.resume()
    assert caught.value.sent.result(20).count == caught.value.index > 0


def test_a_stream_larger_than_memory_is_read_as_it_is_sent(make, topic):
    producer = make(buffer_memory=1_000_000, batch_size=16_384)
    ahead = []
    taken = 0

    def batch():
        nonlocal taken
        taken += 1
        ahead.append(taken * 1_000 - len(producer))
        return batches(1)[0]

    lender = Lender(COLUMN, [batch] * 300)
    assert producer.send_arrow(topic, lender).result(30).count == 300_000
    assert producer.metrics()["bufferpool-wait-time-ns-total"] > 0
    lender.check()
    assert lender.lent.count("array") == 600


def test_arrays_are_released_as_soon_as_the_next_is_asked_for(make, topic):
    alive = []

    def batch():
        alive.append(sum(kind == "array" for kind in lender.lent) - (len(lender.released)))
        return batches(1)[0]

    lender = Lender(COLUMN, [batch] * 5)
    make().send_arrow(topic, lender).result(10)
    assert alive == [0] * 5
    lender.check()


# What every way of sending does


def test_serializers_interceptors_and_partitioners_see_each_record(make, topic, read):
    seen, acknowledged = [], []

    class Interceptor:
        def on_send(self, record):
            seen.append((record.key, record.value, record.partition, record.timestamp, record.headers))
            record.headers = [*(record.headers or []), ("seen", b"1")]
            return record

        def on_acknowledgement(self, metadata, error):
            acknowledged.append(metadata.partition)

    class Partitioner:
        def partition(self, topic, key, key_bytes, value, value_bytes, cluster):
            assert (key, value) == (key_bytes, None if value_bytes is None else value_bytes.decode().lower())
            return len(value or "") % 2

    producer = make(
        value_serializer=lambda value: value.upper().encode(), partitioner=Partitioner(), interceptors=[Interceptor()]
    )
    keys = pa.array([None if word is None else b"k" + word.encode() for word in WORDS]).dictionary_encode()
    partitions = pa.array([None, 3] * 4, pa.int8())
    times = pa.array([7, None] * 4)
    data = table(WORDS, k=keys, p=partitions, t=times, h=WORDS)
    future = producer.send_arrow(topic, data, key="k", partition="p", timestamp="t", headers={"h": "h"})
    assert future.result(10).count == 8
    keys, words = encoded([None if word is None else "k" + word for word in WORDS]), encoded(WORDS)
    assert seen == [
        (keys[i], WORDS[i], [None, 3][i % 2], [7, None][i % 2], [("h", words[i])]) for i in range(len(WORDS))
    ]
    producer.flush(10)
    assert len(acknowledged) == 8
    found = [(m.key(), m.value(), m.partition() == 3, m.headers()) for m in read(8)]
    expected = [
        (key, word and word.upper(), i % 2 == 1, [("h", word), ("seen", b"1")])
        for i, (key, word) in enumerate(zip(keys, words, strict=True))
    ]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_a_serializer_that_fails_is_told_with_the_index(make, topic):
    def serialize(value):
        return value + b"!"

    producer = make(value_serializer=serialize)
    data = pa.chunked_array([pa.array([b"a"] * 300)])
    assert producer.send_arrow(topic, data).result(10).count == 300
    with pytest.raises(SerializationError) as caught:
        producer.send_arrow(topic, pa.array(["a", "b"]))
    assert caught.value.index == 0
    broken = Lender(Type("u"), [Values(3, [None, offsets(0, 1, 2, 3), b"a\xffc"])])
    with pytest.raises(SerializationError, match="not valid text") as caught:
        make(value_serializer=str.encode).send_arrow(topic, broken)
    assert caught.value.index == caught.value.sent.result(10).count == 1
    broken.check()


def test_it_is_part_of_a_transaction(make, topic):
    producer = make(transactional_id=f"arrow-{time.monotonic_ns()}")
    producer.init_transactions(10)
    data = table(["v"] * 500, k=[str(i) for i in range(500)])
    with pytest.raises(fastprod.TransactionStateError) as caught:
        producer.send_arrow(topic, data, key="k")
    assert caught.value.index == 0
    with producer.transaction():
        future = producer.send_arrow(topic, data, key="k")
    assert future.result(0).count == 500


def test_a_closed_producer_and_a_forked_child_are_refused(make, topic):
    producer = make()
    producer.send(topic, b"v").result(10)
    lender = Lender(COLUMN, batches(1))
    pid = os.fork()
    if not pid:
        status = 1
        try:
            producer.send_arrow(topic, lender)
        except ForkedProducerError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    producer.close(10)
    with pytest.raises(ProducerClosedError):
        producer.send_arrow(topic, lender)
    assert not lender.lent


def test_threads_send_at_once(make, topic, read):
    producer = make()
    words = {name: [f"{name} {i}" for i in range(5_000)] for name in "abc"}
    futures = {}

    def send(name):
        futures[name] = producer.send_arrow(topic, polars.Series(words[name]), partition=1)

    threads = [threading.Thread(target=send, args=(name,)) for name in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: future.result(10).count for name, future in futures.items()} == dict.fromkeys(words, 5_000)
    values = [value.decode() for value in read.values(15_000)]
    for name, expected in words.items():
        assert [value for value in values if value.startswith(name)] == expected


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
