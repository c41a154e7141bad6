"""What ``unittest.mock.create_autospec()`` finds out about compiled functions.

It takes the signature of a callable that is not Python's own function from its ``__call__``, and the one that all
compiled functions have takes anything. So each gets one of its own. Calling the function does not go by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature


class _Call:
    """The ``__call__`` of a compiled function: it takes what that takes, without ``self``."""

    def __init__(self, function: Callable[..., Any], is_method: bool) -> None:
        self._function = function
        self._is_method = is_method

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._function(*arguments, **keywords)

    @property
    def __signature__(self) -> Signature:
        import inspect  # which takes long to import

        class WithoutSelf(inspect.Signature):
            def bind_partial(self, *arguments: Any, **keywords: Any) -> Any:
                # mock leaves out self a second time when it compares calls, by a functools.partial. This makes that
                # a ValueError, after which it compares them as they are.
                raise TypeError("self is left out already")

        parameters = inspect.signature(self._function).parameters.values()
        return WithoutSelf(list(parameters)[self._is_method :])


def describe(*described: Any) -> None:
    """Gives compiled functions, and the public methods of compiled classes, a ``__call__`` that says what they take."""
    for one in described:
        if not isinstance(one, type):
            one.__call__ = _Call(one, False)
            continue
        for name, method in vars(one).items():
            if callable(method) and not name.startswith("_"):
                method.__call__ = _Call(method, True)
