"""fastprod send as a process: whatever ends it, what was read is delivered and the summary printed."""

import contextlib
import fcntl
import gzip
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pyarrow as pa
import pytest
from pyarrow import ipc

from fastprod.cli import main, send, stop
from fastprod.testing import MockCluster
from tests.conftest import eventually, pausing, signalled
from tests.test_cli_send import FakeProducer, parse, wait_for_records

pytestmark = pytest.mark.mock
PIPE = subprocess.PIPE
LONG = 60  # seconds; nothing here takes that long
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture
def cluster():
    with MockCluster(topics={"t": 1}, process=True) as cluster:
        yield cluster


@contextlib.contextmanager
def sending(cluster, *arguments, **streams):
    """A process; it is killed if the test does not end it."""
    command = [sys.executable, "-m", "fastprod", "send", *arguments, "--topic", "t"]
    command += ["--bootstrap-servers", cluster.bootstrap_servers]
    streams = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, "env": ENVIRONMENT, **streams}
    with subprocess.Popen(command, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process):
    """Exit code, standard output and standard error; standard input stays open until it has ended."""
    texts = {}
    threads = []
    for name, stream in (("out", process.stdout), ("err", process.stderr)):
        if stream is not None:
            threads.append(threading.Thread(target=lambda n=name, s=stream: texts.update({n: s.read().decode()})))
            threads[-1].start()
    code = process.wait(LONG)
    for thread in threads:
        thread.join()
    return code, texts.get("out", ""), texts.get("err", "")


def unread(stream):
    """How many bytes a pipe or terminal holds."""
    return struct.unpack("i", fcntl.ioctl(stream, termios.FIONREAD, bytes(4)))[0]


def give(process, data):
    """Writes to its standard input and waits until it has read that."""
    process.stdin.write(data)
    process.stdin.flush()
    assert eventually(lambda: not unread(process.stdin), LONG)


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_signal_delivers_the_lines_that_linger(cluster, number):
    with sending(cluster, "-", "-X", "linger.ms=100000") as process:
        give(process, b"line\n" * 200)
        process.send_signal(number)
        code, out, err = end(process)
    assert code == CODES[number]
    assert "t: 200 records acknowledged, 0 failed\n" in out
    assert "waiting up to 10 s for pending records\n" in err
    assert err.endswith("fastprod send: the input was read up to <stdin>:200\n")
    assert "Traceback" not in err


def test_a_signal_delivers_what_the_pipe_holds(cluster):
    """The process is stopped, so that it can have read nothing of the second part when the signal comes."""
    with sending(cluster, "-") as process:
        give(process, b"line\n")
        wait_for_records(cluster.bootstrap_servers, 1)
        process.send_signal(signal.SIGSTOP)
        process.stdin.write(b"line\n" * 5000)
        process.stdin.flush()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        code, out, _ = end(process)
    assert code == 143 and "t: 5,001 records acknowledged, 0 failed\n" in out


@pytest.mark.parametrize(
    ("arguments", "data", "count", "line"),
    [
        ([], b"one\ntwo\nthr", 2, 2),
        (["--format", "ndjson"], b'{"a": 1}\n{"a":', 1, 1),
        (["--format", "csv"], b'a;b\n1;2\n3;"4\n', 1, 3),
        (["--format", "csv"], b"a;b", 0, None),
        (["--format", "csv"], b"a;b\n", 0, None),
        ([], gzip.compress(b"one\ntwo\nthree\n" * 1000, mtime=0)[:-12], 2500, None),
    ],
)
def test_an_unfinished_record_is_left_out(cluster, arguments, data, count, line):
    with sending(cluster, "-", *arguments) as process:
        give(process, data)
        process.send_signal(signal.SIGTERM)
        code, out, err = end(process)
    assert code == 143
    acknowledged = int(out.split()[1].replace(",", ""))
    assert acknowledged >= count and ", 0 failed\n" in out
    if line:
        assert acknowledged == count
        assert f"the input was read up to <stdin>:{line}; its last record is incomplete and was not sent\n" in err


def test_a_signal_ends_the_wait_for_input_without_interrupting_it():
    """As when it comes just before select(). Here another thread gets it."""
    reader, writer = os.pipe()
    early = threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
    late = threading.Timer(20, os.write, (writer, b"too late"))
    with open(reader, "rb", 0), open(writer, "wb", 0), stop.Stop() as asked:
        early.start()
        late.start()
        asked.wait_readable(reader)
        late.cancel()
        assert asked.number == signal.SIGTERM and not unread(reader)
        early.join()


