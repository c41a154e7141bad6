import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from fastprod import testing
from fastprod.librdkafka import loader as librdkafka
from fastprod.testing import ALL_BROKERS, MockCluster
from tests.conftest import READER

pytestmark = pytest.mark.mock
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture(params=[False, True], ids=["thread", "process"])
def cluster(request):
    with MockCluster(brokers=2, topics={"orders": 3}, process=request.param) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=[False, True], ids=["thread", "process"])
def unharmed(request):
    """A cluster for tests that change nothing in it."""
    with MockCluster(brokers=2, topics={"orders": 3}, process=request.param) as cluster:
        yield cluster


def make_producer(cluster, **options):
    return Producer({"bootstrap.servers": cluster.bootstrap_servers, "linger.ms": 0, "log_level": 0, **options})


def produce(producer, topic="orders", partition=0, value=b"value", timeout=10):
    """Sends a record; its error's code, or None if it was acknowledged."""
    outcome = []
    producer.produce(topic, value, partition=partition, on_delivery=lambda error, message: outcome.append(error))
    assert producer.flush(timeout) == 0
    return outcome[0] and outcome[0].code()


def test_what_was_produced_can_be_consumed(cluster):
    assert len(cluster.bootstrap_servers.split(",")) == 2
    assert produce(make_producer(cluster), partition=2) is None
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, **READER})
    consumer.assign([TopicPartition("orders", 2, 0)])
    message = consumer.poll(10)
    consumer.close()
    assert (message.value(), message.partition(), message.offset()) == (b"value", 2, 0)


def test_topics_have_the_partitions_asked_for(cluster):
    cluster.create_topic("more", 7)
    topics = make_producer(cluster).list_topics(timeout=10).topics
    assert {name: len(topic.partitions) for name, topic in topics.items()} == {"orders": 3, "more": 7}


def test_the_default_topic():
    with MockCluster() as cluster:
        assert len(make_producer(cluster).list_topics("orders", 10).topics["orders"].partitions) == 12


@pytest.mark.parametrize("api_key", ["Produce", 0])
def test_pushed_errors_fail_the_next_requests(cluster, api_key):
    producer = make_producer(cluster, retries=0)
    cluster.push_request_errors(api_key, [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_REQUIRED_ACKS])
    outcomes = [produce(producer) for _ in range(3)]
    assert outcomes == [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_REQUIRED_ACKS, None]


def test_round_trip_time_delays_the_answer(cluster):
    producer = make_producer(cluster)
    assert produce(producer) is None
    cluster.set_round_trip_time(ALL_BROKERS, 150)
    started = time.monotonic()
    assert produce(producer) is None
    assert time.monotonic() - started >= 0.15


def test_a_broker_that_is_down_answers_when_it_is_up_again(cluster):
    # Only fresh metadata, or its once-a-second look around, makes librdkafka connect again.
    soon = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 50, "topic.metadata.refresh.interval.ms": 20}
    producer = make_producer(cluster, **soon)
    cluster.set_leader("orders", 0, 2)
    cluster.broker_down(2)
    producer.produce("orders", b"value", partition=0)
    assert producer.flush(0.3) == 1
    cluster.broker_up(2)
    assert producer.flush(10) == 0


def test_the_leader_moves(cluster):
    for broker_id in (1, 2):
        cluster.set_leader("orders", 1, broker_id)
        topics = make_producer(cluster).list_topics("orders", 10).topics
        assert topics["orders"].partitions[1].leader == broker_id


