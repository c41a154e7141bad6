"""MetadataUpdater: when brokers are asked, and for which topics."""

import subprocess
import sys
import textwrap

import pytest

from fastprod_core_access import ManualMetadataUpdater, ManualProducerMetadata
from tests.senders import NOBODY, Parts


class Updater:
    """An updater without a thread, and its metadata."""

    def __init__(self, parts, **options):
        self.metadata = ManualProducerMetadata(parts.transport, parts.accumulator, parts.sender)
        self.updater = ManualMetadataUpdater(self.metadata, parts.transport, parts.sender, renewable=True, **options)
        self.topics = []

    def add(self, name, leaders):
        self.topics.append(self.metadata.add(name))
        self.metadata.learn({name: (0, leaders)})


@pytest.fixture
def updater():
    with Parts(NOBODY, "other", properties={"log_level": "0"}) as parts:
        yield Updater(parts)


def test_topics_that_threads_wait_for_are_asked_for_one_by_one_and_once(updater):
    for name in ("b", "a", "b"):
        updater.metadata.await_answer(name)
    assert updater.updater.names("AWAITED") == ["a", "b"]
    assert updater.updater.names("AWAITED") == []


@pytest.mark.parametrize(("count", "asked"), [(8, 8), (9, 1)])
def test_more_than_a_few_are_asked_for_together(updater, count, asked):
    for i in range(count):
        updater.metadata.await_answer(f"t{i}")
    names = updater.updater.names("AWAITED")
    assert len(names) == asked and (names == [None]) == (asked == 1)


@pytest.mark.parametrize("when", [{"requested": "EVERYTHING"}, {"all_due": True}, {"due": True}], ids=str)
def test_all_topics_are_asked_for_together_when_all_are_wanted_or_due(updater, when):
    updater.add("t", [1])
    updater.metadata.await_answer("t")
    assert updater.updater.names(**when) == [None]


def test_while_a_leader_is_missing_its_topic_is_asked_for_alone(updater):
    updater.add("whole", [1])
    updater.add("leaderless", [1, -1])
    assert updater.updater.names(due=True) == ["leaderless"]
    assert updater.updater.names() == []


@pytest.mark.mock
def test_the_first_requests_come_soon_after_each_other_and_then_one_in_max_age(mock_cluster, topic):
    with Parts(mock_cluster.bootstrap_servers, "other") as parts:
        updater = Updater(parts, max_age_ms=7000)
        timeouts = []
        for _ in range(5):
            assert updater.updater.do_ask([topic])
            timeouts.append(updater.updater.next_request_s())
        assert timeouts == [0.03, 0.06, 0.12, 7, 7]


@pytest.mark.parametrize(("backoff_ms", "seconds"), [(50, 0.25), (400, 0.4)])
def test_a_missing_leader_is_asked_for_after_the_backoff(backoff_ms, seconds):
    with Parts(NOBODY, "other", properties={"log_level": "0"}) as parts:
        updater = Updater(parts, backoff_ms=backoff_ms)
        updater.add("t", [-1])
        assert updater.updater.next_request_s() == seconds


def test_an_error_of_a_whole_metadata_answer_does_no_harm():
    """librdkafka 2.16 ends the process if it is the answer to an admin request (rd_kafka_admin_response_parse)."""
    script = """
        from fastprod import Producer
        from fastprod.testing import MockCluster
        with MockCluster(topics={}, process=True) as cluster:
            with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
                for i in range(10):
                    cluster.create_topic(f"t{i}", 2)
                    producer.send(f"t{i}", b"v")
                    cluster.push_request_errors("Metadata", [7, 7, 7])
                    producer.flush(30)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)