def test_another_signal_does_not_end_the_wait_for_input():
    reader, writer = os.pipe()
    with open(reader, "rb", 0), open(writer, "wb", 0), stop.Stop() as asked, signalled(lambda: None, 0.05):
        timer = threading.Timer(0.3, os.write, (writer, b"x"))
        timer.start()
        asked.wait_readable(reader)
        assert os.read(reader, 2) == b"x" and asked.number == 0
        timer.join()


def test_a_signal_while_it_connects(tmp_path):
    with MockCluster(topics={"t": 1}, process=True) as cluster, pausing(cluster), sending(cluster, "-") as process:
        assert process.stderr.readline() == b"fastprod send: waiting up to 30 s for a broker\n"
        process.send_signal(signal.SIGTERM)
        assert end(process) == (143, "", "fastprod send: ended by SIGTERM\n")


def test_a_signal_while_a_fifo_waits_for_its_writer(cluster, tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    source = tmp_path / "b.txt"
    source.write_text("1\n")
    with sending(cluster, str(source), str(tmp_path / "a.txt")) as process:
        wait_for_records(cluster.bootstrap_servers, 1)
        process.send_signal(signal.SIGTERM)
        code, out, _ = end(process)
    assert code == 143 and "t: 1 records acknowledged, 0 failed\n" in out


FULL = ("-X", "buffer.memory=100000", "-X", "batch.size=10000")


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_signal_while_it_waits_for_memory(cluster, number):
    """All that was read arrives once the brokers answer again."""
    with sending(cluster, "-", *FULL) as process:
        with pausing_once_connected(cluster, process):
            data = b"x" * 999 + b"\n"
            writer = threading.Thread(target=write_all, args=(process.stdin, data * 1000))
            writer.start()
            assert eventually(lambda: blocked(process), LONG)
            process.send_signal(number)
            assert process.stderr.readline().endswith(b"waiting up to 10 s for pending records\n")
        code, out, err = end(process)
        process.stdin.close()
        writer.join()
    assert code == CODES[number]
    acknowledged = int(out.split()[1].replace(",", ""))
    assert acknowledged > 1 and ", 0 failed\n" in out and "given up" not in out
    assert f"the input was read up to <stdin>:{acknowledged}" in err


def blocked(process):
    """Whether it has stopped reading, as far as one can see from outside."""
    before = unread(process.stdin)
    time.sleep(0.3)
    return unread(process.stdin) == before > 50_000


@contextlib.contextmanager
def pausing_once_connected(cluster, process):
    give(process, b"first\n")
    wait_for_records(cluster.bootstrap_servers, 1)
    with pausing(cluster):
        yield


def write_all(stream, data):
    with contextlib.suppress(OSError, ValueError):
        stream.write(data)
        stream.flush()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [(), FULL], ids=["flush", "memory"])
def test_a_second_signal_hurries(cluster, number, options):
    with sending(cluster, "-", *options) as process, pausing_once_connected(cluster, process):
        writer = threading.Thread(target=write_all, args=(process.stdin, (b"x" * 999 + b"\n") * 1000))
        writer.start()
        if options:
            assert eventually(lambda: blocked(process), LONG)
        else:
            writer.join()
            assert eventually(lambda: not unread(process.stdin), LONG)
        process.send_signal(number)
        process.stderr.readline()
        process.send_signal(number)
        code, out, err = end(process)
        writer.join()
    assert code == CODES[number]
    assert "t: 1 records acknowledged, 0 failed\n" in out
    assert "records were still pending; they may have been written\n" in out
    assert "Traceback" not in err


def test_a_second_signal_hurries_once_the_input_has_ended(cluster):
    with sending(cluster, "-") as process, pausing_once_connected(cluster, process):
        give(process, b"second\n")
        process.stdin.close()
        process.send_signal(signal.SIGTERM)
        process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        code, out, _ = end(process)
    assert code == 143 and "t: 1 records acknowledged, 0 failed\n  1 records were still pending" in out


