"""send_many(): what send() does for one record, for many in one call, and a future that knows each by its index."""

import asyncio
import collections
import copy
import os
import pickle
import sys
import threading
import time

import numpy
import pandas
import pyarrow
import pytest
from confluent_kafka import Consumer, TopicPartition

import fastprod
from fastprod import (
    BufferExhaustedError,
    BulkDeliveryError,
    BulkFuture,
    BulkMetadata,
    DeliveryError,
    ForkedProducerError,
    MetadataTimeoutError,
    ProducerClosedError,
    RecordTooLargeError,
    SerializationError,
    UnknownTopicOrPartitionError,
    partition_for_key,
)
from tests.conftest import PARTITIONS, READER, TOPIC, Interrupted, interrupted, shown

pytestmark = pytest.mark.mock
INVALID_RECORD = 87  # an answer after which librdkafka does not retry


@pytest.fixture
def read(mock_cluster):
    """read(topic, count): the messages found there, in the order of partition and offset."""

    def read(topic, count, servers=mock_cluster.bootstrap_servers):
        consumer = Consumer({"bootstrap.servers": servers, **READER})
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        messages = []
        while len(messages) < count and (found := consumer.consume(count - len(messages), 10)):
            messages += found
        consumer.close()
        assert len(messages) == count
        return sorted(messages, key=lambda message: (message.partition(), message.offset()))

    return read


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


def test_what_comes_out_of_the_call_can_be_pickled(make, topic):
    with pytest.raises(TypeError) as caught:
        make().send_many(topic, [b"a", 5])
    assert caught.value.sent.result(10).count == 1
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.index, copy.sent) == (str(caught.value), 1, None)


@pytest.mark.parametrize("wrong", [[b"a", 5], [b"a", bytes(2_000_000)]], ids=["TypeError", "RecordTooLargeError"])
def test_what_comes_out_of_the_call_can_be_copied_and_keeps_what_it_says(make, topic, wrong):
    with pytest.raises((TypeError, RecordTooLargeError)) as caught:
        make().send_many(topic, wrong)
    for twin in (copy.copy(caught.value), copy.deepcopy(caught.value)):
        assert (type(twin), str(twin), twin.index) == (caught.type, str(caught.value), 1)
        assert twin.sent.result(10).count == 1
    twin = pickle.loads(pickle.dumps(caught.value))
    assert getattr(twin, "topic", topic) == topic


class Elsewhere:
    """An interceptor that sends every second record to another topic, to the same partition."""

    def __init__(self, topic):
        self.topic = topic
        self.count = 0

    def on_send(self, record):
        self.count += 1
        if self.count % 2 == 0:
            record.topic = self.topic
        return record


@pytest.mark.parametrize("way", ["send_many", "send_arrow"])
def test_topics_that_an_interceptor_chose_are_not_mixed(make, mock_cluster, topic, read, way):
    other = topic + "-other"
    mock_cluster.create_topic(other, PARTITIONS)
    before = make()
    before.send_many(other, [b"before"] * 30, partitions=1).result(10)
    producer = make(interceptors=[Elsewhere(other)])
    if way == "send_many":
        bulk = producer.send_many(topic, [b"v"] * 11, partitions=1)
    else:
        bulk = producer.send_arrow(topic, pyarrow.table({"value": ["v"] * 11}), partition=1)
    metadata = bulk.result(10)
    assert metadata == (topic, 11, 11, {1: (6, 0, 5)})
    assert metadata.other_topics == {other: {1: (5, 30, 34)}}
    assert len(read(topic, 6)) == 6
    twin = pickle.loads(pickle.dumps(metadata))
    assert (type(twin), twin, twin.other_topics) == (BulkMetadata, metadata, metadata.other_topics)
    assert other in repr(metadata)
    assert before.send_many(topic, [b"v"]).result(10).other_topics == {}


def test_a_call_whose_records_an_interceptor_sent_elsewhere_altogether(make, mock_cluster, topic):
    mock_cluster.create_topic(topic + "-other", PARTITIONS)

    class All(Elsewhere):
        def on_send(self, record):
            record.topic = self.topic
            return record

    metadata = make(interceptors=[All(topic + "-other")]).send_many(topic, [b"v"] * 3, partitions=0).result(10)
    assert metadata == (topic, 3, 3, {})
    assert metadata.other_topics == {topic + "-other": {0: (3, 0, 2)}}


def test_failures_say_to_which_topic_an_interceptor_had_sent_them(make, cluster):
    cluster.create_topic("other", PARTITIONS)
    producer = make(cluster.bootstrap_servers, interceptors=[Elsewhere("other")])
    producer.partitions_for(TOPIC), producer.partitions_for("other")
    cluster.push_request_errors("Produce", [INVALID_RECORD] * 20)
    error = producer.send_many(TOPIC, [b"v"] * 4, partitions=0).exception(10)
    assert [(index, failed.topic) for index, failed in error.failures] == [
        (0, TOPIC), (1, "other"), (2, TOPIC), (3, "other")]  # fmt: skip
    assert error.topic is None


