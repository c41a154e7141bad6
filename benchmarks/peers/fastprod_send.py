"""fastprod: send(), one record at a time, a future for each."""

from fastprod import Producer

NAME = "fastprod send()"


class Peer:
    def __init__(self, servers, linger_ms):
        self.producer = Producer(
            bootstrap_servers=servers, acks=1, enable_idempotence=False, linger_ms=linger_ms, batch_size=65536
        )

    def produce(self, topic, values):
        send = self.producer.send
        before = self.producer.metrics()["record-send-total"]
        for value in values:
            send(topic, value)
        self.producer.flush()
        return self.producer.metrics()["record-send-total"] - before

    def one(self, topic, value):
        self.producer.send(topic, value).result()

    def close(self):
        self.producer.close()


def connect(servers, linger_ms):
    return Peer(servers, linger_ms)
