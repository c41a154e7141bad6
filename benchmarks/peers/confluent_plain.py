"""confluent_kafka: produce() without a callback, so nobody learns what became of a record."""

from confluent_kafka import Producer

from benchmarks.workload import LINGER_MS, first

NAME = "confluent produce()"
POLL_EVERY = 1000  # records; more often is slower, and the queue is large enough for the reports of all


def options(servers, workload, linger_ms=LINGER_MS):
    return {
        "bootstrap.servers": servers,
        "acks": workload.acks,
        "enable.idempotence": workload.idempotence,
        "compression.type": workload.compression,
        "linger.ms": linger_ms,
        "partitioner": "murmur2_random",
        "queue.buffering.max.messages": 10_000_000,
        "queue.buffering.max.kbytes": 2_000_000,
    }


class Peer:
    def __init__(self, servers, topic, workload, linger_ms=LINGER_MS):
        self.topic = topic
        self.values, self.keys, self.headers = workload.values(), workload.keys(), workload.header_list()
        self.producer = Producer(options(servers, workload, linger_ms))
        self.delivered = 0

    def report(self, error, message):
        if error is not None:
            raise RuntimeError(error)
        self.delivered += 1

    def fields(self):
        """What each call has besides topic, value and key."""
        return {} if self.headers is None else {"headers": self.headers}

    def produce(self, records):
        produce, poll, topic, fields = self.producer.produce, self.producer.poll, self.topic, self.fields()
        values = first(self.values, records)
        if self.keys is not None:
            for i, (value, key) in enumerate(zip(values, self.keys, strict=False)):
                produce(topic, value, key, **fields)
                if i % POLL_EVERY == 0:
                    poll(0)
        elif fields:
            for i, value in enumerate(values):
                produce(topic, value, **fields)
                if i % POLL_EVERY == 0:
                    poll(0)
        else:
            for i, value in enumerate(values):
                produce(topic, value)
                if i % POLL_EVERY == 0:
                    poll(0)
        return self.settled(records)

    def settled(self, records):
        return records - self.producer.flush()

    def one(self, value):
        before = self.delivered
        self.producer.produce(self.topic, value, on_delivery=self.report)
        while self.delivered == before:
            self.producer.poll(1)

    def close(self):
        self.producer.flush()


def connect(servers, topic, workload, **options):
    return Peer(servers, topic, workload, **options)
