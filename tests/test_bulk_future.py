"""BulkFuture: the outcome of the records of one call, each by its index."""

import asyncio
import collections
import copy
import pickle
import threading

import pyarrow
import pytest

from fastprod import (
    BulkDeliveryError,
    BulkFuture,
    BulkMetadata,
    DeliveryError,
    RecordTooLargeError,
)
from tests.conftest import PARTITIONS, TOPIC

pytestmark = pytest.mark.mock
INVALID_RECORD = 87  # an answer after which librdkafka does not retry


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


class Closed(Exception):
    __slots__ = ()

    def __setattr__(self, name, value):
        raise TypeError("immutable")


class Indexed(Exception):
    index = property(lambda self: 5)


def test_an_exception_that_ends_the_call_can_be_pickled(make, topic):
    with pytest.raises(TypeError) as caught:
        make().send_many(topic, [b"a", 5])
    assert caught.value.sent.result(10).count == 1
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.index, copy.sent) == (str(caught.value), 1, None)


@pytest.mark.parametrize("wrong", [[b"a", 5], [b"a", bytes(2_000_000)]], ids=["TypeError", "RecordTooLargeError"])
def test_an_exception_that_ends_the_call_can_be_copied_and_keeps_its_text(make, topic, wrong):
    with pytest.raises((TypeError, RecordTooLargeError)) as caught:
        make().send_many(topic, wrong)
    for twin in (copy.copy(caught.value), copy.deepcopy(caught.value)):
        assert (type(twin), str(twin), twin.index) == (caught.type, str(caught.value), 1)
        assert twin.sent.result(10).count == 1
    twin = pickle.loads(pickle.dumps(caught.value))
    assert getattr(twin, "topic", topic) == topic


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
    producer.flush(10)  # it raises nothing: the future has observed them


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


def test_acks_0_has_no_offsets(make, topic):
    assert make(acks=0).send_many(topic, [b"v"] * 10, partitions=1).result(10).partitions == {1: (10, -1, -1)}


def test_a_bulk_future_comes_from_send_many_only():
    with pytest.raises(TypeError, match="send_many"):
        BulkFuture()
    with pytest.raises(TypeError, match="send_many"):
        BulkFuture.__new__(BulkFuture).done()
