"""One cell, measured in a process of its own; prints a line of JSON.

python -m benchmarks.grid.run SERVERS TOPIC CELL
"""

import itertools
import json
import resource
import statistics
import sys
import time

from benchmarks.grid.cells import Cell
from benchmarks.workload import distinct_keys

DISTINCT = 10_000
MAX_BYTES = 64_000_000  # of distinct values: they are sent again and again, and out of the caches by then
POLL_EVERY = 1000  # records
WARM_UP = 1000  # records at most, to connect and to learn the partitions


def values_of(cell):
    """Each has memory of its own, as the rows of a job have."""
    text = b"".join(b'{"flight": %d, "carrier": "UA"} ' % i for i in range((cell.size + DISTINCT) // 28 + 1))
    count = max(1, min(cell.records, MAX_BYTES // cell.size))
    return [text[i % DISTINCT : i % DISTINCT + cell.size] for i in range(count)]


class Fastprod:
    def __init__(self, servers, cell):
        from fastprod import Producer

        more = {}
        self.producer = Producer(
            bootstrap_servers=servers,
            acks=cell.acks,
            enable_idempotence=cell.idempotence,
            linger_ms=cell.linger_ms,
            batch_size=cell.batch_size,
            buffer_memory=cell.buffer_memory,
            max_request_size=max(1 << 20, cell.size + 1000),
            **more,
        )
        self.many = getattr(self, cell.client)

    def send(self, topic, values, keys):
        send = self.producer.send
        if keys is None:
            for value in values:
                send(topic, value)
        else:
            for value, key in zip(values, keys, strict=True):
                send(topic, value, key)

    def send_many(self, topic, values, keys):
        self.producer.send_many(topic, values, keys)

    def send_arrow(self, topic, values, keys):
        import pyarrow

        columns = {"value": pyarrow.array(values)} | ({} if keys is None else {"key": pyarrow.array(keys)})
        self.producer.send_arrow(topic, pyarrow.table(columns), key=None if keys is None else "key")

    def one(self, topic, value, report):
        self.producer.send(topic, value, on_delivery=report)

    def wait(self, seconds):
        time.sleep(seconds)

    def flush(self):
        self.producer.flush()

    def delivered(self):
        return int(self.producer.metrics()["record-send-total"])

    def details(self):
        metrics = self.producer.metrics()
        return {
            "records_per_request": metrics["records-per-request-avg"],
            "queue_ms": metrics["record-queue-time-avg"],
        }

    def close(self):
        self.producer.close()


class Confluent:
    def __init__(self, servers, cell):
        from confluent_kafka import Producer

        self.producer = Producer(
            {
                "bootstrap.servers": servers,
                "acks": cell.acks,
                "enable.idempotence": cell.idempotence,
                "linger.ms": cell.linger_ms,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 10_000_000,
                "queue.buffering.max.kbytes": 2_000_000,
            }
        )
        self.sent = 0

    def many(self, topic, values, keys):
        produce, poll = self.producer.produce, self.producer.poll
        pairs = zip(values, itertools.repeat(None) if keys is None else keys, strict=False)
        for i, (value, key) in enumerate(pairs):
            produce(topic, value, key)
            if i % POLL_EVERY == 0:
                poll(0)
        self.sent += len(values)

    def one(self, topic, value, report):
        self.producer.produce(topic, value, on_delivery=report)
        self.sent += 1

    def wait(self, seconds):
        """Serves callbacks meanwhile, as an application does that wants them soon."""
        until = time.perf_counter() + seconds
        self.producer.poll(0)
        while (left := until - time.perf_counter()) > 0:
            self.producer.poll(left)

    def flush(self):
        self.sent -= self.producer.flush()

    def delivered(self):
        return self.sent

    def details(self):
        return {}

    def close(self):
        self.flush()


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def send_all(client, topic, cell, values, keys):
    """As fast as it goes. Returns what there is besides rate and CPU."""
    left = cell.records
    while left > 0:
        count = min(left, len(values))
        some = values if count == len(values) else values[:count]
        client.many(topic, some, keys if keys is None or count == len(keys) else keys[:count])
        left -= count
    client.flush()
    return {}


def send_now_and_then(client, topic, cell, values):
    latencies = []

    def sent_at(start):
        return lambda *_: latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    for i in range(cell.records):
        client.wait(max(0.0, start + i * cell.every_ms / 1000 - time.perf_counter()))
        client.one(topic, values[i % len(values)], sent_at(time.perf_counter()))
    client.flush()
    if len(latencies) != cell.records:
        sys.exit(f"{len(latencies)} of {cell.records} records were reported")
    return {"p50_us": statistics.median(latencies) * 1e6, "p99_us": statistics.quantiles(latencies, n=100)[98] * 1e6}


def measure(servers, topic, cell):
    values = values_of(cell)
    keys = [distinct_keys()[i % DISTINCT] for i in range(len(values))] if cell.keyed else None
    client = (Confluent if cell.client == "produce" else Fastprod)(servers, cell)
    warm_up = min(WARM_UP, len(values))
    client.many(topic, values[:warm_up], keys and keys[:warm_up])
    client.flush()
    cpu, start = cpu_seconds(), time.perf_counter()
    if cell.every_ms:
        more = send_now_and_then(client, topic, cell, values)
    else:
        more = send_all(client, topic, cell, values, keys)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    delivered = client.delivered() - warm_up
    details = client.details()
    client.close()
    return {
        "records_per_s": cell.records / seconds,
        "cpu_us": cpu / cell.records * 1e6,
        "delivered": delivered,
        "logged": cell.records + warm_up,
        **details,
        **more,
    }


def main():
    servers, topic, given = sys.argv[1:]
    print(json.dumps(measure(servers, topic, Cell(**json.loads(given)))))


if __name__ == "__main__":
    main()
