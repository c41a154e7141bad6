"""Parses and checks the value of one option. ConfigError if it is not valid."""

from __future__ import annotations

import math
import operator
import os
import re
import stat
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from . import jaas
from .options import PARTITIONERS, Option, is_sensitive, redact

_SPACE = "".join(map(chr, range(33)))  # what Java trims


def show(key: str, value: object) -> str:
    text = repr(value)
    return redact(key, text if len(text) <= 80 else text[:80] + "...")


def _bad(option: Option, key: str, value: object, wanted: str) -> ConfigError:
    if isinstance(option.valid, range):
        wanted += f" from {option.valid.start} to {option.valid.stop - 1}"
    elif option.valid:
        wanted = f"one of {', '.join(map(repr, option.valid))} ({option.doc.rstrip('.')})"
    return ConfigError(f"{key}={show(option.name, value)}: must be {wanted}")


def _whole(option: Option, key: str, value: Any) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and not value.strip(_SPACE).lstrip("+-").isdigit()):
            raise ValueError
        number = int(value) if isinstance(value, str) else operator.index(value)
        if option.valid is not None and number not in option.valid:
            raise ValueError
    except (TypeError, ValueError):
        raise _bad(option, key, value, f"a whole number ({option.unit})") from None
    return number


def _real(option: Option, key: str, value: Any) -> float:
    try:
        if isinstance(value, (bool, bytes, bytearray)) or (isinstance(value, str) and "_" in value):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        if isinstance(option.valid, range) and not option.valid.start <= number <= option.valid.stop - 1:
            raise ValueError
    except (OverflowError, TypeError, ValueError):
        raise _bad(option, key, value, f"a number ({option.unit})") from None
    return number