def test_keys_are_placed_as_by_send_and_keep_their_order(make, topic, read, rng):
    keys = [rng.choice([None, b"%d" % rng.randrange(50)]) for _ in range(5_000)]
    values = [b"%d" % i for i in range(5_000)]
    metadata = make().send_many(topic, values, keys).result(10)
    messages = read(topic, 5_000)
    counts = collections.Counter(m.partition() for m in messages)
    assert metadata.partitions == {p: (n, 0, n - 1) for p, n in counts.items()}
    last = collections.defaultdict(lambda: -1)
    for message in messages:
        number = int(message.value())
        assert message.key() == keys[number]
        if message.key() is not None:
            assert message.partition() == partition_for_key(message.key(), PARTITIONS)
        assert number > last[message.partition()]
        last[message.partition()] = number


def test_records_without_keys_go_a_batch_at_a_time(make, topic):
    producer = make(batch_size=2_000, partitioner_adaptive_partitioning_enable=False)
    metadata = producer.send_many(topic, [b"v" * 100] * 10_000).result(10)
    counts = [count for count, _, _ in metadata.partitions.values()]
    assert len(counts) == PARTITIONS
    assert max(counts) < 1.2 * min(counts)


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


def test_a_generator_is_consumed_as_memory_takes_its_records(cluster, make):
    producer = make(cluster.bootstrap_servers, buffer_memory=100_000, batch_size=10_000, max_block_ms=300)
    producer.send(TOPIC, b"first").result(10)
    drawn = 0

    def values():
        nonlocal drawn
        for drawn in range(1, 100_000):  # noqa: B007
            yield b"v" * 1_000

    cluster.pause()
    with pytest.raises(BufferExhaustedError) as caught:
        producer.send_many(TOPIC, values())
    cluster.resume()
    assert 50 < caught.value.index < 100
    assert drawn <= caught.value.index + 256
    assert caught.value.sent.count == caught.value.index
    assert caught.value.sent.result(10).count == caught.value.index
    assert producer.send_many(TOPIC, [b"later"] * 10).result(10).count == 10


def test_more_than_memory_holds_goes_through(make, topic, read):
    producer = make(buffer_memory=200_000, batch_size=5_000)
    assert producer.send_many(topic, (b"%01000d" % i for i in range(2_000))).result(20).count == 2_000
    assert len(read(topic, 2_000)) == 2_000
    assert producer.buffer_available == 200_000


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
def test_what_is_wrong_with_one_record_is_raised_with_its_index(make, topic, read, field, wrong, error):
    columns = {"values": [b"%d" % i for i in range(1_000)], "keys": [None] * 1_000, "partitions": [None] * 1_000}
    columns |= {"timestamps": [None] * 1_000, "headers": [None] * 1_000}
    columns[field][700] = wrong
    producer = make()
    with pytest.raises(error) as caught:
        producer.send_many(topic, columns.pop("values"), **columns)
    assert caught.value.index == 700
    if sys.version_info >= (3, 11):
        assert "index 700" in caught.value.__notes__[0]  # for whoever has but the traceback
    assert caught.value.sent.result(10).count == 700
    producer.send_many(topic, [b"later"]).result(10)
    assert {m.value() for m in read(topic, 701)} == {b"%d" % i for i in range(700)} | {b"later"}


@pytest.mark.parametrize(
    "values",
    [None, b"ab", "ab", bytearray(b"ab"), memoryview(b"ab"), {b"a": b"b"}, 5, pandas.DataFrame({"a": ["b"]})],
    ids=lambda values: type(values).__name__,
)
def test_what_is_no_sequence_of_values_is_refused(make, topic, values):
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


def broken_off(number):
    yield from [b"v"] * number
    raise LookupError("no more")


@pytest.mark.parametrize("serializers", [{}, {"value_serializer": bytes}], ids=["plain", "serialized"])
@pytest.mark.parametrize("number", [0, 10, 256, 1_000])
def test_a_generator_that_raises_leaves_what_it_gave_before(make, topic, number, serializers):
    with pytest.raises(LookupError, match="no more") as caught:
        make(**serializers).send_many(topic, broken_off(number))
    assert caught.value.index == number
    assert caught.value.sent.result(10).count == number


