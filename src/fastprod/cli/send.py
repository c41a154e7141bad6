"""``fastprod send``: the records of files into a topic."""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import logging
import os
import re
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ..errors import (
    AuthenticationError,
    AuthorizationError,
    BulkDeliveryError,
    KafkaError,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
)
from ..records import BulkMetadata, RecordMetadata
from ..testing import MockCluster
from . import console, settings
from .columnar import Rows
from .readers import FORMATS, Input, InputError
from .settings import Settings, SettingsError
from .stop import GRACE, Stop, Stopped

LOOK_RECORDS = 10_000  # records, or seconds, between two looks at what is done
LOOK_SECONDS = 0.5
MOST_OUTSTANDING = 200_000  # records whose outcome is not counted yet
READY_TIMEOUT = 30.0  # seconds to connect
SILENT_SECONDS = 1.0  # of them, before it says that it waits
INTERRUPT_TIMEOUT = GRACE  # seconds for what is under way at Ctrl-C
MOST_BARS = 24  # partitions
MOST_KEYS = 200_000  # that --embedded checks
MOST_UNREAD = 4 << 20  # bytes sent and not yet read back: below what a mock partition keeps
IDLE_SECONDS = 3.0  # without a record, after which no more are expected
SAMPLES = 3
PLAIN_SECONDS = 3.0  # between two lines of progress

_DESCRIPTION = """
Sends the records of files to a topic and waits until the brokers have acknowledged them all.

lines:  a value is a line without its end; there are no keys
ndjson: a value is the line's bytes as they stand
csv:    a value is the row as a JSON object of strings, named by the header line
parquet, arrow: a value is what the column "value" has, or that of --value; bytes or text, and null is a tombstone

The format follows the suffix: .csv, .tsv, .ndjson or .jsonl, .parquet, .arrow, .arrows, .feather or .ipc; .txt, .log,
none and standard input are lines; any other needs --format. Parquet and Arrow need pyarrow:
pip install 'fastprod[arrow]'

The first bytes tell whether text is packed, from standard input, too: gzip, bzip2 and xz are unpacked; so is zstd with
Python 3.14 or the package backports.zstd, and lz4 with the package lz4. Text is UTF-8. What is something else than its
format is refused.
"""
_EXIT_CODES = """
options: -X is stronger than -F, which is stronger than the environment: FASTPROD_SASL_PASSWORD is sasl.password, and
FASTPROD_LIBRDKAFKA_<PROPERTY> a property of librdkafka. Other users of the machine can read a command line: give
secrets by another way than -X KEY=VALUE.

signals: SIGINT (Ctrl-C), SIGTERM and SIGHUP end the input. What was read by then, and what the pipe holds, is sent and
waited for, up to 10 s; a second SIGINT or SIGTERM ends that wait, and a third the process. The summary is printed.

exit code: 0 all records were acknowledged; 1 some were not, or the input is malformed; 2 nothing was sent, because
the arguments, the configuration, the topic, the brokers or the first record did not allow it; 130 ended by SIGINT,
143 by SIGTERM, 129 by SIGHUP. A closed standard output or standard error changes nothing
"""
_GIVEN_UP = (-152, -151)  # librdkafka's _PURGE_QUEUE and _PURGE_INFLIGHT: close() came first
# After one of these every further record fails too.
_HOPELESS = (AuthenticationError, AuthorizationError, UnknownTopicOrPartitionError)


class Future(Protocol):
    """The part of ``FutureRecordMetadata`` and of ``BulkFuture`` that is used here."""

    def done(self) -> bool: ...

    def result(self, timeout: float | None = None) -> RecordMetadata | BulkMetadata: ...


class Producer(Protocol):
    """The part of ``fastprod.Producer`` that is used here."""

    def send(self, topic: str, value: bytes | None, key: bytes | None) -> Future: ...

    def send_arrow(self, topic: str, data: Any, *, value: str, key: str | None) -> Future: ...

    def wait_ready(self, timeout: float) -> Any: ...

    def partitions_for(self, topic: str) -> Any: ...

    def flush(self, timeout: float | None = None) -> Any: ...

    def close(self, timeout: float | None = None) -> Any: ...


ProducerFactory = Callable[[Mapping[str, str]], Producer]


class _RefusedError(Exception):
    """Nothing was sent; the message says why."""


class _HopelessError(Exception):
    """The records that follow would fail too."""


