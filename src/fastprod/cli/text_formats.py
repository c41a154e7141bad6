"""The formats of text: lines, NDJSON and CSV. Each reader gives ``(key, value)`` pairs and holds one line at a time."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring
from typing import IO, Any, Protocol

from .columnar import Record
from .content import CHUNK

DELIMITERS = ",;\t|"  # that a header line is searched for; the first of two with equally many fields
LONGEST_LINE = 64 << 20  # bytes; a file without line ends must not fill the memory
WAITING_ROWS = 1000  # that wait for the first row with the key's field


class TextSource(Protocol):
    """The part of ``readers.Source`` that is used here."""

    key: str | None
    delimiter: str | None
    line: int
    unfinished: bool

    @property
    def cut(self) -> bool: ...

    def lines(self, stream: IO[bytes]) -> Iterator[bytes]: ...

    def error(self, message: str) -> Exception: ...


def read_lines(source: TextSource, stream: IO[bytes]) -> Iterator[Record]:
    for line in source.lines(stream):
        yield None, line.removesuffix(b"\n").removesuffix(b"\r")


def read_ndjson(source: TextSource, stream: IO[bytes]) -> Iterator[Record]:
    rows = _json_rows(source, stream)
    if source.key is None:
        return ((None, line) for line, _ in rows)
    return _keyed_json(source, rows, source.key)


def _json_rows(source: TextSource, stream: IO[bytes]) -> Iterator[tuple[bytes, Any]]:
    for line in source.lines(stream):
        line = line.strip()
        if line:
            yield line, _parse(source, line, _decode)


def _keyed_json(source: TextSource, rows: Iterator[tuple[bytes, Any]], field: str) -> Iterator[Record]:
    # Rows before the first that has the field wait, so that a misspelt --key does not send a small file keyless.
    waiting: list[Record] = []
    holding, found = True, False
    for line, row in rows:
        if not isinstance(row, dict):
            raise source.error(f"the row is not an object, so it has no field {field!r} for the key")
        record = _key_of(source, line, row, field), line
        found = found or field in row
        if holding and not found and len(waiting) < WAITING_ROWS:
            waiting.append(record)
            continue
        if holding:
            yield from waiting
            waiting.clear()
            holding = False
        yield record
    if not found and (waiting or not holding):
        raise source.error(f"no row up to here has the field {field!r} for the key")


def _key_of(source: TextSource, line: bytes, row: dict[str, Any], field: str) -> bytes | None:
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


def _parse(source: TextSource, line: bytes, decode: Callable[[str], Any]) -> Any:
    try:
        return decode(line.decode())
    except json.JSONDecodeError as error:
        raise source.error(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except UnicodeDecodeError as error:
        raise source.error(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1}") from None
    except (ValueError, RecursionError) as error:
        raise source.error(f"not JSON: {error}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON value")


_decode = json.JSONDecoder(parse_constant=_refuse).decode
_decode_floats_as_text = json.JSONDecoder(parse_constant=_refuse, parse_float=str).decode


def read_csv(source: TextSource, stream: IO[bytes]) -> Iterator[Record]:
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


def _csv_rows(source: TextSource, stream: IO[bytes]) -> Iterator[list[str]]:
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


def _find_delimiter(source: TextSource, lines: Iterator[str]) -> tuple[str, Iterator[str]]:
    """Returns the delimiter of the header line, and all lines, with those that were read to find it.

    If several delimiters are possible, the first row must have as many fields as the header. Of those that are left,
    the one with the most fields is taken. A file of one column gets a comma.
    """
    seen: list[tuple[int, str]] = []

    def next_record() -> str:
        text = ""
        for line in lines:
            seen.append((source.line, line))
            text = (text + line).lstrip("\r\n")
            if text and (text.count('"') % 2 == 0 or len(text) > CHUNK):
                break
        return text

    def again() -> Iterator[str]:
        for source.line, line in seen:
            yield line

    header = next_record()
    named = re.fullmatch(r"sep=(.)\r?\n", header)  # as Excel writes and reads it
    if named:
        return named[1], lines
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


def _decoded(source: TextSource, stream: IO[bytes]) -> Iterator[str]:
    # Decoded line by line: a decoder of the whole stream could not say which line is wrong.
    for line in source.lines(stream):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise source.error(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1}") from None
        if "\0" in text:
            raise source.error(f"not text: byte {text.index(chr(0)) + 1} is 0")
        yield text


READERS: dict[str, Callable[[TextSource, IO[bytes]], Iterator[Record]]] = {
    "lines": read_lines,
    "ndjson": read_ndjson,
    "csv": read_csv,
}
