"""Gets Apache Kafka's jars with Maven and runs a broker from them."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZipFile

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
MIN_JAVA = 17
MAVEN_TIMEOUT = 600.0  # seconds

# The first compiler tier alone starts the broker sooner and takes less CPU over a test's few seconds of load;
# perf data would leave a file in the system's temporary directory.
JVM_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")

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


class KafkaUnavailable(Exception):
    """This machine cannot run Kafka; the text names what lacks."""


class KafkaStartError(RuntimeError):
    """The broker did not come up; the text ends with the tail of its log."""


def kafka_version() -> str:
    """The version that pom.xml names."""
    found = ElementTree.parse(POM).findtext("{*}properties/{*}kafka.version")
    if found is None:
        raise ValueError(f"{POM} has no kafka.version property")
    return found


def kafka_home() -> Path:
    """The directory that holds, or will hold, Kafka's `libs`: FASTPROD_KAFKA_HOME, else one in the user's cache."""
    if home := os.environ.get("FASTPROD_KAFKA_HOME"):
        return Path(home).resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).resolve() / "fastprod" / f"kafka-{kafka_version()}"


@functools.cache
def java_command() -> str:
    """Path of a Java that runs the broker. Raises KafkaUnavailable."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        raise KafkaUnavailable(f"no java in JAVA_HOME ({home})" if home else "no java on PATH")
    said = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < MIN_JAVA:
        raise KafkaUnavailable(f"Java {MIN_JAVA} or newer needed; {java} says: {said.strip()[:200]}")
    return java


