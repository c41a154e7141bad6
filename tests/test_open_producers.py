"""The producers that are open: their memory, and how they are closed at exit."""

import signal
import subprocess
import sys
import time

import pytest

from fastprod import memory_in_use
from fastprod.testing import MockCluster
from tests.conftest import QUICK, eventually
from tests.test_producer_process import run

pytestmark = pytest.mark.mock
TIMEOUT_S = 60  # seconds after which a process counts as hung


def test_memory_in_use_is_that_of_the_records_of_all_open_producers(make, topic):
    before = memory_in_use()
    first, second = make(linger_ms=60_000), make(linger_ms=60_000)
    assert memory_in_use() == before
    for producer in (first, second, second):
        producer.send(topic, b"v" * 5000, partition=0)
    assert 15_000 <= memory_in_use() - before <= 2 * 16384
    first.close()
    assert 10_000 <= memory_in_use() - before <= 16384
    second.close()
    assert memory_in_use() == before


WAIT_AT_EXIT = """
import signal, sys
from fastprod import Producer
{before}
producer = Producer(QUICK, bootstrap_servers=sys.argv[1], request_timeout_ms=60_000)
producer.send(sys.argv[2], b"first").result(30)
print("ready", flush=True)
sys.stdin.readline()
producer.send(sys.argv[2], b"second")
sys.stderr.write("ends\\n")
"""


@pytest.mark.parametrize(
    ("before", "number", "word"),
    [
        ("signal.signal(signal.SIGINT, signal.default_int_handler)", signal.SIGINT, "KeyboardInterrupt"),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))", signal.SIGTERM, "SystemExit"),
    ],
    ids=["Ctrl-C", "sys.exit"],
)
def test_a_signal_ends_the_patience_at_exit(tmp_path, before, number, word):
    said = tmp_path / "stderr"
    with MockCluster(topics={"t": 1}, process=True) as cluster, said.open("w") as stderr:
        command = [sys.executable, "-c", f"QUICK = {QUICK!r}\n{WAIT_AT_EXIT.format(before=before)}"]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr, "text": True}
        process = subprocess.Popen([*command, cluster.bootstrap_servers, "t"], **streams)
        try:
            assert process.stdout.readline() == "ready\n"
            cluster.pause()
            process.stdin.write("\n")
            process.stdin.flush()
            assert eventually(lambda: "ends" in said.read_text())
            time.sleep(0.5)  # it is in the exit's flush, or nearly
            process.send_signal(number)
            assert eventually(lambda: word in said.read_text())
            cluster.resume()  # what is acknowledged now has callbacks that nobody runs any more
            process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert process.returncode == 0


def test_at_exit_every_producer_is_closed_whatever_comes_out_of_another_ones(mock_cluster, topic, read):
    script = """
import sys
from fastprod import Producer
class Parts:
    def on_send(self, record):
        return record
    def close(self):
        raise LookupError("of the first")
producers = [
    Producer(QUICK, bootstrap_servers=sys.argv[1], linger_ms=60_000, interceptors=interceptors)
    for interceptors in ([Parts()], [], [])
]
for producer in producers:
    producer.send(sys.argv[2], b"v")
"""
    ended = run(script, mock_cluster.bootstrap_servers, topic)
    assert ended.returncode == 0 and "of the first" in ended.stderr
    read(topic, 3)
