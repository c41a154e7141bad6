"""Java's producer, by Kafka's own ProducerPerformance, over the same values.

Its CPU time is the slope between two runs of which one is three times as long, so that neither the start of the JVM nor
its compiler's first work counts. Its rate is that of the longer run, without records to warm up.

python -m benchmarks.peers.java SERVERS TOPIC WORKLOAD
"""

import json
import os
import re
import subprocess
import sys
import tempfile

from benchmarks.workload import BATCH_SIZE, LINGER_MS, Workload, distinct_values
from tests.kafka.jars import assemble, java_command
from tests.kafka.node import LOGGING

NAME = "Java, ProducerPerformance"
FACTOR = 3
TIMES = 1 + FACTOR  # the workload's records, in both runs
TOOL = "org.apache.kafka.tools.ProducerPerformance"


def fits(workload):
    return not workload.keyed and not workload.headers  # it can send neither


def command(servers, topic, workload):
    return [sys.executable, "-m", "benchmarks.peers.java", servers, topic, json.dumps(workload.as_dict())]


def run(servers, topic, workload, records, payload):
    """(records it says it sent, how many a second, CPU seconds, peak RSS in MiB, what it printed)"""
    settings = {
        "bootstrap.servers": servers,
        "acks": workload.acks,
        "enable.idempotence": str(workload.idempotence).lower(),
        "compression.type": workload.compression,
        "linger.ms": LINGER_MS,
        "batch.size": BATCH_SIZE,
    }
    process = subprocess.Popen(
        [
            *(java_command(), "-XX:-UsePerfData", "-Xmx512m", f"-Dlog4j2.configurationFile={LOGGING}"),
            *("-cp", f"{assemble()}/*", TOOL, "--topic", topic, "--num-records", str(records)),
            *("--payload-file", payload, "--throughput", "-1", "--print-metrics", "--producer-props"),
            *(f"{name}={value}" for name, value in settings.items()),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    totals = re.findall(r"(\d+) records sent, ([\d.]+) records/sec", printed)
    if process.returncode or not totals:
        sys.exit(f"ProducerPerformance failed:\n{printed[-2000:]}")
    return int(totals[-1][0]), float(totals[-1][1]), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed


def metric(printed, name):
    return float(re.search(rf"^producer-metrics:{name}:\S*\s*: ([\d.]+)", printed, re.M)[1])


def main():
    servers, topic, given = sys.argv[1:]
    workload = Workload(**json.loads(given))
    with tempfile.NamedTemporaryFile("wb", suffix=".values") as payload:
        payload.write(b"\n".join(distinct_values(workload.size)))
        payload.flush()
        sent, _, short, _, _ = run(servers, topic, workload, workload.records, payload.name)
        more, rate, long, rss, printed = run(servers, topic, workload, FACTOR * workload.records, payload.name)
    print(
        json.dumps(
            {
                "records_per_s": rate,
                "cpu_ns": (long - short) / ((FACTOR - 1) * workload.records) * 1e9,
                "delivered": sent + more,
                "rss_mib": rss,
                "records_per_request": metric(printed, "records-per-request-avg"),
            }
        )
    )


if __name__ == "__main__":
    main()
