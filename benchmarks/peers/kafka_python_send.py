"""kafka-python: send(), a future for each record."""

from benchmarks.workload import BATCH_SIZE, LINGER_MS
from kafka import KafkaProducer

NAME = "kafka-python"
SHARE = 0.05


class Peer:
    def __init__(self, servers, topic, workload):
        self.topic = topic
        self.values, self.keys, self.headers = workload.values(), workload.keys(), workload.header_list()
        self.producer = KafkaProducer(
            bootstrap_servers=servers,
            acks="all" if workload.idempotence else 1,
            enable_idempotence=workload.idempotence,
            compression_type=None if workload.compression == "none" else workload.compression,
            linger_ms=LINGER_MS,
            batch_size=BATCH_SIZE,
            api_version=(2, 1),  # it does not find out that the mock broker's Metadata is an older one
        )

    def produce(self, records):
        send, keys, headers = self.producer.send, self.keys, self.headers or []
        futures = [send(self.topic, self.values[i], keys and keys[i], headers=headers) for i in range(records)]
        self.producer.flush()
        return lambda: sum(future.get(0).offset >= 0 for future in futures)

    def close(self):
        self.producer.close()


def connect(servers, topic, workload):
    return Peer(servers, topic, workload)
