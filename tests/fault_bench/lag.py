"""How long this process had to wait for a core: what a slow machine adds to every deadline."""

from __future__ import annotations

import threading
import time

TICK = 0.01  # seconds


class Lag:
    """Sleeps in a thread and notes how much longer than asked the longest sleep was. A context manager.

    longest: seconds, so far.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sleep, name="lag", daemon=True)

    def __enter__(self) -> Lag:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _sleep(self) -> None:
        before = time.monotonic()
        while not self._over.wait(TICK):
            now = time.monotonic()
            self.longest = max(self.longest, now - before - TICK)
            before = now
