"""fastprod against a real Apache Kafka, read back by somebody else's consumer."""

import collections
import contextlib
import json
import threading
import time

import pyarrow
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME

import fastprod
from fastprod import Producer
from tests.flights import write_ndjson
from tests.kafka.fixtures import consume_all
from tests.kafka.oracle import java_partitions

pytestmark = pytest.mark.kafka


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_flights_arrive_once_in_order_and_each_key_in_one_partition(kafka, kafka_topic, tmp_path):
    topic = kafka_topic(partitions=12)
    assert write_ndjson(tmp_path / "flights.ndjson") == 336_776
    sent = collections.defaultdict(list)
    count = 0
    with (
        Producer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=20) as producer,
        open(tmp_path / "flights.ndjson", "rb") as lines,
    ):
        for line in lines:
            value = line.rstrip()
            key = json.loads(value)["tailnum"]
            producer.send(topic, value, key)
            sent[key].append(value)
            count += 1
    assert count == 336_776

    messages = consume_all(kafka.bootstrap_servers, topic, count, timeout=60)
    received = collections.defaultdict(list)
    partitions = collections.defaultdict(set)
    for message in sorted(messages, key=lambda message: (message.partition(), message.offset())):
        key = message.key().decode() if message.key() is not None else None
        received[key].append(message.value())
        if key is not None:
            partitions[key].add(message.partition())
    assert len(messages) == count
    assert {key: len(found) for key, found in partitions.items() if len(found) > 1} == {}
    for key, values in sent.items():
        if key is None:
            assert sorted(received[key]) == sorted(values)
        else:
            assert received[key] == values, key


def test_keys_are_placed_where_kafkas_own_java_code_places_them(kafka_libs, rng):
    keys = [rng.randbytes(rng.randrange(201)) for _ in range(100_000)]
    for key, (hashed, of_7, of_1000) in zip(keys, java_partitions(keys, [7, 1000]), strict=True):
        assert fastprod.murmur2(key) == hashed
        assert fastprod.partition_for_key(key, 7) == of_7
        assert fastprod.partition_for_key(key, 1000) == of_1000


def test_create_time_is_the_moment_of_send_though_the_batch_lingers(kafka, kafka_topic):
    topic = kafka_topic(partitions=3)
    moments = {}
    stamps = [1, 946_684_800_123, 1_600_000_000_001]
    with Producer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=1000) as producer:
        producer.partitions_for(topic)
        for i in range(200):
            before = time.time()
            future = producer.send(topic, str(i))
            moments[i] = (before, time.time(), future)
            time.sleep(0.002)
        explicit = [producer.send(topic, f"explicit {ms}", timestamp=ms) for ms in stamps]
        producer.flush()
        flushed = time.time()
    late = 0
    for message in consume_all(kafka.bootstrap_servers, topic, 203):
        _, stamp = message.timestamp()
        text = message.value().decode()
        if text.startswith("explicit"):
            assert stamp == int(text.split()[1])
        else:
            before, after, future = moments[int(text)]
            assert before * 1000 - 2 <= stamp <= flushed * 1000 + 2
            assert future.result(0).timestamp == stamp
            late += stamp > after * 1000 + 2
    assert late < 20  # those of the last 5 ms before a hand-over may have its moment
    assert [future.result(0).timestamp for future in explicit] == stamps


def test_timestamp_0_and_an_empty_header_name_are_in_the_log(kafka, kafka_topic):
    topic = kafka_topic(partitions=2)
    headers = [("", b"1"), ("a", b"2"), ("", None)]
    with Producer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
        first = producer.send(topic, b"0", timestamp=0, headers=headers)
        futures = [producer.send(topic, b"%d" % ms, timestamp=ms) for ms in (0, 1, 0, 5)]
        producer.send_many(topic, [b"0"] * 100, timestamps=0, headers={"": b""}).result(10)
        table = pyarrow.table({"value": ["0", "7"], "at": pyarrow.array([0, 7], pyarrow.timestamp("ms"))})
        producer.send_arrow(topic, table, timestamp="at", headers={"": "value"}).result(10)
        producer.flush()
    assert [future.result(0).timestamp for future in (first, *futures)] == [0, 0, 1, 0, 5]
    messages = consume_all(kafka.bootstrap_servers, topic, 107)
    assert {message.timestamp() for message in messages if message.value() == b"0"} == {(TIMESTAMP_CREATE_TIME, 0)}
    assert all(message.timestamp()[1] == int(message.value()) for message in messages)
    found = [message.headers() for message in messages if message.headers()]
    assert headers in found and found.count([("", b"")]) == 100 and [("", b"7")] in found


