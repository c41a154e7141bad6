"""A topic for each test, and a reader of it."""

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.conftest import PARTITIONS, READER


class Reader:
    """Reads what has come to a topic since it was read last."""

    def __init__(self, servers, topic):
        self.consumer = Consumer({"bootstrap.servers": servers, **READER})
        self.consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])

    def __call__(self, count):
        """The messages, in the order of partition and offset."""
        messages = []
        while len(messages) < count and (found := self.consumer.consume(count - len(messages), 10)):
            messages += found
        assert len(messages) == count
        return sorted(messages, key=lambda message: (message.partition(), message.offset()))

    def values(self, count):
        return [message.value() for message in self(count)]


@pytest.fixture
def topic(mock_cluster, request):
    """A topic that no test has, not one of the same name elsewhere either."""
    name = "arrow-" + "".join(c if c.isalnum() and c.isascii() else "-" for c in request.node.name)[:200]
    mock_cluster.create_topic(name, PARTITIONS)
    return name


@pytest.fixture
def read(mock_cluster, topic):
    reader = Reader(mock_cluster.bootstrap_servers, topic)
    yield reader
    reader.consumer.close()
