"""The producer and its process: threads, fork, exit without close, and a producer that is dropped."""

import collections
import random
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from fastprod import Producer
from tests.conftest import QUICK, READER

pytestmark = pytest.mark.mock
PARTITIONS = 4
HANG_TIMEOUT = 60  # seconds after which a process counts as hung


@pytest.fixture
def read(mock_cluster):
    """read(topic, count): the records that another client finds there; there must be no more and no fewer."""

    def read(topic, count):
        consumer = Consumer({"bootstrap.servers": mock_cluster.bootstrap_servers, **READER})
        try:
            places = [TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)]
            stored = sum(consumer.get_watermark_offsets(place, timeout=20)[1] for place in places)
            assert stored == count
            consumer.assign(places)
            messages, deadline = [], time.monotonic() + 30
            while len(messages) < count and time.monotonic() < deadline:
                messages += consumer.consume(count - len(messages), 1)
        finally:
            consumer.close()
        assert len(messages) == count
        return messages

    return read


def run(script, *arguments, flags=()):
    """How a Python process with that script ended, which may use QUICK; the test fails if it hangs."""
    command = [sys.executable, *flags, "-c", f"QUICK = {QUICK!r}\n{script}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_TIMEOUT)


def check_quiet(ended, code=0):
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")


# Fork

FORK_IN_C = """
import ctypes, os, sys
from fastprod import ForkedProducerError, Producer

producer = Producer(bootstrap_servers=sys.argv[1], max_block_ms=3000)
child = ctypes.PyDLL(None).fork()
if not child:
    code = 1
    try:
        producer.send("unheard-of", b"v")
    except ForkedProducerError:
        code = 0
    finally:
        os._exit(code)
print(os.waitpid(child, 0)[1])
producer.close(0)
"""


def test_a_fork_that_python_does_not_see_is_noticed(mock_cluster):
    """uWSGI's is such."""
    ended = run(FORK_IN_C, mock_cluster.bootstrap_servers)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")


FORK_UNDER_LOAD = """
import os, signal, sys, threading, time, traceback
from fastprod import ForkedProducerError, Producer

servers, parents, childrens = sys.argv[1:]
FORKS, LIMIT = 10, 30_000

def child():
    for name, call in {
        "send": lambda: producer.send(parents, b"child"),
        "send to a new topic": lambda: producer.send("never-heard-of", b"child"),
        "flush": lambda: producer.flush(),
        "flush 0": lambda: producer.flush(0),
        "close": lambda: producer.close(),
        "wait_ready": lambda: producer.wait_ready(60),
        "partitions_for": lambda: producer.partitions_for(parents),
        "with": lambda: producer.__enter__(),
        "result": lambda: unsettled.result(),
        "exception": lambda: unsettled.exception(60),
        "add_done_callback": lambda: unsettled.add_done_callback(print),
        "get": lambda: unsettled.get(0),
    }.items():
        try:
            call()
        except ForkedProducerError as error:
            assert "fork" in str(error)
        else:
            raise AssertionError(f"{name} did not raise in the child")
    assert not unsettled.done() and settled.result(0).topic == parents
    with Producer(QUICK, bootstrap_servers=servers) as own:
        own.send(childrens, b"child").result(30)
    sys.exit(0)

def load():
    for i in range(LIMIT):
        if stop.is_set():
            break
        producer.send(parents, b"parent")
        taken.append(1)
        if i % 20 == 0:
            time.sleep(0.001)

producer = Producer(QUICK, bootstrap_servers=servers, linger_ms=5)
lingering = Producer(QUICK, bootstrap_servers=servers, linger_ms=60_000)
unsettled = lingering.send(parents, b"parent")
settled = producer.send(parents, b"parent")
settled.result(30)
stop, taken = threading.Event(), [1, 1]
threads = [threading.Thread(target=load) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(FORKS):
    pid = os.fork()
    if pid == 0:
        child()
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            ended = pid, "hung"
            break
        time.sleep(0.005)
    assert ended[1] == 0, ended
stop.set()
for thread in threads:
    thread.join()
producer.close()
lingering.close()
assert unsettled.result(0).topic == parents
print(len(taken))
"""


def test_forks_under_load_harm_neither_parent_nor_child(mock_cluster, topic, read):
    mock_cluster.create_topic(topic + "-children", PARTITIONS)
    # Newer Pythons warn of any fork beside threads; that is what is tested.
    ended = run(
        FORK_UNDER_LOAD,
        mock_cluster.bootstrap_servers,
        topic,
        topic + "-children",
        flags=["-W", "ignore::DeprecationWarning"],
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {message.value() for message in read(topic, int(ended.stdout))} == {b"parent"}
    assert {message.value() for message in read(topic + "-children", 10)} == {b"child"}


DROP_IN_CHILD = """
import gc, os, sys
from fastprod import Producer
producer = Producer(QUICK, bootstrap_servers=sys.argv[1], linger_ms=60_000)
producer.send(sys.argv[2], b"parent")
pid = os.fork()
if pid == 0:
    del producer
    gc.collect()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
producer.close()
"""


def test_a_child_may_drop_the_parents_producer_with_a_batch_in_it(mock_cluster, topic, read):
    check_quiet(run(DROP_IN_CHILD, mock_cluster.bootstrap_servers, topic, flags=["-W", "ignore::DeprecationWarning"]))
    read(topic, 1)


# Exit without close

EXIT = """
import sys
from fastprod import Producer
producer = Producer(QUICK, bootstrap_servers=sys.argv[1], linger_ms=60_000)
for i in range(1000):
    producer.send(sys.argv[2], b"%d" % i)
"""


@pytest.mark.parametrize(("last", "code"), [("", 0), ("sys.exit(3)", 3)], ids=["end", "sys.exit"])
def test_exit_without_close_delivers_everything_and_says_nothing(mock_cluster, topic, read, last, code):
    check_quiet(run(EXIT + last, mock_cluster.bootstrap_servers, topic), code)
    assert sorted(int(message.value()) for message in read(topic, 1000)) == list(range(1000))


def test_exit_by_an_exception_delivers_everything_and_says_nothing_more(mock_cluster, topic, read):
    ended = run(EXIT + "raise LookupError('the job failed')", mock_cluster.bootstrap_servers, topic)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.endswith("LookupError: the job failed\n") and "fastprod" not in ended.stderr.split("Lookup")[-1]
    assert len(read(topic, 1000)) == 1000


def test_exit_from_a_thread_that_still_sends_ends(mock_cluster, topic):
    script = """
import sys, threading, time
from fastprod import Producer
producer = Producer(QUICK, bootstrap_servers=sys.argv[1])
sent = threading.Event()
def load():
    for _ in range(20_000):
        try:
            producer.send(sys.argv[2], b"v")
        except Exception:
            return
        sent.set()
        time.sleep(0.001)
threading.Thread(target=load, daemon=True).start()
assert sent.wait(30)
"""
    check_quiet(run(script, mock_cluster.bootstrap_servers, topic))


@pytest.mark.slow
def test_exit_without_close_and_without_broker_says_how_many_were_lost():
    script = """
import logging
from fastprod import Producer
from fastprod.testing import MockCluster
logging.disable()  # that the broker is gone is logged too
with MockCluster(topics={"lost": 1}, process=True) as cluster:
    producer = Producer(
        QUICK, bootstrap_servers=cluster.bootstrap_servers, delivery_timeout_ms=1000, request_timeout_ms=500
    )
    producer.send("lost", b"kept").result(30)
for _ in range(7):
    producer.send("lost", b"v")
"""
    ended = run(script)
    assert (ended.returncode, ended.stdout) == (0, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("fastprod: a producer ended without close(): 7 records failed, and nothing observed it: 7 x")


def test_a_producer_of_an_exit_handler_is_closed_where_no_thread_runs_any_more(mock_cluster, topic, read):
    script = """
import atexit, sys
kept = []
@atexit.register  # before fastprod's own: it is called after it
def late():
    producer = fastprod.Producer(QUICK, bootstrap_servers=sys.argv[1])
    producer.send(sys.argv[2], b"v").result(30)
    producer.send(sys.argv[2], b"v", on_delivery=print)
    kept.append(producer)
import fastprod
"""
    ended = run(script, mock_cluster.bootstrap_servers, topic)
    assert ended.returncode == 0
    if sys.version_info[:2] == (3, 12):  # which starts no thread in an exit handler
        assert "can't create new thread at interpreter shutdown" in ended.stderr
    else:
        read(topic, 2)


# A producer that is dropped

DROP = """
import sys
from fastprod import Producer
def job():
    producer = Producer(QUICK, bootstrap_servers=sys.argv[1], linger_ms=60_000)
    for _ in range(100):
        producer.send(sys.argv[2], b"v")
job()
print("dropped")
"""


def test_a_dropped_producer_warns_and_delivers(mock_cluster, topic, read):
    ended = run(DROP, mock_cluster.bootstrap_servers, topic, flags=["-W", "always::ResourceWarning"])
    assert (ended.returncode, ended.stdout) == (0, "dropped\n")
    assert "ResourceWarning: <fastprod.Producer " in ended.stderr and "was dropped without close()" in ended.stderr
    assert len(read(topic, 100)) == 100


def test_a_dropped_producer_delivers_where_warnings_are_errors(mock_cluster, topic, read):
    ended = run(DROP, mock_cluster.bootstrap_servers, topic, flags=["-W", "error"])
    assert (ended.returncode, ended.stdout) == (0, "dropped\n")
    assert "ResourceWarning" in ended.stderr and "was dropped without close()" in ended.stderr
    assert len(read(topic, 100)) == 100


def test_a_callback_may_drop_the_producer(mock_cluster, topic, read):
    script = """
import sys, threading
from fastprod import Producer
dropped = threading.Event()
def notified(metadata, error):
    holder.clear()
    dropped.set()
holder = [Producer(QUICK, bootstrap_servers=sys.argv[1])]
holder[0].send(sys.argv[2], b"v", on_delivery=notified)
assert dropped.wait(30)
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(30)
        assert not thread.is_alive(), thread
"""
    check_quiet(run(script, mock_cluster.bootstrap_servers, topic))
    read(topic, 1)


# Threads


def test_threads_that_share_a_producer_lose_nothing_and_keep_their_order(mock_cluster, topic, read):
    threads, each = 8, 500
    futures, failures = {}, []

    def send(thread):
        chosen = random.Random(thread)
        try:
            for i in range(each):
                value = b"%d:%d" % (thread, i)
                futures[value] = producer.send(topic, value, partition=chosen.randrange(PARTITIONS))
        except BaseException as error:
            failures.append(error)

    with Producer(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers, batch_size=1000, linger_ms=1) as producer:
        workers = [threading.Thread(target=send, args=(i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(HANG_TIMEOUT)
            assert not worker.is_alive()
    assert failures == []
    messages = read(topic, threads * each)
    assert {message.value() for message in messages} == set(futures)
    order = collections.defaultdict(list)
    for message in messages:
        assert futures[message.value()].result(0)[1:3] == (message.partition(), message.offset())
        thread, i = map(int, message.value().split(b":"))
        order[thread, message.partition()].append(i)
    assert len(order) == threads * PARTITIONS
    assert all(numbers == sorted(numbers) for numbers in order.values())


@pytest.mark.process_limits  # a sanitizer keeps what was freed
def test_100_producers_that_were_closed_leave_no_threads_files_or_memory(mock_cluster, topic):
    script = """
import os, sys, threading, time
from fastprod import Producer, memory_in_use
def left():
    counts = [threading.active_count()]
    for folder in ("/proc/self/task", "/proc/self/fd"):  # only Linux has them
        if os.path.isdir(folder):
            counts.append(len(os.listdir(folder)))
    return counts
def resident():
    if not os.path.exists("/proc/self/statm"):
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
def eventually(condition):
    deadline = time.monotonic() + 30  # a thread that was joined takes a moment more to leave the process
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()
def use(count):
    producers = [Producer(QUICK, bootstrap_servers=sys.argv[1], linger_ms=0) for _ in range(count)]
    for producer in producers:
        producer.send(sys.argv[2], b"v" * 1000).result(60)
    for producer in producers:
        producer.close()
use(50)  # what librdkafka and malloc keep for good is there after the first ones
assert eventually(lambda: left()[:2] in ([1], [1, 1])), left()
before, memory = left(), resident()
use(50)
assert eventually(lambda: left() == before), (before, left())
assert memory_in_use() == 0
assert resident() - memory < 8 << 20, (memory, resident())
"""
    check_quiet(run(script, mock_cluster.bootstrap_servers, topic))


# Import


def test_import_loads_neither_asyncio_nor_confluent_kafka():
    script = """
import sys
import fastprod
print(sorted({"asyncio", "confluent_kafka", "confluent_kafka.cimpl"} & sys.modules.keys()))
"""
    ended = run(script)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")


def test_import_starts_no_thread():
    script = """
import os, threading
before = os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else None
import fastprod
after = os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else None
assert threading.active_count() == 1 and before == after
"""
    check_quiet(run(script))
