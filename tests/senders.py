"""A sender without a thread, and what it works with: what the tests of the sender and of its parts share."""

import threading
import time

from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from fastprod.internals.completion import Completion
from fastprod.internals.produce_requests import ProduceRequests
from fastprod_core_access import ManualAccumulator, ManualSender, ManualTransport
from tests.conftest import eventually

NOBODY = "127.0.0.1:1"  # servers that never answer: librdkafka keeps what it is given
LIMITS = {"batch.size": "1000000", "message.max.bytes": "1000000", "batch.num.messages": "10000"}


class Parts:
    """A sender and what it works with; a test makes the thread's moves. In the end what is pending is purged."""

    def __init__(
        self,
        servers,
        topic,
        leaders=(1,),
        *,
        properties=(),
        ordered=False,
        idempotent=False,
        limits=(),
        retry_us=0,
        **options,
    ):
        self.pool = BufferPool(1 << 20, 1 << 14)
        self.topic = topic
        self.accumulator = ManualAccumulator(self.pool, batch_size=1 << 14, **options)
        self.accumulator.set_topic(topic, leaders)
        callbacks = Callbacks(self.pool)
        self.transport = ManualTransport({"bootstrap.servers": servers, **dict(properties)}, callbacks)
        completion = Completion(self.accumulator, self.pool, self.transport, callbacks, first_retry_us=retry_us)
        requests = ProduceRequests(
            self.accumulator,
            self.transport,
            callbacks,
            completion,
            {**LIMITS, **dict(limits)},
            ordered=ordered,
            idempotent=idempotent,
        )
        self.sender = ManualSender(self.accumulator, self.transport, completion, requests)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        purged = self.step_until(self.purge)
        self.transport.close()
        assert purged

    def purge(self):
        self.transport.do_purge()
        return self.sender.in_transit == 0

    def put(self, value, partition=0, *, topic=None, seconds_ago=0):
        """Appends a record, whose batch may be older."""
        now_ms = (time.monotonic() - seconds_ago) * 1000
        self.accumulator.put(topic or self.topic, value, partition=partition, now_ms=now_ms)

    def submit(self, *values, **options):
        """Appends records, and makes the sender's next step."""
        for value in values:
            self.put(value, **options)
        self.sender.do_step()

    def step_until(self, condition):
        """Whether the condition holds after some steps."""
        return eventually(lambda: condition() or (self.sender.do_step() and condition()))


class Repeating:
    """Calls a function on another thread until the block ends."""

    def __init__(self, function):
        self.function = function
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.ending.is_set():
            self.function()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *exception):
        self.ending.set()
        self.thread.join(30)
        assert not self.thread.is_alive()