def add_parser(commands: Any) -> None:
    """Adds ``send`` to the subcommands."""
    parser = commands.add_parser(
        "send",
        help="send the records of files to a topic",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or - for standard input")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT,...")
    parser.add_argument("--embedded", action="store_true", help="send to a mock broker and read everything back")
    parser.add_argument("--partitions", type=int, metavar="N", help="of the topic of --embedded (default: 12)")
    parser.add_argument("--key", metavar="FIELD", help="the field or column that becomes the key")
    parser.add_argument("--value", metavar="COLUMN", help='the column of the values, for parquet and arrow ("value")')
    parser.add_argument(
        "--delimiter",
        type=_delimiter,
        metavar="CHARACTER",
        help="between the fields of CSV, tab for a tab (default: the one of , ; | and tab that the header line shows)",
    )
    parser.add_argument("--format", choices=FORMATS, help="of all files (default: by the suffix of each)")
    parser.add_argument(
        "-X",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the producer, such as linger.ms=100; KEY=@FILE takes the file's text without its last line "
        "end, and KEY=@@ is a value that begins with @",
    )
    parser.add_argument(
        "-F",
        dest="option_files",
        action="append",
        default=[],
        metavar="FILE",
        help="options of the producer, as a .properties file of Java",
    )
    parser.add_argument(
        "--progress",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: a bar on a terminal, if rich is installed",
    )
    parser.set_defaults(run=run)


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character, or tab")
    return text


def run(arguments: argparse.Namespace, *, producer_factory: ProducerFactory | None = None) -> int:
    """Sends the files and returns the exit code; the summary goes to stdout, messages go to stderr."""
    stop = Stop()
    try:
        with stop, stop.raising():
            records = _input(arguments, stop)
            options = _options(arguments)
            with _log_to_stderr(), _brokers(arguments, options) as config:
                producer, partitions = _connect(producer_factory or _new_producer, config, arguments.topic, options)
                try:
                    if not arguments.embedded:
                        return _transfer(arguments, records, producer, partitions, stop, None)
                    with ReadBack(config["bootstrap.servers"], arguments.topic, partitions) as read_back:
                        return _transfer(arguments, records, producer, partitions, stop, read_back)
                finally:
                    _close(producer)  # nothing is left to wait for
    except _RefusedError as error:
        _say(str(error))
        return 2
    except Stopped:
        _say(stop.reason)
        return stop.code
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


class Tally:
    """What became of the records."""

    def __init__(self) -> None:
        self.partitions: collections.Counter[int] = collections.Counter()
        self.bytes = 0  # of keys and values that were acknowledged
        self.acknowledged = 0
        self.failed = 0
        self.unsettled = 0  # given up at a signal; they may have been written
        self.reasons: dict[tuple[str, int | None], list[Any]] = {}  # kind of error -> [records, first message]

    def acknowledge(self, metadata: RecordMetadata | BulkMetadata) -> None:
        if isinstance(metadata, BulkMetadata):
            self.acknowledged += metadata.count
            self.partitions.update({number: count for number, (count, _, _) in metadata.partitions.items()})
            self.bytes += metadata.bytes
            return
        self.acknowledged += 1
        self.partitions[metadata.partition] += 1
        self.bytes += max(0, metadata.serialized_key_size) + max(0, metadata.serialized_value_size)

    def fail(self, error: KafkaError, place: str = "") -> None:
        if error.code in _GIVEN_UP:
            self.unsettled += 1
            return
        self.failed += 1
        reason = self.reasons.setdefault((type(error).__name__, error.code), [0, f"{place}{error}"])
        reason[0] += 1


