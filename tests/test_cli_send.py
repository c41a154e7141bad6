import argparse
import os
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest
from confluent_kafka import Consumer, TopicPartition

import fastprod
from fastprod.cli import connection, main, report, send, tally
from fastprod.errors import (
    AuthorizationError,
    BufferExhaustedError,
    DeliveryError,
    KafkaError,
    RecordTooLargeError,
)
from fastprod.librdkafka import loader as librdkafka
from fastprod.records import PartitionInfo, RecordMetadata
from fastprod.testing import MockCluster
from tests.conftest import READER, eventually


class FakeFuture:
    def __init__(self, outcome, count=1):
        self.outcome = outcome
        self.count = count

    def done(self):
        return self.outcome is not None

    def result(self, timeout=None):
        assert self.outcome is not None, "result() would block"
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class FakeProducer:
    """Keeps what it is sent, in partition (number of records) % 3. ``script``: value -> what happens to it.

    An exception instance is the record's outcome, a class is raised by send(); None settles at flush().
    """

    def __init__(self, script=None, ready=None):
        self.script = script or {}
        self.ready = ready
        self.records = []
        self.pending = []
        self.calls = []

    def __call__(self, config):
        self.config = config
        return self

    def wait_ready(self, timeout):
        if self.ready:
            raise self.ready

    def partitions_for(self, topic):
        return [PartitionInfo(topic, number, 1) for number in range(3)]

    def send(self, topic, value, key):
        outcome = self.script.get(value, "good")
        if isinstance(outcome, type):
            raise outcome("cannot be sent")
        good = RecordMetadata(topic, len(self.records) % 3, 0, 0, -1 if key is None else len(key), len(value))
        self.records.append((key, value))
        if outcome is None:
            self.pending.append((FakeFuture(None), good))
            return self.pending[-1][0]
        return FakeFuture(good if outcome == "good" else outcome)

    def flush(self, timeout=None):
        self.calls.append(("flush", timeout))
        outcome = self.script.get("flush")
        if outcome:
            raise outcome
        for future, good in self.pending:
            future.outcome = good

    def close(self, timeout=None):
        self.calls.append(("close", timeout))


def parse(*arguments):
    parser = argparse.ArgumentParser()
    send.add_parser(parser.add_subparsers())
    return parser.parse_args(["send", "--topic", "t", *arguments])


def run(producer, *arguments):
    return send.run(parse("--bootstrap-servers", "host:1", *arguments), producer_factory=producer)


def test_everything_is_acknowledged(write, capsys):
    producer = FakeProducer()
    path = write("a.csv", "id,x\n1,a\n,b\n3,c\n4,d\n")
    assert run(producer, path, "--key", "id", "-X", "linger.ms=5", "-X", "acks=all") == 0
    assert producer.config == {"bootstrap.servers": "host:1", "linger.ms": "5", "acks": "all"}
    assert [key for key, _ in producer.records] == [b"1", None, b"3", b"4"]
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0] == "t: 4 records acknowledged, 0 failed"
    size = sum(len(key or b"") + len(value) for key, value in producer.records)
    assert lines[1].startswith(f"  {size} bytes in 0.0") and lines[1].endswith("MB/s")
    assert lines[2] == "  partitions: 3; records in each: min 1, mean 1.3, max 2"
    assert [line.split() for line in lines[3:]] == [["0", "2", "#" * 40], ["1", "1", "#" * 20], ["2", "1", "#" * 20]]
    assert producer.calls == [("flush", None), ("close", 0)]


def test_an_option_may_be_repeated(write):
    producer = FakeProducer()
    assert run(producer, write("a.txt", "1\n"), "-X", "linger.ms=5", "-X", "linger.ms=5") == 0
    assert producer.config["linger.ms"] == "5"


def test_several_files(write):
    producer = FakeProducer()
    assert run(producer, write("a.txt", "1\n2\n"), write("b.txt", "3")) == 0
    assert [value for _, value in producer.records] == [b"1", b"2", b"3"]


