"""Topics that change, or refuse what they are given, under a producer on a real Kafka."""

import time

import pytest
from confluent_kafka.admin import NewPartitions

from fastprod import (
    DeliveryTimeoutError,
    Producer,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
    partition_for_key,
)
from tests.conftest import QUICK, eventually
from tests.kafka.cluster import KafkaCluster
from tests.kafka.fixtures import consume_all

pytestmark = pytest.mark.kafka
DESTROY = -197  # librdkafka's own
SHORT = {"request_timeout_ms": 500, "delivery_timeout_ms": 1500, "retry_backoff_ms": 20}


def whole(producer):
    return len(producer) == 0 and producer.buffer_available == producer.config.buffer_memory


def test_a_record_over_max_message_bytes_is_refused_and_the_producer_works_on(kafka, kafka_topic):
    topic = kafka_topic(partitions=1, config={"max.message.bytes": 20_000})
    with Producer(QUICK, bootstrap_servers=kafka.bootstrap_servers) as producer:
        error = producer.send(topic, b"v" * 30_000).exception(20)
        assert (type(error), error.code, error.persisted, error.retriable) == (RecordTooLargeError, 10, "no", False)
        assert "max.message.bytes" in str(error)
        assert producer.send(topic, b"small").result(20).offset == 0
        producer.flush(20)
        assert whole(producer)


def test_a_deleted_topic_fails_its_records_soon_and_no_others(kafka, kafka_topic):
    topic, other = kafka_topic(partitions=2), kafka_topic(partitions=1)
    options = {"librdkafka.topic.metadata.propagation.max.ms": 500}  # 30 s; so long librdkafka waits for a new topic
    with Producer({**QUICK, **options}, bootstrap_servers=kafka.bootstrap_servers, **SHORT) as producer:
        for name in (topic, other):
            assert producer.send(name, b"v").result(20).offset == 0
        kafka.delete_topic(topic)
        started = time.monotonic()
        futures = [producer.send(topic, b"v", partition=i % 2) for i in range(100)]
        errors = [future.exception(20) for future in futures]
        assert time.monotonic() - started < 15
        for error in errors:  # librdkafka takes its queue for the partition away before it says that there is none
            assert type(error) in (UnknownTopicOrPartitionError, DeliveryTimeoutError) or error.code == DESTROY
        error = producer.send(topic, b"v", partition=0).exception(20)
        assert type(error) is UnknownTopicOrPartitionError and error.persisted == "no"
        assert producer.send(other, b"v").result(20).offset == 1
        kafka.create_topic(topic, 2)
        deadline = time.monotonic() + 20
        while producer.send(topic, b"v", partition=1).exception(20) is not None:
            assert time.monotonic() < deadline
        producer.flush(20)
        assert whole(producer)


def test_added_partitions_get_keyed_records_once_known_and_those_sent_before_stay_where_they_are(kafka, kafka_topic):
    topic = kafka_topic(partitions=2)
    keys = [b"key %d" % i for i in range(60)]
    with Producer(
        QUICK, bootstrap_servers=kafka.bootstrap_servers, metadata_max_age_ms=50, linger_ms=60_000, batch_size=500
    ) as producer:
        before = {key: producer.send(topic, b"before", key) for key in keys[:5]}  # too few to leave on their own
        kafka.admin.create_partitions([NewPartitions(topic, 6)])[topic].result(20)
        deadline = time.monotonic() + 20
        while len(producer.partitions_for(topic)) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not any(future.done() for future in before.values())
        after = {key: producer.send(topic, b"after", key) for key in keys}
        unkeyed = [producer.send(topic, b"v" * 200) for _ in range(300)]
        producer.flush(30)
        assert {key: f.result(0).partition for key, f in before.items()} == {k: partition_for_key(k, 2) for k in before}
        assert {key: f.result(0).partition for key, f in after.items()} == {k: partition_for_key(k, 6) for k in after}
        assert {future.result(0).partition for future in unkeyed} == set(range(6))
        assert whole(producer)
    assert len(consume_all(kafka.bootstrap_servers, topic)) == len(before) + len(after) + len(unkeyed)


def test_a_topic_that_is_created_again_gets_its_records_from_any_leader():
    """Its leader epochs begin anew, so that librdkafka would go on sending to the leaders of the old one."""
    with KafkaCluster() as cluster, Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for i in range(4):
            topic = f"t{i}"
            cluster.create_topic(topic, 3)
            for moved in (False, True, True):
                if moved:
                    cluster.move_leaders(topic)
                for partition in range(3):
                    producer.send(topic, b"old", partition=partition).result(30)
            cluster.delete_topic(topic)
            assert eventually(lambda topic=topic: cluster.partitions(topic) == 0)
            cluster.create_topic(topic, 3)
            futures = [producer.send(topic, b"new", partition=partition) for partition in range(3)]
            assert [future.result(30).offset for future in futures] == [0, 0, 0]
            assert len(consume_all(cluster.direct_servers, topic)) == 3
