"""The producer's options, read from the command line, from files and from the environment.

Every process of the machine can read a command line. Files and the environment are for secrets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from ..config.options import ALIASES, OPTIONS, dotted, is_sensitive, redact

ENVIRONMENT = "FASTPROD_"
_OTHER_VARIABLES = ("FASTPROD_LIBRDKAFKA",)  # the library to load, and not an option
_FORCED = "librdkafka."
# Parts of sensitive options' names whose values are not secret.
_PUBLIC = re.compile(r"username|certificate|(?<!key)\.pem")


class SettingsError(ValueError):
    """An option cannot be read. The message says where it is given, and shows no secret."""


class Settings:
    """Options by name, and the origin of each. A later option replaces an earlier one with the same meaning."""

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self.origins: dict[str, str] = {}

    def add(self, options: Mapping[str, str], origins: Mapping[str, str]) -> None:
        new = {setting(name) for name in options}
        for name in [name for name in self.options if setting(name) in new]:
            del self.options[name], self.origins[name]
        self.options.update(options)
        self.origins.update(origins)

    def origin_of(self, wanted: str) -> str | None:
        """Where a setting came from, however it is spelt; None if it was not given."""
        return next((origin for name, origin in self.origins.items() if setting(name) == wanted), None)

    def explained(self, message: str, credentials: bool = False) -> str:
        """An error's message with the origins of its options. credentials: adds the origins of all credentials."""
        origins = [
            f"{name} is from {origin}"
            for name, origin in self.origins.items()
            if (credentials and setting(name).startswith(("sasl.", "ssl.")) and is_sensitive(name))
            or (origin != "-X" and re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.]*\w)", message))
        ]
        return f"{message} ({'; '.join(origins)})" if origins else message


def read(environment: Mapping[str, str], files: Sequence[str], arguments: Sequence[str]) -> Settings:
    """From weakest to strongest: the environment, each file, the values of -X. SettingsError, or OSError for a file."""
    settings = Settings()
    settings.add(*_from_environment(environment))
    for path in files:
        settings.add(*_from_file(path))
    settings.add(*_from_arguments(arguments))
    return settings


def setting(name: str) -> str:
    """The same for every spelling of an option."""
    name = dotted(name).removeprefix(_FORCED)
    return ALIASES.get(name, name)


def variable(name: str) -> str:
    """The environment's name of an option."""
    return ENVIRONMENT + name.replace(".", "_").upper()


def in_clear(arguments: Sequence[str]) -> list[str]:
    """The secrets whose values the command line shows."""
    pairs = [text.partition("=") for text in arguments]
    return list(
        dict.fromkeys(
            name
            for name, _, value in pairs
            if is_sensitive(name) and not _PUBLIC.search(dotted(name)) and value and not _is_file(value)
        )
    )


def _is_file(value: str) -> bool:
    return value.startswith("@") and not value.startswith("@@")


def _from_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    options: dict[str, str] = {}
    origins: dict[str, str] = {}
    for text in arguments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingsError(f"-X {redact(text, text)} is not KEY=VALUE")
        origin = "-X"
        if _is_file(value):
            origin = value[1:]
            value = _content(name, origin)
        elif value.startswith("@@"):
            value = value[1:]
        if options.setdefault(name, value) != value:
            both = f"{redact(name, options[name])} and {redact(name, value)}"
            raise SettingsError(f"-X {name} is given twice, with different values: {both}; leave one out")
        origins.setdefault(name, origin)
    return options, origins


def _content(name: str, path: str) -> str:
    """A file's text without its last line end."""
    if not path:
        raise SettingsError(f"-X {name}=@ names no file; write a value that begins with @ as @@...")
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except UnicodeDecodeError as error:
        raise SettingsError(f"-X {name}=@{path}: the file is not UTF-8, at byte {error.start + 1}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"-X {name}=@{path}: {getattr(error, 'strerror', None) or error}; write a value that begins with @ as @@..."
        ) from None
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _from_environment(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """``FASTPROD_SASL_PASSWORD`` is sasl.password. Ignores empty variables and other names."""
    options: dict[str, str] = {}
    for key, value in environment.items():
        if not key.startswith(ENVIRONMENT) or key in _OTHER_VARIABLES or not value:
            continue
        name = dotted(key[len(ENVIRONMENT) :].lower())
        if setting(name) in OPTIONS or name.startswith(_FORCED):
            options[name] = value
        elif near := difflib.get_close_matches(name, [*OPTIONS, *ALIASES], n=1, cutoff=0.85):
            raise SettingsError(f"{key} is not an option: did you mean {variable(near[0])}?")
    return options, {name: variable(name) for name in options}


def _from_file(path: str) -> tuple[dict[str, str], dict[str, str]]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        raise SettingsError(f"-F {path}: {getattr(error, 'strerror', None) or error}") from None
    options: dict[str, str] = {}
    origins: dict[str, str] = {}
    for name, value, line in properties(path, data):
        options[name] = value
        origins[name] = f"{path}:{line}"
    return options, origins


_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK = " \t\f"
_KEY = re.compile(r"(?:[^\\=: \t\f]|\\.)*", re.DOTALL)
_SEPARATOR = re.compile(r"[ \t\f]*[=:]?[ \t\f]*")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})?|(.))", re.DOTALL)
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def properties(path: str, data: bytes) -> Iterator[tuple[str, str, int]]:
    """Name, value and line number of each entry of a .properties file, by Java's rules.

    The last of two equal names applies. A file that is valid UTF-8 is read as UTF-8, and any other as ISO-8859-1. Java
    reads all files as ISO-8859-1.

    Source: java.util.Properties.load.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("iso-8859-1")
    lines = iter(enumerate(_LINE_END.split(text), 1))
    for number, line in lines:
        entry = line.lstrip(_BLANK)
        if not entry or entry[0] in "#!":
            continue
        while _continues(entry):
            entry = entry[:-1] + next(lines, (0, ""))[1].lstrip(_BLANK)
        key = _KEY.match(entry)
        assert key
        separator = _SEPARATOR.match(entry, key.end())
        assert separator
        name = _unescaped(path, number, key[0])
        if not name:
            raise SettingsError(f"{path}:{number}: the name before the value is missing")
        yield name, _unescaped(path, number, entry[separator.end() :]), number


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _unescaped(path: str, number: int, text: str) -> str:
    def character(found: re.Match[str]) -> str:
        if found[2] is not None:
            return _ESCAPES.get(found[2], found[2])
        if found[1] is None:
            raise SettingsError(
                f"{path}:{number}: four hexadecimal digits must follow \\u; a backslash is written \\\\"
            )
        return chr(int(found[1], 16))

    # \ud83d\ude00 is one character, written as a surrogate pair.
    return _ESCAPE.sub(character, text).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