def test_an_empty_file_is_no_error(write, capsys):
    assert run(FakeProducer(), write("a.txt", "")) == 0
    assert "t: 0 records acknowledged, 0 failed" in capsys.readouterr().out


def test_records_that_settle_late_are_counted(write, capsys):
    assert run(FakeProducer({b"2": None}), write("a.txt", "1\n2\n3\n")) == 0
    assert "t: 3 records acknowledged, 0 failed" in capsys.readouterr().out


def test_failed_records_are_reported_with_their_reasons(write, capsys):
    script = {b"2": DeliveryError("no luck", code=7), b"3": DeliveryError("no luck either", code=7)}
    script |= {b"4": RecordTooLargeError, "flush": DeliveryError("2 records failed")}
    path = write("a.txt", "1\n2\n3\n4\n5\n")
    assert run(FakeProducer(script), path) == 1
    out = capsys.readouterr().out
    assert "t: 2 records acknowledged, 3 failed" in out
    assert "  2 failed, DeliveryError: no luck\n" in out
    assert f"  1 failed, RecordTooLargeError: {path}:4: cannot be sent\n" in out


def test_it_stops_when_no_record_can_succeed(write, capsys, monkeypatch):
    monkeypatch.setattr(tally, "LOOK_RECORDS", 1)
    script = {b"2": AuthorizationError("not permitted", code=29)}
    assert run(FakeProducer(script), write("a.txt", "1\n2\n3\n")) == 1
    out, err = capsys.readouterr()
    assert "t: 1 records acknowledged, 1 failed" in out and "AuthorizationError: not permitted" in out
    assert err == "fastprod send: stopped: further records would fail in the same way\n"


def test_it_stops_where_sending_fails(write, capsys):
    path = write("a.txt", "1\n2\n3\n")
    assert run(FakeProducer({b"2": BufferExhaustedError}), path) == 1
    out, err = capsys.readouterr()
    assert "t: 1 records acknowledged, 0 failed" in out
    assert err == f"fastprod send: stopped at {path}:2: cannot be sent\n"


def test_malformed_input_stops_it_and_what_was_sent_is_reported(write, capsys):
    path = write("a.ndjson", "1\n2\n{\n")
    producer = FakeProducer({b"2": None})
    assert run(producer, path) == 1
    out, err = capsys.readouterr()
    assert "t: 2 records acknowledged, 0 failed" in out
    assert err.startswith(f"fastprod send: stopped: {path}:3: not JSON: ")
    assert producer.calls == [("flush", None), ("close", 0)]


def test_an_interrupt_reports_what_was_acknowledged(write, capsys):
    producer = FakeProducer({b"2": None, b"3": KeyboardInterrupt})
    assert run(producer, write("a.txt", "1\n2\n3\n4\n")) == 130
    out, err = capsys.readouterr()
    assert "t: 2 records acknowledged, 0 failed" in out
    assert err == "fastprod send: interrupted; waiting up to 10 s for pending records\n"
    assert producer.calls == [("flush", send.INTERRUPT_TIMEOUT), ("close", 0)]


def test_an_interrupt_does_not_wait_for_ever(write, capsys):
    producer = FakeProducer({b"2": None, b"3": KeyboardInterrupt, "flush": TimeoutError("not settled")})
    assert run(producer, write("a.txt", "1\n2\n3\n4\n")) == 130
    out = capsys.readouterr().out
    assert "t: 1 records acknowledged, 0 failed" in out
    assert "1 records were still pending; they may have been written" in out


