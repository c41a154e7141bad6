"""python -m tests.fault_bench --seeds N --first-seed K [--acks 1]"""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.fault_bench.bench import FaultBench, Result
from tests.fault_bench.schedule import draw


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fault_bench",
        description="Sends to a replicated Kafka while it breaks, and checks the log.",
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many runs")
    parser.add_argument("--first-seed", type=int, default=1, help="seed of the first run; the others follow")
    parser.add_argument("--acks", default="all", choices=["all", "1"], help="1: without idempotence")
    options = parser.parse_args()

    logging.getLogger("fastprod").setLevel(logging.CRITICAL)  # broken connections are what is wanted here
    began = time.monotonic()
    results: list[Result] = []
    with FaultBench() as bench:
        print(f"cluster ready in {time.monotonic() - began:.1f} s", flush=True)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            result = bench.run(draw(seed, options.acks))
            results.append(result)
            print(result, flush=True)
            if not result.good:
                report = [str(result.schedule), *result.problems, str(result.verdict)]
                print("\n".join(["VIOLATED", *report, ""]), flush=True)
    print(totals(results, time.monotonic() - began))
    return any(not result.good for result in results)


def totals(results: list[Result], seconds: float) -> str:
    """One line over all runs."""
    verdicts = [result.verdict for result in results]
    violations = sum(sum(verdict.violations.values()) for verdict in verdicts)
    counted = {
        kind: sum(verdict.counted[kind] for verdict in verdicts)
        for kind in sorted({kind for verdict in verdicts for kind in verdict.counted})
    }
    bad = [result.schedule.seed for result in results if not result.good]
    parts = [
        f"{len(results)} seeds",
        f"{sum(verdict.sent for verdict in verdicts)} records",
        f"{sum(verdict.acked for verdict in verdicts)} acknowledged",
        f"{sum(verdict.without_offset for verdict in verdicts)} of them without offset",
        f"{sum(verdict.failed for verdict in verdicts)} failed",
        f"{sum(verdict.failed_but_written for verdict in verdicts)} of them written",
        *(f"{count} {kind}" for kind, count in counted.items()),
        f"{sum(result.faults for result in results)} faults",
        f"{sum(result.resets for result in results)} resets",
        f"{sum(result.swallowed for result in results)} bytes of responses lost",
        f"{violations} violations",
        f"bad seeds: {bad or 'none'}",
        f"{seconds:.0f} s",
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
