"""One measurement of one peer, in a process of its own; prints a line of JSON.

python -m benchmarks.run PEER throughput|latency SERVERS TOPIC WORKLOAD
"""

import json
import resource
import statistics
import sys
import time

from benchmarks.peers import load
from benchmarks.workload import Workload, distinct_values

FIRST = 1000  # records, after which the process is called idle


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory_mib(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024


def forget_peak():
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")


def warm_up(peer, records, distinct):
    """Sends so many records, the distinct ones again and again; how many were delivered."""
    delivered = 0
    for at in range(0, records, distinct):
        counted = peer.produce(min(distinct, records - at))
        delivered += counted() if callable(counted) else counted
    return delivered


def throughput(peer, workload):
    records = workload.records
    first = min(FIRST, workload.warm_up)
    before = warm_up(peer, first, records)
    forget_peak()
    idle = memory_mib("VmRSS")
    before += warm_up(peer, workload.warm_up - first, records)
    cpu, start = cpu_seconds(), time.perf_counter()
    delivered = peer.produce(records)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    peak = memory_mib("VmHWM")
    if callable(delivered):
        delivered = delivered()
    return {
        "records_per_s": records / seconds,
        "cpu_ns": cpu / records * 1e9,
        "delivered": delivered if before == workload.warm_up else -1,
        "rss_mib": peak - idle,
    }


def latency(peer, records, size):
    value = distinct_values(size)[0]
    times = []
    for _ in range(records):
        start = time.perf_counter()
        peer.one(value)
        times.append(time.perf_counter() - start)
        time.sleep(0.002)  # idle again
    return {
        "p50_us": statistics.median(times) * 1e6,
        "p99_us": statistics.quantiles(times, n=100)[98] * 1e6,
        "delivered": records,
    }


def main():
    name, what, servers, topic, given = sys.argv[1:]
    workload = Workload(**json.loads(given))
    module = load(name)
    if what == "latency":
        peer = module.connect(servers, topic, workload, linger_ms=0)
        result = latency(peer, workload.records, workload.size)
    else:
        peer = module.connect(servers, topic, workload)
        result = throughput(peer, workload)
        if hasattr(peer, "details"):
            result |= peer.details()
    print(json.dumps(result))
    peer.close()


if __name__ == "__main__":
    main()
