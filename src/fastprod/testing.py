"""An embedded broker for tests: librdkafka's mock cluster, and calls that make it fail.

``python -m fastprod.testing --brokers 1 --topic orders:12`` starts one from a shell. It prints the
bootstrap servers and serves until you interrupt it.

Source: rdkafka_mock.h of librdkafka.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .librdkafka import loader as librdkafka

# The API keys of Kafka's protocol that the mock cluster answers.
API_KEYS = {
    "Produce": 0,
    "Fetch": 1,
    "ListOffsets": 2,
    "Metadata": 3,
    "OffsetCommit": 8,
    "OffsetFetch": 9,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "LeaveGroup": 13,
    "SyncGroup": 14,
    "ApiVersions": 18,
    "InitProducerId": 22,
    "AddPartitionsToTxn": 24,
    "AddOffsetsToTxn": 25,
    "EndTxn": 26,
    "TxnOffsetCommit": 28,
}
ALL_BROKERS = -1

_PREFIX = "rd_kafka_mock_"
_NAME, _INT16, _INT32, _INT = ctypes.c_char_p, ctypes.c_int16, ctypes.c_int32, ctypes.c_int
# Function after the prefix -> its arguments after the cluster. All return an error code, or nothing.
_REQUIRED: dict[str, list[Any]] = {
    "topic_create": [_NAME, _INT, _INT],
    "partition_set_leader": [_NAME, _INT32, _INT32],
    "push_request_errors_array": [_INT16, ctypes.c_size_t, ctypes.POINTER(_INT)],
    "broker_set_down": [_INT32],
    "broker_set_up": [_INT32],
    "broker_set_rtt": [_INT32, _INT],
}
_OPTIONAL: dict[str, list[Any]] = {"topic_delete": [_NAME]}  # librdkafka 2.15 and newer
_RETURN_NOTHING = {"push_request_errors_array"}
_LEGAL_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class MockCluster:
    """A Kafka cluster made of librdkafka's mock brokers, as a context manager.

    * `brokers`: the number of brokers. Their ids count from 1.
    * `topics`: maps topic names to partition counts. `None` creates `orders` with 12 partitions. If a client asks for
      an unknown topic, the cluster creates it with 4 partitions; `allow.auto.create.topics=false` in the client
      prevents that.
    * `process`: run the brokers in a child process. They then use no CPU time of the caller's process, and `pause()`
      works.

    Limits: it listens on loopback, without TLS or SASL. A partition keeps its last 5 MiB and drops what is older.
    Timestamps are LogAppendTime, but do not follow the clock. The cluster stores a repeated batch of an idempotent
    producer again.

    All methods are thread-safe. They raise `ValueError` for an unknown broker, topic or partition. They raise
    `RuntimeError` if the cluster is closed or this librdkafka has no mock cluster; its functions are not part of
    librdkafka's stable API.

    ```python
    from fastprod.testing import MockCluster

    with MockCluster(topics={"orders": 12}) as cluster, Producer(bootstrap_servers=cluster.bootstrap_servers) as mine:
        cluster.push_request_errors("Produce", [6, 6])
        mine.send("orders", b"value").result(timeout=10)
    ```
    """

    def __init__(self, brokers: int = 1, topics: Mapping[str, int] | None = None, *, process: bool = False) -> None:
        self._brokers = _ranged("brokers", brokers, 1, 1000)
        topics = {"orders": 12} if topics is None else dict(topics)
        for name, partitions in topics.items():
            _check_topic(name, partitions)
        self._lock = threading.Lock()
        self._backend: _Backend | None = _Child(brokers) if process else _Native(brokers)
        self._bootstrap_servers = self._backend.bootstrap_servers
        self._pid = self._backend.pid
        try:
            for name, partitions in topics.items():
                self.create_topic(name, partitions)
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of each broker, separated by commas."""
        return self._bootstrap_servers

    @property
    def pid(self) -> int:
        """The id of the process that the brokers run in."""
        return self._pid

    def create_topic(self, name: str, partitions: int) -> None:
        """Creates a topic. Raises `ValueError` if it exists."""
        _check_topic(name, partitions)
        self._call("topic_create", name, partitions, min(3, self._brokers))

    def delete_topic(self, name: str) -> None:
        """Removes the topic and its records. Raises `RuntimeError` if librdkafka is older than 2.15."""
        _check_topic(name, 1)
        self._call("topic_delete", name)

    def set_leader(self, topic: str, partition: int, broker_id: int) -> None:
        """Makes a broker the partition's leader. The topic is created if it does not exist."""
        _check_topic(topic, 1)
        if broker_id == -1:
            raise ValueError(
                "broker_id is -1, but a mock partition needs a leader (librdkafka crashes): use broker_down() instead"
            )
        self._call("partition_set_leader", topic, _ranged("partition", partition, 0), self._known(broker_id))

    def push_request_errors(self, api_key: int | str, errors: Sequence[int]) -> None:
        """Makes the next requests of one kind fail. Each request takes the next error code.

        * `api_key`: a name in `API_KEYS`, such as `"Produce"`, or a number.
        * `errors`: Kafka's error codes. -195 closes the connection instead of answering, and 0 lets a request pass.
        """
        if isinstance(api_key, str) and api_key not in API_KEYS:
            raise ValueError(f"unknown request {api_key!r}: use one of {', '.join(API_KEYS)}")
        number = API_KEYS[api_key] if isinstance(api_key, str) else _ranged("api_key", api_key, 0, 2**15 - 1)
        codes = [_ranged("error code", code, -(2**15), 2**15 - 1) for code in errors]
        self._call("push_request_errors_array", number, len(codes), codes)

    def set_round_trip_time(self, broker_id: int, milliseconds: int) -> None:
        """Delays each answer of a broker by some milliseconds. `ALL_BROKERS` stands for every broker."""
        self._call("broker_set_rtt", self._known_or_all(broker_id), _ranged("milliseconds", milliseconds, 0))

    def broker_down(self, broker_id: int) -> None:
        """Closes a broker's connections and refuses new ones. Leaders do not move. Also takes `ALL_BROKERS`."""
        self._call("broker_set_down", self._known_or_all(broker_id))

    def broker_up(self, broker_id: int) -> None:
        """Lets a broker accept connections again. Also takes `ALL_BROKERS`."""
        self._call("broker_set_up", self._known_or_all(broker_id))

    def pause(self) -> None:
        """Stops the cluster's process (SIGSTOP). Connections stay open, and no broker answers. Needs `process=True`."""
        with self._lock:
            self._child().pause()

    def resume(self) -> None:
        """Lets a paused cluster continue."""
        with self._lock:
            self._child().resume()

    def close(self) -> None:
        """Ends the brokers and discards their records. A second call does nothing."""
        with self._lock:
            backend, self._backend = self._backend, None
        if backend:
            backend.close()

    def __enter__(self) -> MockCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self._bootstrap_servers if self._backend else "closed"
        return f"<MockCluster {state}>"

    def _call(self, name: str, *arguments: Any) -> None:
        with self._lock:
            if self._backend is None:
                raise RuntimeError("the mock cluster is closed")
            self._backend.call(name, *arguments)

    def _child(self) -> _Child:
        if not isinstance(self._backend, _Child):
            raise RuntimeError("only a running MockCluster(process=True) can be paused and resumed")
        return self._backend

    def _known(self, broker_id: int) -> int:
        return _ranged("broker_id", broker_id, 1, self._brokers)

    def _known_or_all(self, broker_id: int) -> int:
        return broker_id if broker_id == ALL_BROKERS else self._known(broker_id)


