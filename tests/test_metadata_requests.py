"""MetadataRequests: which topics librdkafka asks for, what it answers, and the preparation of the next producer."""

import pytest

from fastprod import KafkaError
from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from fastprod.internals.transport import Transport
from fastprod_core_access import ManualMetadataRequests
from tests.conftest import TOPIC, eventually, pausing

pytestmark = pytest.mark.mock
UNKNOWN_TOPIC = 3
WITHOUT_ANSWER = {-185, -195}  # timed out, or no connection


def transport_to(servers):
    properties = {"bootstrap.servers": servers, "allow.auto.create.topics": "false", "log_level": "0"}
    return Transport(properties, Callbacks(BufferPool(1 << 20, 1 << 14)))


@pytest.fixture
def transport(cluster):
    made = transport_to(cluster.bootstrap_servers)
    yield made
    made.close()


@pytest.fixture
def requests(transport):
    return ManualMetadataRequests(transport)


def test_a_topic_has_its_leaders(requests):
    assert requests.metadata(TOPIC) == (0, {TOPIC: (0, [1] * 4)})


def test_a_topic_that_does_not_exist_has_a_code_of_its_own(requests):
    code, topics = requests.metadata("nowhere")
    assert code == 0
    assert topics["nowhere"][0] == UNKNOWN_TOPIC


def test_without_a_name_all_topics_that_were_asked_for_are_refreshed(requests, cluster):
    for name in ("a", "b", "c"):
        cluster.create_topic(name, 2)
    requests.know(["a"])
    requests.metadata("b")
    assert requests.metadata(None) == (0, {"a": (0, [1, 1]), "b": (0, [1, 1])})


def test_a_name_that_librdkafka_refuses_is_an_error(requests):
    with pytest.raises(KafkaError, match="librdkafka refuses the topic 'aaa"):
        requests.metadata("a" * 600)


def test_a_request_without_an_answer_has_a_code(requests, cluster):
    requests.metadata(TOPIC)
    with pausing(cluster):
        code, topics = requests.metadata(TOPIC)
    assert code in WITHOUT_ANSWER and topics == {}


def test_bootstrap_servers_can_be_given_again(cluster):
    transport = transport_to("127.0.0.1:1")
    requests = ManualMetadataRequests(transport)
    try:
        assert requests.metadata(TOPIC)[0] in WITHOUT_ANSWER
        requests.bootstrap(cluster.bootstrap_servers.encode())
        assert eventually(lambda: requests.metadata(TOPIC) == (0, {TOPIC: (0, [1] * 4)}))
    finally:
        transport.close()


def test_a_librdkafka_producer_without_a_broker_does_not_become_the_next(requests, transport, cluster):
    requests.metadata(TOPIC)
    with pausing(cluster):
        assert requests.do_prepare([TOPIC]) in WITHOUT_ANSWER
    assert requests.do_prepare([TOPIC]) == 0  # the former attempt is gone
