"""Producers used by many threads at once, on a stand-in for librdkafka (stub.c).

python -m tests.tsan.workload SECONDS SEED, for ThreadSanitizer, which reports what is read and written without a lock.
What it does is checked too, a little.
"""

import array
import asyncio
import contextlib
import itertools
import random
import sys
import threading
import time
import warnings

from fastprod import BulkFuture, DeliveryError, KafkaError, Producer
from tests.arrow_builder import ArrowBuilder, Type, Values

LONGEST_REQUEST_S = 20  # "stall" is under way for 2.5 s in stub.c, and all is slower here
VALUES = [b"v", b"value", b"fail", b"refuse", bytes(500), bytes(3000)]


class Life:
    """One producer, from its first record to close(), which may come while others still send."""

    def __init__(self, seed, values=VALUES, topics=0, **options):
        self.seed = seed
        self.values = values
        self.topics = topics  # so many, each used twice
        self.options = options
        self.producer = Producer(bootstrap_servers="stub:1", **options)
        self.futures = []  # of all that was taken
        self.notified = []  # an entry for each callback
        self.expected = []  # likewise, for each that was asked for
        self.problems = []
        self.ending = threading.Event()

    def on_delivery(self, metadata, error):
        self.notified.append(1)
        if len(self.notified) % 100 == 0:
            with contextlib.suppress(KafkaError):
                self.futures.append(self.producer.send("t", b"from a callback"))

    def done(self, future):
        self.notified.append(1)
        assert future.done()

    def send(self, rng, count):
        for i in range(count):
            if i % 50 == 49:
                self.send_together(rng)
            fields = {"key": rng.choice([None, b"k", b"%d" % i])}
            if rng.random() < 0.1:
                fields["headers"] = [("name", b"value"), ("null", None)]
            if rng.random() < 0.1:
                fields["timestamp"] = 5
            if rng.random() < 0.1:
                fields["partition"] = rng.randrange(4)
            called = rng.random() < 0.3
            if called:
                fields["on_delivery"] = self.on_delivery
            try:
                future = self.producer.send(rng.choice(["t", "u"]), rng.choice(self.values), **fields)
            except KafkaError:
                continue  # memory, or closed meanwhile
            self.futures.append(future)
            if called:
                self.expected.append(1)

    def send_together(self, rng):
        values = rng.choices(self.values, k=rng.choice([1, 20, 400]))
        keys = rng.choice([None, values])
        try:
            if rng.random() < 0.5:
                future = self.producer.send_many("t", values, keys)
            else:
                future = self.producer.send_arrow("t", self.column(values), key=None if keys is None else "value")
        except KafkaError as error:
            future = getattr(error, "sent", None)  # closed before it took one
        if future is not None:
            self.futures.append(future)

    def use_topics(self, rng):
        """Has topics forgotten, and librdkafka started anew for them and for one that was made anew."""
        for _ in range(2):
            with contextlib.suppress(KafkaError):
                for i in range(self.topics):
                    self.futures.append(self.producer.send(f"n{i}", rng.choice(self.values)))
                stalled = self.producer.send("t", b"stall")
                self.futures.append(stalled)
                stalled.exception(20)

    def column(self, values):
        ends = array.array("i", [0, *itertools.accumulate(map(len, values))])
        column = Values(len(values), [None, ends.tobytes(), b"".join(values)])
        return ArrowBuilder(Type("+s", children=[Type("z", "value")]), [Values(len(values), [None], children=[column])])

    def ask(self, rng):
        while not self.ending.is_set():
            if not self.futures:
                time.sleep(0.001)
                continue
            future = rng.choice(self.futures[-50:])
            match 0 if isinstance(future, BulkFuture) else rng.randrange(5):
                case 0:
                    with contextlib.suppress(KafkaError, TimeoutError):
                        future.result(rng.choice([0, 0.005]))
                case 1:
                    with contextlib.suppress(TimeoutError):
                        future.exception(0.002)
                case 2:
                    self.expected.append(1)
                    future.add_done_callback(self.done)
                case 3:
                    repr(future)
                case 4:
                    with contextlib.suppress(KafkaError, TimeoutError, asyncio.TimeoutError):
                        asyncio.run(self.wait_for(future))

    async def wait_for(self, future):
        async def ask():
            await future

        await asyncio.wait_for(ask(), 0.005)

    def look(self, rng):
        while not self.ending.is_set():
            self.producer.metrics()
            len(self.producer), self.producer.buffer_available, repr(self.producer)
            with contextlib.suppress(KafkaError, TimeoutError):
                self.producer.flush(rng.choice([0, 0.01, None]))
            with contextlib.suppress(KafkaError, TimeoutError):
                self.producer.partitions_for(rng.choice("tuv"))
                self.producer.wait_ready(0.01)

    def transact(self, rng):
        self.producer.init_transactions()
        for _ in range(10):
            self.producer.begin_transaction()
            try:
                self.send(rng, 100)
                rng.choice([self.producer.commit_transaction, self.producer.abort_transaction])()
            except KafkaError:
                self.producer.abort_transaction()

    def close(self, rng):
        with contextlib.suppress(DeliveryError):
            self.producer.close(rng.choice([0, 0.01, None]))

    def run(self, count, senders=3, early=False):
        work = [(self.send, count)] * senders
        if "transactional_id" in self.options:
            work = [(self.transact,)]
        if self.topics:
            work.append((self.use_topics,))
        workers, helpers = self.start(work), self.start([(self.ask,), (self.look,)])
        if not early:
            self.join(workers)
        closers = self.start([(self.close,)] * 2)
        self.join(closers)
        self.ending.set()
        self.join(workers + helpers)
        assert not self.problems, self.problems
        assert len(self.producer) == 0
        assert all(future.done() for future in self.futures)
        assert len(self.notified) == len(self.expected), (len(self.notified), len(self.expected))
        self.wait_for_memory()

    def wait_for_memory(self):
        """close() does not wait for a request that is under way: librdkafka reads its arena until it reports it."""
        total, until = self.producer.metrics()["buffer-total-bytes"], time.monotonic() + LONGEST_REQUEST_S
        while self.producer.buffer_available != total and time.monotonic() < until:
            time.sleep(0.01)
        assert self.producer.buffer_available == total

    def start(self, work):
        def go(function, rng, *arguments):
            try:
                function(rng, *arguments)
            except BaseException as problem:
                self.problems.append((function.__name__, repr(problem)))

        threads = []
        for function, *arguments in work:
            self.seed += 1
            threads.append(threading.Thread(target=go, args=(function, random.Random(self.seed), *arguments)))
            threads[-1].start()
        return threads

    def join(self, threads):
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), f"{thread} hangs"


