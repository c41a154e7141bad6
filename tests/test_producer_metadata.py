"""ProducerMetadata: what is known of the topics, how threads wait for more, and when a topic is forgotten."""

import contextlib
import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest

import fastprod.internals.producer_metadata
from fastprod import (
    DeliveryError,
    KafkaError,
    MetadataTimeoutError,
    Producer,
    ProducerClosedError,
    UnknownTopicOrPartitionError,
    partition_for_key,
)
from fastprod_core_access import ManualProducerMetadata
from tests.conftest import PARTITIONS, QUICK, TOPIC, eventually, pausing, signalled
from tests.mock_failures.conftest import whole
from tests.senders import NOBODY, Parts
from tests.test_client_renewal import make_old

pytestmark = pytest.mark.mock
IDLE_MS = 5000  # the least there is, as in Java


@pytest.fixture
def make_ready(make, cluster):
    """make_ready(**options): producers that know the topic of `cluster`, whose last partition holds a record."""

    def producer(**options):
        made = make(cluster.bootstrap_servers, **options)
        made.send(TOPIC, b"warm up", partition=PARTITIONS - 1).result(10)
        return made

    return producer


@pytest.fixture(scope="module")
def unreachable():
    """A producer whose only address is a port where nobody listens, and nobody else will."""
    # One for all, since close() waits up to a second for the answer to the last metadata request.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with Producer(bootstrap_servers=f"127.0.0.1:{held.getsockname()[1]}", max_block_ms=400) as producer:
            yield producer


@pytest.mark.slow
def test_an_unknown_topic_is_an_error_soon_and_works_once_it_exists(make_ready, cluster):
    producer = make_ready(retry_backoff_ms=50)  # the pause between two questions
    started = time.monotonic()
    with pytest.raises(UnknownTopicOrPartitionError, match="'new'") as caught:
        producer.send("new", b"v")
    assert time.monotonic() - started < 15 and caught.value.code == 3
    with pytest.raises(UnknownTopicOrPartitionError):
        producer.partitions_for("new")
    cluster.create_topic("new", 2)
    assert producer.send("new", b"v", partition=1).result(10).offset == 0
    assert len(producer.partitions_for("new")) == 2 and whole(producer)


def test_an_unknown_topic_is_an_error_though_others_ask_for_it_all_the_time(make_ready):
    """The threads come so fast that there are never ten answers between two of them."""
    producer = make_ready(retry_backoff_ms=50, max_block_ms=10_000)
    raised, threads = [], []

    def send():
        try:
            producer.send("new", b"v")
        except KafkaError as error:
            raised.append(type(error))

    while not raised:
        threads.append(threading.Thread(target=send))
        threads[-1].start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(20)
    assert raised == [UnknownTopicOrPartitionError] * len(threads)


def test_a_topic_created_while_send_waits_is_found(make_ready, cluster):
    producer = make_ready()
    timer = threading.Timer(0.3, cluster.create_topic, ("late", 1))
    timer.start()
    try:
        assert producer.send("late", b"v").result(10).offset == 0
    finally:
        timer.join(20)


def test_a_partition_not_known_yet_is_a_timeout_while_no_broker_answers(make_ready, cluster):
    producer = make_ready(max_block_ms=400)
    with pausing(cluster):
        with pytest.raises(MetadataTimeoutError) as caught:
            producer.send(TOPIC, b"v", partition=PARTITIONS)
        assert caught.value.retriable
    with pytest.raises(UnknownTopicOrPartitionError, match="does not exist"):
        make_ready().send(TOPIC, b"v", partition=PARTITIONS)


def test_close_ends_the_wait_for_a_partition_not_known_yet(make_ready, cluster):
    producer = make_ready()
    with pausing(cluster):
        timer = threading.Timer(0.3, producer.close, (0,))
        timer.start()
        with pytest.raises(ProducerClosedError):
            producer.send(TOPIC, b"v", partition=PARTITIONS)
        timer.join(20)


def test_what_runs_on_the_metadata_thread_by_chance_does_not_wait_for_it(make_ready, cluster, monkeypatch):
    """As a finalizer may, of an object that is freed there: here the one that makes an array."""
    producer = make_ready(max_block_ms=3000)
    cluster.create_topic("late", 1)
    made = fastprod.internals.producer_metadata.array.array
    raised = []

    class Finalized:
        def __del__(self):
            for call in (lambda: producer.send("unknown", b"v"), producer.close):
                try:
                    call()
                except Exception as error:
                    raised.append(error)

    def array(*fields):
        monkeypatch.undo()
        Finalized()
        return made(*fields)

    monkeypatch.setattr(fastprod.internals.producer_metadata, "array", SimpleNamespace(array=array))
    assert producer.send("late", b"v").result(10).offset == 0
    assert eventually(lambda: len(raised) == 2)
    assert [type(error) for error in raised] == [RuntimeError] * 2
    assert "metadata thread" in str(raised[0]) and "on the metadata thread would wait for that thread" in str(raised[1])
    producer.close(10)


