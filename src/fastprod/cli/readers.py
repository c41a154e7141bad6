"""Reads records out of files: each reader gives ``(key, value)`` pairs of bytes and holds one line at a time.

Those of columns are in columnar.py.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from json.encoder import encode_basestring
from typing import IO, Any

from . import columnar, content
from .stop import Stop, Stopped

FORMATS = ("lines", "ndjson", "csv", *columnar.FORMATS)
DELIMITERS = ",;\t|"  # that a header line is searched for; of two that do equally well, the first
LONGEST_LINE = 64 << 20  # bytes; a file without line ends must not fill the memory
HELD_BACK = 1000  # rows
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
    """The input is not what its format says; the message begins with ``file:line``, or the file alone."""


class Source:
    """The records of one file; iterate once.

    path: a file, or ``-`` for standard input. One whose first bytes say that it is packed is unpacked.
    format: one of ``FORMATS``, or None to go by the suffix, which must be one that tells it; none means lines.
    key: name of the field that becomes the key, for formats with fields.
    value: name of the column that becomes the value, for parquet and arrow; default ``value``.
    delimiter: the character between two fields, for csv; None to find it in the header line.
    stop: when it is asked for, the records end, after those that have been read already.

    lines: a value is a line without its end. ndjson: a value is the line's bytes as they stand, and has to be
    JSON; empty lines are passed over. csv: the first line names the columns, and a value is the row as a JSON
    object of strings. A key is the field's text: a string's characters, a number as the file writes it; null,
    an empty CSV field and an absent field mean no key. parquet, arrow: a value is what its column has, bytes or text,
    and a key likewise; they are given as Rows, of which each has many records.

    Iterating raises InputError for input that is malformed, and OSError if the file cannot be read.
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
            raise ValueError(f"{self.name} is read as lines, which have no fields to take the key {key!r} from")
        if self.format in columnar.FORMATS:
            columnar.check(self.name, path, self.format)
        elif value is not None:
            raise ValueError(
                f"{self.name} is read as {self.format}, which has no column to take the value {value!r} from"
            )
        if delimiter is not None and self.format != "csv":
            raise ValueError(f"{self.name} is read as {self.format}, which has no delimiter")
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
            raise ValueError(f"{self.name}: the suffix {suffix!r} tells no format: {advice}")
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
                    yield from _READERS[self.format](self, self.open(stack))
            except content.DamagedError as error:
                self.line += 1
                raise self.error(str(error)) from None
            except Stopped:  # before there was a byte
                return

    def check(self) -> None:
        """InputError if the first bytes are not of the format. For a file that can be opened twice."""
        with contextlib.ExitStack() as stack:
            try:
                self.open(stack)
            except content.DamagedError as error:
                raise self.error(str(error)) from None
        self._file = None

    def open(self, stack: contextlib.ExitStack) -> IO[bytes]:
        """The file's bytes, unpacked. InputError if the first ones are not of the format."""
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
            where = f"byte {head.index(0) + 1} is 0, which no text has"
            advice = "UTF-16 becomes UTF-8 by iconv -f UTF-16LE -t UTF-8"
            if self.format == "lines":
                advice += ", and --format lines sends the bytes as they stand"
            raise self.error(f"this is no text of UTF-8: {where}; {advice}")

    def error(self, message: str) -> InputError:
        """An error about what was read last."""
        return InputError(f"{self.place}: {message}")

    def lines(self, stream: IO[bytes]) -> Iterator[bytes]:
        """The stream's lines with their ends; one that a stop has cut is left out."""
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

    OSError if a file is not there or may not be read, ValueError if it cannot have the key, its suffix is unknown, or
    its first bytes are of something else.
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
        self.total = sum(known) if len(known) == len(paths) else None  # bytes; None: there is no telling
        self._done = 0  # bytes of the files before the current one
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
    """The file's bytes; None for a pipe or standard input. OSError if there is no such file or it cannot be read."""
    if path == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise OSError("standard input is closed, so - has no records")
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
        if source.cut:
            return
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
    lines = _decoded(source, stream)
    delimiter, lines = (source.delimiter, lines) if source.delimiter else _find_delimiter(source, lines)
    try:
        for row in csv.reader(lines, delimiter=delimiter, strict=True):
            if row:
                yield row
    except csv.Error as error:
        if source.cut:  # within a field of several lines
            source.unfinished = True
            return
        raise source.error(f"not CSV: {error}") from None


def _find_delimiter(source: Source, lines: Iterator[str]) -> tuple[str, Iterator[str]]:
    """What separates the fields of the header line, and the lines with those that were read for that.

    Where several would do, the first row is asked, too: it must have as many fields. Then most fields win. It is a
    comma where nothing separates anything, as in a file of one column.
    """
    seen: list[tuple[int, str]] = []

    def next_record() -> str:
        text = ""
        for line in lines:
            seen.append((source.line, line))
            text = (text + line).lstrip("\r\n")
            if text and (text.count('"') % 2 == 0 or len(text) > content.CHUNK):
                break
        return text

    def again() -> Iterator[str]:
        for source.line, line in seen:
            yield line

    header = next_record()
    told = re.fullmatch(r"sep=(.)\r?\n", header)  # as Excel writes and reads it
    if told:
        return told[1], lines
    columns = {delimiter: count for delimiter in DELIMITERS if (count := _fields(header, delimiter)) > 1}
    if len(columns) > 1:
        row = next_record()
        agreeing = {delimiter: count for delimiter, count in columns.items() if _fields(row, delimiter) == count}
        columns = agreeing or columns
    return max(columns, key=columns.__getitem__, default=DELIMITERS[0]), itertools.chain(again(), lines)


def _fields(text: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True), []))
    except csv.Error:
        return 0


def _decoded(source: Source, stream: IO[bytes]) -> Iterator[str]:
    # Decoded line by line: a decoder of the whole stream could not tell which line is wrong.
    for line in source.lines(stream):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise source.error(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1}") from None
        if "\0" in text:
            raise source.error(f"not text: byte {text.index(chr(0)) + 1} is 0")
        yield text


_READERS: dict[str, Callable[[Source, IO[bytes]], Iterator[Record]]] = {
    "lines": _read_lines,
    "ndjson": _read_ndjson,
    "csv": _read_csv,
}
