"""When a producer takes calls, and what they raise if not."""

import os
import threading

import pytest

from fastprod import ForkedProducerError, ProducerClosedError

pytestmark = pytest.mark.mock


@pytest.fixture
def producer(make):
    return make()


@pytest.mark.parametrize(
    "use",
    [
        lambda producer, topic: producer.send(topic, b"v"),
        lambda producer, topic: producer.send("never-heard-of", b"v"),
        lambda producer, topic: producer.flush(),
        lambda producer, topic: producer.partitions_for(topic),
        lambda producer, topic: producer.wait_ready(1),
        lambda producer, topic: producer.__enter__(),
    ],
    ids=["send", "send-new-topic", "flush", "partitions_for", "wait_ready", "with"],
)
def test_a_closed_producer_refuses_work(producer, topic, use):
    producer.send(topic, b"v")
    producer.close(10)
    with pytest.raises(ProducerClosedError, match="closed"):
        use(producer, topic)


def test_a_closed_producer_can_still_be_looked_at(producer, topic):
    producer.send(topic, b"v")
    producer.close(10)
    assert len(producer) == 0 and producer.buffer_available == 32 << 20
    assert producer.metrics()["record-send-total"] == 1


@pytest.mark.parametrize("name", ["known", "new"])
def test_a_producer_closed_while_a_serializer_runs_refuses_the_record(make, mock_cluster, topic, name):
    closing = []

    def close_first(value):
        if value == "last":
            closing.append(threading.Thread(target=producer.close))
            closing[0].start()
            closing[0].join(20)
        return value

    producer = make(value_serializer=close_first)
    producer.send(topic, "first").result(10)
    mock_cluster.create_topic(topic + "-new", 1)
    with pytest.raises(ProducerClosedError):
        producer.send(topic if name == "known" else topic + "-new", "last")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_whatever_it_asks(producer, topic):
    producer.send(topic, b"v").result(10)
    uses = [
        lambda: producer.send(topic, b"v"),  # bytes for the topic of the last record: the shorter way
        lambda: producer.send(topic, "v", headers={"h": b""}),
        lambda: producer.send_many(topic, [b"v"]),
        producer.flush,
        producer.close,
        producer.metrics,
        lambda: producer.buffer_available,
    ]
    pid = os.fork()
    if not pid:
        refused = 0
        try:
            for use in uses:
                with pytest.raises(ForkedProducerError):
                    use()
                refused += 1
        finally:
            os._exit(len(uses) - refused)
    assert os.waitpid(pid, 0)[1] == 0
    assert producer.send(topic, b"v").result(10).topic == topic