@pytest.mark.parametrize(("values", "keys", "index"), [(300, 1_000, 300), (1_000, 300, 300), (300, 299, 299)])
def test_a_record_is_sent_if_no_generator_raised_before_it_was_whole(make, topic, values, keys, index):
    with pytest.raises(LookupError, match="no more") as caught:
        make().send_many(topic, broken_off(values), broken_off(keys), headers=[None] * 1_000)
    assert caught.value.index == index
    assert caught.value.sent.result(10).count == index


def test_what_is_wrong_with_a_record_comes_before_what_its_generator_raised(make, topic):
    def values():
        yield from [b"v", b"v", 5, b"v"]
        raise LookupError("no more")

    with pytest.raises(TypeError, match="not int") as caught:
        make().send_many(topic, values())
    assert caught.value.index == caught.value.sent.result(10).count == 2


class Interrupting:
    def __init__(self, before=()):
        self.before = before

    def __iter__(self):
        yield from self.before
        raise Interrupted

    items = __iter__


@pytest.mark.parametrize(
    ("columns", "serializers", "least"),
    [
        ({"values": Interrupting([b"v" * 1_000] * 200), "headers": None}, {}, 50),
        ({"values": Interrupting([b"v" * 1_000] * 200), "headers": None}, {"value_serializer": bytes}, 0),
        ({"values": [b"v" * 1_000] * 200, "headers": [None] * 199 + [Interrupting()]}, {}, 50),
    ],
    ids=["generator", "serialized", "headers"],
)
def test_ctrl_c_in_what_was_given_does_not_wait_for_memory(cluster, make, columns, serializers, least):
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
        make().send_many(topic, iter(Interrupting([b"v"] * 300)), broken_off(299))
    assert caught.value.index == caught.value.sent.result(10).count == 299


def test_ctrl_c_comes_through_serializers_that_run_no_python(make, topic):
    producer = make(value_serializer=str.encode, buffer_memory=1 << 28)
    producer.send(topic, "first").result(10)
    with interrupted(0.05) as caught:
        producer.send_many(topic, ["v"] * 1_000_000)
    assert 0 < caught.value.index < 1_000_000
    assert caught.value.sent.result(20).count == caught.value.index


def test_threads_get_their_turn_beside_serializers_that_run_no_python(make, topic):
    producer = make(value_serializer=str.encode, buffer_memory=1 << 28, linger_ms=1_000)
    producer.send(topic, "first").result(10)
    values = ["v"] * 1_000_000
    begun = threading.Event()

    def spoil():
        begun.wait()
        for _ in range(5):  # turns
            time.sleep(0)
        values[-1] = 5

    thread = threading.Thread(target=spoil)
    thread.start()
    begun.set()
    with pytest.raises(SerializationError) as caught:
        producer.send_many(topic, values)
    thread.join()
    assert caught.value.index == len(values) - 1


def test_in_an_outage_the_error_has_index_0(make):
    values = [b"v"] * 3
    with pytest.raises(MetadataTimeoutError) as caught:
        make("127.0.0.1:1", max_block_ms=50).send_many("t", values)
    assert values[caught.value.index :] == values
    assert caught.value.sent.result(0) == ("t", 0, 0, {})


class Closed(Exception):
    __slots__ = ()

    def __setattr__(self, name, value):
        raise TypeError("immutable")


class Indexed(Exception):
    index = property(lambda self: 5)


@pytest.mark.parametrize("kind", [Closed, Indexed])
def test_an_exception_without_room_for_an_index_comes_out_all_the_same(make, topic, kind):
    def values():
        yield b"v"
        raise kind("mine")

    with pytest.raises(kind, match="mine"):
        make().send_many(topic, values())


@pytest.mark.parametrize("keyed", [False, True])
def test_a_failure_says_which_index(cluster, make, read, rng, keyed):
    producer = make(cluster.bootstrap_servers, batch_size=500, linger_ms=5, **{"librdkafka.batch.size": 1_000})
    for partition in range(PARTITIONS):
        for _ in range(2):
            producer.send(TOPIC, b"first", partition=partition).result(10)
    cluster.push_request_errors("Produce", [rng.choice([0, 0, INVALID_RECORD]) for _ in range(60)])
    values = [b"%d" % i for i in range(5_000)]
    keys = [b"%d" % rng.randrange(300) for _ in values] if keyed else None
    future = producer.send_many(TOPIC, values, keys)
    with pytest.raises(BulkDeliveryError) as caught:
        future.result(20)
    error = caught.value
    assert 0 < error.count == len(error.failures) < 5_000
    assert str(error.failures[0][0]) in str(error)
    assert list(error.reasons.values()) == [error.count]  # the same, whatever the partition
    assert (error.persisted, error.retriable) == ("no", False)
    assert future.exception(0).failures[-1][0] == error.failures[-1][0]
    indexes = [index for index, _ in error.failures]
    assert indexes == sorted(set(indexes))
    assert {(type(e), e.code) for _, e in error.failures} == {(DeliveryError, INVALID_RECORD)}
    written = {m.value() for m in read(TOPIC, 5_008 - error.count, cluster.bootstrap_servers)} - {b"first"}
    assert written == set(values) - {values[index] for index in indexes}
    producer.flush(10)  # they have been told of


