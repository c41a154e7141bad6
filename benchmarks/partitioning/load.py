"""A steady load from one Python producer, in a process of its own; prints a line of JSON.

python -m benchmarks.partitioning.load LIBRARY SERVERS TOPIC RATE SECONDS SIZE [OPTION=VALUE ...]

Load.java beside this file does the same with Java's producer.
"""

import functools
import json
import resource
import sys
import time
from collections.abc import Callable

# Records go in bursts, as those of Kafka's own ProducerPerformance do, which pauses for 2 ms or not at all.
BURST_NS = 2_000_000
TURN = 100  # records of a burst, before callbacks are served and the clock is read
WARM_UP = 2.0  # seconds of the same load before what is measured
OVERTIME = 3  # times the seconds: when the brokers do not take the load, it ends then
MEASURED_RATE = 2000  # records per second whose latency is measured; measuring all would cost more than sending


def stride(rate: int) -> int:
    """Of how many records one is measured: a prime, so that measured ones meet each of 12 or 100 partitions."""
    return next(prime for prime in (1, 7, 53, 503, 5003) if rate / prime <= 1.1 * MEASURED_RATE)


def pace(
    rate: int,
    seconds: float,
    send: Callable[[int], None],
    clock: Callable[[], int] = time.perf_counter_ns,
    wait: Callable[[int], None] = lambda ns: time.sleep(ns / 1e9),
) -> int:
    """Calls send(0), send(1), ... at `rate` a second, and returns how often.

    clock() and wait() are in ns. A send() that takes too long is caught up with. Ends early after OVERTIME.
    """
    count = round(rate * seconds)
    start = clock()
    sent = 0
    while sent < count:
        now = clock() - start
        if now > OVERTIME * seconds * 1e9:
            break
        due = min(count, sent + TURN, now * rate // 1_000_000_000 + 1)
        wait(BURST_NS if due == sent else 0)
        while sent < due:
            send(sent)
            sent += 1
    return sent


class Fastprod:
    def __init__(self, servers: str, options: dict[str, str], topic: str) -> None:
        from fastprod import Producer

        self.producer = Producer({"bootstrap.servers": servers, **options})
        self.producer.partitions_for(topic)
        self.latencies: list[int] = []
        self.failed = 0

    def done(self, start: int, metadata: object, error: object) -> None:
        self.latencies.append(time.perf_counter_ns() - start)
        self.failed += error is not None

    def send(self, topic: str, value: bytes) -> None:
        self.producer.send(topic, value)

    def send_measured(self, topic: str, value: bytes) -> None:
        self.producer.send(topic, value, on_delivery=functools.partial(self.done, time.perf_counter_ns()))

    def wait(self, ns: int) -> None:
        time.sleep(ns / 1e9)

    def flush(self) -> None:
        self.producer.flush()

    def requests(self) -> int:
        return int(self.producer.metrics()["request-total"])

    def close(self) -> None:
        self.producer.close()


class Confluent:
    def __init__(self, servers: str, options: dict[str, str], topic: str) -> None:
        from confluent_kafka import Producer

        self.statistics = {}
        self.producer = Producer(
            {
                "bootstrap.servers": servers,
                "statistics.interval.ms": 250,
                "stats_cb": self.note_statistics,
                "queue.buffering.max.messages": 1_000_000,
                **options,
            }
        )
        self.producer.list_topics(topic, timeout=10)
        self.latencies: list[int] = []
        self.failed = 0

    def note_statistics(self, text: str) -> None:
        self.statistics = json.loads(text)

    def done(self, start: int, error: object, message: object) -> None:
        self.latencies.append(time.perf_counter_ns() - start)
        self.failed += error is not None

    def send(self, topic: str, value: bytes) -> None:
        while True:
            try:
                return self.producer.produce(topic, value)
            except BufferError:
                self.producer.poll(0.001)

    def send_measured(self, topic: str, value: bytes) -> None:
        report = functools.partial(self.done, time.perf_counter_ns())
        while True:
            try:
                return self.producer.produce(topic, value, on_delivery=report)
            except BufferError:
                self.producer.poll(0.001)

    def wait(self, ns: int) -> None:
        """Serves callbacks meanwhile, as an application does that wants them soon."""
        until = time.perf_counter_ns() + ns
        self.producer.poll(0)
        while (left := until - time.perf_counter_ns()) > 0:
            self.producer.poll(left / 1e9)

    def flush(self) -> None:
        self.producer.flush()

    def requests(self) -> int:
        self.statistics = {}
        while not self.statistics:
            self.producer.poll(0.1)
        return sum(broker["req"].get("Produce", 0) for broker in self.statistics["brokers"].values())

    def close(self) -> None:
        self.producer.flush()


LIBRARIES = {"fastprod": Fastprod, "confluent": Confluent}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(client: Fastprod | Confluent, topic: str, rate: int, seconds: float, size: int) -> dict[str, object]:
    value = b"v" * size
    every = stride(rate)

    def send(i: int) -> None:
        if i % every:
            client.send(topic, value)
        else:
            client.send_measured(topic, value)

    warm_up = pace(rate, min(WARM_UP, seconds), send, wait=client.wait)
    client.flush()
    client.latencies.clear()
    requests = client.requests()
    cpu, start = cpu_seconds(), time.perf_counter()
    sent = pace(rate, seconds, send, wait=client.wait)
    client.flush()
    took, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    return {
        "sent": sent,
        "sent_before": warm_up,
        "failed": client.failed,
        "seconds": took,
        "cpu_seconds": cpu,
        "requests": client.requests() - requests,
        "latencies_us": [ns // 1000 for ns in client.latencies],
    }


def main() -> None:
    library, servers, topic, rate, seconds, size, *options = sys.argv[1:]
    client = LIBRARIES[library](servers, dict(option.split("=", 1) for option in options), topic)
    result = measure(client, topic, int(rate), float(seconds), int(size))
    client.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
