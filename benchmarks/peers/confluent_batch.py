"""confluent_kafka: produce_batch(), lists of dicts; it has neither headers nor, here, a callback."""

from benchmarks.peers import confluent_plain

NAME = "confluent produce_batch()"
BATCH = 10_000  # records of a call


class Peer(confluent_plain.Peer):
    def __init__(self, servers, topic, workload):
        super().__init__(servers, topic, workload)
        keys = self.keys
        self.messages = [{"value": value} for value in self.values]
        for message, key in zip(self.messages, keys or (), strict=False):
            message["key"] = key

    def produce(self, records):
        for at in range(0, records, BATCH):
            messages = self.messages[at : min(at + BATCH, records)]
            accepted = self.producer.produce_batch(self.topic, messages)
            if accepted != len(messages):
                raise RuntimeError(f"{accepted} of {len(messages)} were accepted")
            self.producer.poll(0)
        return self.settled(records)


def fits(workload):
    return not workload.headers


def connect(servers, topic, workload):
    return Peer(servers, topic, workload)
