"""``fastprod send``: sends the records of files to a topic."""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

from ..errors import KafkaError, RecordTooLargeError
from .columnar import Rows
from .connection import (
    Producer,
    ProducerFactory,
    RefusedError,
    brokers,
    close,
    connect,
    log_to_stderr,
    new_producer,
    read_options,
)
from .read_back import ReadBack
from .readers import FORMATS, Input, InputError
from .report import progress, say, show, summary
from .stop import GRACE, Stop, Stopped
from .tally import HopelessError, Outstanding, Tally

INTERRUPT_TIMEOUT = GRACE  # seconds that pending records get after Ctrl-C

_DESCRIPTION = """
Sends the records of files to a topic and waits until the brokers have acknowledged them all.

formats, by suffix:
  lines    .txt, .log, no suffix, standard input    each line is a value; records have no key
  ndjson   .ndjson, .jsonl                          each line is a value, byte for byte
  csv      .csv, .tsv                               each row is a value: an object of strings; the header has the names
  parquet  .parquet                                 each row is a value: the column "value", or that of --value COLUMN
  arrow    .arrow, .arrows, .feather, .ipc          as parquet

Any other suffix needs --format. Columns for parquet and arrow hold bytes or text; a null value is a tombstone. Both
formats need pyarrow: pip install 'fastprod[arrow]'

Text is UTF-8. gzip, bzip2 and xz data is decompressed, also from standard input. zstd needs Python 3.14 or the package
backports.zstd, and lz4 needs the package lz4. A file whose content does not match its format is refused.
"""
_EXIT_CODES = """
precedence: -X overrides -F, and -F overrides the environment. FASTPROD_SASL_PASSWORD sets sasl.password.
FASTPROD_LIBRDKAFKA_<PROPERTY> sets a property of librdkafka. Other users of the machine can read a command line. Give
secrets with -F, -X KEY=@FILE or the environment.

signals: SIGINT (Ctrl-C), SIGTERM and SIGHUP end the input. The command then sends the records that it has read and
those in the pipe. It waits up to 10 s for the acknowledgements and prints the summary. A second SIGINT or SIGTERM ends
the wait. A third ends the process.

exit codes:
  0    the brokers acknowledged all records
  1    some records were not acknowledged, or the input is malformed
  2    nothing was sent: the arguments, the configuration, the topic, the brokers or the first record did not allow it
  130  SIGINT ended the input (143: SIGTERM, 129: SIGHUP)
A closed standard output or standard error does not change the exit code.
"""


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
    parser.add_argument("--partitions", type=int, metavar="N", help="number of partitions for --embedded (default: 12)")
    parser.add_argument("--key", metavar="FIELD", help="the field or column that becomes the key")
    parser.add_argument(
        "--value", metavar="COLUMN", help='the column that becomes the value, for parquet and arrow (default: "value")'
    )
    parser.add_argument(
        "--delimiter",
        type=_delimiter,
        metavar="CHARACTER",
        help="the delimiter of CSV; write tab for a tab (default: inferred from the header line: , ; | or tab)",
    )
    parser.add_argument("--format", choices=FORMATS, help="the format of all files (default: by the suffix of each)")
    parser.add_argument(
        "-X",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the producer, for example linger.ms=100; KEY=@FILE reads the value from a file, without the "
        "last line end; write a value that begins with @ as KEY=@@...",
    )
    parser.add_argument(
        "-F",
        dest="option_files",
        action="append",
        default=[],
        metavar="FILE",
        help="a .properties file, as in Java, with options of the producer",
    )
    parser.add_argument(
        "--progress",
        choices=("auto", "always", "never"),
        default="auto",
        help="when to show a progress bar; auto, the default: on a terminal, if rich is installed",
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
            options = read_options(arguments)
            with log_to_stderr(), brokers(arguments, options) as config:
                producer, partitions = connect(producer_factory or new_producer, config, arguments.topic, options)
                try:
                    if not arguments.embedded:
                        return _transfer(arguments, records, producer, partitions, stop, None)
                    with ReadBack(config["bootstrap.servers"], arguments.topic, partitions) as read_back:
                        return _transfer(arguments, records, producer, partitions, stop, read_back)
                finally:
                    close(producer)  # nothing is left to wait for
    except RefusedError as error:
        say(str(error))
        return 2
    except Stopped:
        say(stop.reason)
        return stop.code
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _input(arguments: argparse.Namespace, stop: Stop) -> Input:
    try:
        return Input(arguments.files, arguments.format, arguments.key, arguments.value, arguments.delimiter, stop)
    except (ValueError, OSError) as error:
        raise RefusedError(str(error)) from None


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
        say(f"{stop.reason}; waiting up to {INTERRUPT_TIMEOUT:.0f} s for pending records")

    # close() ends every call that waits: send(), flush() and the result of a future.
    with stop.graceful(announce, lambda: close(producer)), progress(arguments.progress, records, tally):
        code = _send_all(producer, arguments.topic, records, outstanding, stop, read_back)
        if not _flush(producer, INTERRUPT_TIMEOUT if code == 130 else None) and code != 130:
            code = 130
            _flush(producer, INTERRUPT_TIMEOUT)
        outstanding.finish()
        seconds = time.monotonic() - started
    if stop.number:
        left_out = "; its last record is incomplete and was not sent" if records.unfinished else ""
        say(f"the input was read up to {records.place}{left_out}")
    pace = "" if read_back is None else ", at the pace of reading back"
    show(*summary(arguments.topic, tally, partitions, seconds, pace))
    intact = True
    if read_back is not None:
        intact, lines = read_back.finish(tally)
        show(*lines)
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
    """Sends until the input ends or an error stops it, prints that error, and returns the exit code so far.

    Raises RefusedError if it fails before the first record is sent.
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
        say(f"interrupted; waiting up to {INTERRUPT_TIMEOUT:.0f} s for pending records")
        return 130
    except (InputError, HopelessError) as error:
        if not outstanding.begun:
            raise RefusedError(str(error)) from None
        say(f"stopped: {error}")
        return 1
    except (KafkaError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, KafkaError) and not outstanding.begun:
            raise RefusedError(f"{records.place}: {error}") from None
        if not stop.wait_ended:
            say(f"stopped at {records.place}: {error}")
        return 1
    return 0


def _send_rows(
    producer: Producer, topic: str, rows: Rows, name: str, outstanding: Outstanding, read_back: ReadBack | None
) -> None:
    """Sends the rows. Counts those that are too large as failed."""
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
    """Waits until all records have settled, or for the timeout. Returns False if interrupted."""
    try:
        producer.flush(timeout)
    except KeyboardInterrupt:
        return False
    except (KafkaError, TimeoutError):
        pass  # each future has the error of its own record
    return True
