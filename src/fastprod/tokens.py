"""TokenRefresher: gets OAUTHBEARER tokens from the user's provider."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol


class TokenSink(Protocol):
    """Who asks for tokens: the transport."""

    def token_wanted(self) -> str | None: ...
    def wake_token(self) -> None: ...
    def set_token(self, token: str, expiry_ms: int, principal: str, extensions: dict[str, str]) -> None: ...
    def fail_token(self, reason: str) -> None: ...


class TokenRefresher:
    """Asks the provider whenever librdkafka wants a token: at first, and after 80 % of a token's life.

    On a thread of its own: a provider may take as long as an HTTP request does, and neither records nor callbacks
    wait for it; nor does a slow callback let a token expire.
    """

    def __init__(self, sink: TokenSink, provider: Callable[[str], Any]) -> None:
        self._sink = sink
        self._provider = provider
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="fastprod-tokens", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Ends the thread; a provider that takes longer than timeout seconds is left behind."""
        self._closed = True
        self._sink.wake_token()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closed:
            config = self._sink.token_wanted()
            if config is None or self._closed:
                continue
            try:
                token, expiry_ms, principal, extensions = _checked(self._provider(config))
                if not self._closed:
                    self._sink.set_token(token, expiry_ms, principal, extensions)
            except Exception as error:  # whatever it is, wait_ready() and send() must tell of it
                if not self._closed:
                    self._sink.fail_token(f"sasl.oauthbearer.token.provider: {type(error).__name__}: {error}")


def _checked(given: Any) -> tuple[str, int, str, dict[str, str]]:
    """TypeError if a provider gave something else than (token, expiry in s[, principal[, extensions]])."""
    if not isinstance(given, tuple) or not 2 <= len(given) <= 4:
        raise TypeError(f"it must return (token, expiry[, principal[, extensions]]), not {type(given).__name__}")
    token, expiry, *rest = given
    principal = rest[0] if rest else None
    extensions = {} if len(rest) < 2 or rest[1] is None else rest[1]
    if not isinstance(token, str):
        raise TypeError(f"the token must be str, not {type(token).__name__}")
    if isinstance(expiry, bool) or not isinstance(expiry, (int, float)):
        raise TypeError(f"the expiry must be a number of seconds since the epoch, not {type(expiry).__name__}")
    if not isinstance(principal, (str, type(None))):
        raise TypeError(f"the principal must be str, not {type(principal).__name__}")
    if not isinstance(extensions, dict) or not all(isinstance(text, str) for text in _texts(extensions)):
        raise TypeError("the extensions must be a dict of str to str")
    if "\0" in "".join((token, principal or "", *_texts(extensions))):  # C would take it for the end
        raise ValueError("there is a NUL in the token, the principal or the extensions")
    return token, int(expiry * 1000), principal or "", extensions


def _texts(extensions: dict[Any, Any]) -> list[Any]:
    return [*extensions.keys(), *extensions.values()]
