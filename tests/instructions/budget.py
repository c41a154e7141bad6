"""Instructions that a record costs, by callgrind: they repeat where times do not.

``budget.json`` says what each way of sending may cost; test_instructions.py holds it, ``make budget`` rewrites it.
A figure is a slope, of N records against 2 N in one process, so what a call or a flush costs once is not in it. Against
a mock broker in another process; our own code counts by itself, so that librdkafka's threads do not blur it.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

import fastprod.librdkafka.loader
from fastprod.internals import transport
from fastprod.testing import MockCluster
from tests.instructions.workload import PARTITIONS, WAYS

HERE = pathlib.Path(__file__).parent
BUDGET = HERE / "budget.json"
TOLERANCE = 0.05
OTHER_TOLERANCE = 0.25  # where the code is for another machine or Python than the budget, or by another compiler
EVERYTHING = "everything"
EVERYTHING_TOLERANCE = 0.1  # how often librdkafka's threads wake up, and what they find then, does not repeat as well
COUNT = 10_000
# The extensions whose code takes batches to librdkafka, and its reports back.
HANDING_OVER = {
    "completion", "delivery_report", "failed_records", "in_flight_partition", "produce_requests", "sender", "transport",
}  # fmt: skip


def valgrind():
    return shutil.which("valgrind")


def made_with():
    """What the counts depend on besides our code; the last two only those of everything."""
    comment = pathlib.Path(transport.__file__).read_bytes()
    compiler = re.search(rb"(GCC|clang)(?: version|:)[^\0]*? (\d+)\.\d+\.\d+", comment)
    return {
        "machine": platform.machine(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "compiler": " ".join(part.decode() for part in compiler.groups()) if compiler else "unknown",
        "libc": " ".join(platform.libc_ver()),
        "librdkafka": fastprod.librdkafka.loader.version(),
    }


def self_costs(path):
    """Instructions by object, of one file that callgrind wrote."""
    costs, names, current = collections.Counter(), {}, None
    inclusive = False  # the line behind "calls=" has the cost of what was called, which is counted there
    with open(path) as lines:
        for line in lines:
            if line[0] in "0123456789+-*":
                if not inclusive:
                    costs[current] += int(line.split()[1])
                inclusive = False
            elif line.startswith("calls="):
                inclusive = True
            elif found := re.match(r"(c?)ob=(\(\d+\))(?: (.*))?", line):
                called, number, name = found.groups()
                if name:
                    names[number] = os.path.basename(name)
                if not called:
                    current = names[number]
    return costs


def figures(costs):
    """Of costs by object: fastprod's own code up to the batches, from there to librdkafka and back, and everything."""
    extensions = {path.name for path in pathlib.Path(fastprod.__file__).parent.rglob("*.so")}
    ours = {name.partition(".")[0]: cost for name, cost in costs.items() if name in extensions}
    handing_over = sum(ours.get(name, 0) for name in HANDING_OVER)
    return {
        "sending": sum(ours.values()) - handing_over,
        "handing over": handing_over,
        EVERYTHING: sum(costs.values()),
    }


def count_way(way, servers, topic, library, folder):
    """Instructions per record of one way, as figures() has them."""
    out = f"{folder}/{topic}"
    command = ["valgrind", "--tool=callgrind", "--fair-sched=yes", "--dump-before=getpgid"]
    command += [f"--callgrind-out-file={out}", sys.executable, "-m", "tests.instructions.workload"]
    done = subprocess.run(
        [*command, way, servers, topic, str(COUNT)],
        env={**os.environ, "PYTHONHASHSEED": "0", "LD_PRELOAD": library},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} {way} failed:\n{done.stderr}")
    once, twice = (figures(self_costs(f"{out}.{part}")) for part in (3, 4))
    return {name: (twice[name] - once[name]) / COUNT for name in once}


def count(ways=WAYS):
    """Of each way, two at a time."""
    with (
        tempfile.TemporaryDirectory() as folder,
        MockCluster(topics={f"t{i}": PARTITIONS for i in range(len(ways))}, process=True) as cluster,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        library = f"{folder}/counted.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, HERE / "counted.c"], check=True)
        counts = [
            pool.submit(count_way, way, cluster.bootstrap_servers, f"t{i}", library, folder)
            for i, way in enumerate(ways)
        ]
        return {way: found.result() for way, found in zip(ways, counts, strict=True)}


def compare(counted, budget, tools):
    """What is wrong with the counts, or with the budget: a line for each figure.

    The budget holds for what it was made with. On others our own code may cost more, by OTHER_TOLERANCE, and less by
    any amount; what everything costs is not looked at.
    """
    same_code = all(budget["made with"][name] == tools[name] for name in ("machine", "python", "compiler"))
    wrong = []
    for way, costs in counted.items():
        for name, cost in costs.items():
            allowed = budget["instructions per record"][way][name]
            tolerance = TOLERANCE if same_code else OTHER_TOLERANCE
            if name == EVERYTHING:
                if budget["made with"] != tools:
                    continue
                tolerance = EVERYTHING_TOLERANCE
            more = cost / allowed - 1
            what = f"{way}, {name}: {cost:.1f} instructions per record where the budget has {allowed}, {abs(more):.1%}"
            if more > tolerance:
                wrong.append(f"{what} more: make it cheaper, or say in the commit why not and run `make budget`")
            elif more < -tolerance and same_code:
                wrong.append(f"{what} less, so the budget would let that be lost again: run `make budget`")
    return wrong


def read_budget():
    return json.loads(BUDGET.read_text())


def write_budget(counted):
    rounded = {way: {name: round(cost, 1) for name, cost in costs.items()} for way, costs in counted.items()}
    BUDGET.write_text(json.dumps({"made with": made_with(), "instructions per record": rounded}, indent=2) + "\n")
