"""When the machine fails the producer: no memory, no file descriptors, a clock that jumps, many threads at once."""

import collections
import sys
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from fastprod import Producer, ProducerClosedError
from tests.conftest import QUICK, READER
from tests.fault_preload import run

pytestmark = pytest.mark.mock
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs LD_PRELOAD, /proc or Linux's limits")

COMMON = f"""
import ctypes, logging, os, resource, sys, time
import fastprod
from confluent_kafka import Consumer, TopicPartition
from fastprod import DeliveryError, KafkaError, Producer
from fastprod.testing import MockCluster
QUICK, READER = {QUICK!r}, {READER!r}
logging.disable()

def whole(producer):
    deadline = time.monotonic() + 20
    while producer.buffer_available != producer.config.buffer_memory and time.monotonic() < deadline:
        time.sleep(0.005)
    return len(producer) == 0 and producer.buffer_available == producer.config.buffer_memory
"""


def check(ended):
    assert (ended.returncode, ended.stderr) == (0, "")


# Memory

FAILING_ALLOCATIONS = (
    COMMON
    + """
libc = ctypes.CDLL(None)
for line in open("/proc/self/maps"):
    if os.path.dirname(fastprod.__file__) + "/" in line and " r-xp " in line:
        libc.add_code(*(ctypes.c_size_t(int(end, 16)) for end in line.split()[0].split("-")))

def use(producer, first):
    global futures
    futures, refused = {}, 0
    def send(topic, value, **keywords):
        nonlocal refused
        value = b"%d %d " % (first, len(futures) + refused) + value
        try:
            futures[value] = producer.send(topic, value, **keywords)
        except MemoryError:
            refused += 1
    for i in range(60):
        send("t", b"v" * (10 * i), partition=i % 2)
    send("t", b"v" * 20_000, partition=0)
    for _ in range(5):
        send("t", b"v", partition=0)
        send("t", b"v", partition=0, headers=[("header", b"x")] * 40)
    send("t", b"v", on_delivery=lambda *_: None)
    send("new", b"v")
    for future in list(futures.values())[:5]:
        future.add_done_callback(lambda future: None)
    for value, future in futures.items():
        if (error := future.exception(30)) is None:
            delivered.add(value)
        else:
            assert error.code == -194 and error.persisted in ("no", "possibly"), error
    assert len(futures) + refused == 73

delivered = set()
with MockCluster(topics={"t": 4, "new": 1}, process=True) as cluster:
    first, hit = 0, True
    while hit:
        first += 1
        producer = None
        libc.fail_allocations(first, int(sys.argv[1]))
        try:
            producer = Producer(
                QUICK, bootstrap_servers=cluster.bootstrap_servers, buffer_memory=1 << 20, batch_size=4096
            )
            use(producer, first)
            asked = sum(future.exception(0) is not None for future in futures.values())
            cluster.push_request_errors("Produce", [87] * 2)
            for i in range(30):
                try:
                    producer.send("t", b"w" * 200, partition=i % 4)
                except MemoryError:
                    pass
            observed = 0
            try:
                producer.flush(30)
            except DeliveryError as error:
                observed = error.count
            failed = producer.metrics()["record-error-total"] - asked
            assert observed >= failed, (first, observed, failed)  # no silent loss
        except MemoryError:
            pass
        hit = libc.failed_allocations()
        libc.fail_allocations(0, 0)
        if producer is not None:
            while producer.send("t", b"afterwards").exception(30):
                pass
            producer.send("new", b"afterwards").result(30)
            try:
                producer.flush(30)
            except DeliveryError as error:  # add_done_callback() came first
                assert {record.error.code for record in error.records} <= {-194, 87}
            assert whole(producer), (first, len(producer), producer.buffer_available)
            producer.close(30)
    consumer = Consumer({**READER, "bootstrap.servers": cluster.bootstrap_servers})
    consumer.assign([TopicPartition("t", i, 0) for i in range(4)] + [TopicPartition("new", 0, 0)])
    missing, deadline = set(delivered), time.monotonic() + 30
    while missing and time.monotonic() < deadline:
        missing.difference_update(message.value() for message in consumer.consume(1000, 0.1))
    consumer.close()
    assert not missing, len(missing)
print(first - 1, "allocations failed,", len(delivered), "records delivered")
"""
)