class Outstanding:
    """The futures whose outcome is not counted yet, oldest first; a bounded number."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._futures: collections.deque[tuple[Future, int]] = collections.deque()  # and how many records it is of
        self._records = 0
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._added = 0  # since the last look

    @property
    def begun(self) -> bool:
        """Whether there was a record."""
        return bool(self._futures or self.tally.acknowledged or self.tally.failed)

    def add(self, future: Future, records: int = 1) -> None:
        """Takes the future of so many records; now and then counts those that are done."""
        self._futures.append((future, records))
        self._records += records
        self._added += records
        if self._added < LOOK_RECORDS and time.monotonic() < self._next_look:
            return
        self._added = 0
        self._next_look = time.monotonic() + LOOK_SECONDS
        futures = self._futures
        while futures and (futures[0][0].done() or self._records > MOST_OUTSTANDING):
            future, records = futures.popleft()
            self._records -= records
            self._count(future, records)

    def finish(self) -> None:
        """Counts the rest; to be called after a flush. What is not done by now counts as unsettled."""
        for future, records in self._futures:
            if not future.done():
                self.tally.unsettled += records
                continue
            with contextlib.suppress(_HopelessError):
                self._count(future, records)
        self._futures.clear()
        self._records = 0

    def _count(self, future: Future, records: int) -> None:
        try:
            self.tally.acknowledge(future.result())
            return
        except BulkDeliveryError as error:
            failures = [failure for _, failure in error.failures]
            self.tally.acknowledged += records - len(failures)  # of which nothing tells the partitions
        except KafkaError as error:
            failures = [error]
        for failure in failures:
            self.tally.fail(failure)
        if any(failure.fatal or isinstance(failure, _HOPELESS) for failure in failures):
            raise _HopelessError("further records would fail in the same way")


def _say(message: str) -> None:
    console.write(sys.stderr, f"fastprod send: {message}\n")


def _show(*lines: str) -> None:
    error = console.write(sys.stdout, "".join(f"{line}\n" for line in lines))
    if error is not None and not isinstance(error, BrokenPipeError):  # whoever read it may go, as head does
        _say(f"the summary cannot be written: {error}")


class _FirstOfItsKind(logging.Filter):
    """Lets a line pass once: a client that cannot connect says so many times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = re.sub(r"\d+", "", record.getMessage())
        new = kind not in self._seen
        self._seen.add(kind)
        return new


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Shows the producer's warnings in this command's style."""
    handler = logging.StreamHandler(console.Lenient(sys.stderr))
    handler.addFilter(_FirstOfItsKind())
    handler.setFormatter(logging.Formatter("fastprod send: %(message)s"))
    logger = logging.getLogger("fastprod")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _input(arguments: argparse.Namespace, stop: Stop) -> Input:
    try:
        return Input(arguments.files, arguments.format, arguments.key, arguments.value, arguments.delimiter, stop)
    except (ValueError, OSError) as error:
        raise _RefusedError(str(error)) from None


def _options(arguments: argparse.Namespace) -> Settings:
    try:
        options = settings.read(os.environ, arguments.option_files, arguments.options)
    except SettingsError as error:
        raise _RefusedError(str(error)) from None
    for name, origin in options.origins.items():
        if settings.setting(name) == "transactional.id":
            given = f"-X {name}={options.options[name]}" if origin == "-X" else f"{name} from {origin}"
            raise _RefusedError(f"{given}: this command opens no transaction; leave {name} out")
    return options


@contextlib.contextmanager
def _brokers(arguments: argparse.Namespace, options: Settings) -> Iterator[dict[str, str]]:
    """The producer's configuration; the embedded broker, if one is asked for, runs as long."""
    given = options.origin_of("bootstrap.servers")
    if (
        arguments.bootstrap_servers
        and arguments.embedded
        or (given == "-X" and (arguments.bootstrap_servers or arguments.embedded))
    ):
        raise _RefusedError("--bootstrap-servers, --embedded and -X bootstrap.servers exclude each other")
    if arguments.partitions is not None and not arguments.embedded:
        raise _RefusedError("--partitions is for --embedded; the topic of a real cluster has those it has")
    if arguments.bootstrap_servers:
        options.add({"bootstrap.servers": arguments.bootstrap_servers}, {"bootstrap.servers": "--bootstrap-servers"})
    elif not arguments.embedded and not given:
        raise _RefusedError("say where to send: --bootstrap-servers HOST:PORT,... or --embedded")
    shown = settings.in_clear(arguments.options)
    if shown:
        _say(
            f"note: every user of this machine can read {', '.join(shown)} in the list of processes; "
            f"give -F FILE, -X {shown[0]}=@FILE or {settings.variable(shown[0])} instead"
        )
    if not arguments.embedded:
        yield options.options
        return
    partitions = 12 if arguments.partitions is None else arguments.partitions
    try:
        cluster = MockCluster(topics={arguments.topic: partitions}, process=True)
    except (ValueError, RuntimeError) as error:
        raise _RefusedError(str(error)) from None
    with cluster:
        options.add({"bootstrap.servers": cluster.bootstrap_servers}, {"bootstrap.servers": "--embedded"})
        yield options.options


def _new_producer(config: Mapping[str, str]) -> Producer:
    from .. import Producer as FastProducer

    producer: Producer = FastProducer(config)
    return producer


