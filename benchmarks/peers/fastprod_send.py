"""fastprod: send(), one record at a time, a future for each, which is let go."""

from benchmarks.workload import BATCH_SIZE, LINGER_MS, first
from fastprod import Producer

NAME = "fastprod send()"
MANY = 100  # partitions; librdkafka puts each into a request of its own
IN_FLIGHT = "max_in_flight_requests_per_connection"


class Peer:
    def __init__(self, servers, topic, workload, linger_ms=LINGER_MS):
        self.topic = topic
        self.values, self.keys, self.headers = workload.values(), workload.keys(), workload.header_list()
        self.producer = Producer(
            bootstrap_servers=servers,
            acks=workload.acks,
            enable_idempotence=workload.idempotence,
            compression_type=workload.compression,
            linger_ms=linger_ms,
            batch_size=BATCH_SIZE,
            **({} if workload.partitions <= MANY or workload.idempotence else {IN_FLIGHT: workload.partitions}),
        )

    def produce(self, records):
        before = self.acknowledged()
        self.send(records)
        self.producer.flush()
        return self.acknowledged() - before

    def send(self, records):
        send, topic, headers = self.producer.send, self.topic, self.headers
        values = first(self.values, records)
        if headers is not None:
            for value in values:
                send(topic, value, headers=headers)
        elif self.keys is not None:
            for value, key in zip(values, self.keys, strict=False):
                send(topic, value, key)
        else:
            for value in values:
                send(topic, value)

    def acknowledged(self):
        return int(self.producer.metrics()["record-send-total"])

    def details(self):
        return {"records_per_request": self.producer.metrics()["records-per-request-avg"]}

    def one(self, value):
        self.producer.send(self.topic, value).result()

    def close(self):
        self.producer.close()


def connect(servers, topic, workload, **options):
    return Peer(servers, topic, workload, **options)
