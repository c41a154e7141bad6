"""ArrowHeaders: headers from lists, from a column each, or the same for all."""

import pyarrow as pa
import pytest

from fastprod import (
    DeliveryError,
    Producer,
    SerializationError,
)
from tests.arrow.data import BYTE_MAP, MAP, WORD, Bystander, offsets, table
from tests.arrow_builder import ArrowBuilder, Type, Values
from tests.conftest import QUICK, TOPIC

pytestmark = pytest.mark.mock


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


def test_the_error_of_a_row_waits_for_the_rows_before_it_though_their_headers_are_large(make, topic):
    times = pa.array([1] * 80 + [-1] + [1] * 19)  # the headers of some 50 rows end a chunk
    data = table(["v"] * 100, h=["x" * 20_000] * 100, at=times)
    with pytest.raises(ValueError, match="timestamp") as caught:
        make(batch_size=1_000_000).send_arrow(topic, data, headers={"h": "h"}, timestamp="at")
    assert caught.value.index == 80


@pytest.mark.parametrize(
    ("first", "last", "pairs"),
    [(0, 3, 2), (-1, 1, 2), (2, 1, 2), (0, 1, 0)],
)
def test_malformed_lists_of_headers_are_refused(make, topic, first, last, pairs):
    item = Type("+s", "item", children=[Type("u", "key"), Type("u", "value")])
    type = Type("+s", children=[Type("u", "value"), Type("+l", "h", children=[item])])
    names = Values(2, [None, offsets(0, 1, 2), b"ab"])
    items = Values(pairs, [None], children=[names, names])
    lists = Values(1, [None, offsets(first, last)], children=[items])
    built = ArrowBuilder(type, [Values(1, [None], children=[WORD, lists])])
    with pytest.raises(ValueError, match="malformed Arrow data: the column 'h'"):
        make().send_arrow(topic, built, headers="h")
    built.check()