def test_the_number_of_futures_is_bounded(write, monkeypatch):
    monkeypatch.setattr(tally, "LOOK_RECORDS", 10)
    monkeypatch.setattr(tally, "MAX_OUTSTANDING", 50)
    most = 0

    class Slow(FakeProducer):
        """Settles a record when its result is asked for."""

        def send(self, topic, value, key):
            nonlocal most
            self.open = getattr(self, "open", 0) + 1
            most = max(most, self.open)
            future = super().send(topic, value, key)
            good, future.outcome = future.outcome, None

            def result(timeout=None):
                self.open -= future.outcome is None
                future.outcome = good
                return good

            future.result = result
            self.pending.append((future, good))
            return future

    assert run(Slow(), write("a.txt", "x\n" * 1000)) == 0
    assert most <= 60


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.txt", "--embedded"], "No such file or directory: 'none.txt'"),
        (["-"], "no brokers are given: use --bootstrap-servers HOST:PORT,... or --embedded"),
        (["-", "--embedded", "--bootstrap-servers", "h:1"], "exclude each other"),
        (["-", "--bootstrap-servers", "h:1", "-X", "bootstrap.servers=h:2"], "exclude each other"),
        (["-", "--bootstrap-servers", "h:1", "--partitions", "3"], "--partitions needs --embedded"),
        (["-", "--bootstrap-servers", "h:1", "-X", "linger.ms"], "-X linger.ms is not KEY=VALUE"),
        (["-", "--embedded", "--key", "id"], "<stdin> has the format lines, so it has no field 'id' for the key"),
        (["-", "--embedded", "--partitions", "0"], "the number of partitions of t is 0"),
        (["-", "--bootstrap-servers", "h:1", "-X", "linger.mss=1"], "linger.mss"),
        (
            ["o.xls.gz", "--embedded"],
            "cannot infer the format of o.xls.gz from the suffix '.xls': it is a workbook; save the sheet as CSV\n",
        ),
        (
            ["-", "--embedded", "-X", "transactional.id=a"],
            "-X transactional.id=a: this command does not use transactions; leave transactional.id out\n",
        ),
        (
            ["-", "--embedded", "-X", "transactional_id=a"],
            "-X transactional_id=a: this command does not use transactions",
        ),
        (
            ["-", "--embedded", "-X", "linger.ms=5", "-X", "linger.ms=6"],
            "-X linger.ms is given twice, with different values: 5 and 6; leave one out\n",
        ),
        (
            ["-", "--embedded", "-X", "linger.ms=5", "-X", "linger_ms=6"],
            "linger.ms is given twice, by linger.ms and by linger_ms, with different values: 5.0 and 6.0\n",
        ),
        (
            ["-", "--embedded", "-X", "sasl.password=a", "-X", "sasl.password=b"],
            "-X sasl.password is given twice, with different values: [hidden] and [hidden]; leave one out\n",
        ),
    ],
)
def test_usage_errors(arguments, complaint, capsys):
    assert main(["send", "--topic", "t", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("fastprod send: ") and complaint in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["send"],
        ["send", "-"],
        ["send", "-", "--topic", "t", "--format", "xml"],
        ["send", "-", "--topic", "t", "--embedded", "--partition", "3"],  # not short for --partitions
    ],
)
def test_argparse_errors(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: fastprod" in capsys.readouterr().err


def test_the_version_is_that_of_the_package_and_of_librdkafka(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    versions = f"fastprod {metadata.version('fastprod')}, librdkafka {librdkafka.version()}"
    assert capsys.readouterr().out == versions + "\n"
    assert fastprod.__version__ == metadata.version("fastprod") and not hasattr(fastprod, "no_such_name")


def test_input_without_a_first_record_is_a_usage_error(write, capsys):
    producer = FakeProducer()
    assert run(producer, write("a.ndjson", '{"a": 1}\n'), "--key", "b") == 2
    out, err = capsys.readouterr()
    assert out == "" and "a.ndjson:1" in err and err.count("\n") == 1 and not producer.records


@pytest.mark.parametrize("kind", [KafkaError, TimeoutError, ValueError])
def test_nothing_is_sent_when_it_cannot_connect(write, capsys, kind):
    producer = FakeProducer(ready=kind("no such host"))
    assert run(producer, write("a.txt", "1\n")) == 2
    assert capsys.readouterr() == ("", "fastprod send: no such host\n")
    assert producer.calls == [("close", 0)] and not producer.records


def test_it_says_that_it_waits_for_a_broker(write, capsys, monkeypatch):
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.01)
    said = []

    class Slow(FakeProducer):
        def wait_ready(self, timeout):
            eventually(lambda: said.append(capsys.readouterr().err) or "".join(said))

    assert run(Slow(), write("a.txt", "1\n")) == 0
    assert "".join(said) == "fastprod send: waiting up to 30 s for a broker\n"


def test_an_interrupt_while_connecting(write, capsys):
    producer = FakeProducer(ready=KeyboardInterrupt())
    assert run(producer, write("a.txt", "1\n")) == 130
    assert capsys.readouterr() == ("", "fastprod send: interrupted\n")
    assert producer.calls == [("close", 0)]


def test_plain_progress(write, capsys, monkeypatch):
    monkeypatch.setattr(report, "PLAIN_SECONDS", 0.01)
    monkeypatch.setattr(FakeProducer, "flush", lambda self, timeout=None: time.sleep(0.2))
    assert run(FakeProducer(), write("a.txt", "1\n"), "--progress", "always") == 0
    assert "fastprod send: 0 records acknowledged, 0 failed, 100% of the input read\n" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["auto", "never"])
