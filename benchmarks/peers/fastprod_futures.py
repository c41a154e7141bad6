"""fastprod: send(), every future kept, and asked in the end."""

from benchmarks.peers import fastprod_send
from benchmarks.workload import first

NAME = "fastprod send(), futures kept"


class Peer(fastprod_send.Peer):
    def produce(self, records):
        send, topic, keys, headers = self.producer.send, self.topic, self.keys, self.headers
        values = first(self.values, records)
        if headers is not None:
            futures = [send(topic, value, headers=headers) for value in values]
        elif keys is not None:
            futures = [send(topic, value, key) for value, key in zip(values, keys, strict=False)]
        else:
            futures = [send(topic, value) for value in values]
        self.producer.flush()
        return lambda: sum(future.result(0).offset >= 0 for future in futures)


def connect(servers, topic, workload):
    return Peer(servers, topic, workload)
