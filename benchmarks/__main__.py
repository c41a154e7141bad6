"""fastprod beside its peers, in one run: throughput and latency against a mock broker in a process of its own.

Each measurement has a process of its own; the peers take turns, so that a machine
whose speed drifts is unfair to all alike. Figures are medians; every run checks
that all records were delivered.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys

import fastprod.librdkafka
from fastprod.testing import MockCluster

PEERS = ("fastprod_send", "fastprod_futures", "confluent_plain", "confluent_callback")
LATENCY_PEERS = ("fastprod_send", "confluent_plain")


def measure(peer, what, servers, count, size, linger_ms):
    command = [sys.executable, "-m", "benchmarks.run_peer", peer, what, servers, "bench"]
    done = subprocess.run(
        [*command, str(count), str(size), str(linger_ms)], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def medians(peers, rounds, *arguments):
    runs = {peer: [] for peer in peers}
    for turn in range(rounds):
        for peer in peers:
            print(f"\r  round {turn + 1} of {rounds}: {peer:<24}", end="", file=sys.stderr, flush=True)
            runs[peer].append(measure(peer, *arguments))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return {
        peer: {key: statistics.median(run[key] for run in results) for key in results[0]}
        for peer, results in runs.items()
    }


def title(peer):
    return importlib.import_module(f"benchmarks.peers.{peer}").NAME


def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "?")
    return (
        f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}, "
        f"librdkafka {fastprod.librdkafka.version()}"
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=100, help="bytes of a value")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    print(machine())
    with MockCluster(topics={"bench": 12}, process=True) as cluster:
        servers = cluster.bootstrap_servers
        print(
            f"\n{arguments.records:,} records of {arguments.size} B, 12 partitions, linger.ms=5, acks=1, "
            f"medians of {arguments.rounds}\n"
        )
        fast = medians(PEERS, arguments.rounds, "throughput", servers, arguments.records, arguments.size, 5)
        print(f"| {'':<32} | records/s | fastprod is | CPU ns/record | RSS over idle |")
        print("|---|---:|---:|---:|---:|")
        best = fast["fastprod_futures"]["records_per_s"]
        for peer, figures in fast.items():
            print(
                f"| {title(peer):<32} | {figures['records_per_s']:,.0f} | {best / figures['records_per_s']:.2f} x "
                f"| {figures['cpu_ns']:.0f} | {figures['rss_mib']:.0f} MiB |"
            )
        print("\none record at a time on an idle producer, linger.ms=0, send to acknowledged\n")
        slow = medians(LATENCY_PEERS, arguments.rounds, "latency", servers, 300, arguments.size, 0)
        print(f"| {'':<32} | p50 | p99 |")
        print("|---|---:|---:|")
        for peer, figures in slow.items():
            print(f"| {title(peer):<32} | {figures['p50_us']:.0f} us | {figures['p99_us']:.0f} us |")
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump({"machine": machine(), "throughput": fast, "latency": slow}, out, indent=1)


if __name__ == "__main__":
    main()
