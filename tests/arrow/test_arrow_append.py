"""ArrowAppend: what send() does for one record, for the rows of Arrow data."""

import datetime
import decimal
import os
import threading
import time

import polars
import pyarrow as pa
import pytest

import fastprod
from fastprod import (
    ForkedProducerError,
    ProducerClosedError,
    RecordTooLargeError,
    SerializationError,
    UnknownTopicOrPartitionError,
    partition_for_key,
)
from tests.arrow.data import BYTE_MAP, COLUMN, MAP, NAMED_PAIRS, WORDS, Bystander, batches, encoded, offsets, table
from tests.arrow_builder import ArrowBuilder, Type, Values
from tests.conftest import PARTITIONS

pytestmark = pytest.mark.mock


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
def test_a_wrong_argument_is_refused_before_anything_is_sent(make, topic, options, error, message):
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
def test_other_data_is_refused(make, topic, data):
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        make().send_arrow(topic, data)


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
def test_the_error_of_a_row_is_raised_with_its_index(make, topic, read, field, column, error, plain):
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


def test_a_serializer_that_fails_is_raised_with_the_index(make, topic):
    def serialize(value):
        return value + b"!"

    producer = make(value_serializer=serialize)
    data = pa.chunked_array([pa.array([b"a"] * 300)])
    assert producer.send_arrow(topic, data).result(10).count == 300
    with pytest.raises(SerializationError) as caught:
        producer.send_arrow(topic, pa.array(["a", "b"]))
    assert caught.value.index == 0
    broken = ArrowBuilder(Type("u"), [Values(3, [None, offsets(0, 1, 2, 3), b"a\xffc"])])
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
    built = ArrowBuilder(COLUMN, batches(1))
    pid = os.fork()
    if not pid:
        status = 1
        try:
            producer.send_arrow(topic, built)
        except ForkedProducerError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    producer.close(10)
    with pytest.raises(ProducerClosedError):
        producer.send_arrow(topic, built)
    assert not built.exported


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