def test_a_signal_delivers_the_batches_of_an_arrow_stream(cluster):
    """A batch that came in part is left out."""
    batch = pa.record_batch({"value": [b"x" * 100] * 50})
    out = io.BytesIO()
    with ipc.new_stream(out, batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
        whole = out.tell()
        writer.write_batch(batch)
    for extra in (0, 100):
        with sending(cluster, "-", "--format", "arrow") as process:
            give(process, out.getvalue()[: whole + extra])
            process.send_signal(signal.SIGTERM)
            code, text, err = end(process)
        assert code == 143 and "t: 100 records acknowledged, 0 failed\n" in text
        assert err.count("\n") == 2 and "the input was read up to <stdin>:100" in err


def test_a_second_hang_up_does_not_hurry(cluster):
    with sending(cluster, "-") as process:
        with pausing_once_connected(cluster, process):
            give(process, b"second\n")
            for _ in range(3):
                process.send_signal(signal.SIGHUP)
            process.stderr.readline()
            process.send_signal(signal.SIGHUP)
        code, out, _ = end(process)
    assert code == 129 and "t: 2 records acknowledged, 0 failed\n" in out


def test_the_wait_after_a_signal_has_an_end(cluster):
    with sending(cluster, "-", *FULL) as process, pausing_once_connected(cluster, process):
        writer = threading.Thread(target=write_all, args=(process.stdin, (b"x" * 999 + b"\n") * 1000))
        writer.start()
        assert eventually(lambda: blocked(process), LONG)
        process.send_signal(signal.SIGTERM)
        code, out, _ = end(process)
        writer.join()
    assert code == 143 and "records were still pending" in out


def test_an_ignored_signal_stays_ignored(cluster):
    """As under nohup."""
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with sending(cluster, "-", **ignore) as process:
        give(process, b"1\n")
        process.send_signal(signal.SIGHUP)
        give(process, b"2\n")
        process.stdin.close()
        code, out, err = end(process)
    assert (code, err) == (0, "") and "t: 2 records acknowledged, 0 failed\n" in out


@pytest.mark.parametrize("out_too", [False, True])
def test_a_terminal_that_hangs_up(cluster, tmp_path, out_too):
    """It gets SIGHUP, and what it reads from and writes to is gone."""
    ours, theirs = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with (tmp_path / "out").open("wb") as out:
        os.write(ours, b"1\n2\n")
        assert eventually(lambda: unread(theirs) == 4, LONG)
        streams = {"stdin": theirs, "stdout": theirs if out_too else out, "stderr": theirs}
        streams["env"] = {**ENVIRONMENT, "TERM": "xterm"}  # with a bar
        with sending(cluster, "-", "-X", "linger.ms=100000", preexec_fn=take_terminal, **streams) as process:
            assert eventually(lambda: unread(theirs) == 0, LONG)
            os.close(ours)
            assert process.wait(LONG) == 129
            os.close(theirs)
    wait_for_records(cluster.bootstrap_servers, 2)
    if not out_too:
        assert "t: 2 records acknowledged, 0 failed\n" in (tmp_path / "out").read_text()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", "3>&-", "<&-"])
def test_output_that_is_closed_or_full_changes_nothing(cluster, tmp_path, closed):
    source = tmp_path / "a.txt"
    source.write_text("1\n2\n")
    command = f"{sys.executable} -m fastprod send {source} --topic t --bootstrap-servers {cluster.bootstrap_servers}"
    command += " --progress always"
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, env=ENVIRONMENT, timeout=LONG)
    assert done.returncode == 0
    full = b"fastprod send: the summary cannot be written: [Errno 28] No space left on device\n"
    assert done.stderr == (full if closed == ">/dev/full" else b"")
    if ">" not in closed.replace("2>", "").replace("3>", ""):
        assert done.stdout.startswith(b"t: 2 records acknowledged, 0 failed\n")
    else:
        assert done.stdout == b""
    wait_for_records(cluster.bootstrap_servers, 2)


@pytest.mark.parametrize(
    "arguments", ["--version", "--help", "send --help", "--bogus", "send none --topic t --embedded"]
)
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">/dev/full", "2>/dev/full"])
def test_what_only_prints_ends_well_without_output(arguments, closed):
    command = f"{sys.executable} -m fastprod {arguments} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=ENVIRONMENT, timeout=LONG)
    fails = "help" not in arguments and "version" not in arguments
    assert done.returncode == (2 if fails else 0)
    assert bool(done.stderr) == (fails and "2>" not in closed)
    assert bool(done.stdout) == (not fails and "2>" in closed)


