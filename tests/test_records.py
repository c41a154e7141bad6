"""records.py: equality, short reprs, and the view that partitioners get."""

import collections.abc
import copy
import pickle
import typing

import pytest

from fastprod import FailedRecord
from fastprod.errors import DeliveryError, KafkaError
from fastprod.records import Cluster, PartitionInfo, ProducerRecord, RecordMetadata, TopicPartition


def test_record_defaults():
    record = ProducerRecord("orders")
    assert record.topic == "orders"
    assert [getattr(record, name) for name in ("value", "key", "partition", "timestamp", "headers")] == [None] * 5


def test_record_takes_its_fields_in_order():
    record = ProducerRecord("orders", b"v", b"k", 3, 1700000000000, [("h", None)])
    assert (record.value, record.key, record.partition) == (b"v", b"k", 3)
    assert (record.timestamp, record.headers) == (1700000000000, [("h", None)])


def test_records_are_equal_by_value():
    assert ProducerRecord("t", b"v", b"k") == ProducerRecord("t", b"v", b"k")
    assert ProducerRecord("t", b"") != ProducerRecord("t", None)
    assert ProducerRecord("t") != ("t", None, None, None, None, None)


def test_the_types_are_those_that_are_taken_and_given():
    taken = typing.get_type_hints(ProducerRecord.__init__)["headers"]
    values = bytes | bytearray | memoryview | str | None
    assert set(typing.get_args(taken)) == {
        *(collections.abc.Sequence[tuple[str, values]], collections.abc.Mapping[str, values], type(None))
    }
    assert typing.get_type_hints(FailedRecord)["error"] is KafkaError


def test_record_has_no_other_attributes_and_no_hash():
    with pytest.raises(AttributeError):
        ProducerRecord("t").offset = 3
    with pytest.raises(TypeError):
        hash(ProducerRecord("t"))


@pytest.mark.parametrize("duplicate", [lambda r: pickle.loads(pickle.dumps(r)), copy.copy, copy.deepcopy])
def test_record_round_trip(duplicate):
    record = ProducerRecord("t", b"v", b"k", 1, 2, [("h", b"x")])
    assert duplicate(record) == record


def test_record_matches_by_position():
    match ProducerRecord("t", b"v"):
        case ProducerRecord(topic, value):
            assert (topic, value) == ("t", b"v")


@pytest.mark.parametrize("value", [b"x" * 10_000, bytearray(10_000), "x" * 10_000, list(range(10_000))])
def test_repr_of_a_large_value_is_short(value):
    failed = FailedRecord("t", 0, b"k", value, [], 0, DeliveryError("x"))
    assert len(repr(ProducerRecord("t", value))) < 400
    assert len(repr(failed)) < 400


def test_repr_of_a_small_record_is_whole():
    text = repr(ProducerRecord("t", b"v", "k", 1))
    assert text == "ProducerRecord(topic='t', value=b'v', key='k', partition=1, timestamp=None, headers=None)"


def test_repr_shows_the_length():
    assert "(10000 bytes)" in repr(ProducerRecord("t", b"x" * 10_000))
    assert "(10000 characters)" in repr(ProducerRecord("t", "x" * 10_000))


@pytest.mark.parametrize(("offset", "has_offset"), [(-1, False), (0, True), (2**62, True)])
def test_metadata_shows_whether_the_offset_is_known(offset, has_offset):
    metadata = RecordMetadata("orders", 3, offset, 1700000000000, -1, 5)
    assert metadata.has_offset is has_offset
    assert metadata == ("orders", 3, offset, 1700000000000, -1, 5)
    assert pickle.loads(pickle.dumps(metadata)) == metadata


def test_topic_partition_is_a_key():
    assert {TopicPartition("t", 1): "x"}[TopicPartition("t", 1)] == "x"


def test_cluster_lists_partitions_by_number():
    cluster = Cluster([PartitionInfo("t", 2, 1), PartitionInfo("t", 0, None), PartitionInfo("t", 1, 0)])
    assert [info.partition for info in cluster.partitions_for_topic("t")] == [0, 1, 2]
    assert [info.partition for info in cluster.available_partitions_for_topic("t")] == [1, 2]


def test_cluster_keeps_topics_apart():
    cluster = Cluster([PartitionInfo("a", 0, 1), PartitionInfo("b", 0, 2), PartitionInfo("b", 1, 2)])
    assert len(cluster.partitions_for_topic("a")) == 1
    assert len(cluster.partitions_for_topic("b")) == 2


def test_cluster_without_the_topic():
    assert Cluster().partitions_for_topic("t") == []
    assert Cluster().available_partitions_for_topic("t") == []


def test_a_partitioner_cannot_spoil_the_cluster_for_others():
    cluster = Cluster([PartitionInfo("t", 0, 1)])
    cluster.partitions_for_topic("t").clear()
    cluster.available_partitions_for_topic("t").clear()
    assert cluster.partitions_for_topic("t") == cluster.available_partitions_for_topic("t") == [("t", 0, 1)]