class _Backend(Protocol):
    bootstrap_servers: str
    pid: int

    def call(self, name: str, *arguments: Any) -> None: ...

    def close(self) -> None: ...


class _Native:
    """The cluster in this process, through ctypes."""

    def __init__(self, brokers: int) -> None:
        self.pid = os.getpid()
        self._functions = {name: _resolve(name, arguments) for name, arguments in _REQUIRED.items()}
        for name, arguments in _OPTIONAL.items():
            with contextlib.suppress(RuntimeError):
                self._functions[name] = _resolve(name, arguments)
        new = _symbol(_PREFIX + "cluster_new", ctypes.c_void_p, ctypes.c_void_p, _INT)
        bootstraps = _symbol(_PREFIX + "cluster_bootstraps", ctypes.c_char_p, ctypes.c_void_p)
        self._destroy_cluster = _symbol(_PREFIX + "cluster_destroy", None, ctypes.c_void_p)
        self._destroy_carrier = _symbol("rd_kafka_destroy", None, ctypes.c_void_p)
        self._carrier = _new_carrier()
        self._cluster = new(self._carrier, brokers)
        if not self._cluster:
            self._destroy_carrier(self._carrier)
            raise RuntimeError(f"librdkafka cannot create a mock cluster of {brokers} brokers")
        self.bootstrap_servers = bootstraps(self._cluster).decode()

    def call(self, name: str, *arguments: Any) -> None:
        if name not in self._functions:
            raise RuntimeError(_missing(_PREFIX + name))
        code = self._functions[name](self._cluster, *map(_to_c, arguments))
        if code:
            raise ValueError(f"the mock cluster refused {name}{arguments}: {librdkafka.describe(code)}")

    def close(self) -> None:
        if os.getpid() != self.pid:
            return  # a forked child has no brokers: their threads stayed in the parent
        self._destroy_cluster(self._cluster)
        self._destroy_carrier(self._carrier)  # last: the cluster uses it until it is destroyed