def assemble() -> Path:
    """Directory with Kafka's jars, downloaded by the first call on this machine. Raises KafkaUnavailable."""
    java_command()
    libs = kafka_home() / "libs"
    if libs.is_dir():
        return libs
    try:
        libs.parent.mkdir(parents=True, exist_ok=True)
        # Two test runs at once: the second waits for the first one's jars instead of downloading its own.
        with open(libs.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not libs.is_dir():
                _download(libs)
    except OSError as error:
        raise KafkaUnavailable(f"cannot write Kafka's jars to {libs}: {error}") from error
    return libs


def _download(libs: Path) -> None:
    """Copies the jars next to `libs` and renames: `libs` is there whole or not at all."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise KafkaUnavailable(f"no mvn on PATH, and no jars in {libs}")
    with tempfile.TemporaryDirectory(prefix="download-", dir=libs.parent) as scratch:
        part = Path(scratch) / "libs"
        command = [mvn, "-B", "-q", "-Dstyle.color=never", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={part}"]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=MAVEN_TIMEOUT
            )
        except subprocess.TimeoutExpired as error:
            raise KafkaUnavailable(f"mvn took longer than {MAVEN_TIMEOUT:.0f} s") from error
        if done.returncode or not part.is_dir():
            last = "\n".join(done.stdout.strip().splitlines()[-15:])
            raise KafkaUnavailable(f"mvn failed with status {done.returncode}:\n{last}")
        part.rename(libs)


@dataclass(frozen=True)
class LogBatch:
    """One record batch as the broker stored it. Sizes and positions in bytes, the time in ms since 1970."""

    partition: int
    base_offset: int
    last_offset: int
    count: int
    base_sequence: int  # -1: sent without idempotence
    last_sequence: int
    producer_id: int  # -1: sent without idempotence
    producer_epoch: int
    is_transactional: bool
    is_control: bool
    position: int
    create_time: int  # of the newest record; the append time when the topic says so
    size: int
    compresscodec: str
    is_valid: bool


def parse_dump(text: str) -> list[LogBatch]:
    """The batches in the output of DumpLogSegments, in its order."""
    batches = []
    partition = -1
    for line in text.splitlines():
        if named := re.match(r"Dumping .*-(\d+)/\d+\.log$", line):
            partition = int(named[1])
        elif line.startswith("baseOffset: "):
            batches.append(_parse_batch(partition, dict(re.findall(r"(\w+): (\S+)", line))))
    return batches


def _parse_batch(partition: int, field: Mapping[str, str]) -> LogBatch:
    return LogBatch(
        partition=partition,
        base_offset=int(field["baseOffset"]),
        last_offset=int(field["lastOffset"]),
        count=int(field["count"]),
        base_sequence=int(field["baseSequence"]),
        last_sequence=int(field["lastSequence"]),
        producer_id=int(field["producerId"]),
        producer_epoch=int(field["producerEpoch"]),
        is_transactional=field["isTransactional"] == "true",
        is_control=field["isControl"] == "true",
        position=int(field["position"]),
        create_time=int(field.get("CreateTime") or field["LogAppendTime"]),
        size=int(field["size"]),
        compresscodec=field["compresscodec"],
        is_valid=field["isvalid"] == "true",
    )


class KafkaServer:
    """One Kafka node, broker and controller in one process, on loopback ports of its own.

    `properties` are added to the server's own and win over them. `client_config` is what a client needs besides the
    address (security settings when `properties` ask for them). Timeouts are in seconds.

    A context manager: started on entry, stopped and its data removed on exit. Topics are not created by use.
    """

    def __init__(
        self,
        properties: Mapping[str, object] | None = None,
        client_config: Mapping[str, str | int | float] | None = None,
    ) -> None:
        self.port, self.controller_port = _free_ports(2)
        self.properties = dict(properties or {})
        self.client_config = dict(client_config or {})
        self._home: Path | None = None
        self._libs: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None

    def __enter__(self) -> KafkaServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log_dir(self) -> Path:
        """Where the partitions are: `<log_dir>/<topic>-<partition>/*.log`."""
        return self._need_home() / "data"

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            quick: dict[str, str | int | float] = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100}
            quick["log_level"] = 0  # refused connections are expected here
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, **quick, **self.client_config})
        return self._admin

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 60.0) -> None:
        """Starts the broker and returns when it answers; after kill(), on the same ports with the same data.

        Raises KafkaUnavailable, or KafkaStartError after cleaning up.
        """
        if self.running:
            raise RuntimeError("this server is running")
        self._libs = assemble()
        try:
            if self._home is None:
                self._format()
            self._launch()
            self._wait_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 15.0) -> None:
        """Ends the broker, by force if `timeout` is not enough, and removes its data. Harmless when stopped."""
        self._admin = None
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

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, object] | None = None, timeout: float = 15.0
    ) -> None:
        """Creates a topic and returns when each partition has a leader. Raises KafkaException, TimeoutError."""
        strings = {key: str(value) for key, value in (config or {}).items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=strings)
        self.admin.create_topics([topic])[name].result(timeout)
        _wait_until(lambda: self._leaders(name) == partitions, timeout, f"leaders of {name}")

    def delete_topic(self, name: str, timeout: float = 15.0) -> None:
        """Deletes a topic and returns when it is no longer listed. Raises KafkaException, TimeoutError."""
        self.admin.delete_topics([name])[name].result(timeout)
        _wait_until(lambda: self._leaders(name) == 0, timeout, f"the end of {name}")

    def dump_log(self, topic: str, partition: int) -> list[LogBatch]:
        """The batches of one partition in the order of the log, without looking at the records inside."""
        return parse_dump(self.dump_text(topic, [partition]))

    def dump_logs(self, topic: str) -> dict[int, list[LogBatch]]:
        """dump_log() of all partitions in one run of the tool, which takes half a second to start."""
        found: dict[int, list[LogBatch]] = {partition: [] for partition in self._partitions(topic)}
        for batch in parse_dump(self.dump_text(topic, sorted(found))):
            found[batch.partition].append(batch)
        return found

    def dump_text(self, topic: str, partitions: Iterable[int], *options: str) -> str:
        """What Kafka's DumpLogSegments prints; options such as `--print-data-log`, `--deep-iteration`.

        Let deliveries end first: a batch that is just being written looks cut short.
        """
        segments = [path for p in partitions for path in sorted((self.log_dir / f"{topic}-{p}").glob("*.log"))]
        if not segments:
            raise FileNotFoundError(f"no log of topic {topic}")
        return self._tool(_dump_class(self._need_libs()), "--files", ",".join(map(str, segments)), *options)

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
        lines = [f"{key}={value}" for key, value in {**self._own_properties(), **self.properties}.items()]
        config = self._home / "server.properties"
        config.write_text("\n".join(lines) + "\n")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        try:
            self._tool("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config))
        except RuntimeError as error:
            raise KafkaStartError(str(error)) from error

    def _own_properties(self) -> dict[str, object]:
        controller = f"127.0.0.1:{self.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.log_dir,
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

    def _launch(self) -> None:
        home = self._need_home()
        options = ["-Xmx512m", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
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

    def _wait_ready(self, timeout: float) -> None:
        """Returns when a client can list the cluster."""
        deadline = time.monotonic() + timeout
        while not self._lists_itself():
            if not self.running:
                raise KafkaStartError(f"the broker ended before it was ready:\n{self.server_log()}")
            if time.monotonic() > deadline:
                raise KafkaStartError(f"the broker was not ready after {timeout} s:\n{self.server_log()}")
            time.sleep(0.03)

    def _lists_itself(self) -> bool:
        with socket.socket() as probe:  # far cheaper than a client whose connection is refused
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        with contextlib.suppress(KafkaException):
            return bool(self.admin.list_topics(timeout=1.0).brokers)
        return False

    def _leaders(self, topic: str) -> int:
        """How many partitions of `topic` have a leader; 0 when there is no such topic."""
        found = self.admin.list_topics(timeout=5.0).topics.get(topic)
        return sum(p.leader >= 0 for p in found.partitions.values()) if found else 0

    def _partitions(self, topic: str) -> list[int]:
        named = (re.fullmatch(re.escape(topic) + r"-(\d+)", path.name) for path in self.log_dir.iterdir())
        return sorted(int(match[1]) for match in named if match)


def _dump_class(libs: Path) -> str:
    """DumpLogSegments moved out of the core jar during 4.x."""
    moved = "org/apache/kafka/tools/DumpLogSegments"
    for jar in libs.glob("kafka-tools-[0-9]*.jar"):
        with ZipFile(jar) as entries:
            if f"{moved}.class" in entries.namelist():
                return moved.replace("/", ".")
    return "kafka.tools.DumpLogSegments"


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below those that the kernel hands to outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(20000, 32000)  # whatever a test run seeds
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


def _wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no sight of {what} in {timeout} s")
        time.sleep(0.02)
