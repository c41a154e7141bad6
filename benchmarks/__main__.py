"""fastprod beside its peers, in one run.

Each measurement has a process and a topic of its own; the peers and the workloads take turns, so that a machine whose
speed drifts is unfair to all alike. Figures are medians. Of every run the broker's logs must hold each record that was
sent, and the client must have counted it as delivered.

short: 100 B, without and with keys, on a mock broker in a process of its own, and the latency of a record. full: all
workloads; and on a real Apache Kafka, beside the Java producer. growth: from 100,000 to 10 million records, and from 1
to 1000 partitions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from confluent_kafka.admin import AdminClient

from benchmarks import peers
from benchmarks.machine import log_ends, machine
from benchmarks.report import write_report
from benchmarks.workload import BASE, BATCH_SIZE, FULL, GROWTH, SHORT, Workload
from fastprod.testing import MockCluster
from tests.kafka.server import KafkaServer, LogBatch

TIMEOUT = 600.0  # seconds, for one measurement
LATENCY = replace(BASE, records=300)
LATENCY_PEERS = ("fastprod_send", "confluent_plain")
REAL = (replace(BASE, records=500_000), replace(BASE, records=500_000, keyed=True))
REAL_PEERS = ("plain_c", *peers.FASTPROD, "confluent_plain", "confluent_callback", "confluent_batch", "java")
PROBE_SECONDS = 10.0


@dataclass
class Broker:
    """Where records go. make and remove: a topic. dump: the batches in its logs, by partition, if that can be seen."""

    title: str
    servers: str
    make: Callable[[str, int], None]
    remove: Callable[[str], None]
    dump: Callable[[str], Mapping[int, list[LogBatch]]] | None = None
    admin: AdminClient = field(init=False)

    def __post_init__(self) -> None:
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def records(self, topic: str, partitions: int) -> int:
        """How many are in the logs of a topic."""
        return sum(log_ends(self.admin, topic, partitions).values())

    def batch_size(self, topic: str) -> dict[str, float]:
        """The mean size of a record batch in the logs of a topic, in bytes, if that can be seen."""
        if self.dump is None:
            return {}
        return {
            "bytes_per_batch": statistics.mean(batch.size for found in self.dump(topic).values() for batch in found)
        }


@contextlib.contextmanager
def mock_broker() -> Iterator[Broker]:
    with MockCluster(process=True) as cluster:
        yield Broker("mock broker", cluster.bootstrap_servers, cluster.create_topic, cluster.delete_topic)


@contextlib.contextmanager
def real_broker() -> Iterator[Broker]:
    with KafkaServer() as server:
        yield Broker(
            "Apache Kafka", server.bootstrap_servers, server.create_topic, server.delete_topic, server.dump_logs
        )


def measure(broker: Broker, name: str, what: str, workload: Workload) -> dict[str, float]:
    """One run, on a topic of its own."""
    peer = peers.load(name)
    topic = f"bench-{os.urandom(4).hex()}"
    broker.make(topic, workload.partitions)
    try:
        if hasattr(peer, "command"):
            command = peer.command(broker.servers, topic, workload)
        else:
            arguments = [name, what, broker.servers, topic, json.dumps(workload.as_dict())]
            command = [sys.executable, "-m", "benchmarks.run", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        if done.returncode:
            sys.exit(f"{peer.NAME}, {workload.title}:\n{done.stderr[-3000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        logged = broker.records(topic, workload.partitions)
        result |= broker.batch_size(topic)
    finally:
        broker.remove(topic)
    delivered = result.pop("delivered")
    times = getattr(peer, "TIMES", None)
    expected = workload.records * (times or 1)
    warm_up = 0 if what == "latency" or times else workload.warm_up
    if delivered != expected or logged != expected + warm_up:
        sys.exit(
            f"{peer.NAME}, {workload.title}: {delivered} of {expected} records were acknowledged, {logged} of "
            f"{expected + warm_up} are in the logs"
        )
    return result


def measure_all(
    broker: Broker, names: Iterable[str], what: str, workloads: Iterable[Workload], rounds: int
) -> Iterator[list[dict[str, object]]]:
    """Runs each workload with each peer that can send it, once a round, and gives what there is after each round."""
    tasks: list[tuple[str, Workload]] = []
    entries: list[dict[str, object]] = []
    for workload in workloads:
        for name in dict.fromkeys(names):
            peer = peers.load(name)
            if not getattr(peer, "fits", lambda _: True)(workload):
                continue
            tasks.append((name, replace(workload, records=int(workload.records * getattr(peer, "SHARE", 1.0)))))
            entries.append(
                {
                    "broker": broker.title,
                    "what": what,
                    "workload": workload.title,
                    "records": workload.records,
                    "batch_size": BATCH_SIZE,
                    "peer": name,
                    "title": peer.NAME,
                    "runs": [],
                }
            )
    for turn in range(rounds):
        for (name, workload), entry in zip(tasks, entries, strict=True):
            progress(f"{broker.title}, round {turn + 1} of {rounds}: {workload.title}, {entry['title']}")
            entry["runs"].append(measure(broker, name, what, workload))
        yield entries
    progress("")


def progress(text: str) -> None:
    """Where it has got to, on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:<110}", end="" if text else "\r", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def probe(code: str) -> float:
    """What a fresh interpreter prints, a number."""
    # with the byte code that pip leaves beside an installed package, and a checkout may have been told not to keep
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return float(done.stdout)


