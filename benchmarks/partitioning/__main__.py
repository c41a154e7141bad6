"""Runs the experiments and writes partitioning.json, .md and .svg.

slow-broker: KIP-794's. Three brokers lead one of three partitions each; one waits 20 ms before each answer to Produce.
512-byte records, 2,048 a second, for 60 s.

sticky: KIP-480's claim. 100-byte records at three rates over 12 and 100 partitions.

Each measurement in a process of its own, clients in turn. The brokers' logs say of every run where the records went,
and that none is missing.
"""

import argparse
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.machine import log_ends, machine
from benchmarks.partitioning import load
from benchmarks.partitioning.clients import ADAPTIVE, COMMON, JAVA_ADAPTIVE, SLOW_BROKER, STICKY_CLAIM, Client
from benchmarks.partitioning.report import write_report
from benchmarks.partitioning.slow_proxy import SlowProxy
from tests.kafka.cluster import BROKERS, KafkaCluster
from tests.kafka.jars import assemble, java_command, kafka_version
from tests.kafka.node import LOGGING

HERE = Path(__file__).parent
SLOW = BROKERS[0]
DELAY = 0.020  # seconds
QUANTILES = [i / 100 for i in range(100)] + [0.995, 0.999, 1.0]
TIMEOUT = 900.0  # seconds, for one client
WARM_UP = 5.0  # seconds; brokers are at their slowest when they are new


@dataclass(frozen=True)
class Load:
    partitions: int
    rate: int  # records per second
    seconds: float
    size: int  # bytes of a value
    linger_ms: int = 0


def command(client: Client, servers: str, topic: str, work: Load) -> list[str]:
    options = {**COMMON, "linger.ms": str(work.linger_ms), **client.options}
    settings = [f"{name}={value}" for name, value in options.items()]
    common = [servers, topic, str(work.rate), str(work.seconds), str(work.size)]
    if client.library != "java":
        return [sys.executable, "-m", "benchmarks.partitioning.load", client.library, *common, *settings]
    java = [java_command(), "-XX:-UsePerfData", "-Xmx512m", f"-Dlog4j2.configurationFile={LOGGING}"]
    pacing = [load.stride(work.rate), min(load.WARM_UP, work.seconds), load.OVERTIME, load.BURST_NS]
    return [*java, "-cp", f"{assemble()}/*", str(HERE / "Load.java"), *common, *map(str, pacing), *settings]


def measure(cluster: KafkaCluster, prefix: list[str], client: Client, work: Load) -> dict[str, object]:
    """One run of one client on a topic of its own."""
    topic = f"partitioning-{os.urandom(4).hex()}"
    cluster.create_topic(topic, work.partitions, replicas=1)
    try:
        line = command(client, cluster.bootstrap_servers, topic, work)
        done = subprocess.run([*prefix, *line], capture_output=True, text=True, timeout=TIMEOUT)
        if done.returncode:
            sys.exit(f"{client.title}:\n{done.stderr[-3000:]}")
        run = json.loads(done.stdout)
        ends = log_ends(cluster.admin, topic, work.partitions)
        leaders = cluster.admin.list_topics(topic, timeout=10).topics[topic].partitions
    finally:
        cluster.delete_topic(topic)
    expected = run["sent"] + run["sent_before"]
    if run["failed"] or sum(ends.values()) != expected:
        sys.exit(f"{client.title}: {sum(ends.values())} of {expected} records are in the log, {run['failed']} failed")
    latencies = sorted(run["latencies_us"])
    last = len(latencies) - 1
    return {
        "client": client.title,
        **asdict(work),
        "records": run["sent"],
        "records_per_second": run["sent"] / run["seconds"],
        "requests": run["requests"],
        "cpu_us_per_record": run["cpu_seconds"] / run["sent"] * 1e6,
        "average_ms": sum(latencies) / len(latencies) / 1000,
        "quantiles_ms": [latencies[round(quantile * last)] / 1000 for quantile in QUANTILES],
        "slow_share": sum(ends[i] for i in ends if leaders[i].leader == SLOW) / expected,
    }


