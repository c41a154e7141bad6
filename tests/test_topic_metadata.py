"""TopicMetadata: the partitions and leaders of a topic."""

import pytest

from fastprod_core_access import ManualProducerMetadata
from tests.senders import NOBODY, Parts


@pytest.fixture
def metadata():
    with Parts(NOBODY, "other", properties={"log_level": "0"}) as parts:
        yield ManualProducerMetadata(parts.transport, parts.accumulator, parts.sender)


def test_nothing_is_known_of_a_topic_before_an_answer(metadata):
    topic = metadata.add("t")
    assert (topic.name, topic.partitions, topic.leaders, topic.code, topic.answers) == ("t", 0, (), 0, 0)
    assert not topic.leaderless


@pytest.mark.parametrize(("leaders", "leaderless"), [([1, 2], False), ([1, -1], True), ([0], False)])
def test_a_topic_is_leaderless_while_one_partition_has_no_leader(metadata, leaders, leaderless):
    topic = metadata.add("t")
    metadata.learn({"t": (0, leaders)})
    assert (topic.partitions, topic.leaders, topic.leaderless) == (len(leaders), tuple(leaders), leaderless)


def test_it_keeps_the_code_of_the_last_answer(metadata):
    topic = metadata.add("t")
    for code, leaders in [(3, []), (5, [-1]), (0, [1])]:
        metadata.learn({"t": (code, leaders)})
        assert topic.code == code
    assert topic.answers == 3


def test_a_program_cannot_change_it(metadata):
    topic = metadata.add("t")
    for name in ("name", "partitions", "leaders", "code", "answers"):
        with pytest.raises(AttributeError):
            setattr(topic, name, None)
