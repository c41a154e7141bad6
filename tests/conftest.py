"""What all tests share: the fixtures of the real broker, a mock cluster, and random numbers whose seed shows."""

import contextlib
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from fastprod import Producer
from fastprod.testing import MockCluster

pytest_plugins = ["tests.bad_input", "tests.kafka.fixtures", "tests.transports", "tests.workers"]

if not (Path(__file__).parents[1] / "src").exists():  # an installed package is tested, with this folder alone
    collect_ignore_glob = ["test_layering.py", "test_docs.py", "*benchmark*.py"]
    if os.environ.get("FASTPROD_TESTS") != "1":  # then it was installed without fastprod_core_access: see setup.py
        folder = Path(__file__).parent
        tests = [(str(path.relative_to(folder)), path.read_text()) for path in folder.rglob("test_*.py")]
        collect_ignore_glob += [
            name
            for name, text in tests
            if any(
                module in text
                for module in ("fastprod_core_access", "tests.accumulators", "tests.senders", "tests.transports")
            )
        ]

# Options that change nothing but how soon a producer starts. librdkafka asks for an idempotent producer's id when
# metadata arrives, and if the connection was not up by then (it often is not) only half a second later; and it
# lets half of reconnect.backoff.ms pass between its first connection and the second.
QUICK = {"librdkafka.topic.metadata.refresh.interval.ms": 20, "reconnect.backoff.ms": 10}
# A consumer's, likewise: else a fetch that leaves before all partitions are assigned waits half a second for records.
READER = {"group.id": "g", "log_level": 0, "fetch.wait.max.ms": 10}

TOPIC, PARTITIONS = "t", 4  # of the `cluster` fixture


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is for what a shell starts with "&", and would be for the processes that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mock_cluster():
    """A mock cluster of one broker in its own process; make topics of your own with create_topic()."""
    with MockCluster(process=True) as cluster:
        yield cluster


@pytest.fixture
def cluster():
    """A mock cluster of the test's own, to stop it, or to push errors, which hit whoever comes next."""
    with MockCluster(topics={TOPIC: PARTITIONS}, process=True) as cluster:
        yield cluster


@pytest.fixture
def brokers():
    """Two brokers, so that a topic can be created again with another leader."""
    with MockCluster(2, topics={}, process=True) as cluster:
        yield cluster


@pytest.fixture
def make(mock_cluster):
    """make(servers, **options): producers that are closed when the test ends."""
    producers = []

    def producer(servers=mock_cluster.bootstrap_servers, **options):
        producers.append(Producer({"bootstrap.servers": servers, **QUICK}, **options))
        return producers[-1]

    yield producer
    for producer in producers:
        producer.close(10)


@pytest.fixture
def topic(mock_cluster, request):
    """A topic of four partitions that no other test uses."""
    name = "t-" + "".join(c if c.isalnum() else "-" for c in request.node.name)[:200]
    mock_cluster.create_topic(name, 4)
    return name


def eventually(condition, seconds=20):
    """The condition's last value: the first that is true, or what it is when the time is over."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return holds


@contextlib.contextmanager
def pausing(cluster):
    """A mock cluster answers nothing in the body."""
    cluster.pause()
    try:
        yield
    finally:
        cluster.resume()


def shown(value):
    """The id of a parameter: short, and the same in every process, as an object's address is not."""
    return re.sub(r" at 0x\w+", "", repr(value))[:60]


class Interrupted(BaseException):
    """Not an Exception: what Ctrl-C raises is none either."""


@contextlib.contextmanager
def signalled(act, seconds=0.2):
    """A signal handler calls act() in the body."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: act())
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def interrupted(seconds=0.2):
    """What a signal handler raises comes out of the body, as KeyboardInterrupt does."""

    def interrupt():
        raise Interrupted

    started = time.monotonic()
    with pytest.raises(Interrupted) as caught, signalled(interrupt, seconds):
        yield caught
    assert time.monotonic() - started < 20


class Seeded(random.Random):
    """Random numbers whose seed is in the repr, so that a failing test shows it."""

    def __init__(self, seed):
        super().__init__(seed)
        self.first_seed = seed

    def __repr__(self):
        return f"Seeded({self.first_seed})"


@pytest.fixture
def read(mock_cluster):
    """read(topic, count): the messages found there, in the order of partition and offset."""

    def read(topic, count, servers=mock_cluster.bootstrap_servers):
        consumer = Consumer({"bootstrap.servers": servers, **READER})
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        messages = []
        while len(messages) < count and (found := consumer.consume(count - len(messages), 10)):
            messages += found
        consumer.close()
        assert len(messages) == count
        return sorted(messages, key=lambda message: (message.partition(), message.offset()))

    return read


@pytest.fixture
def write(tmp_path):
    """write(name, text): the path of a file with that text."""

    def write(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.fixture
def rng():
    """Seeded from FASTPROD_SEED if that is set."""
    seed = int(os.environ.get("FASTPROD_SEED", 0)) or random.SystemRandom().randrange(1 << 32)
    print(f"FASTPROD_SEED={seed}")
    return Seeded(seed)


def pytest_collection_modifyitems(items):
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:
        raise pytest.UsageError(f"these ids hold addresses, use ids=shown: {unstable}")


def pytest_sessionfinish(session, exitstatus):
    """A skip is a hole: with FASTPROD_NO_SKIPS=1 it fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FASTPROD_NO_SKIPS") == "1" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
