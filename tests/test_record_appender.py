"""What arrives of a record, and in which partition: the way from send() to the accumulator."""

import collections
import re
import time

import numpy
import pytest

from fastprod import PartitionInfo, ProducerRecord, partition_for_key
from tests.conftest import PARTITIONS, eventually

pytestmark = pytest.mark.mock


@pytest.fixture
def producer(make):
    return make()


# What arrives


@pytest.mark.parametrize("field", ["value", "key"])
@pytest.mark.parametrize(
    "given, arrives",
    [
        (b"bytes", b"bytes"),
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"-memoryview-")[1:-1], b"memoryview"),
        (memoryview(bytearray(8)).cast("i"), bytes(8)),
        ("zażółć 漢字 😀", "zażółć 漢字 😀".encode()),
        ("nul\0inside", b"nul\0inside"),
        (b"", b""),
        ("", b""),
        (bytearray(), b""),
        (memoryview(b""), b""),
        (None, None),
        (type("Bytes", (bytes,), {})(b"subclass"), b"subclass"),
        (type("Str", (str,), {})("subclass"), b"subclass"),
        (b"x" * 100_000, b"x" * 100_000),
    ],
    ids=lambda value: f"{type(value).__name__}-{len(value) if value is not None else ''}",
)
def test_bytes_arrive_as_given(producer, topic, read, field, given, arrives):
    producer.send(topic, **{field: given}).result(10)
    (message,) = read(topic, 1)
    assert getattr(message, field)() == arrives


def test_a_buffer_may_be_changed_and_resized_as_soon_as_send_returns(make, topic, read):
    producer = make(linger_ms=10_000)
    value, key, header = bytearray(b"value"), bytearray(b"key"), bytearray(b"header")
    producer.send(topic, value, key, headers=[("h", header)])
    for buffer in (value, key, header):
        buffer[:] = b"#" * 1000  # BufferError if it were still exported
    producer.flush(10)
    (message,) = read(topic, 1)
    assert (message.value(), message.key(), message.headers()) == (b"value", b"key", [("h", b"header")])


HEADERS = [("a", b"1"), ("null", None), ("empty", b""), ("a", b"again"), ("zażółć", "tekst")]


@pytest.mark.parametrize(
    "given, arrives",
    [
        (HEADERS, [*HEADERS[:4], ("zażółć", b"tekst")]),
        (tuple(HEADERS[:2]), HEADERS[:2]),
        ([["a", b"1"]], [("a", b"1")]),
        ({"a": b"1", "null": None}, [("a", b"1"), ("null", None)]),
        ((pair for pair in HEADERS[:2]), HEADERS[:2]),
        ([("n" * 300, b"v" * 5000)], [("n" * 300, b"v" * 5000)]),
        ([(f"h{i}", b"%d" % i) for i in range(200)], [(f"h{i}", b"%d" % i) for i in range(200)]),
        ([("buffer", memoryview(bytearray(b"mv")))], [("buffer", b"mv")]),
        ([("", b"1"), ("a", b"2"), ("", None)], [("", b"1"), ("a", b"2"), ("", None)]),
        ({"": b""}, [("", b"")]),
        ([], None),
        ({}, None),
        (None, None),
    ],
)
def test_headers_arrive_as_given(producer, topic, read, given, arrives):
    producer.send(topic, b"v", headers=given).result(10)
    assert read(topic, 1)[0].headers() == arrives


@pytest.mark.parametrize("timestamp", [0, 1, 1_700_000_000_123, 253_402_300_799_999])
def test_a_given_timestamp_arrives(producer, topic, read, timestamp):
    producer.send(topic, b"v", timestamp=timestamp).result(10)
    assert read(topic, 1)[0].timestamp()[1] == timestamp