def test_a_signal_handler_may_close_during_partitions_for(make_ready, monkeypatch):
    """What the metadata thread waits for meanwhile is not held: close() waits for that thread."""
    producer = make_ready(metadata_max_age_ms=10)
    made = fastprod.internals.producer_metadata.PartitionInfo

    def slow(*fields):
        monkeypatch.undo()
        time.sleep(0.1)  # an answer comes
        signal.raise_signal(signal.SIGALRM)
        return made(*fields)

    with signalled(lambda: producer.close(10), seconds=0):
        monkeypatch.setattr("fastprod.internals.producer_metadata.PartitionInfo", slow)
        with contextlib.suppress(ProducerClosedError):
            producer.partitions_for(TOPIC)
    assert "closed" in repr(producer)


def test_a_topic_that_was_made_anew_with_fewer_partitions_is_used_as_it_is_now(make_ready, cluster, caplog):
    producer = make_ready(metadata_max_age_ms=20)
    keys = [b"%d" % i for i in range(40)]
    before = {key: producer.send(TOPIC, b"v", key).result(10).partition for key in keys}
    assert before == {key: partition_for_key(key, PARTITIONS) for key in keys}
    cluster.delete_topic(TOPIC)
    cluster.create_topic(TOPIC, 2)
    assert eventually(lambda: len(producer.partitions_for(TOPIC)) == 2)
    after = {key: producer.send(TOPIC, b"v", key).result(10).partition for key in keys}
    assert after == {key: partition_for_key(key, 2) for key in keys}
    assert {producer.send(TOPIC, b"v" * 20_000).result(10).partition for _ in range(10)} == {0, 1}
    with pytest.raises(UnknownTopicOrPartitionError, match="partition 3 .* 0 to 1"):
        producer.send(TOPIC, b"v", partition=3)
    assert eventually(lambda: "t has 2 partitions and had 4" in caplog.text) and whole(producer)


def test_without_a_broker_send_raises_within_max_block_ms(unreachable):
    started = time.monotonic()
    with pytest.raises(MetadataTimeoutError, match="max.block.ms") as caught:
        unreachable.send(TOPIC, b"v")
    assert 0.35 < time.monotonic() - started < 15
    assert isinstance(caught.value, TimeoutError) and caught.value.retriable
    assert len(unreachable) == 0 and whole(unreachable)


def test_wait_ready_returns_once_a_broker_answers(make, cluster):
    producer = make(cluster.bootstrap_servers)
    assert producer.wait_ready(10) is None
    assert producer.wait_ready() is None


def test_wait_ready_times_out_without_a_broker(unreachable):
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no broker answered within 0\.5 s"):
        unreachable.wait_ready(0.5)
    assert 0.4 < time.monotonic() - started < 15


def test_tls_to_a_plaintext_port_is_reported_although_other_connections_ended(cluster):
    with Producer({**QUICK, "bootstrap.servers": cluster.bootstrap_servers, "security.protocol": "SSL"}) as producer:
        with pytest.raises(MetadataTimeoutError):
            producer.wait_ready(1)  # many a connection
        with pytest.raises(MetadataTimeoutError, match=r"connecting to a PLAINTEXT broker listener\?"):
            producer.wait_ready(0.1)


def asked_anew(producer, name):
    """Whether a producer has forgotten a topic that is gone: send() asks for it again then."""
    try:
        producer.send(name, b"v")
    except UnknownTopicOrPartitionError:
        return True
    return False


def test_a_topic_is_forgotten_after_metadata_max_idle_ms_and_works_like_new_when_used_again(brokers):
    """Though it was deleted and created again: librdkafka forgets neither it nor the deleted topic's leader epochs."""
    brokers.create_topic("kept", 2)
    with Producer(QUICK, bootstrap_servers=brokers.bootstrap_servers, metadata_max_idle_ms=IDLE_MS) as producer:
        make_old(brokers, producer, "idle", 2)
        deadline = time.monotonic() + 1.5 * IDLE_MS / 1000
        while time.monotonic() < deadline:
            producer.send("kept", b"v").result(30)
            time.sleep(0.05)
        brokers.delete_topic("idle")
        assert asked_anew(producer, "idle")
        brokers.create_topic("idle", 3)
        for partition in range(3):
            brokers.set_leader("idle", partition, 1)
        assert producer.send("idle", b"again").result(30).offset == 0
        assert len(producer.partitions_for("idle")) == 3
        assert producer.send("kept", b"v").result(30).topic == "kept"


def test_a_topic_is_not_forgotten_while_its_records_are_under_way_or_a_call_has_it(brokers):
    for name in ("slow", "bulk", "other"):
        brokers.create_topic(name, 1)

    def values():
        yield b"first"
        time.sleep(1.5 * IDLE_MS / 1000)
        yield b"second"

    with Producer(QUICK, bootstrap_servers=brokers.bootstrap_servers, metadata_max_idle_ms=IDLE_MS) as producer:
        for name in ("slow", "other"):
            producer.send(name, b"v").result(30)
        brokers.pause()
        waiting = producer.send("slow", b"waits")
        producer.send("other", b"v")  # the topic of the last send() is kept in any case
        time.sleep(1.5 * IDLE_MS / 1000)
        brokers.resume()
        assert waiting.result(30).offset == 1
        assert producer.send_many("bulk", values()).result(30).count == 2


