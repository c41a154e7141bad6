"""The logger ``fastprod``, and LogLimit: librdkafka's lines, at most one a second of each kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

INTERVAL_S = 1.0
# syslog's levels, librdkafka's, as logging's.
_LEVELS = (50, 50, 50, 40, 30, 20, 20, 10)
_DEBUG = 7


def logger() -> Logger:
    """The logger ``fastprod``. logging is imported here, since that takes a sixth as long as all of fastprod."""
    import logging

    return logging.getLogger("fastprod")


class LogLimit:
    """Writes lines to the logger ``fastprod``, and leaves out what says the same again and again.

    A broker that refuses a connection is asked 20 times a second, and librdkafka logs each. The kind of a line is
    librdkafka's name for it, such as FAIL. The next line of the kind, or close(), gives the number of lines left out.
    Debug lines are all written, because a user has asked for them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logger = logger()
        self._kinds: dict[str, tuple[float, int]] = {}  # kind -> when it may be written again, lines left out

    def write(self, level: int, line: str) -> None:
        """level: syslog's. line: ``KIND: text``."""
        if level >= _DEBUG:
            self._logger.log(_LEVELS[_DEBUG], "%s", line)
            return
        kind = line.partition(":")[0]
        now = self._clock()
        again, left_out = self._kinds.get(kind, (now, 0))
        if now < again:
            self._kinds[kind] = (again, left_out + 1)
            return
        self._kinds[kind] = (now + INTERVAL_S, 0)
        more = f" ({left_out} more {kind} lines were left out before this one)" if left_out else ""
        self._logger.log(_LEVELS[level], "%s%s", line, more)

    def close(self, dropped: int = 0) -> None:
        """Reports lines that were left out and not reported yet. dropped: lines that never got here."""
        for kind, (_, left_out) in self._kinds.items():
            if left_out:
                self._logger.info("%s: %d more lines were left out", kind, left_out)
        self._kinds.clear()
        if dropped:
            self._logger.warning("%d lines came faster than they could be logged and are lost", dropped)
