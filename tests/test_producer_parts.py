"""How a producer is made, or not."""

import os
import threading

import pytest

from fastprod import ConfigError, Producer
from fastprod.internals import producer_parts
from tests.conftest import eventually

pytestmark = pytest.mark.mock
TASKS = "/proc/self/task"


def test_a_refused_configuration_leaves_nothing_behind():
    before = threading.active_count()
    for options in ({"batchsize": 1}, {"bootstrap.servers": ""}, {"bootstrap.servers": "h:1", "acks": 7}):
        with pytest.raises(ConfigError):
            Producer(options)
    with pytest.raises(TypeError, match="mapping"):
        Producer(5)
    assert threading.active_count() == before


def test_a_producer_is_never_half_made():
    with pytest.raises(ConfigError, match="bootstrap.servers"):
        Producer.__new__(Producer)


@pytest.mark.skipif(not os.path.isdir(TASKS), reason="only Linux lists the threads of a process")
def test_if_a_thread_does_not_start_the_others_end(mock_cluster, monkeypatch):
    start_threads = producer_parts.start_threads

    def start_and_fail(threads):
        start_threads(threads)
        raise RuntimeError("can't start new thread")

    before = len(os.listdir(TASKS))
    monkeypatch.setattr(producer_parts, "start_threads", start_and_fail)
    with pytest.raises(RuntimeError, match="can't start"):
        Producer(bootstrap_servers=mock_cluster.bootstrap_servers, transactional_id="t")
    assert eventually(lambda: len(os.listdir(TASKS)) <= before)