# Adaptive, it gives less to partitions that wait longer, as they do by turns on a loaded machine.
@pytest.mark.parametrize("adaptive, bound", [(True, 1.5), (False, 1.05)])
def test_a_burst_without_keys_spreads_evenly(kafka, kafka_topic, adaptive, bound):
    topic = kafka_topic(partitions=4)
    value = b"v" * 100
    with Producer(
        bootstrap_servers=kafka.bootstrap_servers, linger_ms=100, partitioner_adaptive_partitioning_enable=adaptive
    ) as producer:
        futures = [producer.send(topic, value) for _ in range(100_000)]
        producer.flush()
    counts = collections.Counter(future.result(0).partition for future in futures)
    assert sum(counts.values()) == 100_000
    assert max(counts.values()) / 25_000 <= bound, counts


def test_a_stopped_broker_blocks_send_within_bounded_memory_and_loses_nothing(kafka, kafka_topic):
    topic = kafka_topic(partitions=4)
    value = b"v" * 92  # and eight digits
    with Producer(bootstrap_servers=kafka.bootstrap_servers, buffer_memory=32 << 20, max_block_ms=1000) as producer:
        producer.send(topic, b"first").result(10)
        accepted = 1
        idle = resident_bytes()
        with kafka.paused():
            with pytest.raises(fastprod.BufferExhaustedError, match=r"max\.block\.ms"):
                while True:
                    producer.send(topic, value + b"%08d" % accepted)
                    accepted += 1
            grown = resident_bytes() - idle
        producer.flush(60)
        assert len(producer) == 0
        assert producer.buffer_available == 32 << 20
    assert accepted > 250_000
    assert grown <= 64 << 20
    values = {message.value() for message in consume_all(kafka.bootstrap_servers, topic, accepted)}
    assert len(values) == accepted


def test_eight_threads_lose_nothing_and_keep_their_order_in_each_partition(kafka, kafka_topic):
    topic = kafka_topic(partitions=4)
    seconds = 10
    counts = [0] * 8
    ends = time.monotonic() + seconds
    with Producer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=5) as producer:

        def hammer(number):
            while time.monotonic() < ends:
                for _ in range(20):
                    producer.send(topic, b"%d %d" % (number, counts[number]))
                    counts[number] += 1
                time.sleep(0.002)  # a bounded load: what is tested is the interleaving

        threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    messages = consume_all(kafka.bootstrap_servers, topic, sum(counts), timeout=60)
    assert len(messages) == sum(counts)
    last = {}
    seen = collections.Counter()
    for message in sorted(messages, key=lambda message: (message.partition(), message.offset())):
        number, sequence = map(int, message.value().split())
        assert sequence > last.get((number, message.partition()), -1)
        last[number, message.partition()] = sequence
        seen[number] += 1
    assert [seen[number] for number in range(8)] == counts


def test_the_log_holds_one_idempotent_producers_batches(kafka, kafka_topic):
    topic = kafka_topic(partitions=2)
    with Producer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=10) as producer:
        for i in range(20_000):
            producer.send(topic, b"v" * 100, partition=i % 2)
    for batches in kafka.dump_logs(topic).values():
        assert sum(batch.count for batch in batches) == 10_000
        assert {batch.producer_id for batch in batches} != {-1}
        assert len({batch.producer_id for batch in batches}) == 1


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_read_back_whole(kafka, kafka_topic, codec):
    topic = kafka_topic(partitions=1)
    values = [json.dumps({"i": i, "text": "ab" * (i % 50)}) for i in range(2_000)]
    with Producer(bootstrap_servers=kafka.bootstrap_servers, compression_type=codec, linger_ms=5) as producer:
        for value in values:
            producer.send(topic, value, headers={"n": b"1"} if value.endswith('""}') else None)
    assert [m.value().decode() for m in consume_all(kafka.bootstrap_servers, topic, 2_000)] == values
    assert codec in {batch.compresscodec for batch in kafka.dump_log(topic, 0)}


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_every_acks_setting_delivers(kafka, kafka_topic, acks):
    topic = kafka_topic(partitions=3)
    with Producer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        # A broker that does not lead the new partition yet has no way to say so to acks=0.
        for partition in range(3):
            producer.send(topic, b"leads", partition=partition).result(30)
    with Producer(bootstrap_servers=kafka.bootstrap_servers, acks=acks) as producer:
        futures = [producer.send(topic, b"%d" % i) for i in range(3_000)]
        producer.flush(30)
        assert all(future.result(0).has_offset == (acks != "0") for future in futures)
    assert len({m.value() for m in consume_all(kafka.bootstrap_servers, topic, 3_003)}) == 3_001


