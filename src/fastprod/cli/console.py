"""Text for standard output and standard error, which may be closed, full, or without a reader."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO


def open_standard_streams() -> None:
    """Opens /dev/null for each standard stream that the shell closed (``>&-``).

    Otherwise the next file or connection would get the stream's descriptor.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def write(stream: TextIO, text: str) -> OSError | None:
    """Writes and flushes. After an error, returns it and redirects the stream to /dev/null."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # else the interpreter tries again at its end, and complains
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
        return error
    return None


class Lenient:
    """A stream that ignores errors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """Nothing is left to flush."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
