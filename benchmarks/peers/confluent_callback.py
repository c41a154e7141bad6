"""confluent_kafka: produce(on_delivery=), which is what learning of failures costs there."""

from benchmarks.peers import confluent_plain

NAME = "confluent produce(on_delivery=)"


class Peer(confluent_plain.Peer):
    def produce(self, topic, values):
        produce, poll, report = self.producer.produce, self.producer.poll, self.report
        before = self.delivered
        for i, value in enumerate(values):
            produce(topic, value, on_delivery=report)
            if i % confluent_plain.POLL_EVERY == 0:
                poll(0)
        self.producer.flush()
        return self.delivered - before


def connect(servers, linger_ms):
    return Peer(servers, linger_ms)