def _connect(
    factory: ProducerFactory, config: Mapping[str, str], topic: str, options: Settings
) -> tuple[Producer, int]:
    """A producer that has reached the brokers, and the topic's number of partitions."""
    try:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            producer = factory(config)
    except KafkaError as error:
        raise _RefusedError(options.explained(str(error))) from None
    for note in notes:
        _say(f"note: {note.message}")
    waiting = threading.Timer(SILENT_SECONDS, _say, [f"waiting up to {READY_TIMEOUT:.0f} s for a broker"])
    waiting.daemon = True
    try:
        waiting.start()
        try:
            producer.wait_ready(READY_TIMEOUT)
        finally:
            waiting.cancel()
        return producer, len(producer.partitions_for(topic))
    except BaseException as error:
        _close(producer)
        if isinstance(error, (KafkaError, TimeoutError, ValueError)):
            message = options.explained(str(error), isinstance(error, AuthenticationError))
            raise _RefusedError(message) from None
        raise


def _transfer(
    arguments: argparse.Namespace,
    records: Input,
    producer: Producer,
    partitions: int,
    stop: Stop,
    read_back: ReadBack | None,
) -> int:
    """Sends everything, prints the summary and returns the exit code."""
    tally = Tally()
    outstanding = Outstanding(tally)
    started = time.monotonic()

    def announce() -> None:
        _say(f"{stop.reason}; waiting up to {INTERRUPT_TIMEOUT:.0f} s for what is under way")

    # Closing ends whatever waits for the producer: send(), flush(), the result of a future.
    with stop.graceful(announce, lambda: _close(producer)), _progress(arguments.progress, records, tally):
        code = _send_all(producer, arguments.topic, records, outstanding, stop, read_back)
        if not _flush(producer, INTERRUPT_TIMEOUT if code == 130 else None) and code != 130:
            code = 130
            _flush(producer, INTERRUPT_TIMEOUT)
        outstanding.finish()
        seconds = time.monotonic() - started
    if stop.number:
        left_out = ", but for the record that was not read to its end" if records.unfinished else ""
        _say(f"the input was read up to {records.place}{left_out}")
    pace = "" if read_back is None else ", at the pace of reading back"
    _show(*_summary(arguments.topic, tally, partitions, seconds, pace))
    intact = True
    if read_back is not None:
        intact, lines = read_back.finish(tally)
        _show(*lines)
    if stop.number:
        return stop.code
    return code or int(not intact or tally.failed > 0 or tally.unsettled > 0)


def _send_all(
    producer: Producer,
    topic: str,
    records: Input,
    outstanding: Outstanding,
    stop: Stop,
    read_back: ReadBack | None,
) -> int:
    """Sends until the input ends or something stops it, says what, and returns the exit code so far.

    _RefusedError if the input does not get as far as a record.
    """
    try:
        for item in records:
            if isinstance(item, Rows):
                _send_rows(producer, topic, item, records.name, outstanding, read_back)
                continue
            key, value = item
            try:
                future = producer.send(topic, value, key)
            except RecordTooLargeError as error:
                outstanding.tally.fail(error, f"{records.place}: ")
                continue
            outstanding.add(future)
            if read_back is not None:
                read_back.expect(key, value)
    except KeyboardInterrupt:
        _say(f"interrupted; waiting up to {INTERRUPT_TIMEOUT:.0f} s for what is under way")
        return 130
    except (InputError, _HopelessError) as error:
        if not outstanding.begun:
            raise _RefusedError(str(error)) from None
        _say(f"stopped: {error}")
        return 1
    except (KafkaError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, KafkaError) and not outstanding.begun:
            raise _RefusedError(f"{records.place}: {error}") from None
        if not stop.hurried:
            _say(f"stopped at {records.place}: {error}")
        return 1
    return 0


def _send_rows(
    producer: Producer, topic: str, rows: Rows, name: str, outstanding: Outstanding, read_back: ReadBack | None
) -> None:
    """Sends all but those that are too large, which count as failed."""
    expected = iter(() if read_back is None else rows.records())

    def taken(future: Any, count: int) -> None:
        outstanding.add(future, count)
        for key, value in itertools.islice(expected, count):
            read_back.expect(key, value)  # type: ignore[union-attr]

    at = 0
    while at < rows.batch.num_rows:
        part = rows.batch.slice(at)
        try:
            taken(producer.send_arrow(topic, part, value=rows.value, key=rows.key), part.num_rows)
            return
        except BaseException as error:
            sent = getattr(error, "index", 0)
            if sent:
                taken(error.sent, sent)  # type: ignore[attr-defined]
            if not isinstance(error, RecordTooLargeError):
                raise
            outstanding.tally.fail(error, f"{name}:{rows.first + at + sent}: ")
            next(expected, None)
            at += sent + 1


