"""Callbacks that have not run take of buffer.memory, so that one that is slow makes send() wait."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time

import pytest

from fastprod import BufferExhaustedError, DeliveryError, MetadataTimeoutError
from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from tests.conftest import QUICK, TOPIC, eventually

pytestmark = pytest.mark.mock

MEMORY = 1 << 20
CALLBACK_BYTES = 256  # of buffer.memory, for each
KINDS = ["on_delivery", "add_done_callback", "on_acknowledgement"]


@pytest.fixture
def unraisable(monkeypatch):
    """What callbacks raised."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: seen.append(raised.exc_value))
    return seen


class Callback:
    """Counts its calls, each of which waits until the gate is open; also an interceptor."""

    def __init__(self):
        self.gate = threading.Event()
        self.calls = 0
        self.owner = threading.get_ident()

    def __call__(self, *_):
        if threading.get_ident() != self.owner:  # else add_done_callback() found the record settled
            self.gate.wait(60)
        self.calls += 1

    on_acknowledgement = __call__


def sender(kind, make, callback, **options):
    """A producer, and a function that sends a record of 100 bytes with the callback."""
    producer = make(interceptors=[callback] if kind == "on_acknowledgement" else [], **options)

    def send(topic):
        if kind == "on_delivery":
            producer.send(topic, b"v" * 100, on_delivery=callback)
        elif kind == "add_done_callback":
            producer.send(topic, b"v" * 100).add_done_callback(callback)
        else:
            producer.send(topic, b"v" * 100)

    return producer, send


def knows(producer, topic):
    with contextlib.suppress(MetadataTimeoutError):
        return producer.partitions_for(topic)


def idle(producer):
    """Whether all memory is free and no callback waits; once flush() has returned."""
    metrics = producer.metrics()
    return (
        len(producer) == metrics["callback-queue-bytes"] == metrics["callback-queue-size"] == 0
        and producer.buffer_available == producer.config.buffer_memory
    )


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_that_wait_stop_send_once_they_take_all_of_buffer_memory(make, topic, kind):
    callback = Callback()
    producer, send = sender(kind, make, callback, buffer_memory=MEMORY, max_block_ms=500, linger_ms=5)
    sent = 0
    with pytest.raises(BufferExhaustedError, match=r"max\.block\.ms.* Callbacks that have not run take \d+") as raised:
        while sent < 20 * MEMORY // CALLBACK_BYTES:
            send(topic)
            sent += 1
    if kind == "on_acknowledgement":  # which is called for the record that was refused
        assert callback.calls == 1
        callback.calls = 0
    assert raised.value.retriable
    assert sent <= callback.calls + 2 * MEMORY // CALLBACK_BYTES
    assert eventually(lambda: len(producer) == 0)  # the records themselves have long been delivered
    metrics = producer.metrics()
    assert metrics["callback-queue-size"] == sent - callback.calls
    assert sent * CALLBACK_BYTES / 2 < metrics["callback-queue-bytes"] < MEMORY + 65536
    callback.gate.set()
    producer.flush(30)
    assert callback.calls == sent and idle(producer)
    send(topic)
    producer.flush(30)
    assert callback.calls == sent + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_send_that_waits_for_callbacks_goes_on_as_they_run(make, topic, kind):
    callback = Callback()
    producer, send = sender(kind, make, callback, buffer_memory=65536, max_block_ms=60_000)
    opened = threading.Timer(0.5, callback.gate.set)
    opened.start()
    for _ in range(2000):
        send(topic)
    opened.join()
    producer.flush(30)
    assert callback.calls == 2000 and idle(producer)
    assert producer.metrics()["bufferpool-wait-time-ns-total"] > 0


GROWTH = f"""
import sys, time
from fastprod import Producer
from fastprod.testing import MockCluster

kind, memory = sys.argv[1], int(sys.argv[2])

class Slow:
    def on_acknowledgement(self, *_):
        time.sleep(0.001)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

with MockCluster(topics={{"t": 4}}, process=True) as cluster:
    producer = Producer({QUICK!r}, bootstrap_servers=cluster.bootstrap_servers, buffer_memory=memory,
                        interceptors=[Slow()] if kind == "on_acknowledgement" else [])
    producer.send("t", b"v").result(30)
    producer.flush(30)
    before, most, until = resident(), 0, time.monotonic() + 4
    while time.monotonic() < until:
        for _ in range(100):
            if kind == "on_delivery":
                producer.send("t", b"v" * 100, on_delivery=lambda *_: time.sleep(0.001))
            elif kind == "add_done_callback":
                producer.send("t", b"v" * 100).add_done_callback(lambda _: time.sleep(0.001))
            else:
                producer.send("t", b"v" * 100)
        most = max(most, resident())
    print(most - before)
    time.sleep = lambda _: None
    producer.close(60)
"""


@pytest.mark.process_limits  # a sanitizer keeps what was freed
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_bounded_by_buffer_memory_though_callbacks_sleep(kind):
    memory = 4 << 20
    ended = subprocess.run(
        [sys.executable, "-c", GROWTH, kind, str(memory)], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) < memory + (32 << 20)