def main(seconds, seed):
    sys.setswitchinterval(1e-4)
    warnings.simplefilter("ignore")
    until, lives, records = time.monotonic() + seconds, 0, 0
    hasty = {"delivery_timeout_ms": 300, "request_timeout_ms": 100}
    kinds = [
        {},
        {"linger_ms": 5, "batch_size": 2000},
        {"buffer_memory": 60_000, "batch_size": 4000, "max_block_ms": 50},
        {"batch_size": 0, "acks": "0"},
        {"batch_size": 2000, "acks": "1", "max_in_flight_requests_per_connection": 1},
        {"linger_ms": 3, "partitioner_availability_timeout_ms": 1, "metadata_max_age_ms": 5},
        {"transactional_id": "x", "linger_ms": 1},
        {"linger_ms": 1, **hasty},
        {"values": [*VALUES] * 20 + [b"fatal"]},
        {"topics": 500},
    ]
    while time.monotonic() < until or lives < len(kinds):
        options = kinds[lives % len(kinds)]
        life = Life(seed + 1000 * lives, **options)
        if "delivery_timeout_ms" in options:
            # One batch stays out past its time, those behind it never get as far.
            life.futures.append(life.producer.send("t", b"stall"))
            life.futures[0].exception(20)
        early = lives // len(kinds) % 2 == 1 and "transactional_id" not in options
        life.run(600, early=early)
        lives += 1
        records += len(life.futures)
    print(f"{lives} producers, {records} records, seed {seed}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
