"""One measurement of one peer, in a process of its own; prints a line of JSON.

python -m benchmarks.run_peer PEER throughput|latency SERVERS TOPIC COUNT SIZE LINGER_MS
"""

import importlib
import json
import resource
import statistics
import sys
import time


def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    name, what, servers, topic, count, size, linger_ms = sys.argv[1:]
    count = int(count)
    value = b"v" * int(size)
    peer = importlib.import_module(f"benchmarks.peers.{name}").connect(servers, float(linger_ms))
    peer.one(topic, value)  # connected, and the topic known
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if what == "throughput":
        values = [value] * count
        cpu, start = used(), time.perf_counter()
        delivered = peer.produce(topic, values)
        seconds, cpu = time.perf_counter() - start, used() - cpu
        if callable(delivered):
            delivered = delivered()
        if delivered != count:
            sys.exit(f"{name}: {delivered} of {count} records were delivered")
        result = {"records_per_s": count / seconds, "cpu_ns": cpu / count * 1e9}
    else:
        times = []
        for _ in range(count):
            start = time.perf_counter()
            peer.one(topic, value)
            times.append(time.perf_counter() - start)
            time.sleep(0.002)  # idle again
        result = {"p50_us": statistics.median(times) * 1e6, "p99_us": statistics.quantiles(times, n=100)[98] * 1e6}
    result["rss_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024
    peer.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
