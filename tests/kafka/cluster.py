"""Three replicated Kafka brokers and a controller, and what is done to them while a client works."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.kafka.jars import JVM_OPTIONS, assemble, java_command
from tests.kafka.node import LOGGING, KafkaNode, free_ports, new_cluster_id, wait_until

LEADER_MOVER = Path(__file__).with_name("LeaderMover.java")
BROKERS = (1, 2, 3)
CONTROLLER = 100

# How long a broker may be silent before its leaders move: short, so that a fault and its cure fit into seconds.
SESSION_TIMEOUT = 1.5  # seconds


class KafkaCluster:
    """Brokers 1, 2 and 3 and a controller of its own, each in a process, on loopback.

    Topics have three replicas, of which two must have a record before it counts as written (`min.insync.replicas`).
    The controller is a node apart and never harmed: with it alive a killed broker's leaders move within
    SESSION_TIMEOUT, and not after an election among controllers.

    Each broker listens twice. DIRECT is for the brokers themselves, the admin client and readers. CLIENT is for the
    client under test; `advertised_ports` (broker: port, to be set before start()) is what its metadata names, so that
    a proxy can stand between.

    A context manager: started on entry, stopped and its data removed on exit. Timeouts are in seconds.
    """

    def __init__(self) -> None:
        ports = free_ports(1 + 2 * len(BROKERS))
        controller_port = ports.pop()
        self.direct_ports = {broker: ports.pop() for broker in BROKERS}
        self.client_ports = {broker: ports.pop() for broker in BROKERS}
        self.advertised_ports = dict(self.client_ports)
        self._cluster_id = new_cluster_id()
        self._voters = f"{CONTROLLER}@127.0.0.1:{controller_port}"
        self._controller = KafkaNode(
            {
                **self._common(CONTROLLER),
                "process.roles": "controller",
                "listeners": f"CONTROLLER://127.0.0.1:{controller_port}",
            },
            controller_port,
            self._cluster_id,
            heap="256m",
        )
        self._brokers: dict[int, KafkaNode] = {}
        self._admin: AdminClient | None = None
        self._mover: subprocess.Popen[str] | None = None
        self._mover_lock = threading.Lock()

    def __enter__(self) -> KafkaCluster:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def nodes(self) -> list[KafkaNode]:
        """The controller, and the brokers once they are launched."""
        return [self._controller, *self._brokers.values()]

    @property
    def bootstrap_servers(self) -> str:
        """For the client under test: the advertised ports."""
        return ",".join(f"127.0.0.1:{port}" for port in self.advertised_ports.values())

    @property
    def direct_servers(self) -> str:
        """For those who only look on: no proxy between."""
        return ",".join(f"127.0.0.1:{port}" for port in self.direct_ports.values())

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            quick = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0}
            self._admin = AdminClient({"bootstrap.servers": self.direct_servers, **quick})
        return self._admin

    def start(self, timeout: float = 90.0) -> None:
        """Starts all nodes and returns when each broker is listed. Raises KafkaUnavailable, KafkaStartError."""
        try:
            self.launch()
            self._start_mover()
            for node in self.nodes:
                node.wait_ready(timeout)
            wait_until(lambda: self._listed() == set(BROKERS), timeout, "all brokers")
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """The first half of start(): all processes are there, but do not answer yet."""
        assemble()
        self._brokers = {broker: self._broker(broker) for broker in BROKERS}
        with ThreadPoolExecutor(len(self.nodes)) as pool:  # most of a launch is the wait for the formatting tool
            list(pool.map(KafkaNode.launch, self.nodes))

    def stop(self) -> None:
        """Kills all nodes, since nothing of theirs is kept, and removes their data. Harmless when stopped."""
        if self._mover is not None:
            self._mover.communicate()
            self._mover = None
        self._admin = None
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            node.stop()

    def kill(self, broker: int) -> None:
        """SIGKILL for one broker. Its data stays for restart()."""
        self._brokers[broker].kill()

    def restart(self, broker: int, timeout: float = 60.0) -> None:
        """Starts a killed broker again and returns when it answers. Raises KafkaStartError."""
        self._brokers[broker].start(timeout)

    def pause(self, broker: int) -> None:
        """SIGSTOP for one broker; after SESSION_TIMEOUT its leaders move."""
        self._brokers[broker].pause()

    def resume(self, broker: int) -> None:
        """Ends pause()."""
        self._brokers[broker].resume()

    def create_topic(self, name: str, partitions: int, replicas: int = 3, timeout: float = 20.0) -> None:
        """Creates a topic and returns when it is whole. Raises KafkaException, TimeoutError."""
        config = {"min.insync.replicas": str(min(2, replicas))}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=config)
        self.admin.create_topics([topic])[name].result(timeout)
        wait_until(lambda: self.partitions(name) == partitions, timeout, f"the partitions of {name}")
        self.wait_whole([name], timeout)

    def delete_topic(self, name: str, timeout: float = 20.0) -> None:
        """Deletes a topic. Raises KafkaException."""
        self.admin.delete_topics([name])[name].result(timeout)

    def add_partitions(self, name: str, total: int, timeout: float = 20.0) -> None:
        """Has the topic grow to `total` partitions and returns when they show. Raises KafkaException, TimeoutError."""
        self.admin.create_partitions([NewPartitions(name, total)])[name].result(timeout)
        wait_until(lambda: self.partitions(name) == total, timeout, f"the new partitions of {name}")

    def partitions(self, name: str) -> int:
        """How many partitions the topic has; 0 when there is none."""
        found = self.admin.list_topics(timeout=5.0).topics.get(name)
        return len(found.partitions) if found else 0

    def move_leaders(self, name: str, step: int = 1) -> int:
        """Moves the leader of every `step`-th partition to its next replica, where that one is in sync.

        Returns how many moved. Raises RuntimeError with Kafka's words.
        """
        mover = self._mover
        if mover is None or mover.stdin is None or mover.stdout is None:
            raise RuntimeError("this cluster is not started")
        until = time.monotonic() + 10
        while True:
            with self._mover_lock:
                mover.stdin.write(f"{name} {step}\n")
                mover.stdin.flush()
                answer = mover.stdout.readline()
            if "UnknownTopicOrPartition" not in answer or time.monotonic() > until:
                break
            time.sleep(0.1)  # it asked a broker that has not heard of a new topic yet
        if not answer[:1].isdigit():
            raise RuntimeError(f"the leaders of {name} did not move: {answer.strip() or 'LeaderMover has ended'}")
        return int(answer)

    def wait_whole(self, topics: Iterable[str], timeout: float = 60.0) -> None:
        """Returns when each partition has a leader and all its replicas are in sync. Raises TimeoutError."""
        names = list(topics)
        wait_until(lambda: self._is_whole(names), timeout, f"all replicas of {', '.join(names)} in sync")

    def server_log(self, broker: int, lines: int = 40) -> str:
        """The last lines of what one broker wrote: warnings, errors."""
        return self._brokers[broker].server_log(lines)

    def _common(self, node: int) -> dict[str, object]:
        return {
            "node.id": node,
            "controller.quorum.voters": self._voters,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,DIRECT:PLAINTEXT,CLIENT:PLAINTEXT",
            "broker.session.timeout.ms": int(SESSION_TIMEOUT * 1000),
            "broker.heartbeat.interval.ms": 200,
            "auto.leader.rebalance.enable": "false",
        }

    def _broker(self, broker: int) -> KafkaNode:
        def listeners(client_port: int) -> str:
            return f"DIRECT://127.0.0.1:{self.direct_ports[broker]},CLIENT://127.0.0.1:{client_port}"

        properties: Mapping[str, object] = {
            **self._common(broker),
            "process.roles": "broker",
            "listeners": listeners(self.client_ports[broker]),
            "advertised.listeners": listeners(self.advertised_ports[broker]),
            "inter.broker.listener.name": "DIRECT",
            "offsets.topic.replication.factor": len(BROKERS),
            "transaction.state.log.replication.factor": len(BROKERS),
            "transaction.state.log.min.isr": 2,
            # A follower that lost its leader looks for the next one soon.
            "replica.fetch.backoff.ms": 100,
            "log.segment.delete.delay.ms": 1000,
        }
        return KafkaNode(properties, self.direct_ports[broker], self._cluster_id, heap="384m")

    def _start_mover(self) -> None:
        """A process that lives with the cluster: a JVM for each move would take longer than the move."""
        options = [*JVM_OPTIONS, "-Xmx128m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{assemble()}/*"]
        self._mover = subprocess.Popen(
            [java_command(), *options, str(LEADER_MOVER), self.direct_servers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def _listed(self) -> set[int]:
        try:
            return set(self.admin.list_topics(timeout=2.0).brokers)
        except KafkaException:
            return set()

    def _is_whole(self, names: list[str]) -> bool:
        try:
            topics = self.admin.list_topics(timeout=2.0).topics
        except KafkaException:
            return False
        # A broker that has just come back may not know of a topic yet.
        return all(name in topics and topics[name].partitions for name in names) and all(
            partition.leader >= 0 and len(partition.isrs) == len(partition.replicas)
            for name in names
            for partition in topics[name].partitions.values()
        )
