"""One Kafka process with its data directory: formatted, started, paused, killed, removed."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tests.kafka.jars import JVM_OPTIONS, assemble, java_command

LOGGING = Path(__file__).with_name("log4j2.properties")

# A separate process, because a test process that is killed cannot clean up. Its input is a pipe from the test process:
# a byte means "all done", an end without one means that the test process is gone.
_WATCHDOG = """
import contextlib, select, shutil, signal, sys
broker, home = int(sys.argv[1]), sys.argv[2]
if not sys.stdin.buffer.read(1):
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(broker, signal.SIGKILL)
    select.select([broker], [], [], 10)
    shutil.rmtree(home, ignore_errors=True)
"""


WORKERS, PORTS_PER_WORKER = 12, 1000  # ranges of ports


class KafkaStartError(RuntimeError):
    """The broker did not come up; the text ends with the tail of its log."""


# What every node of a test bed wants; the rest differs by role.
COMMON_PROPERTIES: Mapping[str, object] = {
    "controller.listener.names": "CONTROLLER",
    # A misspelt topic must be an error.
    "auto.create.topics.enable": "false",
    # The internal topics default to three replicas and fifty partitions.
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    "num.network.threads": 2,
    "num.io.threads": 2,
    # The cleaner would take 128 MB of the heap at once.
    "log.cleaner.dedupe.buffer.size": 2 * 1024 * 1024,
}


class KafkaNode:
    """One Kafka process: broker, controller or both, as `properties` say, listening on loopback.

    Its data is in a directory of its own, which outlives kill() and goes with stop(). Timeouts are in seconds.

    port: one that the node listens on when it is ready.
    cluster_id: the same for all nodes of a cluster.
    heap: the most that the Java heap takes, as -Xmx has it.
    """

    def __init__(self, properties: Mapping[str, object], port: int, cluster_id: str, heap: str = "512m") -> None:
        self.properties = dict(properties)
        self.port = port
        self.cluster_id = cluster_id
        self.heap = heap
        self._home: Path | None = None
        self._libs: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def log_dir(self) -> Path:
        """Where the partitions are: `<log_dir>/<topic>-<partition>/*.log`."""
        return self._need_home() / "data"

    @property
    def pid(self) -> int:
        """Of the process; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 60.0) -> None:
        """Starts the node and returns when it answers; after kill(), on the same ports with the same data.

        Raises KafkaUnavailable, or KafkaStartError after cleaning up.
        """
        if self.running:
            raise RuntimeError("this server is running")
        try:
            self.launch()
            self.wait_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """The first half of start(): formats the data directory if there is none, and starts the process.

        `properties` can be changed between two launches.
        """
        self._libs = assemble()
        if self._home is None:
            self._format()
        self._configure()
        self._launch()

    def wait_ready(self, timeout: float) -> None:
        """The second half of start(): returns when the node answers. Raises KafkaStartError."""
        deadline = time.monotonic() + timeout
        while not self._answers():
            if not self.running:
                raise KafkaStartError(f"the broker ended before it was ready:\n{self.server_log()}")
            if time.monotonic() > deadline:
                raise KafkaStartError(f"the broker was not ready after {timeout} s:\n{self.server_log()}")
            time.sleep(0.03)

    def stop(self, timeout: float = 15.0) -> None:
        """Ends the broker, by force if `timeout` is not enough, and removes its data. Harmless when stopped."""
        if self._process is not None:
            self.resume()  # a stopped process would not see SIGTERM
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None
        self._dismiss_watchdog()

    def kill(self) -> None:
        """SIGKILL. The data stays: start() recovers it, stop() removes it.

        The next start() waits until the dead broker's registration is void: `broker.session.timeout.ms`, 9 s. Lower it
        in a test that restarts, and only there: after a pause() longer than it the partitions may lose their leader
        for a moment.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay, and new ones are accepted by the kernel, but nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends pause(). Harmless when not paused."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """pause() for the length of a with block, even if the block raises."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def server_log(self, lines: int = 40) -> str:
        """The last lines of what the broker wrote: warnings, errors."""
        path = self._need_home() / "server.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def _need_home(self) -> Path:
        if self._home is None:
            raise RuntimeError("this server is not started")
        return self._home

    def _need_libs(self) -> Path:
        if self._libs is None:
            raise RuntimeError("this server is not started")
        return self._libs

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _java(self, main: str, *arguments: str, options: Iterable[str] = ()) -> list[str]:
        """A command line. Libraries that unpack themselves into the temporary directory do it in ours."""
        own = f"-Djava.io.tmpdir={self._need_home() / 'tmp'}"
        return [java_command(), *JVM_OPTIONS, own, *options, "-cp", f"{self._need_libs()}/*", main, *arguments]

    def _tool(self, main: str, *arguments: str) -> str:
        """Runs one of Kafka's tools to its end and returns its output; RuntimeError with its errors if it fails."""
        done = subprocess.run(self._java(main, *arguments), capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise RuntimeError(f"{main} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def _format(self) -> None:
        """Makes the data directory and writes the cluster's first metadata into it."""
        self._home = Path(tempfile.mkdtemp(prefix="fastprod-kafka-"))
        for name in ("data", "tmp"):
            (self._home / name).mkdir()
        try:
            self._tool("kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", self._configure())
        except RuntimeError as error:
            raise KafkaStartError(str(error)) from error

    def _configure(self) -> str:
        """Writes the file of properties and returns its path."""
        properties = {**COMMON_PROPERTIES, "log.dirs": self.log_dir, **self.properties}
        config = self._need_home() / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        return str(config)

    def _launch(self) -> None:
        home = self._need_home()
        options = [f"-Xmx{self.heap}", f"-Dlog4j2.configurationFile={LOGGING}"]
        command = self._java("kafka.Kafka", str(home / "server.properties"), options=options)
        with open(home / "server.log", "ab") as log:
            # A session of its own: Ctrl-C is for the test run, which then stops the broker in order.
            self._process = subprocess.Popen(
                command, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._watch(self._process.pid)

    def _watch(self, pid: int) -> None:
        """Has a watchdog kill the broker and remove its data if this process dies first. Linux only."""
        self._dismiss_watchdog()
        if not hasattr(os, "pidfd_open"):
            return
        broker = os.pidfd_open(pid)  # unlike the number, never another process
        try:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(broker), str(self._home)],
                stdin=subprocess.PIPE,
                pass_fds=[broker],
                start_new_session=True,
            )
        finally:
            os.close(broker)

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.communicate(b"x")
            self._watchdog = None

    def _answers(self) -> bool:
        """Whether somebody listens on the port; far cheaper than a client whose connection is refused."""
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def new_cluster_id() -> str:
    """As Kafka makes them: 16 random bytes in base64, and none that its tools take for an option."""
    while True:
        new = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not new.startswith("-"):
            return new


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below those that the kernel hands to outgoing connections.

    Each worker of pytest-xdist takes them from a range of its own, since a broker binds its ports seconds later.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + worker % WORKERS * PORTS_PER_WORKER
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(first, first + PORTS_PER_WORKER)  # whatever a test run seeds
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Returns when `condition()` holds. Raises TimeoutError, naming `what`, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no sight of {what} in {timeout} s")
        time.sleep(0.02)
