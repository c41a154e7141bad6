"""CATALOGUE.md: it has every row, and the tests that it names exist."""

import ast
import re
from pathlib import Path

import pytest

CATALOGUE = Path(__file__).with_name("CATALOGUE.md")
ROOT = CATALOGUE.parent.parent
NODE_ID = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
INPUTS = [
    "config",
    "bootstrap.servers",
    "acks",
    "enable.idempotence",
    "batch.size",
    "linger.ms",
    "buffer.memory",
    "timeouts and retries",
    "max.in.flight.requests.per.connection",
    "compression.type",
    "max.request.size",
    "TLS and SASL",
    "topic",
    "value and key",
    "partition",
    "timestamp",
    "headers",
    "callback",
    "send_many",
    "flush and close",
    "after a fork",
    "environment",
]


def rows(section):
    """The cells of each line of a section's table."""
    text = CATALOGUE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[1:]]


def test_every_fault_has_its_row():
    assert [(row[0], len(row)) for row in rows("Faults")] == [(str(number), 4) for number in range(1, 34)]


def test_every_input_has_its_row():
    assert [(row[0], len(row)) for row in rows("Bad input")] == [(name, 3) for name in INPUTS]


def test_each_row_names_a_test_or_says_why_there_is_none():
    for row in rows("Faults") + rows("Bad input"):
        assert NODE_ID.search(row[-1]) or row[-1].startswith("none: "), row[0]


@pytest.mark.parametrize(("path", "name"), sorted(set(NODE_ID.findall(CATALOGUE.read_text()))))
def test_the_tests_that_it_names_exist(path, name):
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name.startswith("test_")
