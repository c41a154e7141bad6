"""Measures a grid of settings and writes grid.json, .md, .svg and .png.

Each measurement has a process and a topic of its own, and the cells take turns. Of every run the broker's logs must
hold each record that was sent, and the client must have counted it as delivered. Figures are medians.

short: the mock broker, in a process of its own, and few cells. full: many, and some on a real Apache Kafka too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.__main__ import Broker, mock_broker, progress, real_broker
from benchmarks.grid.cells import FULL, SHORT, Cell, Table
from benchmarks.grid.report import write_report
from benchmarks.machine import machine

TIMEOUT = 300.0  # seconds, for one measurement


def measure(broker: Broker, cell: Cell) -> dict[str, float]:
    """One run, on a topic of its own."""
    topic = f"grid-{os.urandom(4).hex()}"
    broker.make(topic, cell.partitions)
    try:
        command = [sys.executable, "-m", "benchmarks.grid.run", broker.servers, topic, json.dumps(cell.as_dict())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        if done.returncode:
            sys.exit(f"{cell}:\n{done.stderr[-3000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        logged = broker.records(topic, cell.partitions)
    finally:
        broker.remove(topic)
    delivered, expected = result.pop("delivered"), result.pop("logged")
    if delivered != cell.records or logged != expected:
        sys.exit(
            f"{cell}: {delivered} of {cell.records} records were acknowledged, {logged} of {expected} are in the logs"
        )
    return result


def entry_of(broker: Broker, table: Table) -> dict[str, object]:
    return {
        "broker": broker.title,
        "name": table.name,
        "title": table.title,
        "key": table.key,
        "others": table.others,
        "rows": {row: {column: [] for column in cells} for row, cells in table.rows.items()},
    }


class Results:
    """All runs so far, in a file that is written anew after each row: a long run may be cut short."""

    def __init__(self, path: Path, rounds: int) -> None:
        self.path = path
        self.content: dict[str, object] = {"machine": machine(), "rounds": rounds, "tables": []}

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content) + "\n")

    def add(self, broker: Broker, tables: Iterable[Table]) -> None:
        tables = list(tables)
        entries = [entry_of(broker, table) for table in tables]
        self.content["tables"].extend(entries)
        rounds = self.content["rounds"]
        for turn in range(rounds):
            for table, entry in zip(tables, entries, strict=True):
                for row, cells in table.rows.items():
                    progress(f"{broker.title}, round {turn + 1} of {rounds}: {table.name}, {row}")
                    for column, cell in cells.items():
                        entry["rows"][row][column].append(measure(broker, cell))
                    self.write()
        progress("")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid", description=__doc__)
    parser.add_argument("form", nargs="?", choices=("short", "full", "report"), default="short")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tables", default="", metavar="REGEX", help="only those whose name matches")
    parser.add_argument("--real", action="store_true", help="Apache Kafka also in the short form")
    parser.add_argument("--out", type=Path, default=Path("build/grid"), metavar="DIRECTORY")
    arguments = parser.parse_args()
    path = arguments.out / "grid.json"
    if arguments.form == "report":
        print(write_report(json.loads(path.read_text()), arguments.out))
        return
    results = Results(path, arguments.rounds)
    tables = {"short": SHORT, "full": FULL}[arguments.form]
    tables = [table for table in tables if re.search(arguments.tables, table.name)]
    with mock_broker() as broker:
        results.add(broker, tables)
    real = [table for table in tables if table.real]
    if real and (arguments.real or arguments.form == "full"):
        with real_broker() as broker:
            results.add(broker, real)
    print(write_report(results.content, arguments.out))


if __name__ == "__main__":
    main()