def test_failures_that_nobody_asked_for_come_out_of_flush(cluster, make):
    producer = make(cluster.bootstrap_servers)
    producer.send(TOPIC, b"first", partition=0).result(10)
    cluster.push_request_errors("Produce", [INVALID_RECORD] * 50)
    future = producer.send_many(TOPIC, [b"%d" % i for i in range(100)], partitions=0)
    with pytest.raises(DeliveryError) as caught:
        producer.flush(10)
    assert caught.value.count == 100
    assert [record.value for record in caught.value.records] == [b"%d" % i for i in range(100)]
    with pytest.raises(BulkDeliveryError):
        future.result(0)
    producer.flush(10)


def test_a_future_that_was_dropped_is_no_loss(make, topic, read):
    producer = make()
    for _ in range(50):
        producer.send_many(topic, [b"v"] * 100)
    producer.flush(10)
    assert len(read(topic, 5_000)) == 5_000
    assert len(producer) == 0


def test_it_is_awaited(make, topic):
    async def send():
        futures = [make().send_many(topic, [b"v"] * 10_000, [b"%d" % i for i in range(10_000)]) for _ in range(3)]
        return [metadata.count for metadata in await asyncio.gather(*futures)]

    assert asyncio.run(send()) == [10_000] * 3


def test_a_wait_ends_in_time_and_can_be_repeated(cluster, make):
    producer = make(cluster.bootstrap_servers)
    producer.send(TOPIC, b"first").result(10)
    cluster.pause()
    future = producer.send_many(TOPIC, [b"v"] * 10)
    assert not future.done()
    assert "pending" in repr(future)
    with pytest.raises(TimeoutError, match="10 records"):
        future.result(0.05)
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            future.result(wrong)
    cluster.resume()
    assert future.result(10).count == 10


def test_threads_that_share_batches_keep_their_indexes_apart(cluster, make, read):
    producer = make(cluster.bootstrap_servers, linger_ms=5, **{"librdkafka.batch.size": 2_000})
    for _ in range(2):
        producer.send(TOPIC, b"first", partition=0).result(10)
    cluster.push_request_errors("Produce", [0, INVALID_RECORD] * 30)
    failed = {}

    def send(name):
        future = producer.send_many(TOPIC, (b"%s %d" % (name, i) for i in range(5_000)), partitions=0)
        try:
            future.result(20)
            failed[name] = set()
        except BulkDeliveryError as error:
            failed[name] = {index for index, _ in error.failures}

    threads = [threading.Thread(target=send, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = sum(map(len, failed.values()))
    assert lost
    found = collections.defaultdict(list)
    for message in read(TOPIC, 15_002 - lost, cluster.bootstrap_servers)[2:]:
        name, number = message.value().split()
        found[name].append(int(number))
    for name, numbers in found.items():
        assert numbers == [i for i in range(5_000) if i not in failed[name]]


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


def test_acks_0_has_no_offsets(make, topic):
    assert make(acks=0).send_many(topic, [b"v"] * 10, partitions=1).result(10).partitions == {1: (10, -1, -1)}


def test_a_closed_producer_refuses(make, topic):
    producer = make()
    producer.close()
    with pytest.raises(ProducerClosedError) as caught:
        producer.send_many(topic, [b"v"])
    assert caught.value.index == caught.value.sent.count == 0


def test_a_forked_child_is_refused(cluster, make):
    producer = make(cluster.bootstrap_servers)
    producer.send(TOPIC, b"first").result(10)
    cluster.pause()
    future = producer.send_many(TOPIC, [b"v"] * 10)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            producer.send_many(TOPIC, [b"v"])
        except ForkedProducerError:
            try:
                future.result(1)
            except ForkedProducerError:
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    cluster.resume()
    assert future.result(10).count == 10


def test_a_bulk_future_comes_from_send_many_only():
    with pytest.raises(TypeError, match="send_many"):
        BulkFuture()
    with pytest.raises(TypeError, match="send_many"):
        BulkFuture.__new__(BulkFuture).done()


def test_it_is_part_of_a_transaction(make, topic, mock_cluster):
    producer = make(transactional_id=f"bulk-{time.monotonic_ns()}")
    producer.init_transactions(10)
    with pytest.raises(fastprod.TransactionStateError):
        producer.send_many(topic, [b"v"])
    with producer.transaction():
        future = producer.send_many(topic, [b"v"] * 500, [b"%d" % i for i in range(500)])
    assert future.result(0).count == 500
