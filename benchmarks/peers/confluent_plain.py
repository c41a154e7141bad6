"""confluent_kafka: produce() without a callback, so nobody learns what became of a record."""

from confluent_kafka import Producer

NAME = "confluent produce()"
POLL_EVERY = 1000  # records; more often is slower, never lets the queue fill up with reports


class Peer:
    def __init__(self, servers, linger_ms):
        self.producer = Producer(
            {
                "bootstrap.servers": servers,
                "acks": 1,
                "linger.ms": linger_ms,
                "queue.buffering.max.messages": 10_000_000,
                "queue.buffering.max.kbytes": 2_000_000,
            }
        )
        self.delivered = 0

    def report(self, error, message):
        if error is not None:
            raise RuntimeError(error)
        self.delivered += 1

    def produce(self, topic, values):
        produce, poll = self.producer.produce, self.producer.poll
        for i, value in enumerate(values):
            produce(topic, value)
            if i % POLL_EVERY == 0:
                poll(0)
        return len(values) - self.producer.flush()

    def one(self, topic, value):
        before = self.delivered
        self.producer.produce(topic, value, on_delivery=self.report)
        while self.delivered == before:
            self.producer.poll(1)

    def close(self):
        self.producer.flush()


def connect(servers, linger_ms):
    return Peer(servers, linger_ms)
