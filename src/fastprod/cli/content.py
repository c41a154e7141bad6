"""Recognizes the content of a file by its first bytes, and decompresses it.

Files are not what they are called: a pipe has no name, and lines of compressed data would be sent as records.
"""

from __future__ import annotations

import bz2
import fcntl
import functools
import importlib
import io
import lzma
import os
import re
import stat
import struct
import sys
import termios
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from .stop import Stop

CHUNK = 1 << 16  # bytes
_ENOUGH = 16  # bytes identify the compression
_HEADER = 262  # bytes identify other content; tar has its mark last


class DamagedError(ValueError):
    """Compressed data is damaged."""


class _Zlib:
    """zlib's decompressor, with the methods of bz2's."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(16 + zlib.MAX_WBITS)  # 16: gzip, whose checksum it compares

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


def _first_of(*names: str) -> Callable[[], Any]:
    """Makes an object of the first class that can be imported, given as module:class."""

    def make() -> Any:
        for name in names:
            module, _, kind = name.partition(":")
            try:
                return getattr(importlib.import_module(module), kind)()
            except ImportError:
                continue
        raise ImportError(names)

    return make


class Packing(NamedTuple):
    """A way to compress a file as a whole."""

    name: str
    suffixes: tuple[str, ...]
    start: re.Pattern[bytes]
    unpacker: Callable[[], Any]  # of one member; ImportError if nothing here can do it
    package: str  # that can, from PyPI; "" where the standard library can
    command: str  # that unpacks to standard output


PACKINGS = (
    Packing("gzip", (".gz", ".gzip"), re.compile(rb"\x1f\x8b"), _Zlib, "", "gzip -dc"),
    Packing(
        "bzip2",
        (".bz2", ".bz"),
        re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
        bz2.BZ2Decompressor,
        "",
        "bzip2 -dc",
    ),
    Packing("xz", (".xz", ".lzma"), re.compile(rb"\xfd7zXZ\0|\]\0\0"), lzma.LZMADecompressor, "", "xz -dc"),
    Packing(
        "zstd",
        (".zst", ".zstd"),
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
        _first_of("compression.zstd:ZstdDecompressor", "backports.zstd:ZstdDecompressor"),
        "backports.zstd",
        "zstd -dc",
    ),
    Packing(
        "lz4",
        (".lz4",),
        re.compile(rb"\x04\x22\x4d\x18"),
        _first_of("lz4.frame:LZ4FrameDecompressor"),
        "lz4",
        "lz4 -dc",
    ),
)

_ARCHIVE = "unpack it, and give the files that were in it"
_SHEET = "save the sheet as CSV"
_CONVERT = "convert it to Parquet or to one JSON object per line"
_RECODE = "turn it into UTF-8 first: iconv -f {} -t UTF-8"
_UNPACK = "unpack it first"
_CONTROL = rb"[\0-\x08\x0e-\x1a\x1c-\x1f]"  # which text has not: some of the marks are letters

# Start of the file, what it is, and what to do.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (rb"PAR[1E]" + _CONTROL, "a Parquet file", "parquet"),
    (rb"ARROW1\0\0", "an Arrow file", "arrow"),
    (rb"\xff{4}...\0", "an Arrow stream", "arrow"),
    (rb"ORC.{0,13}?" + _CONTROL, "an ORC file", _CONVERT),
    (rb"Obj\x01", "an Avro file", _CONVERT),
    (rb"SEQ[\x04-\x06]", "a Hadoop sequence file", _CONVERT),
    (rb"\xff\xfe\0\0|\0\0\xfe\xff", "UTF-32", _RECODE.format("UTF-32")),
    (rb"\xff\xfe|\xfe\xff", "UTF-16", _RECODE.format("UTF-16")),
    (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", "a zip archive, as Excel's workbooks are, too", f"{_ARCHIVE}, or {_SHEET}"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old file of Excel or Office", _SHEET),
    (rb".{257}ustar", "a tar archive", _ARCHIVE),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _ARCHIVE),
    (rb"Rar!\x1a\x07", "a RAR archive", _ARCHIVE),
    (rb"\x1f[\x9d\xa0\x1e]", "data of compress or pack", f"{_UNPACK}: gzip -dc"),
    (rb"\x78[\x01\x9c\xda]", "zlib data", _UNPACK),
    (rb"LZIP\x01", "lzip data", f"{_UNPACK}: lzip -dc"),
    (rb"\x89LZO\0", "lzop data", f"{_UNPACK}: lzop -dc"),
    (rb"\x02\x21\x4c\x18", "lz4 data of the legacy format", f"{_UNPACK}: lz4 -dc"),
    (rb"\xff\x06\0\0sNaPpY", "snappy data", _UNPACK),
    (rb"SQLite format 3\0", "an SQLite database", "export its table as CSV"),
    (rb"\x89HDF\r\n", "an HDF5 file", _CONVERT),
    (rb"%PDF-", "a PDF document", "it has no records"),
)
_PATTERNS = tuple((re.compile(start, re.DOTALL), what, advice) for start, what, advice in _OTHERS)

# Suffixes of other content, and what to do about each.
SUFFIXES = {
    ".json": "give --format, which is ndjson for one object per line",
    **dict.fromkeys((".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z", ".rar", ".jar"), f"it is an archive; {_ARCHIVE}"),
    **dict.fromkeys((".xls", ".xlsx", ".xlsm", ".xlsb", ".ods"), f"it is a workbook; {_SHEET}"),
    **dict.fromkeys((".avro", ".orc"), f"it cannot be read; {_CONVERT}"),
    **dict.fromkeys(
        (".br", ".z", ".lz", ".lzo", ".sz", ".snappy", ".pack"), f"it is compressed; {_UNPACK}, then give --format"
    ),
}


def packing_of(head: bytes) -> Packing | None:
    """The compression of a file with these first bytes, or None."""
    return next((packing for packing in PACKINGS if packing.start.match(head)), None)


def packing_of_suffix(path: str) -> Packing | None:
    suffix = os.path.splitext(path)[1].lower()
    return next((packing for packing in PACKINGS if suffix in packing.suffixes), None)


def without_packing(path: str) -> str:
    """The path without the suffix of its packing."""
    return os.path.splitext(path)[0] if packing_of_suffix(path) else path


def other_than_text(head: bytes) -> tuple[str, str] | None:
    """The content of a file with these first bytes, and what to do about it. None if it may be text."""
    return next(((what, advice) for start, what, advice in _PATTERNS if start.match(head)), None)


class Bytes(io.RawIOBase):
    """A stream whose read() returns as soon as any bytes are there."""

    def __init__(self) -> None:
        self._head = b""

    def readable(self) -> bool:
        return True

    def look(self) -> bytes:
        """Returns as many of the first bytes as identify the content. A later read() returns them too.

        A complete line is enough, except the line with which ORC files begin. No record waits for this, because the
        first record needs a complete line.
        """
        while len(self._head) < _HEADER:
            if len(self._head) >= _ENOUGH and packing_of(self._head):  # a little of it may unpack to a line
                break
            if b"\n" in self._head and (len(self._head) >= _ENOUGH or not self._head.startswith(b"ORC\n")):
                break
            data = self._more(CHUNK)
            if not data:
                break
            self._head += data
        return self._head

    def some(self, size: int) -> bytes:
        """Returns at most that many bytes, or none at the end."""
        if not self._head:
            return self._more(size)
        data, self._head = self._head[:size], self._head[size:]
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _more(self, size: int) -> bytes:
        raise NotImplementedError


class File(Bytes):
    """A file, or ``-`` for standard input.

    Once a stop is asked for, it ends, but for what a pipe holds already: nobody else will read that. `cut` is true when
    that was its end. Any thread may ask for `position`.
    """

    def __init__(self, path: str, stop: Stop) -> None:
        super().__init__()
        self.position = 0  # bytes
        self.cut = False
        self._stop = stop
        self._left: int | None = None  # bytes that a pipe held when the stop was seen
        self._read: Callable[[int], bytes]
        self._fd, self._owned = -1, path != "-"
        if self._owned:
            with stop.raising():  # a FIFO waits for its writer
                self._fd = os.open(path, os.O_RDONLY)
        else:
            try:
                self._fd = sys.stdin.fileno()
            except (OSError, ValueError):  # a caller in this process has replaced stdin
                self._read = sys.stdin.buffer.readline
        self._pipe = self._waits = False
        if self._fd >= 0:
            self._read = functools.partial(os.read, self._fd)
            mode = os.fstat(self._fd).st_mode
            self._pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            self._waits = self._pipe or stat.S_ISCHR(mode)

    def close(self) -> None:
        if not self.closed and self._owned and self._fd >= 0:
            os.close(self._fd)
        super().close()

    def _more(self, size: int) -> bytes:
        while True:
            if self._waits:
                self._stop.wait_readable(self._fd)
            if self._stop.number:
                if self._left is None:
                    self._left = self._held_by_pipe()
                if not self._left:
                    self.cut = True
                    return b""
                size = min(size, self._left)
            try:
                data = self._read(size)
            except BlockingIOError:  # another process shares the descriptor and has read the bytes
                continue
            if self._left is not None:
                self._left -= len(data)
            self.position += len(data)
            return data

    def _held_by_pipe(self) -> int:
        if not self._pipe:
            return 0
        held: int = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))[0]
        return held


class Unpacked(Bytes):
    """The decompressed content of all members of a file. DamagedError if the data is damaged."""

    def __init__(self, file: File, packing: Packing) -> None:
        """Raises ImportError if no installed module can decompress it."""
        super().__init__()
        self._file = file
        self._packing = packing
        self._member = packing.unpacker()

    def _more(self, size: int) -> bytes:
        while True:
            data = b""
            if self._member.eof:
                data = self._next_member()
                if not data:
                    return b""
                self._member = self._packing.unpacker()
            elif self._member.needs_input:
                data = self._file.some(CHUNK)
                if not data:
                    if self._file.cut:
                        return b""
                    raise DamagedError(f"the {self._packing.name} data is damaged: it ended before its end mark")
            try:
                unpacked: bytes = self._member.decompress(data, size)
            except Exception as error:  # each library has its own
                raise DamagedError(f"the {self._packing.name} data is damaged: {error}") from None
            if unpacked:
                return unpacked

    def _next_member(self) -> bytes:
        """The first bytes after a member. Skips zeros, which tapes and xz use as padding."""
        data: bytes = self._member.unused_data or b""
        while not (data := data.lstrip(b"\0")):
            data = self._file.some(CHUNK)
            if not data:
                return b""
        return data
