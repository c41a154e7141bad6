"""Does to a cluster and its proxies what a schedule says, when it says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaException

from tests.fault_bench.proxy import FaultProxy
from tests.fault_bench.schedule import KILL, STOP, Fault
from tests.kafka.cluster import KafkaCluster


class Injector:
    """A thread for each fault. What one of them could not do is in `errors`.

    topics: whose replicas must all be in sync before a broker is taken down; leaders and partitions of the first one
        are moved and added.
    """

    def __init__(self, cluster: KafkaCluster, proxies: Mapping[int, FaultProxy], topics: Sequence[str]) -> None:
        self.errors: list[str] = []
        self.done: list[float] = []  # when each fault began, in seconds of the monotonic clock
        self._cluster = cluster
        self._proxies = proxies
        self._topics = list(topics)
        self._outage = threading.Lock()  # one broker down at a time
        # Two faults of one proxy take turns: the end of one must not be the end of the other.
        self._turns = {broker: threading.Lock() for broker in proxies}
        self._threads: list[threading.Thread] = []

    def start(self, faults: Sequence[Fault]) -> None:
        """The first moment of the schedule is now."""
        now = time.monotonic()
        for fault in faults:
            thread = threading.Thread(target=self._inject, args=(fault, now + fault.at), name=str(fault), daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self, timeout: float) -> None:
        """Returns when all faults are over and what they broke is whole again. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"not over after {timeout} s: {thread.name}")
        self._cluster.wait_whole(self._topics, max(1.0, deadline - time.monotonic()))

    def _inject(self, fault: Fault, at: float) -> None:
        time.sleep(max(0.0, at - time.monotonic()))
        try:
            if fault.kind in (KILL, STOP):
                self._take_down(fault)
            elif fault.kind == "move":
                self._begin()
                self._cluster.move_leaders(self._topics[0], fault.amount)
            elif fault.kind == "grow":
                self._begin()
                self._grow(self._topics[0], fault.amount)
            elif fault.kind == "storm":
                self._storm(fault)
            else:
                with self._turns[fault.broker]:
                    self._disturb(fault, self._proxies[fault.broker])
        except Exception as error:
            self.errors.append(f"{fault}: {type(error).__name__}: {error}")

    def _begin(self) -> None:
        self.done.append(time.monotonic())

    def _grow(self, name: str, amount: int) -> None:
        total = self._cluster.partitions(name) + amount
        for attempts_left in (2, 1, 0):
            try:
                self._cluster.add_partitions(name, total)
                return
            except KafkaException:  # the broker that was asked is being broken as well
                if self._cluster.partitions(name) == total:
                    return
                if not attempts_left:
                    raise

    def _take_down(self, fault: Fault) -> None:
        with self._outage:
            self._cluster.wait_whole(self._topics)
            self._begin()
            if fault.kind == KILL:
                self._cluster.kill(fault.broker)
                time.sleep(fault.seconds)
                self._cluster.restart(fault.broker)
            else:
                self._cluster.pause(fault.broker)
                try:
                    time.sleep(fault.seconds)
                finally:
                    self._cluster.resume(fault.broker)
            self._cluster.wait_whole(self._topics)

    def _storm(self, fault: Fault) -> None:
        self._begin()
        for _ in range(fault.amount):
            for proxy in self._proxies.values():
                proxy.reset()
            time.sleep(fault.seconds / fault.amount)

    def _disturb(self, fault: Fault, proxy: FaultProxy) -> None:
        self._begin()
        if fault.kind == "cut":
            proxy.cut_after(fault.amount)
        elif fault.kind == "lose":
            with proxy.losing_responses():
                time.sleep(fault.seconds)
        elif fault.kind == "stall":
            with proxy.stalled():
                time.sleep(fault.seconds)
        elif fault.kind == "slow":
            with proxy.slowed(to_broker=fault.amount / 1000, to_client=fault.amount / 1000):
                time.sleep(fault.seconds)
        elif fault.kind == "throttle":
            with proxy.slowed(rate=fault.amount):
                time.sleep(fault.seconds)
        else:
            raise ValueError(f"no fault of the kind {fault.kind!r}")