def _bool(option: Option, key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip(_SPACE).lower() in ("true", "false"):
        return value.strip(_SPACE).lower() == "true"
    raise _bad(option, key, value, "true or false")


def _string(option: Option, key: str, value: Any) -> str:
    """Trims white space, as Java does. Secrets keep theirs."""
    text = _clean(option, key, value, "a str")
    if not is_sensitive(option.name):
        text = text.strip(_SPACE)
    if option.valid and text not in option.valid:
        raise _bad(option, key, value, "")
    if not text and option.default is None:
        raise _bad(option, key, value, "a str that is not empty")
    return text


def _clean(option: Option, key: str, value: Any, wanted: str) -> str:
    if not isinstance(value, str):
        raise _bad(option, key, value, f"{wanted}, not {type(value).__name__}")
    if not _is_clean(value):
        raise ConfigError(f"{key}={show(option.name, value)}: must not hold NUL or lone surrogates")
    return value


def _name(option: Option, key: str, value: Any) -> str:
    if isinstance(value, str):
        for allowed in map(str, option.valid or ()):
            if allowed.lower() == value.strip(_SPACE).lower():
                return allowed
    raise _bad(option, key, value, "")


def _acks(option: Option, key: str, value: Any) -> str:
    text = str(value).strip(_SPACE) if isinstance(value, (int, str)) else ""
    if text not in (option.valid or ()):
        raise _bad(option, key, value, "")
    return "all" if text == "-1" else text


def _list(option: Option, key: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        if others := [type(item).__name__ for item in value if not isinstance(item, str)]:
            raise _bad(option, key, value, f"a str or a list of str, not of {others[0]}")
        value = ",".join(value)
    text = _clean(option, key, value, "a str or a list of str")
    return ",".join(item.strip(_SPACE) for item in text.split(","))


_HOST = re.compile(r"(?:(?P<scheme>[\w\-%.]*)://)?(?P<host>\[[\w.:%]*:[\w.:%]*\]|[\w\-.]+):(?P<port>\d+)", re.ASCII)


def _hosts(option: Option, key: str, value: Any) -> str:
    if "@" in repr(value):  # a password may stand before it
        raise ConfigError(f"{key}: an entry contains an @; entries are host:port, and credentials go into sasl.*")
    hosts = _list(option, key, value).split(",")
    if len(hosts) > 1000:
        raise ConfigError(
            f"{key} names {len(hosts)} hosts, but the limit is 1000; a few are enough, because brokers name the others"
        )
    for entry in hosts:
        match = _HOST.fullmatch(entry)
        if not entry:
            raise ConfigError(f"{key}={show(key, value)}: an entry is empty")
        if not match:
            raise ConfigError(f"{key}: {show(key, entry)} must be host:port or [IPv6]:port; a comma separates entries")
        if not 1 <= int(match["port"].lstrip("0")[:6] or 0) <= 65_535:
            raise ConfigError(f"{key}: {show(key, entry)} must have a port from 1 to 65535")
    return ",".join(dict.fromkeys(hosts))


def _file(option: Option, key: str, value: Any) -> str:
    if option.maps_to == "ssl.ca.location" and value == "probe":
        return "probe"  # librdkafka then looks where distributions keep their certificates
    if isinstance(value, os.PathLike):
        path = _clean(option, key, os.fspath(value), "a path of str")
        path = os.path.join(os.curdir, path) if path[:1].isspace() else path  # librdkafka would drop the space
    else:
        path = _string(option, key, value)
    try:
        if os.path.isfile(path):  # a pipe can be read once only, and librdkafka reads it
            with open(path, "rb") as file:
                if option.unit == "PEM file" and b"-----BEGIN" not in file.read():
                    raise ConfigError(f"{key}={show(key, path)}: is not PEM; convert it, or use ssl.keystore.location")
        elif stat.S_ISDIR(os.stat(path).st_mode) and option.maps_to != "ssl.ca.location":
            raise ConfigError(f"{key}={show(key, path)}: is a directory")
    except OSError as error:
        raise ConfigError(f"{key}={show(key, path)}: cannot be read: {error.strerror}") from None
    return path


def _jaas(option: Option, key: str, value: Any) -> jaas.Login:
    text = _string(option, key, value)
    try:
        return jaas.parse(text)
    except ValueError as error:  # never from it: the traceback would show the text, and with it the password
        raise ConfigError(f"{key}: {error}") from None


def _callable(option: Option, key: str, value: Any) -> Any:
    if not callable(value):
        raise _bad(option, key, value, "a callable")
    return value


def _serializer(option: Option, key: str, value: Any) -> Any:
    has_method = callable(getattr(value, "serialize", None))
    if not (callable(value) or has_method) or (isinstance(value, type) and has_method):
        raise _bad(option, key, value, "a callable, or an object (not a class) with serialize(topic, value)")
    return value


def _partitioner(option: Option, key: str, value: Any) -> Any:
    if isinstance(value, str) and value in PARTITIONERS:
        return value
    if isinstance(value, (str, bytes, bytearray, type)) or not callable(getattr(value, "partition", None)):
        names = ", ".join(PARTITIONERS)
        raise _bad(option, key, value, f"one of {names}, or an object (not a class) with partition()")
    return value


def _interceptors(option: Option, key: str, value: Any) -> tuple[Any, ...]:
    hooks = ("on_send", "on_acknowledgement")
    if not isinstance(value, (list, tuple)) or not all(
        not isinstance(item, type) and any(callable(getattr(item, hook, None)) for hook in hooks) for item in value
    ):
        raise _bad(option, key, value, "a list of objects (not classes) with on_send or on_acknowledgement")
    return tuple(value)


_PARSERS: dict[str, Callable[[Option, str, Any], Any]] = {
    "ms": _whole, "bytes": _whole, "count": _whole, "level": _whole, "seconds": _whole,
    "ms, fractions allowed": _real, "ratio": _real, "bool": _bool, "text": _string, "name": _name, "acks": _acks,
    "list": _list, "hosts": _hosts, "jaas": _jaas, "callable": _callable, "file": _file, "PEM file": _file,
    "serializer": _serializer, "partitioner": _partitioner, "interceptors": _interceptors,
}  # fmt: skip


def parse(option: Option, key: str, value: Any) -> Any:
    """The value in the option's unit. key: the option's name as the user wrote it. ConfigError if it is not valid."""
    return _PARSERS[option.unit](option, key, value)


def text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(text_of, value))
    return str(value)


def compact(value: Any) -> str:
    """Text to compare values by: in lower case, and without white space around the value or the items of a list."""
    return ",".join(item.strip(_SPACE) for item in text_of(value).split(",")).lower()


def property_text(key: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{key}={show(key, value)}: must be a str, int, float or bool")
    if not _is_clean(text := text_of(value)):
        raise ConfigError(f"{key}={show(key, value)}: must not hold NUL or lone surrogates")
    return text


def _is_clean(text: str) -> bool:
    """Whether the text can be passed to C."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