class _Child:
    """The cluster in a child process. Each call and each answer is a JSON line. The child ends when the pipe closes."""

    def __init__(self, brokers: int) -> None:
        self._owner = os.getpid()
        self._paused = False
        # The child must find the same package, and no other module, than this process does.
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastprod.testing", "--control", "--brokers", str(brokers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C must not reach the child: the caller may still flush records to it
        )
        self.pid = self._process.pid
        try:
            self.bootstrap_servers: str = self._answer()
        except BaseException:
            self.close()
            raise

    def call(self, name: str, *arguments: Any) -> None:
        if self._paused:
            raise RuntimeError(f"the mock cluster is paused and cannot do {name}: resume() it first")
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # _answer() then raises a clearer error
            print(json.dumps([name, *arguments]), file=self._process.stdin, flush=True)
        self._answer()

    def pause(self) -> None:
        if self._paused:
            return
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # until its last thread has stopped, some time after the signal
        self._paused = True

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._paused = False

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        if self._paused:
            self.resume()
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the mock cluster's process ended, exit code {self._process.wait(5)}")
        answer = json.loads(line)
        if "error" in answer:
            raise {"ValueError": ValueError}.get(answer["error"], RuntimeError)(answer["message"])
        return answer["result"]


def _resolve(name: str, arguments: list[Any]) -> Any:
    return _symbol(_PREFIX + name, None if name in _RETURN_NOTHING else _INT, ctypes.c_void_p, *arguments)


def _symbol(name: str, result: Any, *arguments: Any) -> Any:
    try:
        function = librdkafka.load()[name]  # a function object of our own, unlike the attribute
    except AttributeError:
        raise RuntimeError(_missing(name)) from None
    function.restype, function.argtypes = result, list(arguments)
    return function


def _missing(name: str) -> str:
    return (
        f"MockCluster needs {name}, which librdkafka {librdkafka.version()} lacks: "
        "install another release of confluent-kafka"
    )


def _new_carrier() -> Any:
    """The client handle that a mock cluster needs. It sends nothing."""
    conf = _symbol("rd_kafka_conf_new", ctypes.c_void_p)()
    text = ctypes.create_string_buffer(512)
    conf_set = _symbol("rd_kafka_conf_set", _INT, ctypes.c_void_p, _NAME, _NAME, ctypes.c_char_p, ctypes.c_size_t)
    conf_set(conf, b"log_level", b"0", text, len(text))  # it would warn that it has no bootstrap servers
    new = _symbol("rd_kafka_new", ctypes.c_void_p, _INT, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
    producer = 0
    handle = new(producer, conf, text, len(text))
    if not handle:
        raise RuntimeError(f"librdkafka cannot create a client for the mock cluster: {text.value.decode()}")
    return handle


def _to_c(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode()
    return (_INT * len(value))(*value) if isinstance(value, list) else value


def _ranged(name: str, value: int, low: int, high: int = 2**31 - 1) -> int:
    # ctypes truncates a larger number silently.
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, but must be a whole number from {low} to {high}")
    return value


def _check_topic(name: str, partitions: int) -> None:
    if not _LEGAL_TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name!r} is not a topic name: use up to 249 letters, digits, '.', '_' and '-'")
    _ranged(f"the number of partitions of {name}", partitions, 1, 100_000)


def _topic_argument(text: str) -> tuple[str, int]:
    name, _, partitions = text.partition(":")
    try:
        _check_topic(name, int(partitions))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:PARTITIONS such as orders:12 ({error})") from None
    return name, int(partitions)


def _serve_pipe(brokers: int) -> None:
    """Answers the calls of a ``_Child`` until it closes the pipe."""

    def answer(**fields: object) -> None:
        print(json.dumps(fields), flush=True)

    try:
        native = _Native(brokers)
    except Exception as error:
        answer(error=type(error).__name__, message=str(error))
        return
    answer(result=native.bootstrap_servers)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            native.call(name, *arguments)
            answer(result=None)
        except Exception as error:
            answer(error=type(error).__name__, message=str(error))
    native.close()


def _serve_until_interrupted(brokers: int, topics: Mapping[str, int]) -> None:
    with MockCluster(brokers, topics) as cluster, contextlib.suppress(KeyboardInterrupt):
        print(cluster.bootstrap_servers, flush=True)
        threading.Event().wait()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fastprod.testing", description=__doc__.partition("\n")[0])
    parser.add_argument("--brokers", type=int, default=1, metavar="N")
    parser.add_argument("--topic", type=_topic_argument, action="append", default=[], metavar="NAME:PARTITIONS")
    parser.add_argument("--control", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.control:
        _serve_pipe(arguments.brokers)
        return
    try:
        _serve_until_interrupted(arguments.brokers, dict(arguments.topic))
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    _main()
