"""Reads records out of files: each reader gives ``(key, value)`` pairs of bytes and holds one line at a time.

Those of columns are in columnar.py.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from json.encoder import encode_basestring
from typing import IO, Any

from . import columnar

FORMATS = ("lines", "ndjson", "csv", *columnar.FORMATS)
LONGEST_LINE = 64 << 20  # bytes; a file without line ends must not fill the memory
HELD_BACK = 1000  # rows

_SUFFIXES = {
    **dict.fromkeys(("", ".txt", ".log"), "lines"),
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    **columnar.SUFFIXES,
}
Record = tuple[bytes | None, bytes | None]


class InputError(ValueError):
    """The input is not what its format says; the message begins with ``file:line``, or the file alone."""


class Source:
    """The records of one file; iterate once.

    path: a file, or ``-`` for standard input. One that ends in ``.gz`` is unpacked.
    format: one of ``FORMATS``, or None to go by the suffix, which must be one that tells it; none means lines.
    key: name of the field that becomes the key, for formats with fields.
    value: name of the column that becomes the value, for parquet and arrow; default ``value``.

    lines: a value is a line without its end. ndjson: a value is the line's bytes as they stand, and has to be
    JSON; empty lines are passed over. csv: the first line names the columns, and a value is the row as a JSON
    object of strings. A key is the field's text: a string's characters, a number as the file writes it; null,
    an empty CSV field and an absent field mean no key. parquet, arrow: a value is what its column has, bytes or text,
    and a key likewise; they are given as Rows, of which each has many records.

    Iterating raises InputError for input that is malformed, and OSError if the file cannot be read.
    """

    def __init__(self, path: str, format: str | None = None, key: str | None = None, value: str | None = None) -> None:
        self.path = path
        self.name = "<stdin>" if path == "-" else path
        self.format = format or self._format_of_suffix()
        if key is not None and self.format == "lines":
            raise ValueError(f"{self.name} is read as lines, which have no fields to take the key {key!r} from")
        if self.format in columnar.FORMATS:
            columnar.check(self.name, path, self.format)
        elif value is not None:
            raise ValueError(
                f"{self.name} is read as {self.format}, which has no column to take the value {value!r} from"
            )
        self.key = key
        self.value = value
        self.line = 0  # number of the line, or row, that was read last, from 1
        self.columnar_position = 0  # bytes, about
        self._raw: IO[bytes] | None = None

    def _format_of_suffix(self) -> str:
        suffix = os.path.splitext(self.path.removesuffix(".gz"))[1]
        format = _SUFFIXES.get(suffix.lower())
        if format is None:
            hint = ", which is ndjson for one object per line" if suffix.lower() == ".json" else ""
            raise ValueError(f"{self.name}: the suffix {suffix!r} tells no format: give --format{hint}")
        return format

    @property
    def place(self) -> str:
        """``file:line`` of what was read last; the file before that."""
        return f"{self.name}:{self.line}" if self.line else self.name

    @property
    def position(self) -> int:
        """How many bytes of the file have been read; 0 where that cannot be told. Any thread may ask."""
        # The descriptor is asked, not the buffer, which its reader may hold locked while it waits.
        with contextlib.suppress(OSError, ValueError):
            if self._raw is not None:
                return os.lseek(self._raw.fileno(), 0, os.SEEK_CUR)
        return self.columnar_position

    def __iter__(self) -> Iterator[Record | columnar.Rows]:
        if self.format in columnar.FORMATS:
            yield from columnar.read(self)
            return
        with contextlib.ExitStack() as stack:
            if self.path == "-":
                self._raw = sys.stdin.buffer
            else:
                self._raw = stack.enter_context(open(self.path, "rb"))
            stream = self._raw
            if self.path.endswith(".gz"):
                stream = stack.enter_context(gzip.open(stream))
            try:
                yield from _READERS[self.format](self, stream)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self.line += 1
                raise self.error(f"the gzip data is damaged: {error}") from None

    def error(self, message: str) -> InputError:
        """An error about what was read last."""
        return InputError(f"{self.place}: {message}")

    def lines(self, stream: IO[bytes]) -> Iterator[bytes]:
        """The stream's lines with their ends."""
        for self.line, line in enumerate(iter(functools.partial(stream.readline, LONGEST_LINE), b""), 1):
            if len(line) == LONGEST_LINE:
                raise self.error(f"this line is longer than {LONGEST_LINE >> 20} MiB")
            yield line


class Input:
    """The records of several files, one file after the other; iterate once.

    OSError if a file is not there or may not be read, ValueError if it cannot have the key or its suffix is unknown.
    """

    def __init__(
        self, paths: Sequence[str], format: str | None = None, key: str | None = None, value: str | None = None
    ) -> None:
        self._sources = [Source(path, format, key, value) for path in paths]
        self._sizes = [_size(path) for path in paths]
        known = [size for size in self._sizes if size is not None]
        self.total = sum(known) if len(known) == len(paths) else None  # bytes; None: there is no telling
        self._done = 0
        self._current = self._sources[0]

    @property
    def place(self) -> str:
        """``file:line`` of what was read last; the file before that."""
        return self._current.place

    @property
    def name(self) -> str:
        """Of the file that is read."""
        return self._current.name

    @property
    def position(self) -> int:
        """How many bytes have been read. Any thread may ask."""
        return self._done + self._current.position

    def __iter__(self) -> Iterator[Record | columnar.Rows]:
        for source, size in zip(self._sources, self._sizes, strict=True):
            self._current = source
            yield from source
            self._done += size or 0


