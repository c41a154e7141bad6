"""Tables and a plot of what was measured."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.partitioning.clients import SLOW_BROKER, STICKY_CLAIM

Run = Mapping[str, Any]

# Its own table of the experiment: average, p99, p99.9 in ms.
KIP_794 = {
    "KIP-794: Java before, `sticky`": (4072.74, 10992, 11214),
    "KIP-794: Java, not adaptive": (49.92, 214, 422),
    "KIP-794: Java": (40.06, 154, 220),
    "KIP-794: Java, `partitioner.availability.timeout.ms=5`": (36.29, 150, 184),
}
# Indexes in quantiles_ms
P50, P99, P999 = 50, 99, 101


def write_report(content: Mapping[str, Any], directory: Path) -> str:
    """Writes partitioning.md and .svg; returns the tables."""
    tables = [content["machine"]]
    if content["slow-broker"]:
        tables.append(slow_broker_table(content["slow-broker"]))
    if content["sticky"]:
        tables.append(sticky_table(content["sticky"]))
    text = "\n\n".join(tables) + "\n"
    (directory / "partitioning.md").write_text(text)
    plot(content, directory / "partitioning.svg")
    return text


def by_client(runs: Iterable[Run], order: Iterable[str]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {title: [] for title in order}
    for run in runs:
        groups[run["client"]].append(run)
    return {title: group for title, group in groups.items() if group}


def median(runs: Sequence[Run], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def quantile(runs: Sequence[Run], index: int) -> float:
    return statistics.median(run["quantiles_ms"][index] for run in runs)


def per_request(runs: Sequence[Run]) -> float:
    return statistics.median(run["records"] / run["requests"] for run in runs)


def slow_broker_table(runs: Sequence[Run]) -> str:
    rows = [
        "| | average | p50 | p99 | p99.9 | to the slow broker | records/request | CPU us/record | runs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title, (average, p99, p999) in KIP_794.items():
        rows.append(f"| {title} | {average:,.1f} ms | | {p99:,} ms | {p999:,} ms | | | | |")
    for title, group in by_client(runs, (client.title for client in SLOW_BROKER)).items():
        rows.append(
            f"| {title} | {median(group, 'average_ms'):,.1f} ms | {quantile(group, P50):,.1f} ms "
            f"| {quantile(group, P99):,.0f} ms | {quantile(group, P999):,.0f} ms "
            f"| {median(group, 'slow_share') * 100:.0f} % | {per_request(group):.1f} "
            f"| {median(group, 'cpu_us_per_record'):,.0f} | {len(group)} |"
        )
    return "\n".join(rows)


def sticky_table(runs: Sequence[Run]) -> str:
    rows = [
        "| partitions | linger.ms | records/s | | requests/s | records/request | average | p99 | CPU us/record |",
        "|---:|---:|---:|---|---:|---:|---:|---:|---:|",
    ]

    def setting(run: Run) -> tuple[int, int, int]:
        return run["partitions"], run["linger_ms"], run["rate"]

    for (partitions, linger_ms, rate), found in itertools.groupby(sorted(runs, key=setting), setting):
        for title, group in by_client(found, (client.title for client in STICKY_CLAIM)).items():
            reached = median(group, "records_per_second")
            load = f"{rate:,}" if reached > 0.95 * rate else f"{rate:,} (reached {reached:,.0f})"
            rows.append(
                f"| {partitions} | {linger_ms} | {load} | {title} "
                f"| {reached / per_request(group):,.0f} | {per_request(group):,.1f} "
                f"| {median(group, 'average_ms'):,.2f} ms | {quantile(group, P99):,.1f} ms "
                f"| {median(group, 'cpu_us_per_record'):,.1f} |"
            )
    return "\n".join(rows)


def plot(content: Mapping[str, Any], path: Path) -> None:
    """The slow broker's latencies, and what 100 partitions cost with linger.ms=5."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "fastprod", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot

    figure, ((slow, requests), (latency, cpu)) = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    styles = {"fastprod": "-", "Java": "--", "librdkafka": ":"}

    def draw(axes: Any, title: str, across: Sequence[float], values: Sequence[float]) -> None:
        style = next(style for name, style in styles.items() if title.startswith(name))
        marker = "." if len(across) < 10 else ""
        axes.plot(across, values, style, marker=marker, label=title.replace("`", ""), linewidth=1.2)

    nines = [100 / (100 - percent) for percent in [*range(100), 99.5, 99.9]]  # in the order of quantiles_ms
    for title, group in by_client(content["slow-broker"], (client.title for client in SLOW_BROKER)).items():
        draw(slow, title, nines, [quantile(group, i) for i in range(len(nines))])
    slow.set(xscale="log", yscale="log", title="One broker of three is 20 ms slow (KIP-794): send() to callback, ms")
    slow.set_xticks([2, 10, 100, 1000], ["p50", "p90", "p99", "p99.9"])
    slow.minorticks_off()

    many = [run for run in content["sticky"] if run["partitions"] == 100 and run["linger_ms"] == 5]
    for title, group in by_client(many, (client.title for client in STICKY_CLAIM)).items():
        rates = sorted({run["rate"] for run in group})
        at = [[run for run in group if run["rate"] == rate] for rate in rates]
        draw(requests, title, rates, [per_request(runs) for runs in at])
        draw(latency, title, rates, [median(runs, "average_ms") for runs in at])
        draw(cpu, title, rates, [median(runs, "cpu_us_per_record") for runs in at])
    costs = {
        requests: "records per request",
        latency: "send() to callback, average, ms",
        cpu: "client CPU per record, us",
    }
    for axes, what in costs.items():
        axes.set(xscale="log", yscale="log", title=f"100 partitions, linger.ms=5: {what}", xlabel="records per second")
    latency.set_yscale("linear")
    for axes in (slow, *costs):
        if axes.lines:
            axes.legend(fontsize=6)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(True, which="major", linewidth=0.3)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
