"""fastprod: send(), every future kept, and asked in the end."""

from benchmarks.peers import fastprod_send

NAME = "fastprod send(), futures kept"


class Peer(fastprod_send.Peer):
    def produce(self, topic, values):
        send = self.producer.send
        futures = [send(topic, value) for value in values]
        self.producer.flush()
        return lambda: sum(future.result(0).offset >= 0 for future in futures)


def connect(servers, linger_ms):
    return Peer(servers, linger_ms)
