"""Input files of ``fastprod send``: what a file holds, how it is unpacked, and its records.

The formats themselves are in text_formats.py and columnar.py.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO

from . import columnar, content
from .stop import Stop, Stopped
from .text_formats import LONGEST_LINE, READERS

FORMATS = (*READERS, *columnar.FORMATS)
_BOM = b"\xef\xbb\xbf"  # of UTF-8: a mark of the file, not of its first line

_SUFFIXES = {
    **dict.fromkeys(("", ".txt", ".log"), "lines"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    **columnar.SUFFIXES,
}
Record = columnar.Record


class InputError(ValueError):
    """The input is not in its format. The message begins with ``file:line``, or with the file alone."""


class Source:
    """The records of one file; iterate once.

    path: a file, or ``-`` for standard input. It is unpacked if its first bytes show that it is packed.
    format: one of ``FORMATS``, or None to infer it from the suffix. A file without a suffix has lines.
    key: name of the field that becomes the key, for formats with fields.
    value: name of the column that becomes the value, for parquet and arrow; default ``value``.
    delimiter: the character between two fields, for csv; None to find it in the header line.
    stop: ends the records when it is requested, after those that have been read already.

    lines: a value is a line without its end. ndjson: a value is the bytes of a line, which must be JSON; empty lines
    are skipped. csv: the first line names the columns, and a value is the row as a JSON
    object of strings. A key is the field's text: a string's characters, a number as the file writes it; null,
    an empty CSV field and an absent field mean no key. parquet, arrow: a value is what its column has, bytes or text,
    and a key likewise; the records are given as Rows of many records each.

    Iterating raises InputError if the input is malformed, and OSError if the file cannot be read.
    """

    def __init__(
        self,
        path: str,
        format: str | None = None,
        key: str | None = None,
        value: str | None = None,
        delimiter: str | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.path = path
        self.name = "<stdin>" if path == "-" else path
        self.format = format or self._format_of_suffix()
        self.stop = stop or Stop()
        if key is not None and self.format == "lines":
            raise ValueError(f"{self.name} has the format lines, so it has no field {key!r} for the key")
        if self.format in columnar.FORMATS:
            columnar.check(self.name, path, self.format)
        elif value is not None:
            raise ValueError(f"{self.name} has the format {self.format}, so it has no column {value!r} for the value")
        if delimiter is not None and self.format != "csv":
            raise ValueError(f"{self.name} has the format {self.format}, so --delimiter does not apply")
        self.key = key
        self.value = value
        self.delimiter = delimiter
        self._any_bytes = format == "lines"  # asked for by name
        self.unfinished = False  # the stop came within a record, which was left out
        self.line = 0  # number of the line, or row, that was read last, from 1
        self.columnar_position = 0  # bytes, about
        self._file: content.File | None = None

    def _format_of_suffix(self) -> str:
        suffix = os.path.splitext(content.without_packing(self.path))[1]
        format = _SUFFIXES.get(suffix.lower())
        if format is None:
            advice = content.SUFFIXES.get(suffix.lower(), f"give --format, one of {', '.join(FORMATS)}")
            raise ValueError(f"cannot infer the format of {self.name} from the suffix {suffix!r}: {advice}")
        return format

    @property
    def place(self) -> str:
        """``file:line`` of what was read last; the file before that."""
        return f"{self.name}:{self.line}" if self.line else self.name

    @property
    def position(self) -> int:
        """How many bytes of the file have been read. Any thread may ask."""
        return self._file.position if self._file is not None else self.columnar_position

    @property
    def cut(self) -> bool:
        """Whether the input ended because a stop was asked for."""
        return self._file is not None and self._file.cut

    def __iter__(self) -> Iterator[Record | columnar.Rows]:
        with contextlib.ExitStack() as stack:
            try:
                if self.format in columnar.FORMATS:
                    yield from columnar.read(self)
                else:
                    yield from READERS[self.format](self, self.open(stack))
            except content.DamagedError as error:
                self.line += 1
                raise self.error(str(error)) from None
            except Stopped:  # before there was a byte
                return

    def check(self) -> None:
        """Raises InputError if the first bytes are not of the format. For a file that can be opened twice."""
        with contextlib.ExitStack() as stack:
            try:
                self.open(stack)
            except content.DamagedError as error:
                raise self.error(str(error)) from None
        self._file = None

    def open(self, stack: contextlib.ExitStack) -> IO[bytes]:
        """Returns the file's bytes, unpacked. Raises InputError if the first ones are not of the format."""
        stream: content.Bytes
        stream = self._file = stack.enter_context(content.File(self.path, self.stop))
        head = stream.look()
        packing, named = content.packing_of(head), content.packing_of_suffix(self.path)
        if packing is None and named is not None and head:
            raise content.DamagedError(
                f"the {named.name} data is damaged: Not a {'gzipped' if named.name == 'gzip' else named.name} file"
            )
        if packing is not None and self.format in columnar.FORMATS:
            raise self.error(f"this is {packing.name} data, not {self.format}: {self._unpacked_by(packing)}")
        if packing is not None:
            try:
                stream = stack.enter_context(content.Unpacked(self._file, packing))
            except ImportError:
                raise self.error(
                    f"this is {packing.name} data, for which Python needs a package: pip install {packing.package}; "
                    f"or {self._unpacked_by(packing)}"
                ) from None
            head = stream.look()
            again = content.packing_of(head)
            if again is not None:
                raise self.error(f"this is {again.name} data in {packing.name} data: unpack it first")
        self._refuse_other_content(head, packing)
        if self.format not in columnar.FORMATS and head.startswith(_BOM):
            stream.some(len(_BOM))
        return io.BufferedReader(stream, content.CHUNK)

    def _unpacked_by(self, packing: content.Packing) -> str:
        if self.path == "-":
            return f"unpack it first, by {packing.command}"
        if self.format in columnar.FORMATS:
            return f"unpack it first: {packing.command} {self.path} > unpacked.{self.format}"
        return f"unpack it: {packing.command} {self.path} | fastprod send - --format {self.format} ..."

    def _refuse_other_content(self, head: bytes, packing: content.Packing | None) -> None:
        other = content.other_than_text(head)
        if other is not None:
            what, advice = other
            if advice == self.format and (self.path != "-" or what == "an Arrow stream"):
                return
            if advice in columnar.FORMATS:
                if self.path == "-" and what != "an Arrow stream":
                    advice = "its index is at its end, so it cannot come from standard input; give a file's name"
                else:
                    advice = f"give --format {advice}"
                if packing is not None:
                    advice = f"unpack it first, by {packing.command}; {advice}"
            raise self.error(f"this is {what}, not {self.format}: {advice}")
        if self.format not in columnar.FORMATS and not self._any_bytes and b"\0" in head:
            where = f"byte {head.index(0) + 1} is 0, which text cannot have"
            advice = "UTF-16 becomes UTF-8 by iconv -f UTF-16LE -t UTF-8"
            if self.format == "lines":
                advice += ", and --format lines sends the bytes unchanged"
            raise self.error(f"this is not UTF-8 text: {where}; {advice}")

    def error(self, message: str) -> InputError:
        """An error about what was read last."""
        return InputError(f"{self.place}: {message}")

    def lines(self, stream: IO[bytes]) -> Iterator[bytes]:
        """The stream's lines with their ends. A line that a stop has cut is left out."""
        for number, line in enumerate(iter(functools.partial(stream.readline, LONGEST_LINE), b""), 1):
            if line[-1] != 10:
                if self.cut:
                    self.unfinished = True
                    return
                if len(line) == LONGEST_LINE:
                    self.line = number
                    raise self.error(f"this line is longer than {LONGEST_LINE >> 20} MiB")
            self.line = number
            yield line


