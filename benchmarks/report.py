"""Tables and a plot of what was measured, and what was to be reached beside what was."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workload import BASE, BY_PARTITIONS, BY_RECORDS, KEYED

Content = Mapping[str, Any]
MIB_BEYOND = 24  # what fastprod may take over buffer.memory
BUFFER_MEMORY_MIB = 32
MOCK, REAL = "mock broker", "Apache Kafka"


def write_report(content: Content, directory: Path) -> str:
    """Writes bench.md and bench.svg; returns the tables."""
    parts = [content["machine"], f"Medians of {content['rounds']}."]
    for group in groups(content, "throughput"):
        parts += [f"**{group[0]['broker']}, {group[0]['workload']}**, {group[0]['records']:,} records", table(group)]
    for group in groups(content, "latency"):
        parts += ["**One record at a time on an idle producer**, `linger.ms=0`, send to acknowledged", latencies(group)]
    if "import_ms" in content:
        parts.append(
            f"`import fastprod`: {content['import_ms']:.0f} ms. An open, idle producer: "
            f"{content['idle_share'] * 100:.2f} % of a core."
        )
    parts += ["**What was to be reached**", goals_table(content)]
    text = "\n\n".join(parts) + "\n"
    (directory / "bench.md").write_text(text)
    plot(content, directory / "bench.svg")
    return text


def groups(content: Content, what: str) -> list[list[Mapping[str, Any]]]:
    """The peers of each workload on each broker."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in content["runs"]:
        if entry["what"] == what:
            found.setdefault((entry["broker"], entry["workload"]), []).append(entry)
    return list(found.values())


def median(entry: Mapping[str, Any], key: str) -> float:
    return statistics.median(run[key] for run in entry["runs"])


def table(group: Sequence[Mapping[str, Any]]) -> str:
    """Of one workload; the factors are those of send() over each."""
    own = next((entry for entry in group if entry["peer"] == "fastprod_send"), group[0])
    wire = any("bytes_per_batch" in entry["runs"][0] for entry in group)
    rows = [
        "| | records/s | `send()` is | CPU ns/record | memory over idle |" + " batch in the log |" * wire,
        "|---|---:|---:|---:|---:|" + "---:|" * wire,
    ]
    for entry in group:
        row = (
            f"| {entry['title']} | {median(entry, 'records_per_s'):,.0f} "
            f"| {median(own, 'records_per_s') / median(entry, 'records_per_s'):.2f} x "
            f"| {median(entry, 'cpu_ns'):,.0f} | {median(entry, 'rss_mib'):,.0f} MiB |"
        )
        rows.append(row + (f" {median(entry, 'bytes_per_batch'):,.0f} B |" if wire else ""))
    return "\n".join(rows)


