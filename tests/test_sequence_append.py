"""SequenceAppend: values, keys, partitions, timestamps and headers out of Python objects."""

import collections
import sys
import threading
import time

import numpy
import pandas
import pyarrow
import pytest

from fastprod import (
    BulkFuture,
    RecordTooLargeError,
    SerializationError,
    UnknownTopicOrPartitionError,
)
from tests.conftest import PARTITIONS, TOPIC, Interrupted, interrupted, shown

pytestmark = pytest.mark.mock
INVALID_RECORD = 87  # an answer after which librdkafka does not retry


def ended_call(number):
    yield from [b"v"] * number
    raise LookupError("no more")


class Interrupting:
    def __init__(self, before=()):
        self.before = before

    def __iter__(self):
        yield from self.before
        raise Interrupted

    items = __iter__


def test_records_of_every_kind_arrive(make, topic, read):
    values = [b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview"), "str \N{SNOWMAN}", None, b"", ""]
    keys = [None, b"k", "k", bytearray(b"k"), memoryview(b"k"), b"", None]
    headers = [None, {"a": b"1"}, [("a", b"1"), ("a", None)], [], {}, [["b", b""]], None]
    partitions = [0, 0, 0, 0, 0, 0, 0]
    timestamps = [None, 1, 1_700_000_000_000, None, 5, None, None]
    future = make().send_many(topic, values, keys, partitions=partitions, timestamps=timestamps, headers=headers)
    assert isinstance(future, BulkFuture)
    assert future.count == 7
    metadata = future.result(10)
    size = sum(len(v.encode() if isinstance(v, str) else v) for v in values + keys if v is not None)
    assert metadata == (topic, 7, size, {0: (7, 0, 6)})
    assert (metadata.topic, metadata.count, metadata.bytes) == (topic, 7, size)
    assert future.done()
    messages = read(topic, 7)
    assert [m.value() for m in messages] == [
        b"bytes", b"bytearray", b"memoryview", "str \N{SNOWMAN}".encode(), None, b"", b"",
    ]  # fmt: skip
    assert [m.key() for m in messages] == [None, b"k", b"k", b"k", b"k", b"", None]
    assert [m.headers() for m in messages] == [
        None, [("a", b"1")], [("a", b"1"), ("a", None)], None, None, [("b", b"")], None,
    ]  # fmt: skip


def test_timestamps_of_this_moment_arrive_to_the_millisecond(make, topic, read):
    now = int(time.time() * 1000)
    timestamps = [now + i % 100 for i in range(1000)]  # some are those of the hand-over
    make().send_many(topic, [b"%d" % given for given in timestamps], timestamps=timestamps).result(10)
    assert all(int(message.value()) == message.timestamp()[1] for message in read(topic, 1000))


def test_one_partition_timestamp_and_header_serve_all(make, topic, read):
    future = make().send_many(topic, [b"v"] * 3, partitions=2, timestamps=7, headers={"h": b"1"})
    assert future.result(10).partitions == {2: (3, 0, 2)}
    assert [m.headers() for m in read(topic, 3)] == [[("h", b"1")]] * 3


def test_numbers_may_be_those_of_numpy(make, topic, read):
    producer = make()
    partitions, timestamps = numpy.array([3, 1], numpy.int32), numpy.array([5, 2**40])
    producer.send_many(topic, [b"a", b"b"], partitions=partitions, timestamps=timestamps).result(10)
    producer.send(topic, b"c", partition=partitions[0], timestamp=timestamps[1]).result(10)
    arrow = pyarrow.table({"value": [b"d"]})
    producer.send_arrow(topic, arrow, partition=partitions[1], timestamp=timestamps[0]).result(10)
    found = sorted((m.value(), m.partition(), m.timestamp()[1]) for m in read(topic, 4))
    assert found == [(b"a", 3, 5), (b"b", 1, 2**40), (b"c", 3, 2**40), (b"d", 1, 5)]
    with pytest.raises(TypeError, match="timestamp must be an int"):
        producer.send(topic, b"d", timestamp=numpy.float64(1))
    with pytest.raises(TypeError, match="partition must be an int"):
        producer.send_arrow(topic, arrow, partition=partitions)


@pytest.mark.parametrize(
    "headers, wanted",
    [
        (("a", b"1"), r"headers are pairs, as in headers=\[\(name, value\)\], not \('a', b'1'\)"),
        ([(b"a", b"1")], "a header's name must be str, not bytes: b'a'"),
    ],
    ids=shown,
)
def test_headers_of_another_form_are_refused(make, topic, headers, wanted):
    with pytest.raises(TypeError, match=wanted):
        make().send_many(topic, [b"a", b"b"], headers=headers)


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda values: (v for v in values), dict.fromkeys])
def test_values_come_from_any_iterable(make, topic, kind):
    values = [b"%d" % i for i in range(1_000)]
    given = kind(values)
    if isinstance(given, dict):
        given = given.keys()
    assert make().send_many(topic, given).result(10).count == 1_000


