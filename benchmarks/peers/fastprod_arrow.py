"""fastprod: send_arrow(), a table of pyarrow's in one call."""

import pyarrow

from benchmarks.peers import fastprod_send

NAME = "fastprod send_arrow()"


class Peer(fastprod_send.Peer):
    def __init__(self, servers, topic, workload):
        super().__init__(servers, topic, workload)
        columns = {"value": self.values} | ({} if self.keys is None else {"key": self.keys})
        self.table = pyarrow.table(columns)
        self.values = self.keys = None
        self.key = "key" if workload.keyed else None

    def send(self, records):
        self.producer.send_arrow(self.topic, self.table.slice(0, records), key=self.key)


def fits(workload):
    return not workload.headers  # a column of maps, which costs what making it costs


def connect(servers, topic, workload):
    return Peer(servers, topic, workload)
