"""TokenRefresher: gets OAUTHBEARER tokens from the user's provider."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from fastprod.internals.threads import greenlets_run, make_thread

_LATEST_S = 253_402_300_800  # the end of the year 9999; times since 1978 are beyond it if they are in ms


class TokenSink(Protocol):
    """The part of ``TokenRequests`` that is used here."""

    def wanted(self) -> str | None: ...
    def wake(self) -> None: ...
    def set(self, token: str, expiry_ms: int, principal: str, extensions: dict[str, str]) -> None: ...
    def fail(self, reason: str) -> None: ...


class TokenRefresher:
    """Asks the provider whenever librdkafka wants a token: at first, and after 80 % of a token's life.

    On a thread of its own: a provider may take as long as an HTTP request does, and neither records nor callbacks
    wait for it; nor does a slow callback let a token expire.
    """

    def __init__(self, sink: TokenSink, provider: Callable[[str], Any]) -> None:
        self._sink = sink
        self._provider = provider
        self._closed = False
        self._thread = make_thread(self._run, "fastprod-tokens", green=greenlets_run())

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Ends the thread; a provider that takes longer than timeout seconds is left behind."""
        self._closed = True
        self._sink.wake()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closed:
            config = self._sink.wanted()
            if config is None or self._closed:
                continue
            try:
                token, expiry_ms, principal, extensions = _checked(self._provider(config))
                if not self._closed:
                    self._sink.set(token, expiry_ms, principal, extensions)
            except Exception as error:  # of any kind: wait_ready() and send() must report it
                if not self._closed:
                    self._sink.fail(f"sasl.oauthbearer.token.provider: {type(error).__name__}: {error}")


def _checked(given: Any) -> tuple[str, int, str, dict[str, str]]:
    """TypeError if a provider gave something else than (token, expiry in s[, principal[, extensions]])."""
    if not isinstance(given, tuple) or not 2 <= len(given) <= 4:
        raise TypeError(f"it must return (token, expiry[, principal[, extensions]]), not {type(given).__name__}")
    token, expiry, *rest = given
    principal = rest[0] if rest else None
    extensions = {} if len(rest) < 2 or rest[1] is None else rest[1]
    if not isinstance(token, str):
        raise TypeError(f"the token must be str, not {type(token).__name__}")
    if not isinstance(principal, (str, type(None))):
        raise TypeError(f"the principal must be str, not {type(principal).__name__}")
    if not isinstance(extensions, dict) or not all(isinstance(text, str) for text in _texts(extensions)):
        raise TypeError("the extensions must be a dict of str to str")
    if "\0" in "".join((token, principal or "", *_texts(extensions))):  # C would take it for the end
        raise ValueError("there is a NUL in the token, the principal or the extensions")
    # librdkafka refuses them too, but quotes what it refuses.
    if not token or not all(0x21 <= byte <= 0x7E for byte in token.encode()):
        raise ValueError("the token is empty, or holds something else than visible ASCII characters, such as a space")
    for name, value in extensions.items():
        if not all(0x20 <= byte <= 0x7E or byte in b"\t\r\n" for byte in value.encode()):
            raise ValueError(f"the value of the extension {name!r} holds something else than ASCII text")
    return token, _expiry_ms(expiry), principal or "", extensions


def _expiry_ms(expiry: Any) -> int:
    """TypeError, ValueError or OverflowError if it is no time, or one that can only be in another unit than seconds."""
    if isinstance(expiry, bool) or not (hasattr(expiry, "__float__") or hasattr(expiry, "__index__")):
        hint = ": give its timestamp()" if hasattr(expiry, "timestamp") else ""
        raise TypeError(f"the expiry must be a number of seconds since the epoch, not {type(expiry).__name__}{hint}")
    try:
        seconds = float(expiry)
    except OverflowError:  # an int that large
        seconds = math.inf if expiry > 0 else 0
    if math.isnan(seconds):
        raise ValueError("the expiry must be a number of seconds since the epoch, not nan")
    if seconds > _LATEST_S:
        raise OverflowError(f"the expiry, {seconds:g}, is after the year 9999: it must be in seconds, not ms")
    return int(max(seconds, 0) * 1000)


def _texts(extensions: dict[Any, Any]) -> list[Any]:
    return [*extensions.keys(), *extensions.values()]