def _size(path: str) -> int | None:
    """The file's bytes; None for a pipe or standard input. OSError if there is no such file or it cannot be read."""
    if path == "-":
        return None
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a directory")
    if not os.access(path, os.R_OK):
        os.stat(path)  # tells why, if it does not exist
        raise PermissionError(f"{path} may not be read")
    return os.path.getsize(path) if os.path.isfile(path) else None


def _read_lines(source: Source, stream: IO[bytes]) -> Iterator[Record]:
    for line in source.lines(stream):
        yield None, line.removesuffix(b"\n").removesuffix(b"\r")


def _read_ndjson(source: Source, stream: IO[bytes]) -> Iterator[Record]:
    rows = _json_rows(source, stream)
    if source.key is None:
        return ((None, line) for line, _ in rows)
    return _keyed_json(source, rows, source.key)


def _json_rows(source: Source, stream: IO[bytes]) -> Iterator[tuple[bytes, Any]]:
    for line in source.lines(stream):
        if source.line == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        line = line.strip()
        if line:
            yield line, _parse(source, line, _decode)


def _keyed_json(source: Source, rows: Iterator[tuple[bytes, Any]], field: str) -> Iterator[Record]:
    # Rows before the first that has the field wait, so that a misspelt --key does not send a small file keyless.
    waiting: list[Record] = []
    holding, found = True, False
    for line, row in rows:
        if not isinstance(row, dict):
            raise source.error(f"the row is no object, so it has no field {field!r} for the key")
        record = _key_of(source, line, row, field), line
        found = found or field in row
        if holding and not found and len(waiting) < HELD_BACK:
            waiting.append(record)
            continue
        if holding:
            yield from waiting
            waiting.clear()
            holding = False
        yield record
    if not found and (waiting or not holding):
        raise source.error(f"no row up to here has the field {field!r} for the key")


def _key_of(source: Source, line: bytes, row: dict[str, Any], field: str) -> bytes | None:
    value = row.get(field)
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise source.error(f"the key {value!r} has half a surrogate pair, which UTF-8 cannot hold") from None
    if value is None:
        return None
    if isinstance(value, (dict, list)):
        raise source.error(f"the field {field!r} holds an object or array; a key is a string or a number")
    if isinstance(value, float):
        value = _parse(source, line, _decode_floats_as_text)[field]  # 1.10 stays 1.10
    return (str(value).lower() if isinstance(value, bool) else str(value)).encode()


def _parse(source: Source, line: bytes, decode: Callable[[str], Any]) -> Any:
    try:
        return decode(line.decode())
    except json.JSONDecodeError as error:
        raise source.error(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except UnicodeDecodeError as error:
        raise source.error(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1}") from None
    except (ValueError, RecursionError) as error:
        raise source.error(f"not JSON: {error}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON value")


_decode = json.JSONDecoder(parse_constant=_refuse).decode
_decode_floats_as_text = json.JSONDecoder(parse_constant=_refuse, parse_float=str).decode


def _read_csv(source: Source, stream: IO[bytes]) -> Iterator[Record]:
    rows = _csv_rows(source, stream)
    header = next(rows, None)
    if header is None:
        raise source.error("the file is empty; its first line must name the columns")
    columns = len(header)
    if len(set(header)) != columns:
        raise source.error(f"a column is named twice: {', '.join(header)}")
    if source.key is not None and source.key not in header:
        raise source.error(f"no column is named {source.key!r}; the columns are {', '.join(header)}")
    key_column = -1 if source.key is None else header.index(source.key)
    # Filling in a template takes a third of the time of a JSONEncoder on a dict.
    template = "{" + ",".join(encode_basestring(name).replace("%", "%%") + ":%s" for name in header) + "}"
    for row in rows:
        if len(row) != columns:
            raise source.error(f"the row has {len(row)} fields, but the header names {columns}")
        value = template % tuple(map(encode_basestring, row))
        yield (row[key_column].encode() or None) if key_column >= 0 else None, value.encode()


def _csv_rows(source: Source, stream: IO[bytes]) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_LINE)
    try:
        for row in csv.reader(_decoded(source, stream), strict=True):
            if row:
                yield row
    except csv.Error as error:
        raise source.error(f"not CSV: {error}") from None


def _decoded(source: Source, stream: IO[bytes]) -> Iterator[str]:
    # Decoded line by line: a decoder of the whole stream could not tell which line is wrong.
    for line in source.lines(stream):
        if source.line == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise source.error(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1}") from None


_READERS: dict[str, Callable[[Source, IO[bytes]], Iterator[Record]]] = {
    "lines": _read_lines,
    "ndjson": _read_ndjson,
    "csv": _read_csv,
}
