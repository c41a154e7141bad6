"""Reads Parquet and Arrow files. Their columns go to the producer without a Python object for each record."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from . import content
from .stop import Stop

Record = tuple[bytes | None, bytes | None]  # key and value

FORMATS = ("parquet", "arrow")
SUFFIXES = {".parquet": "parquet", ".arrow": "arrow", ".arrows": "arrow", ".feather": "arrow", ".ipc": "arrow"}
VALUE = "value"  # the column of the values, unless another is named
MAX_ROWS = 10_000  # given at once
MAX_BYTES = 1 << 20  # likewise, about
_FILE_MAGIC = b"ARROW1"


class Source(Protocol):
    """A Parquet or Arrow file, its columns to read, and how far it has been read."""

    path: str
    format: str
    key: str | None
    value: str | None
    stop: Stop
    line: int  # records so far
    unfinished: bool
    columnar_position: int  # bytes, about

    @property
    def cut(self) -> bool: ...
    def open(self, stack: contextlib.ExitStack) -> Any: ...
    def error(self, message: str) -> Exception: ...


class Rows(NamedTuple):
    """Rows of a file. batch: a pyarrow.RecordBatch. first: the number of its first row in the file, from 1."""

    batch: Any
    value: str
    key: str | None
    first: int

    def records(self) -> Iterator[Record]:
        """Key and value of each row. A null is None."""
        values = self.batch.column(self.value).to_pylist()
        keys = self.batch.column(self.key).to_pylist() if self.key is not None else [None] * len(values)
        for key, value in zip(keys, values, strict=True):
            yield _bytes(key), _bytes(value)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def check(name: str, path: str, format: str) -> None:
    """ValueError if the file cannot be read here."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f"{name} is read with pyarrow, which is not installed: pip install 'fastprod[arrow]'")
    if path == "-" and format == "parquet":
        raise ValueError("standard input cannot be Parquet, because the index is at the end of a Parquet file")
    if content.packing_of_suffix(path) is not None:
        raise ValueError(f"{name} is not unpacked: {format} files are compressed inside")


def read(source: Source) -> Iterator[Rows]:
    """The rows of the source's file, in chunks. InputError if it is not what its format says, or lacks a column."""
    import pyarrow

    value = VALUE if source.value is None else source.value
    with contextlib.ExitStack() as stack:
        try:
            schema, batches = (_parquet if source.format == "parquet" else _arrow)(source, stack)
            for column, what in ((value, "value"), (source.key, "key")):
                if column is not None and schema.names.count(column) != 1:
                    several = "no column is" if column not in schema.names else "several columns are"
                    raise source.error(
                        f"{several} named {column!r}, to take the {what} from: the columns are "
                        f"{', '.join(schema.names)}; --{what} names another"
                    )
                if column is not None and not _is_bytes_or_text(schema.field(column).type):
                    kind = schema.field(column).type
                    raise source.error(
                        f"the column {column!r} is of {kind}, but a {what} is bytes or text: "
                        "cast it to string or binary"
                    )
            wanted = list(dict.fromkeys(name for name in (value, source.key) if name is not None))
            for batch in batches(wanted):
                for part in _chunks(batch.select(wanted)):
                    if source.stop.number and os.path.isfile(source.path):  # a pipe's batch is lost if it is not sent
                        return
                    rows = Rows(part, value, source.key, source.line + 1)
                    source.line += part.num_rows
                    yield rows
        except (pyarrow.ArrowException, OSError, EOFError) as error:
            if source.cut:
                source.unfinished = True
                return
            raise source.error(f"not {source.format.capitalize()}, or damaged: {error}") from None
    if os.path.isfile(source.path):
        source.columnar_position = os.path.getsize(source.path)


def _is_bytes_or_text(type: Any) -> bool:
    from pyarrow import types

    kinds = "binary", "large_binary", "binary_view", "fixed_size_binary", "string", "large_string", "string_view"
    return any(getattr(types, f"is_{kind}")(type.value_type if types.is_dictionary(type) else type) for kind in kinds)


def _chunks(batch: Any) -> Iterator[Any]:
    rows = max(1, min(MAX_ROWS, MAX_BYTES * batch.num_rows // max(1, batch.nbytes)))
    for at in range(0, batch.num_rows, rows):
        yield batch.slice(at, rows)


def _parquet(source: Source, stack: contextlib.ExitStack) -> tuple[Any, Any]:
    from pyarrow import parquet

    file = stack.enter_context(parquet.ParquetFile(source.path))
    total, size = file.metadata.num_rows, os.path.getsize(source.path)

    def batches(columns: list[str]) -> Iterator[Any]:
        done = 0
        for batch in file.iter_batches(MAX_ROWS, columns=columns):
            yield batch
            done += batch.num_rows
            source.columnar_position = size * done // total

    return file.schema_arrow, batches


def _arrow(source: Source, stack: contextlib.ExitStack) -> tuple[Any, Any]:
    """The file format, known by its first bytes, or the stream."""
    from pyarrow import OSFile, PythonFile, ipc

    regular = os.path.isfile(source.path)
    if not regular:
        stream = PythonFile(source.open(stack), mode="r")
    else:
        stream = stack.enter_context(OSFile(source.path))
        with open(source.path, "rb") as start:
            if start.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
                file = stack.enter_context(ipc.open_file(stream))
                size = os.path.getsize(source.path)

                def from_file(columns: list[str]) -> Iterator[Any]:
                    for i in range(file.num_record_batches):
                        yield file.get_batch(i)
                        source.columnar_position = size * (i + 1) // file.num_record_batches

                return file.schema, from_file
    reader = stack.enter_context(ipc.open_stream(stream))

    def from_stream(columns: list[str]) -> Iterator[Any]:
        for batch in reader:
            yield batch
            if regular:
                source.columnar_position = stream.tell()

    return reader.schema, from_stream
