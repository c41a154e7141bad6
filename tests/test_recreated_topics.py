"""RecreatedTopics: a topic was created again when librdkafka's log says that its id has changed."""

import logging

import pytest

from fastprod import Producer
from fastprod_core_access import ManualRecreatedTopics

OLD, NEW, NONE = b"6ZvlYUARTSyQWEhh4xnlPw", b"50xVwRzyQP2NpiE3QhZ-IA", b"A" * 22


def line(name, former=OLD, now=NEW, thread=b"[thrd:main]: "):
    return b"%sTopic %s changed id from %s to %s" % (thread, name, former, now)


@pytest.fixture
def recreated():
    return ManualRecreatedTopics()


@pytest.mark.parametrize("thread", [b"[thrd:main]: ", b"[thrd:127.0.0.1:9092/bootstrap]: ", b""])
@pytest.mark.parametrize("name", [b"t", b"id", b"from", b"a.b-c_D9", b"x" * 249])
def test_a_topic_whose_id_has_changed_was_created_again(recreated, name, thread):
    recreated.read(line(name, thread=thread))
    assert recreated.names() == {name.decode()}


@pytest.mark.parametrize(
    "line",
    [
        line(b"t", former=NONE),
        line(b"t", now=NONE),
        b"[thrd:main]: Topic t [0] Leader 1 Epoch 3",
        b"[thrd:main]: Topic t changed id from ",
        b" changed id from ",
        b" changed id from  to ",
        line(b"x" * 250),
        b"",
    ],
    ids=["first id", "no id", "another line", "cut short", "only the middle", "nothing between", "too long", "empty"],
)
def test_no_other_line_counts(recreated, line):
    recreated.read(line)
    assert recreated.names() <= {""}


def test_each_name_is_given_once(recreated):
    for name in (b"a", b"b", b"a"):
        recreated.read(line(name))
    assert recreated.names() == {"a", "b"}
    assert recreated.names() == set()
    recreated.read(line(b"a"))
    assert recreated.names() == {"a"}


@pytest.mark.mock
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, False),
        ({"log_level": 7}, False),
        ({"log_level": "6.0"}, False),
        ({"debug": "broker"}, False),
        ({"debug": "broker, metadata"}, True),
        ({"debug": "all"}, True),
    ],
    ids=str,
)
def test_the_lines_that_only_fastprod_reads_are_not_logged(mock_cluster, topic, caplog, options, shown):
    caplog.set_level(logging.DEBUG, "fastprod")
    with Producer({**options, "bootstrap.servers": mock_cluster.bootstrap_servers}) as producer:
        producer.send(topic, b"v").result(30)
    debug = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert any(line.startswith("METADATA") for line in debug) == shown
    assert any(not line.startswith("METADATA") for line in debug) == ("debug" in options)