def import_ms() -> float:
    code = "import time; start = time.perf_counter(); import fastprod; print((time.perf_counter() - start) * 1e3)"
    return statistics.median(probe(code) for _ in range(9))


def idle_share(servers: str) -> float:
    """Of a core, of an open producer that has sent a record and has no more to send."""
    return probe(
        "import resource, time\n"
        "from fastprod import Producer\n"
        f"producer = Producer(bootstrap_servers={servers!r})\n"
        "producer.send('idle', b'v').result()\n"
        "used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])\n"
        "time.sleep(1)\n"
        f"before = used()\ntime.sleep({PROBE_SECONDS})\n"
        f"print((used() - before) / {PROBE_SECONDS})\n"
        "producer.close()"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("form", nargs="?", choices=("short", "full", "growth", "report"), default="short")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, metavar="N", help="of each workload, whatever it says itself")
    parser.add_argument("--peers", nargs="+", default=peers.ALL, metavar="PEER", help=f"of {', '.join(peers.ALL)}")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIRECTORY")
    arguments = parser.parse_args()
    path = arguments.out / "bench.json"
    if arguments.form == "report":
        print(write_report(json.loads(path.read_text()), arguments.out))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {"machine": machine(), "rounds": arguments.rounds, "runs": []}

    def add(broker: Broker, names: Iterable[str], what: str, workloads: Iterable[Workload]) -> None:
        if arguments.records:
            workloads = [replace(workload, records=min(workload.records, arguments.records)) for workload in workloads]
        before = content["runs"]
        for entries in measure_all(broker, names, what, workloads, arguments.rounds):
            content["runs"] = [*before, *entries]
            path.write_text(json.dumps(content, indent=1) + "\n")  # after each: a long run may be cut short

    with mock_broker() as broker:
        add(broker, arguments.peers, "throughput", {"short": SHORT, "full": FULL, "growth": GROWTH}[arguments.form])
        add(broker, [name for name in LATENCY_PEERS if name in arguments.peers], "latency", [LATENCY])
        broker.make("idle", 1)
        content["import_ms"] = import_ms()
        content["idle_share"] = idle_share(broker.servers)
    if arguments.form == "full":
        with real_broker() as broker:
            add(broker, [name for name in REAL_PEERS if name in (*arguments.peers, "java")], "throughput", REAL)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(write_report(content, arguments.out))


if __name__ == "__main__":
    main()
