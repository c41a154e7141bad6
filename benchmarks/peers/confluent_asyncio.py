"""confluent_kafka: AIOProducer, a future for each record."""

import asyncio

from confluent_kafka.aio import AIOProducer

from benchmarks.peers.confluent_plain import options

NAME = "confluent AIOProducer"
SHARE = 0.1
WINDOW = 10_000  # futures awaited at once


class Peer:
    def __init__(self, servers, topic, workload):
        self.topic = topic
        self.values, self.keys = workload.values(), workload.keys()
        self.loop = asyncio.new_event_loop()
        self.producer = self.loop.run_until_complete(self.start(options(servers, workload)))

    async def start(self, settings):
        return AIOProducer(settings, batch_size=5000, buffer_timeout=0.05)

    def produce(self, records):
        return self.loop.run_until_complete(self.send(records))

    async def send(self, records):
        delivered = 0
        for at in range(0, records, WINDOW):
            futures = []
            for i in range(at, min(at + WINDOW, records)):
                fields = (
                    {"value": self.values[i]} if self.keys is None else {"value": self.values[i], "key": self.keys[i]}
                )
                futures.append(await self.producer.produce(self.topic, **fields))
            await self.producer.flush()
            delivered += sum(message.error() is None for message in await asyncio.gather(*futures))
        return delivered

    def close(self):
        self.loop.run_until_complete(self.producer.close())


def fits(workload):
    return not workload.headers


def connect(servers, topic, workload):
    return Peer(servers, topic, workload)
