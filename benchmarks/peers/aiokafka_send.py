"""aiokafka: send(), a future for each record."""

import asyncio

from aiokafka import AIOKafkaProducer

from benchmarks.workload import BATCH_SIZE, LINGER_MS

NAME = "aiokafka"
SHARE = 0.05
WINDOW = 10_000  # futures awaited at once


class Peer:
    def __init__(self, servers, topic, workload):
        self.topic = topic
        self.values, self.keys, self.headers = workload.values(), workload.keys(), workload.header_list()
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.start(servers, workload))

    async def start(self, servers, workload):
        self.producer = AIOKafkaProducer(
            bootstrap_servers=servers,
            acks="all" if workload.idempotence else 1,
            enable_idempotence=workload.idempotence,
            compression_type=None if workload.compression == "none" else workload.compression,
            linger_ms=LINGER_MS,
            max_batch_size=BATCH_SIZE,
        )
        await self.producer.start()

    def produce(self, records):
        return self.loop.run_until_complete(self.send(records))

    async def send(self, records):
        delivered = 0
        for at in range(0, records, WINDOW):
            futures = [
                await self.producer.send(self.topic, self.values[i], self.keys and self.keys[i], headers=self.headers)
                for i in range(at, min(at + WINDOW, records))
            ]
            delivered += sum(metadata.offset >= 0 for metadata in await asyncio.gather(*futures))
        return delivered

    def close(self):
        self.loop.run_until_complete(self.producer.stop())


def connect(servers, topic, workload):
    return Peer(servers, topic, workload)