class Input:
    """The records of several files, one file after the other; iterate once.

    Raises OSError if a file does not exist or cannot be read. Raises ValueError if it cannot have the key, if its
    suffix is unknown, or if its first bytes are of another format.
    """

    def __init__(
        self,
        paths: Sequence[str],
        format: str | None = None,
        key: str | None = None,
        value: str | None = None,
        delimiter: str | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._stop = stop or Stop()
        self._sources = [Source(path, format, key, value, delimiter, self._stop) for path in paths]
        sizes = [_size(path) for path in paths]
        for source, size in zip(self._sources, sizes, strict=True):
            if size is not None:
                source.check()
        known = [size for size in sizes if size is not None]
        self.total = sum(known) if len(known) == len(paths) else None  # bytes; None: unknown
        self._done = 0  # bytes of the files before the current one
        self._current = self._sources[0]

    @property
    def place(self) -> str:
        """``file:line`` of what was read last; the file before that."""
        return self._current.place

    @property
    def name(self) -> str:
        """The name of the current file."""
        return self._current.name

    @property
    def unfinished(self) -> bool:
        """Whether a stop came within a record, which was left out."""
        return self._current.unfinished

    @property
    def position(self) -> int:
        """How many bytes have been read. Any thread may ask."""
        return self._done + self._current.position

    def __iter__(self) -> Iterator[Record | columnar.Rows]:
        done = 0
        for source in self._sources:
            if self._stop.number:
                return
            self._done, self._current = done, source
            yield from source
            done += source.position


def _size(path: str) -> int | None:
    """Returns the file's bytes; None for a pipe or standard input. Raises OSError if it cannot be read."""
    if path == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise OSError("standard input is closed, so - has no records")
        return None
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a directory")
    if not os.access(path, os.R_OK):
        os.stat(path)  # raises FileNotFoundError if it does not exist
        raise PermissionError(f"{path} cannot be read: permission denied")
    return os.path.getsize(path) if os.path.isfile(path) else None