def test_no_progress_without_a_terminal(write, capsys, monkeypatch, mode):
    monkeypatch.setattr(report, "PLAIN_SECONDS", 0.001)
    monkeypatch.setattr(FakeProducer, "flush", lambda self, timeout=None: time.sleep(0.05))
    assert run(FakeProducer(), write("a.txt", "1\n"), "--progress", mode) == 0
    assert capsys.readouterr().err == ""


def test_the_progress_bar(write, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(FakeProducer, "flush", lambda self, timeout=None: time.sleep(0.3))
    assert run(FakeProducer(), write("a.txt", "1\n")) == 0
    assert "100%" in capsys.readouterr().err


@pytest.mark.mock
def test_failures_of_the_broker_are_reported(write, capsys):
    with MockCluster(topics={"t": 1}) as cluster:
        cluster.push_request_errors("Produce", [10, 10])  # MSG_SIZE_TOO_LARGE, whether in one batch or two
        path = write("a.txt", "1\n2\n")
        assert main(["send", path, "--topic", "t", "--bootstrap-servers", cluster.bootstrap_servers]) == 1
    out = capsys.readouterr().out
    assert "t: 0 records acknowledged, 2 failed\n" in out
    assert "  2 failed, RecordTooLargeError: a record for t [0] was not acknowledged: " in out


@pytest.mark.mock
def test_an_unknown_topic_is_a_usage_error(write, capsys):
    with MockCluster(topics={"t": 1}) as cluster:
        path, soon = write("a.txt", "1\n2\n"), ["-X", "retry.backoff.ms=50"]
        assert main(["send", path, "--topic", "other", "--bootstrap-servers", cluster.bootstrap_servers, *soon]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fastprod send: no broker knows the topic 'other'")


@pytest.mark.mock
def test_ctrl_c():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with MockCluster(topics={"t": 1}) as cluster:
        servers = cluster.bootstrap_servers
        command = [sys.executable, "-m", "fastprod", "send", "-", "--topic", "t", "--bootstrap-servers", servers]
        with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            process.stdin.write("1\n2\n")
            process.stdin.flush()
            wait_for_records(servers, 2)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert "t: 2 records acknowledged, 0 failed\n" in process.stdout.read()
            assert process.stderr.read().startswith("fastprod send: interrupted; waiting up to 10 s")


def wait_for_records(servers, count):
    consumer = Consumer({"bootstrap.servers": servers, **READER})
    consumer.assign([TopicPartition("t", 0, 0)])
    for _ in range(count):
        assert consumer.poll(20).error() is None
    consumer.close()


def test_a_reader_of_the_summary_that_has_gone_changes_nothing(tmp_path):
    source = tmp_path / "lines.txt"
    source.write_text("one\ntwo\n")
    command = [sys.executable, "-m", "fastprod", "send", str(source), "--topic", "t", "--embedded"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0
    assert "BrokenPipeError" not in done.stderr