def latencies(group: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| | p50 | p99 |", "|---|---:|---:|"]
    for entry in group:
        rows.append(f"| {entry['title']} | {median(entry, 'p50_us'):.0f} us | {median(entry, 'p99_us'):.0f} us |")
    return "\n".join(rows)


@dataclass(frozen=True)
class Goal:
    """A ratio of two peers' figures for one workload, to be at least `wanted`; at most, without `more`."""

    peer: str
    other: str
    key: str
    wanted: float
    workload: str = BASE.title
    broker: str = MOCK
    more: bool = True


# send() makes a future for each record, whether it is kept or not.
GOALS = (
    Goal("fastprod_send", "confluent_callback", "records_per_s", 4.5),
    Goal("fastprod_send", "confluent_plain", "records_per_s", 3.0),
    Goal("fastprod_send", "aiokafka_send", "records_per_s", 25),
    Goal("fastprod_send", "plain_c", "records_per_s", 0.70),
    Goal("fastprod_send", "confluent_callback", "records_per_s", 4.0, KEYED.title),
    Goal("fastprod_many", "confluent_batch", "records_per_s", 3.5),
    Goal("fastprod_many", "plain_c", "records_per_s", 0.90),
    Goal("fastprod_arrow", "plain_c", "records_per_s", 0.95),
    Goal("fastprod_arrow", "plain_c", "records_per_s", 0.85, KEYED.title),
    Goal("fastprod_send", "plain_c", "cpu_ns", 1.4, more=False),
    Goal("fastprod_many", "plain_c", "cpu_ns", 1.15, more=False),
    Goal("fastprod_arrow", "plain_c", "cpu_ns", 1.1, more=False),
    Goal("java", "fastprod_send", "cpu_ns", 1.5, broker=REAL),
    Goal("java", "fastprod_arrow", "cpu_ns", 2.0, broker=REAL),
    Goal("fastprod_send", "java", "records_per_request", 1.0, broker=REAL),
)
UNITS = {"records_per_s": "records/s", "cpu_ns": "CPU per record", "records_per_request": "records per request"}


def goals_table(content: Content) -> str:
    entries = {
        (entry["broker"], entry["workload"], entry["peer"]): entry
        for entry in content["runs"]
        if entry["what"] == "throughput"
    }
    rows = ["| what | wanted | measured | reached |", "|---|---:|---:|---|"]

    def add(what: str, wanted: str, measured: str, reached: bool) -> None:
        rows.append(f"| {what} | {wanted} | {measured} | {'yes' if reached else '**no**'} |")

    for goal in GOALS:
        one = entries.get((goal.broker, goal.workload, goal.peer))
        other = entries.get((goal.broker, goal.workload, goal.other))
        if one is None or other is None or goal.key not in one["runs"][0] or goal.key not in other["runs"][0]:
            continue
        ratio = median(one, goal.key) / median(other, goal.key)
        add(
            f"{goal.broker}, {goal.workload}, {UNITS[goal.key]}: {one['title']} / {other['title']}",
            f"{'>=' if goal.more else '<='} {goal.wanted:g}",
            f"{ratio:.2f}",
            ratio >= goal.wanted if goal.more else ratio <= goal.wanted,
        )
    for broker in (MOCK, REAL):
        memory = {
            f"{entry['title']}, {entry['workload']}": max(run["rss_mib"] for run in entry["runs"])
            for entry in content["runs"]
            if entry["broker"] == broker
            and entry["what"] == "throughput"
            and entry["peer"] in ("fastprod_send", "fastprod_many", "fastprod_arrow")
        }
        if memory:
            worst = max(memory, key=memory.__getitem__)
            add(
                f"{broker}, memory over idle beyond buffer.memory, the most of all: {worst}",
                f"<= {MIB_BEYOND} MiB",
                f"{memory[worst] - BUFFER_MEMORY_MIB:.0f} MiB",
                memory[worst] <= BUFFER_MEMORY_MIB + MIB_BEYOND,
            )
    for what, workloads in (("records", BY_RECORDS), ("partitions", BY_PARTITIONS)):
        for peer in ("fastprod_send", "fastprod_many"):
            found = [entries.get((MOCK, workload.title, peer)) for workload in workloads]
            if None in found:
                continue
            costs = [median(entry, "cpu_ns") for entry in found]
            middle = statistics.median(costs)
            add(
                f"{found[0]['title']}, CPU per record from {getattr(workloads[0], what):,} to "
                f"{getattr(workloads[-1], what):,} {what}, off the median",
                "within 10 %",
                f"{min(costs) / middle - 1:+.0%} to {max(costs) / middle - 1:+.0%}",
                min(costs) >= 0.9 * middle and max(costs) <= 1.1 * middle,
            )
    for entry in content["runs"]:
        if entry["peer"] == "fastprod_send" and "bytes_per_batch" in entry["runs"][0]:
            fill = median(entry, "bytes_per_batch") / entry["batch_size"]
            title = f"{entry['broker']}, {entry['workload']}: mean batch in the log / batch.size, {entry['title']}"
            add(title, ">= 0.9", f"{fill:.2f}", fill >= 0.9)
    if "import_ms" in content:
        add("`import fastprod`", "<= 60 ms", f"{content['import_ms']:.0f} ms", content["import_ms"] <= 60)
        share = content["idle_share"] * 100
        add("an open, idle producer, of a core", "< 0.5 %", f"{share:.2f} %", share < 0.5)
    return "\n".join(rows)


def plot(content: Content, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "fastprod", "svg.fonttype": "none"}
    from matplotlib import pyplot

    plain = (BASE.title, KEYED.title)
    found = list(groups(content, "throughput"))
    found = [group for group in found if group[0]["workload"] in plain] or found
    figure, all_axes = pyplot.subplots(
        len(found), 2, figsize=(12, sum(0.4 + 0.28 * len(group) for group in found) + 1), squeeze=False,
        gridspec_kw={"height_ratios": [1 + len(group) for group in found]},
    )  # fmt: skip
    for axes, group in zip(all_axes, found, strict=True):
        titles = [entry["title"] for entry in group]
        colors = [
            "#2a7de1" if entry["peer"].startswith("fastprod") else "#444" if entry["peer"] == "plain_c" else "#bbb"
            for entry in group
        ]
        for axis, key, scale in ((axes[0], "records_per_s", 1e6), (axes[1], "cpu_ns", 1e3)):
            bars = axis.barh(titles, [median(entry, key) / scale for entry in group], color=colors)
            axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
            axis.invert_yaxis()
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
        axes[0].set_title(f"{group[0]['broker']}, {group[0]['workload']}: million records/s", fontsize=9, loc="left")
        axes[1].set_title("CPU of the client, us/record", fontsize=9, loc="left")
        axes[1].set_yticklabels([])
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
