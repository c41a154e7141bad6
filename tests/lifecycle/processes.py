"""python -m tests.lifecycle.processes fork|spawn|forkserver: producers beside, before and in child processes."""

from __future__ import annotations

import collections
import multiprocessing
import os
import sys
import warnings
from typing import Any

from fastprod import ForkedProducerError, Producer
from fastprod.testing import MockCluster
from tests.conftest import QUICK
from tests.kafka.fixtures import consume_all

TOPIC = "t"
EACH = 100  # records
SECONDS = 60

inherited: dict[str, Any] = {}  # what a forked child finds here is its parent's
kept: list[Producer] = []  # until the end of the process


def send(servers: str, value: bytes, close: bool = True) -> int:
    producer = Producer(QUICK, bootstrap_servers=servers, linger_ms=600_000, delivery_timeout_ms=1_000_000)
    for _ in range(EACH):
        producer.send(TOPIC, value)
    if close:
        producer.close(SECONDS)
    else:
        kept.append(producer)
    return os.getpid()


def pool_job(servers: str) -> int:
    return send(servers, b"pool")


def process_job(servers: str, close: bool) -> None:
    if inherited:
        try:
            inherited["producer"].send(TOPIC, b"never")
        except ForkedProducerError:
            pass
        else:
            raise AssertionError("a parent's producer took a record in a child")
    send(servers, b"process", close)


_of_worker: dict[str, Producer] = {}


def make_in_worker(servers: str) -> None:
    _of_worker["producer"] = Producer(QUICK, bootstrap_servers=servers)


def send_in_worker(number: int) -> int:
    return _of_worker["producer"].send(TOPIC, b"worker").result(SECONDS).partition


def main() -> None:
    context = multiprocessing.get_context(sys.argv[1])
    warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
    with MockCluster(topics={TOPIC: 4}, process=True) as cluster:
        servers = cluster.bootstrap_servers
        producer = Producer(QUICK, bootstrap_servers=servers, linger_ms=600_000, delivery_timeout_ms=1_000_000)
        future = producer.send(TOPIC, b"parent")
        inherited.update(producer=producer, future=future)
        with context.Pool(2) as pool:
            assert len(pool.map(pool_job, [servers] * 4)) == 4
        with context.Pool(2, make_in_worker, (servers,)) as pool:
            pool.map(send_in_worker, range(EACH))
            pool.close()
            pool.join()
        # Without close(), too: multiprocessing's forked children end without atexit.
        for close in (True, False):
            process = context.Process(target=process_job, args=(servers, close))
            process.start()
            process.join(SECONDS)
            assert process.exitcode == 0, process.exitcode
        try:
            context.Process(target=print, args=(producer,)).start()
        except TypeError as error:
            assert sys.argv[1] != "fork" and "cannot be copied or pickled" in str(error), error
        assert not future.done()
        producer.flush(SECONDS)
        assert future.result(0).topic == TOPIC
        producer.close()
        log = collections.Counter(message.value() for message in consume_all(servers, TOPIC, timeout=120))
        print(dict(log))
        assert log == {b"parent": 1, b"pool": 4 * EACH, b"worker": EACH, b"process": 2 * EACH}, log


if __name__ == "__main__":
    main()
