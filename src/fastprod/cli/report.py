"""What ``fastprod send`` prints: messages, progress and the summary."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from . import console
from .readers import Input
from .tally import Tally

MAX_BARS = 24  # partitions
PLAIN_SECONDS = 3.0  # between two lines of progress


def say(message: str) -> None:
    """Writes a message to stderr."""
    console.write(sys.stderr, f"fastprod send: {message}\n")


def show(*lines: str) -> None:
    """Writes lines of the summary to stdout."""
    error = console.write(sys.stdout, "".join(f"{line}\n" for line in lines))
    if error is not None and not isinstance(error, BrokenPipeError):  # a reader such as head may end early
        say(f"the summary cannot be written: {error}")


def summary(topic: str, tally: Tally, partitions: int, seconds: float, pace: str = "") -> Iterator[str]:
    """The lines of the summary. partitions: the topic's number of partitions. pace: a remark after the rate."""
    yield f"{topic}: {tally.acknowledged:,} records acknowledged, {tally.failed:,} failed"
    if tally.unsettled:
        yield f"  {tally.unsettled:,} records were still pending; they may have been written"
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
        yield f"  {others:,} acknowledged records are not in these counts, because records of the same call failed"
    if 1 < len(counts) <= MAX_BARS and any(counts):
        for number, count in enumerate(counts):
            yield f"  {number:4} {count:>12,} {'#' * round(40 * count / max(counts))}"
    for (kind, _), (count, message) in tally.reasons.items():
        yield f"  {count:,} failed, {kind}: {message}"


@contextlib.contextmanager
def progress(mode: str, records: Input, tally: Tally) -> Iterator[None]:
    """Shows the progress from a thread of its own, until the block ends. mode: auto, always or never."""
    bar = _bar(records.total) if mode != "never" and sys.stderr.isatty() else None
    if bar is None and mode != "always":
        yield
        return
    draw = bar[1] if bar else _draw_line
    period = 0.1 if bar else PLAIN_SECONDS
    done = threading.Event()

    def keep_drawing() -> None:
        while not done.wait(period):
            draw(records, tally)

    thread = threading.Thread(target=keep_drawing, name="fastprod-progress", daemon=True)
    with bar[0] if bar else contextlib.nullcontext():
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _draw_line(records: Input, tally: Tally) -> None:
    share = f", {records.position / records.total:.0%} of the input read" if records.total else ""
    say(f"{tally.acknowledged:,} records acknowledged, {tally.failed:,} failed{share}")


def _bar(total: int | None) -> tuple[contextlib.AbstractContextManager[Any], Callable[[Input, Tally], None]] | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    except ImportError:
        return None
    text = TextColumn("{task.fields[acknowledged]:,} records acknowledged")
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), text)
    lenient: Any = console.Lenient(sys.stderr)
    shown = Progress(*columns, console=Console(file=lenient), auto_refresh=False, transient=True)
    task = shown.add_task("send", total=total, acknowledged=0)

    def draw(records: Input, tally: Tally) -> None:
        shown.update(task, completed=records.position, acknowledged=tally.acknowledged, refresh=True)

    return shown, draw