def _flush(producer: Producer, timeout: float | None) -> bool:
    """Waits until all is settled, or the timeout; False if interrupted."""
    try:
        producer.flush(timeout)
    except KeyboardInterrupt:
        return False
    except (KafkaError, TimeoutError):
        pass  # each future tells its own record's failure
    return True


def _close(producer: Producer) -> None:
    with contextlib.suppress(KafkaError, TimeoutError):
        producer.close(0)


def _summary(topic: str, tally: Tally, partitions: int, seconds: float, pace: str = "") -> Iterator[str]:
    yield f"{topic}: {tally.acknowledged:,} records acknowledged, {tally.failed:,} failed"
    if tally.unsettled:
        yield f"  {tally.unsettled:,} records given up while under way; they may have been written"
    yield (
        f"  {tally.bytes:,} bytes in {seconds:,.2f} s: "
        f"{tally.acknowledged / seconds:,.0f} records/s, {tally.bytes / 1e6 / seconds:,.1f} MB/s{pace}"
    )
    counts = [
        tally.partitions[number] for number in range(max([partitions, *(number + 1 for number in tally.partitions)]))
    ]
    yield (
        f"  partitions: {len(counts)}; records in each: "
        f"min {min(counts):,}, mean {sum(counts) / len(counts):,.1f}, max {max(counts):,}"
    )
    others = tally.acknowledged - sum(counts)
    if others:
        yield f"  {others:,} others were sent together with records that failed: not in these counts"
    if 1 < len(counts) <= MOST_BARS and any(counts):
        for number, count in enumerate(counts):
            yield f"  {number:4} {count:>12,} {'#' * round(40 * count / max(counts))}"
    for (kind, _), (count, message) in tally.reasons.items():
        yield f"  {count:,} failed, {kind}: {message}"


@contextlib.contextmanager
def _progress(mode: str, records: Input, tally: Tally) -> Iterator[None]:
    """Shows how far it is, from a thread of its own."""
    bar = _bar(records.total) if mode != "never" and sys.stderr.isatty() else None
    if bar is None and mode != "always":
        yield
        return
    draw = bar[1] if bar else _draw_line
    period = 0.1 if bar else PLAIN_SECONDS
    done = threading.Event()

    def show() -> None:
        while not done.wait(period):
            draw(records, tally)

    thread = threading.Thread(target=show, name="fastprod-progress", daemon=True)
    with bar[0] if bar else contextlib.nullcontext():
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _draw_line(records: Input, tally: Tally) -> None:
    share = f", {records.position / records.total:.0%} of the input read" if records.total else ""
    _say(f"{tally.acknowledged:,} records acknowledged, {tally.failed:,} failed{share}")


def _bar(total: int | None) -> tuple[contextlib.AbstractContextManager[Any], Callable[[Input, Tally], None]] | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    except ImportError:
        return None
    text = TextColumn("{task.fields[acknowledged]:,} records acknowledged")
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), text)
    lenient: Any = console.Lenient(sys.stderr)
    progress = Progress(*columns, console=Console(file=lenient), auto_refresh=False, transient=True)
    task = progress.add_task("send", total=total, acknowledged=0)

    def draw(records: Input, tally: Tally) -> None:
        progress.update(task, completed=records.position, acknowledged=tally.acknowledged, refresh=True)

    return progress, draw


def _size_in_log(key: bytes | None, value: bytes | None) -> int:
    """About what a record takes uncompressed, in bytes."""
    return len(key or b"") + len(value or b"") + 20


def _checksum(value: bytes | None, before: int = 0) -> int:
    """A tombstone is not an empty value."""
    return zlib.crc32(b"\x00" if value is None else b"\x01" + value, before)


