"""TopicIds: the ids of topics are asked for until they are known."""

import pytest

from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from fastprod.internals.metadata_requests import MetadataRequests
from fastprod.internals.transport import Transport
from fastprod_core_access import ManualTopicIds
from tests.conftest import eventually

pytestmark = pytest.mark.mock


@pytest.fixture
def requests(mock_cluster):
    transport = Transport(
        {"bootstrap.servers": mock_cluster.bootstrap_servers}, Callbacks(BufferPool(1 << 20, 1 << 14))
    )
    yield MetadataRequests(transport)
    transport.close()


@pytest.fixture
def ids(requests, topic):
    made = ManualTopicIds(requests, {})
    made.add(topic)
    yield made
    made.do_drop()


def test_an_id_is_not_asked_for_while_no_broker_is_known(ids, topic):
    ids.do_learn()
    assert ids.names == ({topic}, [])


def test_an_id_is_asked_for_until_it_is_known(requests, ids, topic):
    def learned():
        requests.metadata(topic, 1000)
        ids.do_learn()
        return ids.identity(topic) is not None

    assert eventually(learned)
    assert ids.names == (set(), [])


def test_an_id_whose_answer_was_dropped_is_asked_for_again(requests, ids, topic):
    def asked():
        requests.metadata(topic, 1000)
        ids.do_learn()
        return ids.names == (set(), [topic])

    assert eventually(asked)
    ids.do_drop()
    assert ids.names == ({topic}, [])
    assert eventually(asked)