def test_columns_of_pandas_serve_as_values_keys_and_all_else(make, topic, read):
    columns = {"keys": [b"k", None, b"k"], "partitions": [2, 2, 2], "timestamps": [5, 6, 7]}
    columns["headers"] = [{"h": b"1"}, None, []]
    columns = {name: pandas.Series(column) for name, column in columns.items()}
    make().send_many(topic, pandas.Series(["a", "b", "c"]), **columns).result(10)
    messages = read(topic, 3)
    assert [(m.value(), m.key(), m.partition(), m.timestamp()[1], m.headers()) for m in messages] == [
        (b"a", b"k", 2, 5, [("h", b"1")]), (b"b", None, 2, 6, None), (b"c", b"k", 2, 7, None),
    ]  # fmt: skip


def test_nothing_is_a_valid_number_of_records(make, topic):
    future = make().send_many(topic, [], [])
    assert future.done()
    assert future.result(0) == (topic, 0, 0, {})


def test_a_list_that_changes_meanwhile_harms_nobody(make, topic, read):
    values = [b"%05d" % i for i in range(20_000)]
    started = threading.Event()

    def drawn():
        for value in list(values):
            started.set()
            yield value

    def spoil():
        started.wait()
        for i in range(len(values)):
            values[i] = None
            keys[i] = None

    keys = [b"k%05d" % i for i in range(20_000)]
    thread = threading.Thread(target=spoil)
    thread.start()
    future = make().send_many(topic, drawn(), keys)
    thread.join()
    assert future.result(10).count == 20_000
    assert {m.value() for m in read(topic, 20_000)} == {b"%05d" % i for i in range(20_000)}


