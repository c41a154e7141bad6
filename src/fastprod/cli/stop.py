"""Ends a command at a signal: it reads no more input, and delivers the records that it has read."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

GRACE = 10.0  # seconds for pending records after the first signal
SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "ended by SIGTERM",
    signal.SIGHUP: "ended by SIGHUP",
}


class Stopped(KeyboardInterrupt):
    """A signal came while no record was being sent."""


class Stop:
    """Knows whether a signal has ended the input. Handles SIGINT, SIGTERM and SIGHUP while it is entered.

    The first signal sets `number`, and in `raising()` it raises Stopped, unless `graceful()` is entered there.
    The second hurries, and the third kills the process. A further SIGHUP does neither: when a terminal hangs up, both
    the kernel and the shell send one.

    Only the main thread can handle signals; elsewhere none is handled. Nor is one that is ignored, as under nohup.
    """

    def __init__(self) -> None:
        self.number = 0  # of the first signal
        self.wait_ended = False
        self._reader = self._writer = -1  # a pipe that the interpreter writes to at each signal; -1 if none is handled
        self._previous_writer = -1
        self._raises = False
        self._previous: dict[int, Any] = {}
        self._seen: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put() is safe in a signal handler; 0 is the end

    @property
    def code(self) -> int:
        """The exit code by the shell's rule: 128 + the signal."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def reason(self) -> str:
        return SIGNALS[signal.Signals(self.number or signal.SIGINT)]

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._previous_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._writer >= 0:
            signal.set_wakeup_fd(self._previous_writer)
            os.close(self._writer)
            os.close(self._reader)
            self._reader = self._writer = -1

    def _handle(self, number: int, _: object) -> None:
        if self.number:
            if number != signal.SIGHUP:
                for each in self._previous:
                    signal.signal(each, signal.SIG_DFL)
                self._seen.put(number)
            return
        self.number = number
        self._seen.put(number)
        if self._raises:
            raise Stopped

    def wait_readable(self, fd: int) -> None:
        """Returns when a descriptor is readable or a signal has asked for the end.

        A signal does not always interrupt select(): it may come just before the call, or in another thread, and Python
        calls the handler only when select() returns. So the interpreter itself writes to the pipe.
        """
        while not self.number:
            ready, _, _ = select.select([fd, *([self._reader] if self._reader >= 0 else [])], [], [])
            if fd in ready:
                return
            os.read(self._reader, 512)  # the signal's handler runs before the loop looks again

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """In the body, a signal raises Stopped, also an earlier one. For calls that can be cut off without loss."""
        before, self._raises = self._raises, True
        try:
            if self.number:
                raise Stopped
            yield
        finally:
            self._raises = before

    @contextlib.contextmanager
    def graceful(self, announce: Callable[[], object], hurry: Callable[[], object]) -> Iterator[None]:
        """Signals raise nothing in the body, and after it.

        A thread calls announce() at the first one, and hurry() at the second or GRACE seconds later. hurry() must end
        all that the body may wait for.
        """

        def watch() -> None:
            if not self._seen.get():
                return
            announce()
            with contextlib.suppress(queue.Empty):
                if not self._seen.get(timeout=GRACE):
                    return
            self.wait_ended = True
            hurry()

        self._raises = False
        thread = threading.Thread(target=watch, name="fastprod-signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._seen.put(0)
            thread.join()
