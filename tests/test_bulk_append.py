"""BulkAppend: what send() does for one record, for many in one call."""

import collections
import os
import threading
import time

import pytest

import fastprod
from fastprod import (
    BufferExhaustedError,
    ForkedProducerError,
    MetadataTimeoutError,
    ProducerClosedError,
    SerializationError,
    partition_for_key,
)
from tests.conftest import PARTITIONS, TOPIC

pytestmark = pytest.mark.mock
INVALID_RECORD = 87  # an answer after which librdkafka does not retry


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


def test_it_is_part_of_a_transaction(make, topic, mock_cluster):
    producer = make(transactional_id=f"bulk-{time.monotonic_ns()}")
    producer.init_transactions(10)
    with pytest.raises(fastprod.TransactionStateError):
        producer.send_many(topic, [b"v"])
    with producer.transaction():
        future = producer.send_many(topic, [b"v"] * 500, [b"%d" % i for i in range(500)])
    assert future.result(0).count == 500