class ReadBack:
    """Reads the embedded broker's topic while it is written, and compares it with what was sent.

    For each key a running checksum over its values is kept on both sides: they agree only if the same values
    came in the same order.
    """

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "fastprod-send",  # never used, but the consumer insists
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # where the broker has dropped what was to be read
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 5,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        self._sent: dict[bytes, int] = {}
        self._expected = 0  # records
        self._sent_keyless = 0  # sum of checksums: these have no order to keep
        self._received: dict[bytes, int] = {}
        self._received_keyless = 0
        self._partition_of: dict[bytes, int] = {}
        self._split: set[bytes] = set()  # keys seen in several partitions
        self._next_offset = [0] * partitions
        self._dropped = 0
        self._count = 0
        self._bytes_sent = 0
        self._bytes_read = 0
        self._samples: list[str] = []
        self._awaited: float = float("inf")  # records; known when all were sent
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="fastprod-read-back", daemon=True)

    def __enter__(self) -> ReadBack:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def expect(self, key: bytes | None, value: bytes | None) -> None:
        """To be told of each record that was sent. Waits while much is unread: the broker drops what gets old."""
        self._expected += 1
        if key is None:
            self._sent_keyless += _checksum(value)
        elif key in self._sent or len(self._sent) < MOST_KEYS:
            self._sent[key] = _checksum(value, self._sent.get(key, 0))
        self._bytes_sent += _size_in_log(key, value)
        if self._bytes_sent - self._bytes_read > MOST_UNREAD:
            self._catch_up()

    def _catch_up(self) -> None:
        read, since = self._bytes_read, time.monotonic()
        while self._bytes_sent - self._bytes_read > MOST_UNREAD:
            time.sleep(0.0005)
            if self._bytes_read != read:
                read, since = self._bytes_read, time.monotonic()
            elif time.monotonic() - since > IDLE_SECONDS:
                self._bytes_sent = read  # what failed does not arrive

    def finish(self, tally: Tally) -> tuple[bool, list[str]]:
        """Whether everything that was acknowledged arrived as it was sent, and what to print about it."""
        self._awaited = tally.acknowledged
        self._thread.join()
        lines = [f"read back: {self._count:,} of {tally.acknowledged:,} records"]
        lines += [f"  {sample}" for sample in self._samples]
        if self._sent:
            most = " (of more, only these were followed)" if len(self._sent) == MOST_KEYS else ""
            lines.append(f"  {len(self._received):,} keys{most}, {len(self._split):,} of them in several partitions")
        if self._dropped:
            lines.append(f"  {self._dropped:,} records were dropped by the broker before they could be read")
        intact = self._count + self._dropped == tally.acknowledged and not self._split
        if not (self._count == self._expected == tally.acknowledged) or tally.failed or tally.unsettled:
            lines.append("  the order was not checked, since what was read is not what was sent")
        elif self._same_keys() and self._received_keyless == self._sent_keyless:
            lines.append("  every record as it was sent, and those of each key in the order in which they were sent")
        else:
            intact = False
            lines.append("  PROBLEM: records came changed or out of order")
        return intact, lines

    def _same_keys(self) -> bool:
        both = self._sent.keys() & self._received.keys()  # of more than MOST_KEYS, they need not be the same
        complete = len(self._sent) == MOST_KEYS or len(both) == len(self._sent) == len(self._received)
        return complete and all(self._sent[key] == self._received[key] for key in both)

    def _read(self) -> None:
        with contextlib.closing(self._consumer) as consumer:
            last = time.monotonic()
            while self._count + self._dropped < self._awaited and not self._stop.is_set():
                messages = [message for message in consumer.consume(500, 0.01) if not message.error()]
                for message in messages:
                    self._note(message)
                if messages:
                    last = time.monotonic()
                elif self._awaited < float("inf") and time.monotonic() - last > IDLE_SECONDS:
                    return

    def _note(self, message: Any) -> None:
        key, value, partition, offset = message.key(), message.value(), message.partition(), message.offset()
        self._dropped += offset - self._next_offset[partition]
        self._next_offset[partition] = offset + 1
        self._count += 1
        self._bytes_read += _size_in_log(key, value)
        if len(self._samples) < SAMPLES:
            shown = "a tombstone" if value is None else f"{value[:60]!r}..."
            self._samples.append(f"partition {partition}, offset {offset}: {key!r}, {shown}")
        if key is None:
            self._received_keyless += _checksum(value)
        elif key in self._received or len(self._received) < MOST_KEYS:  # it may come before it is expected
            self._received[key] = _checksum(value, self._received.get(key, 0))
            if self._partition_of.setdefault(key, partition) != partition:
                self._split.add(key)