@pytest.mark.process_limits
@linux
@pytest.mark.parametrize("count", [1, 3], ids=["one", "three in a row"])
def test_whichever_allocation_fails_send_raises_or_the_record_does_and_the_producer_works_on(tmp_path, count):
    ended = run(FAILING_ALLOCATIONS, count, library="allocations", tmp_path=tmp_path)
    check(ended)
    assert int(ended.stdout.split()[0]) > 30  # the allocations of our own were reached


FULL_ADDRESS_SPACE = (
    COMMON
    + """
with MockCluster(topics={"t": 1}, process=True) as cluster:
    producer = Producer(
        QUICK, bootstrap_servers=cluster.bootstrap_servers, buffer_memory=4 << 30, max_request_size=16 << 20
    )
    producer.send("t", b"first").result(30)
    value = b"v" * (4 << 20)
    cluster.pause()
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (96 << 20), before[1]))
    futures = []
    try:
        while True:
            futures.append(producer.send("t", value))
    except MemoryError as error:
        said = str(error)
    held = (len(futures), producer.buffer_available)
    try:
        producer.send("t", value)
    except MemoryError:
        pass
    assert held == (len(producer), producer.buffer_available)
    small = producer.send("t", b"small")  # there is room for this
    resource.setrlimit(resource.RLIMIT_AS, before)
    cluster.resume()
    futures += [small, producer.send("t", value)]
    assert [future.result(60).offset for future in futures] == list(range(1, len(futures) + 1))
    producer.flush(60)
    assert whole(producer)
    producer.close(30)
    assert len(futures) > 5 and "bytes" in said, (len(futures), said)
"""
)


@pytest.mark.process_limits
@linux
def test_without_address_space_send_raises_memory_error_and_nothing_taken_is_lost():
    check(run(FULL_ADDRESS_SPACE))


# File descriptors

NO_DESCRIPTORS = (
    COMMON
    + """
with MockCluster(topics={"t": 4}, process=True) as cluster:
    options = {"reconnect_backoff_max_ms": 50, "bootstrap_servers": cluster.bootstrap_servers}
    producer = Producer(QUICK, **options)
    futures = [producer.send("t", b"before", partition=0)]
    futures[0].result(30)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(3 * highest)]  # no gap is left below the limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, before[1]))
    cluster.broker_down(1)
    futures += [producer.send("t", b"during", partition=0) for _ in range(100)]
    held += takes_the_descriptors_that_the_broken_connections_left()   # before one of them could connect anew
    cluster.broker_up(1)
    try:
        producer.flush(1)
    except TimeoutError:
        pass
    else:
        raise AssertionError("there was a descriptor for a connection")
    try:
        second = Producer(QUICK, **options)
    except KafkaError:
        pass
    else:
        second.close(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for descriptor in held:
        os.close(descriptor)
    producer.flush(30)
    assert [future.result(0).offset for future in futures] == list(range(101))
    assert whole(producer)
    producer.close(30)
"""
).replace(
    "with MockCluster",
    """def takes_the_descriptors_that_the_broken_connections_left():
    held, deadline = [], time.monotonic() + 0.5
    while time.monotonic() < deadline:
        try:
            held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            time.sleep(0.001)
    return held

with MockCluster""",
    1,
)


@pytest.mark.process_limits
@linux
def test_without_file_descriptors_records_wait_and_arrive_once_there_are_some():
    check(run(NO_DESCRIPTORS))


# The clock