def test_partitions_added_to_a_topic_come_into_use(kafka, kafka_topic):
    from confluent_kafka.admin import NewPartitions

    topic = kafka_topic(partitions=2)
    with Producer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        assert producer.send(topic, b"v", partition=1).result(10).partition == 1
        assert len(producer.partitions_for(topic)) == 2
        with pytest.raises(fastprod.UnknownTopicOrPartitionError, match="0 to 1"):
            producer.send(topic, b"v", partition=3)
        kafka.admin.create_partitions([NewPartitions(topic, 4)])[topic].result(10)
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            try:
                assert producer.send(topic, b"v", partition=3).result(10).partition == 3
                break
            except fastprod.UnknownTopicOrPartitionError:
                time.sleep(0.1)
        assert len(producer.partitions_for(topic)) == 4


def test_nothing_follows_the_first_record_of_a_partition_before_it_is_acknowledged(kafka, kafka_topic):
    """Else the broker would take the second request though it had refused the first."""
    topic = kafka_topic(partitions=3)
    with Producer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=50) as producer:
        futures = [producer.send(topic, b"%d" % i, partition=i % 3) for i in range(3_000)]
    assert [future.result(0).offset for future in futures] == [i // 3 for i in range(3_000)]
    for batches in kafka.dump_logs(topic).values():
        assert [batch.count for batch in batches[:1]] == [1]
        assert sum(batch.count for batch in batches) == 1_000


@pytest.mark.parametrize("idempotence", [True, False])
def test_a_request_too_large_for_the_topic_is_split(kafka, kafka_topic, idempotence):
    topic = kafka_topic(partitions=1, config={"max.message.bytes": 10_000})
    config = {"bootstrap.servers": kafka.bootstrap_servers, "librdkafka.linger.ms": 100}
    with Producer(config, linger_ms=200, enable_idempotence=idempotence) as producer:
        producer.send(topic, b"first").result(10)
        burst = [producer.send(topic, b"%0100d" % i) for i in range(140)]  # one batch, and one request
        producer.flush(30)
        one = producer.send(topic, b"v" * 10_001)
        later = [producer.send(topic, b"%0100d" % i) for i in range(1_000)]
        with pytest.raises(fastprod.DeliveryError, match="1 record"):
            producer.flush(30)
        assert isinstance(one.exception(0), fastprod.RecordTooLargeError)
        assert one.exception(0).persisted == "no"
    offsets = [future.result(0).offset for future in burst + later]
    assert offsets == list(range(1, 1 + len(burst) + len(later)))


def test_a_burst_into_a_topic_that_takes_small_requests_only_keeps_its_order(kafka, kafka_topic):
    topic = kafka_topic(partitions=1, config={"max.message.bytes": 200_000})
    with Producer(bootstrap_servers=kafka.bootstrap_servers, batch_size=65_536) as producer:
        producer.send(topic, b"first").result(10)
        futures = [producer.send(topic, b"%0100d" % i) for i in range(100_000)]
        with contextlib.suppress(fastprod.DeliveryError):
            producer.flush(60)
        offsets = []
        for future in futures:
            error = future.exception(0)
            if error is None:
                offsets.append(future.result(0).offset)
            else:
                assert isinstance(error, fastprod.RecordTooLargeError)
                assert "max.message.bytes" in str(error)
                assert error.persisted == "no"
    assert len(offsets) > 50_000  # what is refused was in one large request that librdkafka cut in two
    assert offsets == list(range(1, 1 + len(offsets)))
    assert len(consume_all(kafka.bootstrap_servers, topic, 1 + len(offsets))) == 1 + len(offsets)
    print(f"{len(futures) - len(offsets)} of {len(futures)} refused")
