"""confluent_kafka: produce(on_delivery=), which is what learning of failures costs there."""

from benchmarks.peers import confluent_plain

NAME = "confluent produce(on_delivery=)"


class Peer(confluent_plain.Peer):
    def fields(self):
        self.before = self.delivered
        return super().fields() | {"on_delivery": self.report}

    def settled(self, records):
        self.producer.flush()
        return self.delivered - self.before


def connect(servers, topic, workload):
    return Peer(servers, topic, workload)