def test_a_deleted_topic_is_unknown(cluster):
    try:
        cluster.delete_topic("orders")
    except RuntimeError as error:
        pytest.skip(str(error))  # before librdkafka 2.15
    assert "orders" not in make_producer(cluster).list_topics(timeout=10).topics


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda c: c.set_leader("orders", 0, -1), "a mock partition needs a leader"),
        (lambda c: c.set_leader("orders", 3, 1), "Unknown topic or partition"),
        (lambda c: c.set_leader("orders", 0, 3), "broker_id is 3, but must be a whole number from 1 to 2"),
        (lambda c: c.broker_down(3), "from 1 to 2"),
        (lambda c: c.broker_up(0), "from 1 to 2"),
        (lambda c: c.set_round_trip_time(1, -5), "milliseconds is -5"),
        (lambda c: c.set_round_trip_time(1, 0.5), "milliseconds is 0.5"),
        (lambda c: c.push_request_errors("Prodcue", [1]), "unknown request 'Prodcue': use one of Produce,"),
        (lambda c: c.push_request_errors("Produce", [2**20]), "error code is 1048576"),
        (lambda c: c.create_topic("orders", 3), "already exists"),
        (lambda c: c.create_topic("a topic", 3), "'a topic' is not a topic name"),
        (lambda c: c.create_topic("new", 0), "the number of partitions of new is 0"),
    ],
)
def test_what_cannot_be_is_refused(unharmed, call, complaint):
    with pytest.raises(ValueError) as error:
        call(unharmed)
    assert complaint in str(error.value)


def test_it_needs_a_broker():
    with pytest.raises(ValueError, match="brokers is 0"):
        MockCluster(brokers=0)


def test_closing_twice_is_fine(cluster):
    cluster.close()
    cluster.close()
    assert repr(cluster) == "<MockCluster closed>"
    with pytest.raises(RuntimeError, match="closed"):
        cluster.broker_down(1)


def test_a_missing_function_is_named_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(testing._REQUIRED, "no_such_thing", [])
    with pytest.raises(RuntimeError, match=f"rd_kafka_mock_no_such_thing, which librdkafka {librdkafka.version()}"):
        MockCluster()


def test_a_missing_optional_function_is_named_when_it_is_called(monkeypatch):
    monkeypatch.setattr(testing, "_OPTIONAL", {})
    with MockCluster() as cluster, pytest.raises(RuntimeError, match="rd_kafka_mock_topic_delete"):
        cluster.delete_topic("orders")


def test_only_a_process_can_be_paused():
    with MockCluster() as cluster:
        assert cluster.pid == os.getpid()
        with pytest.raises(RuntimeError, match="process=True"):
            cluster.pause()


def test_a_paused_cluster_is_silent_until_it_is_resumed():
    with MockCluster(process=True) as cluster:
        assert cluster.pid != os.getpid()
        producer = make_producer(cluster)
        assert produce(producer) is None
        cluster.pause()
        cluster.pause()
        producer.produce("orders", b"value")
        assert producer.flush(0.3) == 1
        with pytest.raises(RuntimeError, match="paused and cannot do broker_set_down: resume"):
            cluster.broker_down(1)
        cluster.resume()
        assert producer.flush(10) == 0


def test_a_paused_cluster_can_be_closed():
    with MockCluster(process=True) as cluster:
        cluster.pause()
    with pytest.raises(ProcessLookupError):
        os.kill(cluster.pid, 0)


def test_a_killed_process_is_noticed():
    with MockCluster(process=True) as cluster:
        os.kill(cluster.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="process ended, exit code -9"):
            cluster.broker_down(1)


def test_the_process_ends_with_its_parent():
    code = (
        "import os; from fastprod.testing import MockCluster; cluster = MockCluster(process=True); "
        "print(cluster.bootstrap_servers, flush=True); os._exit(0)"
    )
    output = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout
    host, port = output.decode().strip().split(":")
    with pytest.raises(ConnectionRefusedError):
        for _ in range(100):
            socket.create_connection((host, int(port))).close()
            time.sleep(0.05)


def test_by_hand_it_serves_until_interrupted():
    command = [sys.executable, "-m", "fastprod.testing", "--brokers", "2", "--topic", "a:3", "--topic", "b:1"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert select.select([process.stdout], [], [], 10)[0]
        servers = process.stdout.readline().strip()
        producer = Producer({"bootstrap.servers": servers, "log_level": 0})
        topics = producer.list_topics(timeout=10).topics
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert {name: len(topic.partitions) for name, topic in topics.items()} == {"a": 3, "b": 1}
