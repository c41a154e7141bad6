import copy
import pickle
import time

import pytest

from fastprod import (
    PartitionInfo,
    Producer,
    ProducerRecord,
    RecordMetadata,
)
from tests.conftest import eventually

pytestmark = pytest.mark.mock
PARTITIONS = 4  # of the `topic` fixture


@pytest.fixture
def producer(make):
    return make()


# The two forms of send() and what they give back


def test_send_by_topic_gives_the_place_of_the_record(producer, topic):
    metadata = producer.send(topic, b"value", b"key", partition=2).result(10)
    assert isinstance(metadata, RecordMetadata)
    assert (metadata.topic, metadata.partition, metadata.offset, metadata.has_offset) == (topic, 2, 0, True)
    assert (metadata.serialized_key_size, metadata.serialized_value_size) == (3, 5)
    assert metadata.timestamp > 0


def test_send_by_record_is_the_same(producer, topic, read):
    record = ProducerRecord(topic, b"value", b"key", 3, 1_700_000_000_000, [("h", b"1")])
    metadata = producer.send(record).result(10)
    assert metadata[:3] == (topic, 3, 0)
    (message,) = read(topic, 1)
    assert (message.value(), message.key(), message.partition(), message.headers(), message.timestamp()[1]) == (
        b"value", b"key", 3, [("h", b"1")], 1_700_000_000_000)  # fmt: skip


def test_a_record_takes_an_on_delivery(producer, topic):
    outcomes = []
    producer.send(ProducerRecord(topic, b"v"), on_delivery=lambda metadata, error: outcomes.append((metadata, error)))
    producer.flush(10)
    assert [(metadata.topic, error) for metadata, error in outcomes] == [(topic, None)]


@pytest.mark.parametrize(
    "extra", [{"value": b"v"}, {"key": b"k"}, {"partition": 0}, {"timestamp": 1}, {"headers": [("a", b"b")]}]
)
def test_a_record_and_fields_beside_it_are_refused(producer, topic, extra):
    with pytest.raises(TypeError, match="ProducerRecord"):
        producer.send(ProducerRecord(topic), **extra)


def test_all_of_send_can_be_given_by_name(producer, topic):
    future = producer.send(topic=topic, value=b"v", key=b"k", partition=1, timestamp=5, headers={}, on_delivery=None)
    assert future.result(10).partition == 1


def test_sizes_of_null_are_minus_one_and_of_empty_zero(producer, topic):
    null, empty = producer.send(topic), producer.send(topic, b"", b"")
    assert null.result(10)[4:] == (-1, -1)
    assert empty.result(10)[4:] == (0, 0)


def test_offsets_of_a_partition_count_up(producer, topic):
    futures = [producer.send(topic, b"%d" % i, partition=1) for i in range(1000)]
    assert [future.result(10).offset for future in futures] == list(range(1000))


def test_the_send_time_is_the_records_timestamp(producer, topic, read):
    before = int(time.time() * 1000)
    producer.send(topic, b"v", partition=0)
    producer.send(topic, b"v", partition=0, headers={"by": b"the other path"})
    after = int(time.time() * 1000)
    producer.flush(10)
    flushed = int(time.time() * 1000)
    by_batch, by_itself = (message.timestamp()[1] for message in read(topic, 2))
    assert before <= by_batch <= flushed  # the cheap hand-over stamps the moment in which it is called
    assert before <= by_itself <= after


def test_a_record_that_waits_long_keeps_its_send_time(make, topic, read):
    producer = make(linger_ms=300)
    before = int(time.time() * 1000)
    future = producer.send(topic, b"v")
    after = int(time.time() * 1000)
    future.result(10)
    assert before <= read(topic, 1)[0].timestamp()[1] <= after