def test_a_callback_that_sends_does_not_wait_for_the_callbacks_behind_it(make, topic, unraisable):
    producer = make(buffer_memory=65536, max_block_ms=30_000)
    gate = threading.Event()
    called = []

    def again(*_):
        called.append(1)
        producer.send(topic, b"v" * 100, on_delivery=lambda *_: called.append(2))

    def first(*_):
        gate.wait(30)
        again()

    producer.send(topic, b"v", on_delivery=first)
    others = threading.Thread(target=lambda: [producer.send(topic, b"v" * 100, on_delivery=again) for _ in range(1000)])
    others.start()
    assert eventually(lambda: producer.metrics()["waiting-threads"] == 1)  # all is taken, and that thread is in line
    started = time.monotonic()
    gate.set()
    others.join(60)
    for _ in range(2):
        producer.flush(30)
    assert time.monotonic() - started < 20
    assert unraisable == [] and (called.count(1), called.count(2)) == (1001, 1001) and idle(producer)


def test_callbacks_that_send_ever_more_records_are_stopped_at_twice_the_memory(make, topic, unraisable):
    producer = make(buffer_memory=65536, max_block_ms=30_000)
    most = 0
    ended = threading.Event()

    def twice(*_):
        nonlocal most
        most = max(most, producer.metrics()["callback-queue-bytes"])
        for _ in range(0 if ended.is_set() else 2):
            try:
                producer.send(topic, b"v", on_delivery=twice)
            except BufferExhaustedError:
                ended.set()

    started = time.monotonic()
    producer.send(topic, b"v", on_delivery=twice)
    assert ended.wait(60)
    assert time.monotonic() - started < 25  # at once, not after max.block.ms
    assert eventually(lambda: idle(producer))
    assert 65536 < most <= 2 * 65536 + CALLBACK_BYTES and not unraisable


@pytest.mark.parametrize("memory", [300, 1000, 2000])
def test_a_record_that_fills_buffer_memory_takes_a_callback_too(make, topic, memory, unraisable):
    producer = make(buffer_memory=memory, batch_size=memory // 2, max_block_ms=30_000)
    called = []

    def again(*_):
        called.append(1)
        if len(called) < 10:
            producer.send(topic, b"v" * (memory - 100), on_delivery=again)

    for _ in range(3):
        producer.send(topic, b"v" * (memory - 100), on_delivery=lambda *_: called.append(1))
    producer.send(topic, b"v" * (memory - 100), on_delivery=again)
    assert eventually(lambda: len(called) == 10)
    producer.flush(30)
    assert unraisable == [] and idle(producer)


def test_a_callback_on_a_record_that_was_sent_does_not_wait_and_the_next_send_does(make, topic):
    producer = make(buffer_memory=65536, max_block_ms=30_000, linger_ms=80_000)
    called = []
    future = producer.send(topic, b"v", partition=0)
    for _ in range(1000):
        future.add_done_callback(called.append)
    assert producer.buffer_available == 0 and producer.metrics()["callback-queue-bytes"] > 65536
    assert len(producer) == 1 and called == []
    producer.send(topic, b"v", partition=1)  # it hurries the first one, whose callbacks give memory back
    assert eventually(lambda: len(called) == 1000)
    producer.flush(30)
    assert idle(producer)


def test_callbacks_of_records_that_fail_give_their_memory_back(make, cluster):
    producer = make(cluster.bootstrap_servers, buffer_memory=65536, linger_ms=20)
    errors = []
    for _ in range(20):
        cluster.push_request_errors("Produce", [29])
        for _ in range(200):
            producer.send(TOPIC, b"v", on_delivery=lambda _, error: errors.append(error))
        producer.flush(30)
    assert len(errors) == 4000 and any(errors) and idle(producer)


def test_callbacks_of_records_that_are_given_up_give_their_memory_back(make, topic):
    producer = make(buffer_memory=65536, linger_ms=80_000)
    errors = []
    for _ in range(50):
        producer.send(topic, b"v", on_delivery=lambda _, error: errors.append(error))
    producer.purge()
    assert [type(error) for error in errors] == [DeliveryError] * 50 and idle(producer)


def test_who_awaits_many_records_gets_all_of_them(make, topic):
    producer = make(buffer_memory=65536, linger_ms=5, max_block_ms=30_000)

    async def send(i):
        return (await producer.send(topic, b"%d" % i)).offset

    async def main():
        return await asyncio.wait_for(asyncio.gather(*(send(i) for i in range(3000))), 60)

    assert len(asyncio.run(main())) == 3000
    producer.flush(30)
    assert idle(producer)


def test_a_record_refused_for_want_of_memory_leaves_nothing_reserved(make, topic):
    producer = make(buffer_memory=65536, max_block_ms=20, linger_ms=5)
    assert eventually(lambda: knows(producer, topic))
    gate = threading.Event()
    refused = 0
    for _ in range(2000):
        try:
            producer.send(topic, b"v" * 100, on_delivery=lambda *_: gate.wait(30))
        except BufferExhaustedError:
            refused += 1
            if refused == 20:
                break
    assert refused == 20
    gate.set()
    producer.flush(30)
    assert idle(producer)


def test_the_thread_reports_that_it_is_idle_about_once_a_second():
    callbacks, idle = Callbacks(BufferPool(MEMORY, 1 << 14), False), threading.Semaphore(0)
    thread = threading.Thread(target=callbacks.run, args=(idle.release,))
    thread.start()
    assert idle.acquire(timeout=60) and idle.acquire(timeout=60)
    callbacks.close()
    thread.join(60)
    assert not thread.is_alive()