@pytest.mark.parametrize(
    "field, wrong, error",
    [
        ("values", 5, TypeError),
        ("values", "\ud800", SerializationError),
        ("values", b"v" * 2_000_000, RecordTooLargeError),
        ("keys", object(), TypeError),
        ("partitions", -1, ValueError),
        ("partitions", "0", TypeError),
        ("partitions", True, TypeError),
        ("partitions", PARTITIONS, UnknownTopicOrPartitionError),
        ("timestamps", -5, ValueError),
        ("timestamps", 1.5, TypeError),
        ("headers", [("a", 1)], TypeError),
        ("headers", [(None, b"")], TypeError),
        ("headers", 5, TypeError),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_the_error_of_a_record_is_raised_with_its_index(make, topic, read, field, wrong, error):
    columns = {"values": [b"%d" % i for i in range(1_000)], "keys": [None] * 1_000, "partitions": [None] * 1_000}
    columns |= {"timestamps": [None] * 1_000, "headers": [None] * 1_000}
    columns[field][700] = wrong
    producer = make()
    with pytest.raises(error) as caught:
        producer.send_many(topic, columns.pop("values"), **columns)
    assert caught.value.index == 700
    if sys.version_info >= (3, 11):
        assert "index 700" in caught.value.__notes__[0]  # so that a traceback shows it
    assert caught.value.sent.result(10).count == 700
    producer.send_many(topic, [b"later"]).result(10)
    assert {m.value() for m in read(topic, 701)} == {b"%d" % i for i in range(700)} | {b"later"}


@pytest.mark.parametrize(
    "values",
    [None, b"ab", "ab", bytearray(b"ab"), memoryview(b"ab"), {b"a": b"b"}, 5, pandas.DataFrame({"a": ["b"]})],
    ids=lambda values: type(values).__name__,
)
def test_values_that_are_no_sequence_are_refused(make, topic, values):
    with pytest.raises(TypeError, match="values must be a sequence or iterable") as caught:
        make().send_many(topic, values)
    assert caught.value.index == caught.value.sent.count == 0


@pytest.mark.parametrize(
    "columns", [{"keys": [b"k"]}, {"partitions": [0, 0]}, {"timestamps": [None] * 4}, {"keys": "abc"}], ids=str
)
def test_sequences_of_other_lengths_are_refused_before_anything_is_sent(make, topic, columns):
    producer = make()
    with pytest.raises((ValueError, TypeError), match="equal length|keys must be") as caught:
        producer.send_many(topic, [b"v"] * 3, **columns)
    assert caught.value.index == caught.value.sent.count == len(producer) == 0


@pytest.mark.parametrize("lengths", [(600, 700), (700, 600), (600, 512)])
def test_iterables_of_other_lengths_are_noticed(make, topic, lengths):
    values, keys = lengths
    with pytest.raises(ValueError, match=f"of keys there are {'more' if keys > values else 'fewer'}") as caught:
        make().send_many(topic, iter([b"v"] * values), iter([b"k"] * keys))
    assert caught.value.index == caught.value.sent.count == 512
    assert caught.value.sent.result(10).count == 512


@pytest.mark.parametrize("serializers", [{}, {"value_serializer": bytes}], ids=["plain", "serialized"])
@pytest.mark.parametrize("number", [0, 10, 256, 1_000])
def test_a_generator_that_raises_leaves_what_it_gave_before(make, topic, number, serializers):
    with pytest.raises(LookupError, match="no more") as caught:
        make(**serializers).send_many(topic, ended_call(number))
    assert caught.value.index == number
    assert caught.value.sent.result(10).count == number


@pytest.mark.parametrize(("values", "keys", "index"), [(300, 1_000, 300), (1_000, 300, 300), (300, 299, 299)])
def test_a_record_is_sent_if_no_generator_raised_before_it_was_whole(make, topic, values, keys, index):
    with pytest.raises(LookupError, match="no more") as caught:
        make().send_many(topic, ended_call(values), ended_call(keys), headers=[None] * 1_000)
    assert caught.value.index == index
    assert caught.value.sent.result(10).count == index


def test_the_error_of_a_record_comes_before_that_of_its_generator(make, topic):
    def values():
        yield from [b"v", b"v", 5, b"v"]
        raise LookupError("no more")

    with pytest.raises(TypeError, match="not int") as caught:
        make().send_many(topic, values())
    assert caught.value.index == caught.value.sent.result(10).count == 2


@pytest.mark.parametrize(
    ("columns", "serializers", "least"),
    [
        ({"values": Interrupting([b"v" * 1_000] * 200), "headers": None}, {}, 50),
        ({"values": Interrupting([b"v" * 1_000] * 200), "headers": None}, {"value_serializer": bytes}, 0),
        ({"values": [b"v" * 1_000] * 200, "headers": [None] * 199 + [Interrupting()]}, {}, 50),
    ],
    ids=["generator", "serialized", "headers"],
)
def test_ctrl_c_in_an_iterable_does_not_wait_for_memory(cluster, make, columns, serializers, least):
    producer = make(
        cluster.bootstrap_servers, buffer_memory=100_000, batch_size=10_000, max_block_ms=2_000, **serializers
    )
    producer.send(TOPIC, b"first").result(10)
    cluster.pause()
    with pytest.raises(Interrupted) as caught:
        producer.send_many(TOPIC, iter(columns["values"]), headers=columns["headers"])
    cluster.resume()
    assert least <= caught.value.index < 100
    assert caught.value.sent.result(10).count == caught.value.index


def test_ctrl_c_in_a_generator_comes_out_though_another_one_raises(make, topic):
    with pytest.raises(Interrupted) as caught:
        make().send_many(topic, iter(Interrupting([b"v"] * 300)), ended_call(299))
    assert caught.value.index == caught.value.sent.result(10).count == 299


def test_ctrl_c_comes_through_serializers_that_run_no_python(make, topic):
    producer = make(value_serializer=str.encode, buffer_memory=1 << 28)
    producer.send(topic, "first").result(10)
    with interrupted(0.05) as caught:
        producer.send_many(topic, ["v"] * 1_000_000)
    assert 0 < caught.value.index < 1_000_000
    assert caught.value.sent.result(20).count == caught.value.index


def test_serializers_interceptors_and_partitioners_see_each_record(make, topic, read):
    acknowledged = []

    class Interceptor:
        def on_send(self, record):
            record.headers = [("seen", b"1")]
            return record

        def on_acknowledgement(self, metadata, error):
            acknowledged.append(metadata and metadata.partition)

    class Partitioner:
        def partition(self, topic, key, key_bytes, value, value_bytes, cluster):
            return value % 2

    producer = make(
        value_serializer=lambda value: b"%d" % value, partitioner=Partitioner(), interceptors=[Interceptor()]
    )
    metadata = producer.send_many(topic, range(1_000)).result(10)
    assert metadata.partitions == {0: (500, 0, 499), 1: (500, 0, 499)}
    producer.flush(10)
    assert collections.Counter(acknowledged) == {0: 500, 1: 500}
    assert [int(m.value()) for m in read(topic, 1_000)] == [*range(0, 1_000, 2), *range(1, 1_000, 2)]
    with pytest.raises(SerializationError) as caught:
        producer.send_many(topic, [1, 2, "three", 4])
    assert caught.value.index == 2
    assert caught.value.sent.result(10).count == 2
    producer.flush(10)
    assert collections.Counter(acknowledged) == {0: 501, 1: 501, None: 1}