def test_timestamp_0_is_written_among_others_and_in_every_way_of_sending(producer, topic, read):
    producer.send(ProducerRecord(topic, b"record", timestamp=0), on_delivery=print)
    producer.send(topic, b"headers", b"key", timestamp=0, headers={"h": b"1"}, partition=0)
    producer.send(topic, None, timestamp=0)
    given = [0, None, 5, 0, 1, 0] * 100
    producer.send_many(topic, [b"%s" % str(ms).encode() for ms in given], timestamps=given)
    producer.send_many(topic, [b"0"] * 50, timestamps=0)
    producer.flush(10)
    stamps = collections.defaultdict(set)
    for message in read(topic, 653):
        stamps[message.value()].add(message.timestamp()[1])
    assert all(stamps[value] == {0} for value in (b"record", b"headers", None, b"0"))
    assert (stamps[b"1"], stamps[b"5"]) == ({1}, {5})
    assert min(stamps[b"None"]) > 1_700_000_000_000


def test_a_timestamp_of_this_moment_arrives_to_the_millisecond(producer, topic, read):
    deadline = time.monotonic() + 0.3
    count = 0
    while time.monotonic() < deadline:
        now = int(time.time() * 1000)
        producer.send(topic, b"%d" % now, timestamp=now)
        count += 1
    producer.flush(10)
    assert all(int(message.value()) == message.timestamp()[1] for message in read(topic, count))


def test_records_of_both_hand_over_paths_keep_their_order(producer, topic, read):
    kinds = ({}, {"headers": {"h": b"1"}}, {}, {}, {"timestamp": 77})
    for i in range(500):
        producer.send(topic, b"%d" % i, partition=0, **kinds[i % 5])
    producer.flush(10)
    assert [int(message.value()) for message in read(topic, 500)] == list(range(500))


def test_a_large_record_between_small_ones(producer, topic, read):
    sizes = [10, 900_000, 20, 500_000, 0]
    for size in sizes:
        producer.send(topic, b"v" * size, partition=0)
    producer.flush(10)
    assert [len(message.value()) for message in read(topic, 5)] == sizes


# Where records go


def test_a_key_decides_the_partition(producer, topic):
    keys = [b"", b"a", "text", bytearray(b"array"), *(b"key-%d" % i for i in range(200))]
    futures = [producer.send(topic, b"v", key) for key in keys]
    chosen = [future.result(10).partition for future in futures]
    assert chosen == [partition_for_key(key, PARTITIONS) for key in keys]


def test_an_explicit_partition_beats_the_key(producer, topic):
    futures = [producer.send(topic, b"v", b"same key", partition=i) for i in range(PARTITIONS)]
    assert [future.result(10).partition for future in futures] == [0, 1, 2, 3]


def test_records_without_a_key_spread_over_all_partitions(make, topic):
    producer = make(batch_size=500)
    futures = [producer.send(topic, b"v" * 50) for _ in range(400)]
    counts = [0] * PARTITIONS
    for future in futures:
        counts[future.result(10).partition] += 1
    assert all(counts) and sum(counts) == 400


@pytest.mark.parametrize("name", ["uniform_sticky", "sticky", "timed_sticky", "round_robin", "random"])
def test_named_partitioners_reach_every_partition(make, topic, name):
    producer = make(partitioner=name, batch_size=300, partitioner_sticky_interval_ms=1)
    seen = set()
    assert eventually(lambda: seen.add(producer.send(topic, b"v" * 60).result(10).partition) or len(seen) == PARTITIONS)


@pytest.mark.parametrize("name", ["uniform_sticky", "sticky", "timed_sticky"])
def test_sticky_partitioners_obey_keys(make, topic, name):
    producer = make(partitioner=name)
    keys = [b"%d" % i for i in range(50)]
    futures = [producer.send(topic, b"v", key) for key in keys]
    chosen = [future.result(10).partition for future in futures]
    assert chosen == [partition_for_key(key, PARTITIONS) for key in keys]


@pytest.mark.parametrize("key", [None, b"same"])
def test_round_robin_takes_partitions_in_turn_whatever_the_key(make, topic, key):
    producer = make(partitioner="round_robin")
    futures = [producer.send(topic, b"v", key) for _ in range(12)]
    chosen = [future.result(10).partition for future in futures]
    start = chosen[0]
    assert chosen == [(start + i) % PARTITIONS for i in range(12)]