def one_leader_each(cluster: KafkaCluster) -> None:
    """That a topic of three partitions has one on each broker is Kafka's habit; the experiment stands on it."""
    cluster.create_topic("leaders", len(BROKERS), replicas=1)
    found = cluster.admin.list_topics("leaders", timeout=10).topics["leaders"].partitions.values()
    if {partition.leader for partition in found} != set(BROKERS):
        sys.exit(f"the leaders of three partitions are {[partition.leader for partition in found]}")


class Results:
    """All runs so far, in a file that is written anew after each: a long session may be cut short and continued."""

    def __init__(self, path: Path, continued: bool) -> None:
        self.path = path
        self.content = {"machine": f"{machine()}, Kafka {kafka_version()}", "slow-broker": [], "sticky": []}
        if continued and path.exists():
            self.content = json.loads(path.read_text())

    def add(self, experiment: str, run: dict[str, object]) -> None:
        self.content[experiment].append(run)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(
            json.dumps(self.content, indent=None, separators=(",", ":")).replace("},{", "},\n{") + "\n"
        )
        print(
            f"{run['client']:<50} {run['partitions']:>4} partitions {run['rate']:>6}/s linger {run['linger_ms']}: "
            f"{run['records_per_second']:8,.0f}/s, average {run['average_ms']:8.2f} ms, "
            f"p99 {run['quantiles_ms'][99]:8.2f} ms, {run['requests']:6} requests, "
            f"{run['cpu_us_per_record']:6.2f} us CPU/record, slow broker {run['slow_share']:.1%}",
            flush=True,
        )


def slow_broker(results: Results, clients: Iterable[Client], rounds: int, seconds: float, prefix: list[str]) -> None:
    work = Load(partitions=len(BROKERS), rate=2048, seconds=seconds, size=512)
    cluster = KafkaCluster()
    with SlowProxy(cluster.client_ports[SLOW], DELAY) as proxy:
        cluster.advertised_ports[SLOW] = proxy.port
        with cluster:
            one_leader_each(cluster)
            measure(cluster, prefix, ADAPTIVE, replace(work, seconds=WARM_UP))
            for turn in range(rounds):
                for client in clients:
                    # Past the first round only those that the figures are about.
                    if turn == 0 or client in (ADAPTIVE, JAVA_ADAPTIVE):
                        results.add("slow-broker", measure(cluster, prefix, client, work))


def sticky(results: Results, clients: Iterable[Client], rounds: int, seconds: float, prefix: list[str]) -> None:
    with KafkaCluster() as cluster:
        measure(cluster, prefix, ADAPTIVE, Load(partitions=12, rate=10_000, seconds=WARM_UP, size=100))
        for _ in range(rounds):
            for partitions, linger_ms, rate in itertools.product((12, 100), (0, 5), (1000, 10_000, 100_000)):
                work = Load(partitions, rate, seconds, 100, linger_ms)
                for client in clients:
                    results.add("sticky", measure(cluster, prefix, client, work))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partitioning", description=__doc__)
    parser.add_argument("experiments", nargs="*", metavar="slow-broker|sticky|report", help="default: both")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="of a run; default 60 for slow-broker, 3 for sticky")
    parser.add_argument("--clients", default="", metavar="REGEX", help="only those whose title matches")
    parser.add_argument("--continue", dest="continued", action="store_true", help="add to the runs that are there")
    parser.add_argument("--prefix", default="", metavar="COMMAND", help='put before each client, as in "taskset -c 1"')
    parser.add_argument("--out", type=Path, default=Path("build/partitioning"), metavar="DIRECTORY")
    arguments = parser.parse_args()
    experiments = arguments.experiments or ["slow-broker", "sticky"]
    results = Results(arguments.out / "partitioning.json", arguments.continued or experiments == ["report"])
    for experiment in experiments:
        if experiment not in ("slow-broker", "sticky", "report"):
            parser.error(f"no experiment is called {experiment!r}")
        run, clients, seconds = {
            "slow-broker": (slow_broker, SLOW_BROKER, 60.0),
            "sticky": (sticky, STICKY_CLAIM, 3.0),
            "report": (None, (), 0.0),
        }[experiment]
        chosen = [client for client in clients if re.search(arguments.clients, client.title)]
        if run is not None:
            run(results, chosen, arguments.rounds, arguments.seconds or seconds, shlex.split(arguments.prefix))
    print(write_report(results.content, arguments.out))


if __name__ == "__main__":
    main()