def test_several_topics_at_once(producer, mock_cluster, topic, read):
    other = topic + "-2"
    mock_cluster.create_topic(other, PARTITIONS)
    futures = [producer.send((topic, other)[i % 2], b"%d" % i, partition=0) for i in range(100)]
    assert [future.result(10)[:3] for future in futures] == [((topic, other)[i % 2], 0, i // 2) for i in range(100)]
    assert [int(message.value()) for message in read(other, 50)] == list(range(1, 100, 2))


# Looking at a producer


def test_partitions_for(producer, topic):
    assert producer.partitions_for(topic) == [PartitionInfo(topic, i, 1) for i in range(PARTITIONS)]


def test_len_counts_what_has_not_settled(make, topic):
    producer = make(linger_ms=10_000)
    assert len(producer) == 0 and producer
    for i in range(1, 6):
        producer.send(topic, b"v")
        assert len(producer) == i
    producer.flush(10)
    assert len(producer) == 0


@pytest.mark.parametrize(("partitions", "memory", "least"), [(100, 400_000, 20), (30, 100_000, 13)])
def test_small_memory_does_not_make_small_batches(make, mock_cluster, topic, partitions, memory, least):
    """4 kB a partition: half-filled arenas take all of it, and each batch that goes makes room for others to fill."""
    mock_cluster.create_topic(name := f"{topic}-{partitions}", partitions)
    producer = make(buffer_memory=memory, linger_ms=10_000, acks=1, enable_idempotence=False)
    for i in range(20_000):
        producer.send(name, bytes(100), partition=i * 7919 % partitions)
    figures = producer.metrics()
    assert figures["record-send-total"] / figures["request-total"] >= least


def test_all_of_buffer_memory_is_free_after_flush(make, topic):
    producer = make(linger_ms=10_000, buffer_memory=1 << 20)
    assert producer.buffer_available == 1 << 20
    for _ in range(1000):
        producer.send(topic, b"v" * 100)
    assert producer.buffer_available < (1 << 20) - 100_000
    producer.flush(10)
    assert eventually(lambda: producer.buffer_available == 1 << 20)


def test_flush_cuts_linger_short(make, topic):
    producer = make(linger_ms=80_000)
    future = producer.send(topic, b"v")
    assert not future.done()
    producer.flush(10)
    assert future.done()


def test_linger_holds_records_back_and_then_lets_them_go(make, topic):
    producer = make(linger_ms=150)
    producer.partitions_for(topic)
    started = time.monotonic()
    producer.send(topic, b"v").result(10)
    assert time.monotonic() - started >= 0.15


def test_close_sends_what_lingers(make, topic, read):
    producer = make(linger_ms=80_000)
    producer.send(topic, b"v")
    producer.close(10)
    assert len(read(topic, 1)) == 1


@pytest.mark.parametrize("idempotent", [True, False])
def test_only_with_idempotence_a_new_partition_gets_a_record_of_its_own_first(make, mock_cluster, topic, idempotent):
    mock_cluster.create_topic(topic + "-wide", 40)
    producer = make(enable_idempotence=idempotent, acks="all", linger_ms=5)
    producer.send_many(topic + "-wide", [b"v"] * 2000, partitions=[i // 50 for i in range(2000)]).result(10)
    requests = producer.metrics()["request-total"]
    assert requests >= 80 if idempotent else 40 <= requests < 60


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_producer_is_neither_copied_nor_pickled(producer, duplicate):
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        duplicate(producer)


def test_repr_shows_where_and_how_it_stands(make, topic, mock_cluster):
    producer = make(linger_ms=10_000)
    producer.send(topic, b"v")
    assert repr(producer) == f"<fastprod.Producer {mock_cluster.bootstrap_servers} 1 records pending>"
    producer.close(10)
    assert repr(producer) == f"<fastprod.Producer {mock_cluster.bootstrap_servers} closed>"


def test_options_are_named_with_dots_or_underscores(mock_cluster, topic):
    with Producer(bootstrap_servers=mock_cluster.bootstrap_servers, acks=1) as producer:
        assert (producer.config.acks, producer.config.enable_idempotence) == (1, False)
        assert producer.send(topic, b"v").result(10).offset == 0


def test_acks_0_gives_no_offset(make, topic):
    metadata = make(acks=0).send(topic, b"v").result(10)
    assert (metadata.offset, metadata.has_offset) == (-1, False)


# Waiting and closing


def test_a_record_whose_future_has_its_result_is_nothing_that_flush_and_close_wait_for(make, topic):
    """librdkafka completes a lone record before its report comes, and the report frees its memory."""
    producer = make(linger_ms=0)
    for _ in range(1000):
        producer.send(topic, b"v").result(20)
        assert len(producer) == 0
        producer.flush(0)
    producer.send(topic, b"v").result(20)
    producer.close(0)
    assert producer.buffer_available == producer.metrics()["buffer-total-bytes"]


def test_records_whose_futures_have_their_results_are_nothing_that_flush_waits_for(make, topic):
    """Those of a batch have them a moment before the batch is over."""
    producer = make(linger_ms=1)
    for _ in range(1000):
        futures = [producer.send(topic, b"v", partition=0) for _ in range(2)]
        futures[1].result(20)
        assert len(producer) == 0
        producer.flush(0)


@pytest.mark.parametrize(("batches", "warned"), [(8, False), (7, True)])
def test_little_memory_for_many_partitions_is_warned_of_once(mock_cluster, topic, caplog, batches, warned):
    """The topic has four partitions: two batches for each are eight."""
    options = {"bootstrap.servers": mock_cluster.bootstrap_servers, "batch.size": 1000, "buffer.memory": 1000 * batches}
    with Producer(options) as producer:
        producer.send(topic, b"v").result(20)
        mock_cluster.create_topic(topic + "-2", 4)
        producer.send(topic + "-2" if warned else topic, b"v").result(20)
    lines = [message for message in caplog.messages if "buffer.memory" in message]
    assert len(lines) == warned
