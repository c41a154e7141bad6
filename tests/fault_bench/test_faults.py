"""The bench runs here for two seeds; `make faults` runs it for as many as wanted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fault_bench.bench import FaultBench
from tests.fault_bench.schedule import KILL, draw

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).parents[2]

# The first one kills a broker and lets the topic grow.
SEEDS = (58, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_out_of_order_whatever_breaks(bench: FaultBench, seed: int) -> None:
    result = bench.run(draw(seed))
    print(result)
    assert result.good, "\n".join([str(result.schedule), *result.problems, str(result.verdict)])
    assert result.verdict.acked >= 20_000
    assert result.faults >= 5
    assert result.resets > 0


def test_the_seeds_here_have_a_kill_and_growth() -> None:
    kinds = {fault.kind for seed in SEEDS for fault in draw(seed).faults}
    assert {KILL, "grow", "lose", "storm", "move"} <= kinds


def test_leaders_move_to_the_given_broker(bench: FaultBench) -> None:
    cluster = bench.cluster
    cluster.create_topic("moves", 6)

    def leaders() -> dict[int, int]:
        return {
            number: p.leader for number, p in cluster.admin.list_topics(timeout=5).topics["moves"].partitions.items()
        }

    before = leaders()
    assert cluster.move_leaders("moves", 2) == 3
    deadline = time.monotonic() + 20
    while {n for n, leader in leaders().items() if leader != before[n]} != {0, 2, 4}:
        assert time.monotonic() < deadline, (before, leaders())
        time.sleep(0.05)
    with pytest.raises(RuntimeError, match="UnknownTopic"):
        cluster.move_leaders("no-such-topic")


@pytest.mark.skipif(sys.platform != "linux", reason="the watchdog is for Linux")
def test_all_nodes_and_data_go_when_the_test_process_is_killed(kafka_libs: Path) -> None:
    code = (
        "import os, signal\n"
        "from tests.kafka.cluster import KafkaCluster\n"
        "cluster = KafkaCluster(); cluster.launch()\n"
        "for node in cluster.nodes: print(node.pid, node.log_dir.parent, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    paths = [Path(path) for line in done.stdout.splitlines() for path in (f"/proc/{line.split()[0]}", line.split()[1])]
    assert len(paths) == 8, done.stderr
    deadline = time.monotonic() + 20
    while any(path.exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [path for path in paths if path.exists()] == []
