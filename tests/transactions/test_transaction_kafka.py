"""Transactions against a real Apache Kafka, seen by a read_committed consumer."""

import contextlib
import time
import uuid

import pytest
from confluent_kafka import Consumer, TopicPartition

from fastprod import DeliveryError, FencedError, KafkaError, Producer
from tests.kafka.fixtures import consume_all

pytestmark = pytest.mark.kafka
COMMITTED = {"isolation.level": "read_committed"}


@pytest.fixture
def make(kafka):
    """make(transactional_id, **options): initialized transactional producers, closed at the end."""
    producers = []

    def make(transactional_id=None, **options):
        producers.append(
            Producer(
                bootstrap_servers=kafka.bootstrap_servers,
                transactional_id=transactional_id or f"tx-{uuid.uuid4().hex}",
                **options,
            )
        )
        producers[-1].init_transactions(30)
        return producers[-1]

    yield make
    for producer in producers:
        with contextlib.suppress(DeliveryError):
            producer.close(10)


def committed(kafka, topic):
    """The values that a read_committed consumer sees, by partition, in the order of the log."""
    found = {}
    for message in consume_all(kafka.bootstrap_servers, topic, config=COMMITTED):
        found.setdefault(message.partition(), []).append(message.value())
    return found


def test_a_hundred_transactions_show_exactly_what_was_committed(kafka, kafka_topic, make, rng):
    topic = kafka_topic(partitions=6)
    producer = make(linger_ms=2)
    expected = {partition: [] for partition in range(6)}
    aborts = 0
    for number in range(100):
        producer.begin_transaction()
        futures = []
        for i in range(rng.randrange(0, 400)):
            futures.append((b"%d %d" % (number, i), producer.send(topic, b"%d %d" % (number, i))))
        if rng.random() < 0.4:
            aborts += 1
            producer.abort_transaction()
            assert all(future.done() for _, future in futures)
        else:
            producer.commit_transaction()
            for value, future in futures:
                expected[future.result(0).partition].append(value)
    assert 0 < aborts < 100
    assert committed(kafka, topic) == {partition: values for partition, values in expected.items() if values}
    producer.close()


def test_an_abort_at_any_moment_leaves_a_producer_that_works(kafka, kafka_topic, make, rng):
    """Requests are queued, in flight, or wait for the coordinator, which still ends the transaction before."""
    topic = kafka_topic(partitions=6)
    producer = make(linger_ms=0, batch_size=2000)
    for number in range(50):
        with producer.transaction():
            producer.send(topic, b"%d" % number, partition=number % 6)
        producer.begin_transaction()
        for i in range(rng.randrange(1, 4000)):
            producer.send(topic, b"aborted", partition=i % 6)
        producer.abort_transaction()
    expected = {partition: [b"%d" % number for number in range(partition, 50, 6)] for partition in range(6)}
    assert committed(kafka, topic) == expected


