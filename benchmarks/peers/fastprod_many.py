"""fastprod: send_many(), a list in one call."""

from benchmarks.peers import fastprod_send
from benchmarks.workload import first

NAME = "fastprod send_many()"


class Peer(fastprod_send.Peer):
    def send(self, records):
        keys = first(self.keys, records)
        self.producer.send_many(self.topic, first(self.values, records), keys, headers=self.headers)


def connect(servers, topic, workload):
    return Peer(servers, topic, workload)