def test_messages_do_not_go_to_standard_output_when_standard_error_is_closed(tmp_path):
    command = f"{sys.executable} -m fastprod send {tmp_path}/none --topic t --embedded 2>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=ENVIRONMENT, timeout=LONG)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize("arguments", ["-", "- --format csv", "- --format arrow", "- -"])
def test_standard_input_that_is_closed_is_a_usage_error(arguments):
    command = f"{sys.executable} -m fastprod send {arguments} --topic t --embedded <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, timeout=LONG)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fastprod send: standard input is closed, so - has no records\n"


def test_standard_input_that_cannot_be_read(tmp_path):
    command = f"{sys.executable} -m fastprod send - --topic t --embedded 0>{tmp_path}/x"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, timeout=LONG)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fastprod send: <stdin>: [Errno 9] Bad file descriptor\n"


def test_a_reader_of_standard_error_that_has_gone_changes_nothing(cluster):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone, sending(cluster, "-", "--progress", "always", stderr=gone) as process:
        give(process, b"1\n2\n")
        process.send_signal(signal.SIGTERM)
        code, out, _ = end(process)
    assert code == 143 and "t: 2 records acknowledged, 0 failed\n" in out


@pytest.mark.parametrize("gone", ["removed", "directory"])
def test_a_file_that_vanishes_before_its_turn(cluster, tmp_path, gone):
    """What came before it is delivered."""
    os.mkfifo(tmp_path / "a")
    second = tmp_path / "b.txt"
    second.write_text("2\n")
    with sending(cluster, str(tmp_path / "a"), str(second)) as process:
        with (tmp_path / "a").open("wb") as writer:
            second.unlink()
            if gone == "directory":
                second.mkdir()
            writer.write(b"1\n")
        code, out, err = end(process)
    assert code == 1 and "t: 1 records acknowledged, 0 failed\n" in out
    said = "No such file or directory" if gone == "removed" else "Is a directory"
    assert err.startswith(f"fastprod send: stopped at {second}: ") and said in err and err.count("\n") == 1


def test_an_embedded_broker_outlives_the_signal(tmp_path):
    command = [sys.executable, "-m", "fastprod", "send", "-", "--topic", "t", "--embedded", "-X", "linger.ms=100000"]
    streams = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **streams) as process:
        give(process, b"line\n" * 20)
        os.killpg(process.pid, signal.SIGINT)
        code, out, _ = end(process)
    assert code == 130 and "read back: 20 of 20 records\n" in out


class Signalling(FakeProducer):
    """Sends the process a signal with the second record."""

    def send(self, topic, value, key):
        if value == b"2":
            signal.raise_signal(signal.SIGTERM)
        return super().send(topic, value, key)


def test_in_process_a_signal_ends_the_run_and_handlers_are_as_before(tmp_path, monkeypatch, capsys):
    """Of a file, what is in its buffer counts as read."""
    before = [signal.getsignal(number) for number in CODES]
    files = [tmp_path / name for name in ("a.txt", "b.txt")]
    for file in files:
        file.write_text("1\n2\n3\n")
    producer = Signalling()
    arguments = parse("--bootstrap-servers", "host:1", *map(str, files))
    assert send.run(arguments, producer_factory=producer) == 143
    assert [value for _, value in producer.records] == [b"1", b"2", b"3"]
    assert "t: 3 records acknowledged, 0 failed\n" in capsys.readouterr().out
    assert [signal.getsignal(number) for number in CODES] == before


def test_in_a_thread_it_works_without_handlers(tmp_path, capsys):
    before = [signal.getsignal(number) for number in CODES]
    source = tmp_path / "a.txt"
    source.write_text("1\n2\n")
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["send", str(source), "--topic", "t", "--embedded"])))
    thread.start()
    thread.join(LONG)
    assert codes == [0] and "t: 2 records acknowledged, 0 failed\n" in capsys.readouterr().out
    assert [signal.getsignal(number) for number in CODES] == before


def test_no_descriptor_or_thread_is_left(tmp_path, capsys):
    source = tmp_path / "a.txt"
    source.write_text("1\n")
    arguments = parse("--bootstrap-servers", "host:1", str(source))
    counts = []
    for _ in range(4):
        assert send.run(arguments, producer_factory=FakeProducer()) == 0
        counts.append((len(os.listdir("/dev/fd")), threading.active_count()))
    assert counts[-1] <= counts[0]  # less if what another test left has gone