def test_consume_transform_produce_is_exactly_once_across_a_restart(kafka, kafka_topic, make, rng):
    source, target = kafka_topic(partitions=3), kafka_topic(partitions=3)
    count = 3000
    with Producer(bootstrap_servers=kafka.bootstrap_servers) as feeder:
        for i in range(count):
            feeder.send(source, b"%d" % i)
    group, transactional_id = f"g-{uuid.uuid4().hex}", f"tx-{uuid.uuid4().hex}"

    def consumer():
        settings = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, **settings, **COMMITTED})
        consumer.subscribe([source])
        return consumer

    def process(until):
        """Doubles what it reads, in transactions, some of which it aborts; ends once `until` says so."""
        reader, producer, done = consumer(), make(transactional_id), 0
        ends = time.monotonic() + 60
        while time.monotonic() < ends and not until(done):
            messages = [message for message in reader.consume(150, 0.5) if not message.error()]
            if not messages:
                continue
            producer.begin_transaction()
            for message in messages:
                producer.send(target, b"%d" % (2 * int(message.value())), message.value())
            producer.send_offsets_to_transaction(reader.position(reader.assignment()), reader.consumer_group_metadata())
            if rng.random() < 0.3:
                producer.abort_transaction()
                for partition in reader.committed(reader.assignment(), 10):
                    reader.seek(TopicPartition(source, partition.partition, max(partition.offset, 0)))
            else:
                producer.commit_transaction()
                done += len(messages)
        return reader, producer, done

    # The first processor dies with a transaction open, its records and offsets sent.
    reader, producer, done = process(lambda done: done >= count // 3)
    messages = [message for message in reader.consume(50, 10) if not message.error()]
    assert messages
    producer.begin_transaction()
    for _ in messages:
        producer.send(target, b"must not be seen").result(10)
    producer.send_offsets_to_transaction(reader.position(reader.assignment()), reader.consumer_group_metadata())
    reader.close()

    second_reader, second, rest = process(lambda rest: done + rest >= count)
    second_reader.close()
    with pytest.raises(FencedError):
        producer.commit_transaction()
    values = [int(value) for values in committed(kafka, target).values() for value in values]
    assert sorted(values) == [2 * i for i in range(count)]
    assert done + rest == count


def test_offsets_of_an_aborted_transaction_are_not_committed(kafka, kafka_topic, make):
    topic = kafka_topic(partitions=2)
    producer = make()
    settings = {"group.id": f"g-{uuid.uuid4().hex}", "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, **settings})
    partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    try:
        for end, offset, seen in (
            (producer.commit_transaction, 5, 5),
            (producer.abort_transaction, 9, 5),
            (producer.commit_transaction, 7, 7),
        ):
            producer.begin_transaction()
            producer.send_offsets_to_transaction({(topic, 1): offset}, consumer.consumer_group_metadata())
            end()
            assert [partition.offset for partition in consumer.committed(partitions, 10)] == [-1001, seen]
    finally:
        consumer.close()


def test_a_newer_producer_fences_the_older_and_what_that_left_open_is_aborted(kafka, kafka_topic, make):
    topic = kafka_topic(partitions=1)
    transactional_id = f"tx-{uuid.uuid4().hex}"
    older = make(transactional_id)
    with older.transaction():
        older.send(topic, b"older, committed")
    older.begin_transaction()
    older.send(topic, b"older, left open").result(10)
    newer = make(transactional_id)
    with newer.transaction():
        newer.send(topic, b"newer")
    with pytest.raises(FencedError) as raised:
        older.commit_transaction()
    assert raised.value.fatal
    for call in (older.begin_transaction, older.abort_transaction, lambda: older.send(topic, b"v")):
        with pytest.raises(FencedError):
            call()
    with newer.transaction():
        newer.send(topic, b"newer still")
    assert committed(kafka, topic) == {0: [b"older, committed", b"newer", b"newer still"]}


def test_a_fenced_producer_that_sends_learns_it_at_the_latest_when_it_commits(kafka, kafka_topic, make):
    topic = kafka_topic(partitions=1)
    transactional_id = f"tx-{uuid.uuid4().hex}"
    older = make(transactional_id)
    make(transactional_id)
    with pytest.raises(FencedError), older.transaction():
        older.send(topic, b"older")
    assert committed(kafka, topic) == {}


def test_a_transaction_that_the_broker_timed_out_is_not_committed(kafka, kafka_topic, make):
    topic = kafka_topic(partitions=1)
    late = make(transaction_timeout_ms=1000, delivery_timeout_ms=1000, request_timeout_ms=900)
    late.begin_transaction()
    late.send(topic, b"late").result(10)
    # The broker looks every 10 s (transaction.abort.timed.out.transaction.cleanup.interval.ms) and writes a marker.
    witness = make()
    ends = time.monotonic() + 60
    while True:
        with witness.transaction():
            witness.send(topic, b"witness").result(10)
        # A read_committed consumer sees nothing behind a transaction that is open.
        if committed(kafka, topic):
            break
        assert time.monotonic() < ends
        time.sleep(0.5)
    with pytest.raises(FencedError, match=r"transaction\.timeout\.ms"):
        late.commit_transaction()
    assert set(committed(kafka, topic)[0]) == {b"witness"}


def test_a_record_that_the_broker_refuses_aborts_the_transaction_and_not_the_producer(kafka, kafka_topic, make):
    topic, other = kafka_topic(partitions=1, config={"max.message.bytes": 1000}), kafka_topic(partitions=1)
    producer = make()
    with pytest.raises(KafkaError) as raised, producer.transaction():
        producer.send(other, b"with it").result(10)
        producer.send(topic, b"v" * 5000)
    assert (raised.value.code, raised.value.abortable) == (10, True)
    for _ in range(3):  # see docs/limits.md: librdkafka may need another abort
        try:
            with producer.transaction():
                producer.send(topic, b"small")
                producer.send(other, b"after")
            break
        except KafkaError as error:
            assert error.abortable
    assert committed(kafka, topic) == {0: [b"small"]}
    assert committed(kafka, other) == {0: [b"after"]}
