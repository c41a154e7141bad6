"""What is sent leaves nothing behind: neither Python's objects nor C's memory.

`make leaks RECORDS=50000000` measures more exactly, for some minutes.
"""

import gc
import json
import os
import subprocess
import sys

import pytest

from fastprod import AuthorizationError, DeliveryError, Producer, ProducerRecord
from fastprod.testing import MockCluster
from tests.conftest import QUICK
from tests.leaks import free_pieces

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and glibc's figures")
LONG_FORM = int(os.environ.get("FASTPROD_LEAKS_RECORDS", 0))
WARM_UP = 3 / 10  # of the rounds: until buffers and pools are as large as they get
FORBIDDEN = 29


def slope(samples, column):
    """Growth per record, by least squares."""
    xs, ys = [sample[0] for sample in samples], [sample[column] for sample in samples]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


def measure(records, rounds, *way):
    command = [sys.executable, "-m", "tests.leaks", str(records), str(rounds), *way]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60 + records / 5000).stdout
    samples = json.loads(output)
    return samples[int(WARM_UP * len(samples)) :]


def test_memory_does_not_grow_with_the_records_sent():
    """Less than 1 MB per 10^7 records in the long form; in the short one, what comes and goes is more than that.

    So that looks only at what C's allocator has given out, and allows 1 byte per record: a block of 150 bytes that is
    lost with each batch gives 1.6.
    """
    records = LONG_FORM or 1_000_000
    rounds = max(records // 100_000, 20)
    samples = measure(records, rounds)
    resident, allocated, blocks = (slope(samples, column) for column in (1, 2, 3))
    print(f"growth in bytes per record: resident {resident:.3f}, allocated {allocated:.3f}; blocks {blocks:.6f}")
    print(f"over 10^7 records: resident {resident * 10:.2f} MB, allocated {allocated * 10:.2f} MB")
    assert blocks * records / rounds < 20  # a round's sample takes 6
    assert allocated < (0.1 if LONG_FORM else 1)
    if LONG_FORM:
        assert resident < 0.1


def test_memory_does_not_grow_with_the_producers_made():
    """C's allocator and Python's; what is resident takes longer to settle."""
    samples = measure(320, 10, "short_lives")
    allocated, blocks = (slope(samples, column) for column in (2, 3))
    print(f"growth per producer: {allocated * 2:.0f} bytes, {blocks * 2:.2f} blocks")
    assert allocated * 2 < 500
    assert blocks * 2 < 2  # a sample takes 6 for its 16 producers


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_record_is_made_of_is_released(fails):
    class Thing:
        def __call__(self, *outcome):
            pass

    topic, name = "".join(["t", "opic"]), "".join(["na", "me"])
    value, key, header = bytes(bytearray(b"value")), bytes(bytearray(b"key")), bytes(bytearray(b"header"))
    notified, done, buffer, record = Thing(), Thing(), bytearray(b"buffer"), ProducerRecord(topic, value, key)
    things = [topic, name, value, key, header, notified, done, buffer, record, None, Thing]

    def counts():
        gc.collect()
        return [sys.getrefcount(thing) for thing in things]

    def send(producer, count):
        futures = []
        for _ in range(count):
            futures.append(producer.send(topic, value, key, headers=[(name, header)], on_delivery=notified))
            futures.append(producer.send(topic, buffer, buffer, headers={name: buffer}))
            futures.append(producer.send(record))
            futures[-1].add_done_callback(done)
            for wrong in ({"value": 5}, {"headers": [(name, header), (name, 5)]}, {"timestamp": -1}, {"partition": -1}):
                with pytest.raises((TypeError, ValueError)):
                    producer.send(topic, **{"value": value, "key": key, "on_delivery": notified, **wrong})
        if not fails:
            producer.flush(30)
            assert all(future.result(0).topic == topic for future in futures)
            return
        with pytest.raises(DeliveryError) as raised:
            producer.flush(30)
        assert raised.value.count == len(raised.value.records) == count
        assert all(type(future.exception(0)) is AuthorizationError for future in futures)

    with MockCluster(topics={topic: 1}, process=True) as cluster:
        producer = Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, linger_ms=10_000)
        send(producer, 1) if not fails else producer.partitions_for(topic)
        before = counts()
        if fails:
            # As many as there are requests: librdkafka closes the topic after the first, but only for a moment.
            cluster.push_request_errors("Produce", [FORBIDDEN] * 20)
        send(producer, 50)
        after = counts()
        producer.close()
    # None's count, and the class's, move by themselves.
    for thing, first, last in zip(things, before, after, strict=True):
        assert abs(last - first) <= (100 if thing is None else 3), (thing, first, last)


def test_futures_that_are_kept_do_not_break_the_free_memory_into_pieces():
    """The results of batches would, each by itself among the messages that librdkafka has for their records."""
    batches, each = 3000, 20
    with MockCluster(topics={"t": 4}, process=True) as cluster:
        producer = Producer(
            bootstrap_servers=cluster.bootstrap_servers, batch_size=each * 110, linger_ms=5, enable_idempotence=False
        )
        values = [bytes(100)] * (batches * each)
        producer.send_many("t", values).result(60)
        before = free_pieces()
        future = producer.send_many("t", values)
        assert future.result(60).count == len(values)
        after = free_pieces()
        producer.close()
    print(f"{after - before} more pieces of free memory after {batches} batches")
    assert after - before < batches / 2