def test_ignore_keys_spreads_records_of_one_key(make, topic):
    producer = make(partitioner_ignore_keys=True, batch_size=500)
    futures = [producer.send(topic, b"v" * 50, b"same") for _ in range(400)]
    assert {future.result(10).partition for future in futures} == set(range(PARTITIONS))


class Recording:
    """A partitioner that stays with a partition until a batch is full."""

    def __init__(self):
        self.calls, self.batches, self.configured, self.closed, self.current = [], [], None, 0, 0

    def configure(self, config):
        self.configured = config

    def partition(self, topic, key, key_bytes, value, value_bytes, cluster):
        self.calls.append((topic, key, key_bytes, value, value_bytes))
        self.partitions = cluster.partitions_for_topic(topic)
        self.available = cluster.available_partitions_for_topic(topic)
        return self.current

    def on_new_batch(self, topic, cluster, previous_partition):
        self.batches.append((topic, previous_partition))
        self.current = (previous_partition + 1) % len(cluster.partitions_for_topic(topic))

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("number", [int, numpy.int32])
def test_a_partitioner_object_with_partition_alone(make, topic, number):
    class Last:
        def partition(self, topic, key, key_bytes, value, value_bytes, cluster):
            return number(len(cluster.partitions_for_topic(topic)) - 1)

    producer = make(partitioner=Last())
    assert producer.send(topic, b"v", b"k").result(10).partition == PARTITIONS - 1
    assert producer.send(topic, b"v", partition=1).result(10).partition == 1  # given ones are not asked about


def test_a_partitioner_object_sees_values_before_and_after_serialization(make, topic):
    partitioner = Recording()
    producer = make(partitioner=partitioner, key_serializer=str.encode, value_serializer=lambda n: b"%d" % n)
    producer.send(topic, 7, "k").result(10)
    assert partitioner.calls[-1] == (topic, "k", b"k", 7, b"7")
    assert partitioner.partitions == [PartitionInfo(topic, i, 1) for i in range(PARTITIONS)] == partitioner.available


def test_a_partitioner_object_is_configured_notified_of_batches_and_closed(make, topic):
    partitioner = Recording()
    producer = make(partitioner=partitioner, batch_size=300, linger_ms=10_000)
    assert partitioner.configured["batch_size"] == 300 and "bootstrap.servers" in partitioner.configured
    futures = [producer.send(topic, b"v" * 60) for _ in range(40)]
    producer.flush(10)
    chosen = [future.result(10).partition for future in futures]
    switches = [new for old, new in zip(chosen, chosen[1:], strict=False) if old != new]
    assert set(chosen) == set(range(PARTITIONS))
    assert partitioner.batches[0] == (topic, 0) and len(partitioner.batches) == len(switches) + 1
    producer.close(10)
    producer.close(10)
    assert partitioner.closed == 1


@pytest.mark.parametrize("choice", [-1, PARTITIONS, 1 << 40, "0", None, 1.0, True, b"\0"], ids=repr)
def test_a_partitioner_that_returns_nonsense_is_named(make, topic, choice):
    class Wrong:
        def __init__(self):
            self.choice = choice

        def partition(self, *_):
            return self.choice

    wrong = Wrong()
    producer = make(partitioner=wrong)
    with pytest.raises(ValueError, match=re.escape(f"{choice!r} for {topic!r}")):
        producer.send(topic, b"v")
    assert len(producer) == 0
    wrong.choice = 3
    assert producer.send(topic, b"v").result(10).partition == 3


def test_what_a_partitioner_raises_comes_out_of_send(make, topic):
    class Raising:
        def partition(self, *_):
            raise LookupError("no idea")

    producer = make(partitioner=Raising())
    with pytest.raises(LookupError, match="no idea"):
        producer.send(topic, b"v")
    assert producer.send(topic, b"v", partition=0).result(10).offset == 0