def test_failed_records_that_are_kept_outlive_their_topic(brokers):
    for name in ("lost", "other"):
        brokers.create_topic(name, 1)
    with Producer(QUICK, bootstrap_servers=brokers.bootstrap_servers, metadata_max_idle_ms=IDLE_MS) as producer:
        producer.send("lost", b"v").result(30)
        brokers.push_request_errors("Produce", [10])  # MSG_SIZE_TOO_LARGE
        producer.send("lost", b"kept")
        assert eventually(lambda: len(producer) == 0)
        producer.send("other", b"v").result(30)
        time.sleep(1.5 * IDLE_MS / 1000)
        brokers.delete_topic("lost")
        assert asked_anew(producer, "lost")
        with pytest.raises(DeliveryError) as caught:
            producer.flush(30)
        assert [(record.topic, record.value) for record in caught.value.records] == [("lost", b"kept")]


# Answers that a test gives itself


@pytest.fixture
def parts():
    with Parts(NOBODY, "other", properties={"log_level": "0"}) as made:
        yield made


@pytest.fixture
def metadata(parts):
    return ManualProducerMetadata(parts.transport, parts.accumulator, parts.sender)


def test_an_answer_tells_which_topics_are_new(metadata):
    topic = metadata.add("t")
    assert metadata.learn({"t": (0, [1, 2]), "never asked for": (0, [1])}) == ["t"]
    assert metadata.learn({"t": (0, [2, 2])}) == []
    assert topic.leaders == (2, 2) and metadata.names == ["t"]
    assert not metadata.take_doubt()


def test_fewer_partitions_count_once_two_answers_in_a_row_have_them(metadata):
    """One broker may lag behind the others."""
    topic = metadata.add("t")
    for leaders, expected, doubt in [
        ([1] * 4, 4, False),
        ([1] * 2, 4, True),
        ([1] * 4, 4, False),
        ([1] * 2, 4, True),
        ([1] * 3, 4, True),
        ([1] * 3, 3, False),
    ]:
        metadata.learn({"t": (0, leaders)})
        assert (topic.partitions, metadata.partitions, metadata.take_doubt()) == (expected, expected, doubt)


def test_the_first_answer_about_a_topic_that_was_created_again_may_have_fewer_partitions(metadata):
    topic = metadata.add("t")
    metadata.learn({"t": (0, [1] * 4)})
    metadata.expect_recreated("t")
    metadata.learn({"t": (0, [1] * 2)})
    assert topic.partitions == 2 and not metadata.take_doubt()
    metadata.learn({"t": (0, [1])})  # only the first
    assert topic.partitions == 2 and metadata.take_doubt()


def test_an_error_leaves_doubt_only_about_a_topic_that_is_not_known(metadata):
    topic = metadata.add("t")
    metadata.learn({"t": (3, [])})
    assert metadata.take_doubt()
    metadata.learn({"t": (0, [1, 2])})
    metadata.learn({"t": (3, [])})
    assert topic.leaders == (1, 2) and not metadata.take_doubt()


def test_topics_with_a_partition_without_leader_are_known_by_name(metadata):
    metadata.add("t")
    metadata.learn({"t": (5, [1, -1])})
    assert metadata.without_leader == {"t"}
    metadata.learn({"t": (0, [1, 1])})
    assert metadata.without_leader == set()


def test_only_topics_that_nobody_uses_are_forgotten(metadata, parts):
    held = metadata.add("held")
    for name in ("pending", "recent", "unused"):
        metadata.add(name)
    metadata.learn({name: (0, [-1]) for name in metadata.names})
    parts.put(b"v", topic="pending")
    for name in ("held", "pending", "unused"):
        metadata.set_unused(name, 10)
    assert metadata.forget_unused(5) == {"unused"}
    assert metadata.names == ["held", "pending", "recent"] and metadata.partitions == 3
    assert metadata.without_leader == {"held", "pending", "recent"}
    del held
    assert metadata.forget_unused(5) == {"held"}


def test_the_cluster_of_a_partitioner_is_the_same_until_something_changes(metadata):
    metadata.add("t")
    empty = metadata.cluster()
    metadata.learn({"t": (0, [1, -1])})
    known = metadata.cluster()
    assert [info.leader for info in known.partitions_for_topic("t")] == [1, None]
    assert empty.partitions_for_topic("t") == []
    metadata.learn({"t": (0, [1, -1])})
    assert metadata.cluster() is known
    metadata.set_unused("t", 10)
    metadata.forget_unused(5)
    assert metadata.cluster().partitions_for_topic("t") == []