JUMPING_CLOCK = (
    COMMON
    + """
libc = ctypes.CDLL(None)
libc.set_wall_clock_ahead.argtypes = [ctypes.c_int64]
with MockCluster(topics={"t": 1}, process=True) as cluster:
    producer = Producer(
        QUICK, bootstrap_servers=cluster.bootstrap_servers, linger_ms=150, delivery_timeout_ms=20_150,
        request_timeout_ms=20_000,
    )
    producer.send("t", b"v").result(30)
    real = time.time()
    *jumps, last = map(int, sys.argv[1:])
    for seconds in jumps:
        started = time.monotonic()
        future = producer.send("t", b"lingers")
        libc.set_wall_clock_ahead(seconds)
        assert abs(time.time() - real - seconds) < 300  # the clock did jump
        future.result(15)
        assert 0.14 < time.monotonic() - started < 15, seconds

        # The error of a record has its timestamp; the mock cluster gives others one of its own.
        cluster.push_request_errors("Produce", [87])
        producer.send("t", b"stamped")
        try:
            producer.flush(15)
        except DeliveryError as error:
            (record,) = error.records
        assert abs(record.timestamp / 1000 - time.time()) < 60, seconds
    assert whole(producer)

    cluster.pause()
    future = producer.send("t", b"v")
    started = time.monotonic()
    libc.set_wall_clock_ahead(last)
    try:
        future.result(0.3)  # a wait of ours
    except TimeoutError:
        assert 0.29 < time.monotonic() - started < 15
    cluster.resume()
    future.result(15)  # neither delivery.timeout.ms nor request.timeout.ms has passed
    producer.close(30)
"""
)


@pytest.mark.process_limits
@linux
@pytest.mark.parametrize(
    "seconds_ahead",
    [(3600, 7200, 10 * 365 * 86400, 11 * 365 * 86400), (-3600, -7200, -7300, -9000)],
    ids=["forward", "back"],
)
def test_no_wait_follows_a_wall_clock_that_is_set_but_timestamps_do(tmp_path, seconds_ahead):
    check(run(JUMPING_CLOCK, *seconds_ahead, library="clock", tmp_path=tmp_path))


# Threads


def test_64_threads_that_send_and_flush_while_two_close_lose_nothing(mock_cluster, topic):
    producer = Producer(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers, batch_size=1000, linger_ms=1)
    producer.send(topic, b"first").result(20)
    senders, closers, enough = 56, 2, threading.Barrier(56 + 2, timeout=60)
    futures, wrong = [{} for _ in range(senders)], []

    def send(number):
        try:
            for i in range(1000):
                if i == 100:
                    enough.wait()
                value = b"%d %d" % (number, i)
                futures[number][value] = producer.send(topic, value)
        except ProducerClosedError:
            pass

    def flush(_):
        try:
            while True:
                producer.flush(60)
        except ProducerClosedError:
            pass

    def close(_):
        enough.wait()  # every sender is at it
        producer.close(60)

    def guarded(work, number):
        try:
            work(number)
        except BaseException as error:
            wrong.append(error)

    work = [(send, i) for i in range(senders)] + [(flush, i) for i in range(6)] + [(close, i) for i in range(closers)]
    threads = [threading.Thread(target=guarded, args=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == [] and len(threads) == 64
    sent = {value: future.result(0) for each in futures for value, future in each.items()}
    assert len(sent) >= senders * 100 and len(producer) == 0
    assert producer.buffer_available == producer.config.buffer_memory
    assert stored(mock_cluster, topic) == collections.Counter([b"first", *sent])


def stored(cluster, topic):
    """How often each value is in the topic, which has four partitions."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, **READER})
    try:
        places = [TopicPartition(topic, partition, 0) for partition in range(4)]
        count = sum(consumer.get_watermark_offsets(place, timeout=20)[1] for place in places)
        consumer.assign(places)
        values, deadline = [], time.monotonic() + 30
        while len(values) < count and time.monotonic() < deadline:
            values += [message.value() for message in consumer.consume(count - len(values), 1)]
        return collections.Counter(values)
    finally:
        consumer.close()
