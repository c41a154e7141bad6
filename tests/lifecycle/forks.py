"""python -m tests.lifecycle.forks [--forks 500]: forks while threads send; some children make a producer of their own.

Every call in a child raises ForkedProducerError at once, the children's own producers work, the children can drop what
they inherited, and the parent loses nothing.
"""

from __future__ import annotations

import argparse
import collections
import gc
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from fastprod import ForkedProducerError, Producer
from fastprod.testing import MockCluster
from tests.conftest import QUICK
from tests.kafka.fixtures import consume_all

PARENTS, CHILDREN = "parents", "children"
SENDERS = 2
HUNG = 30  # seconds after which a child counts as hung
SOON = 5  # seconds that no call in a child takes; it is some microseconds unless the machine is busy


class Parent:
    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.producer = Producer(QUICK, bootstrap_servers=servers, linger_ms=1, buffer_memory=4 << 20)
        self.lingering = Producer(
            QUICK, bootstrap_servers=servers, linger_ms=600_000, delivery_timeout_ms=1_000_000, request_timeout_ms=5000
        )
        self.unsettled = self.lingering.send(PARENTS, b"0")
        self.settled = self.producer.send(PARENTS, b"0")
        self.settled.result(HUNG)
        self.sent = [2] + SENDERS * [0]
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.load, args=(i + 1,)) for i in range(SENDERS)]

    def load(self, number: int) -> None:
        while not self.over.is_set():
            for _ in range(20):
                self.producer.send(PARENTS, b"%d" % number, b"%d" % (self.sent[number] % 100))
                self.sent[number] += 1
            time.sleep(0.01)

    def child(self, number: int) -> None:
        producer, unsettled = self.producer, self.unsettled
        calls: dict[str, Callable[[], object]] = {
            "send": lambda: producer.send(PARENTS, b"child"),
            "send to a new topic": lambda: producer.send("never-heard-of", b"child"),
            "flush": producer.flush,
            "close": producer.close,
            "wait_ready": lambda: producer.wait_ready(60),
            "partitions_for": lambda: producer.partitions_for(PARENTS),
            "metrics": producer.metrics,
            "buffer_available": lambda: producer.buffer_available,
            "with": producer.__enter__,
            "init_transactions": producer.init_transactions,
            "result": unsettled.result,
            "exception": lambda: unsettled.exception(60),
            "add_done_callback": lambda: unsettled.add_done_callback(print),
        }
        for name, call in calls.items():
            began = time.monotonic()
            try:
                call()
            except ForkedProducerError:
                assert time.monotonic() - began < SOON, name
            else:
                raise AssertionError(f"{name} did not raise in the child")
        assert not unsettled.done() and self.settled.result(0).topic == PARENTS
        if number % 10 == 0:
            with Producer(QUICK, bootstrap_servers=self.servers) as own:
                own.send(CHILDREN, b"child").result(HUNG)
        if number % 2:
            del calls, producer, unsettled, self.producer, self.lingering, self.unsettled, self.settled
            gc.collect()


def fork(child: Callable[[], Any]) -> None:
    """Runs child() in a forked process; fails if it fails or hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        sys.exit(0)  # by way of atexit and the end of all modules
    deadline = time.monotonic() + HUNG
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)
            os.waitpid(pid, 0)
            raise AssertionError(f"a child hangs after {HUNG} s")
        time.sleep(0.0005)
    assert ended[1] == 0, f"a child ended with status {ended[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", type=int, default=500)
    options = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
    began = time.monotonic()
    with MockCluster(topics={PARENTS: 4, CHILDREN: 1}, process=True) as cluster:
        parent = Parent(cluster.bootstrap_servers)
        for thread in parent.threads:
            thread.start()
        for i in range(options.forks):
            fork(lambda number=i: parent.child(number))
        parent.over.set()
        for thread in parent.threads:
            thread.join()
        parent.producer.close()
        parent.lingering.close()
        assert parent.unsettled.result(0).topic == PARENTS
        log = collections.Counter(
            message.value() for message in consume_all(cluster.bootstrap_servers, PARENTS, timeout=120)
        )
        assert log == {b"%d" % i: count for i, count in enumerate(parent.sent) if count}, (log, parent.sent)
        own = len(consume_all(cluster.bootstrap_servers, CHILDREN))
        assert own == (options.forks + 9) // 10, own
    print(
        f"{options.forks} forks, {own} children with their own producer, {sum(parent.sent)} records of the parent's, "
        f"none lost; {time.monotonic() - began:.1f} s"
    )


if __name__ == "__main__":
    main()
