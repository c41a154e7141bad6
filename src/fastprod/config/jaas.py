"""Java's ``sasl.jaas.config``: ``<login module> <flag> <name>=<value> ... ;``, for librdkafka's mechanisms.

Source: org.apache.kafka.common.security.JaasConfig, and java.io.StreamTokenizer by which it reads.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Login module -> the mechanisms it serves, and its options by the names that fastprod has for them.
_PASSWORD = {"username": "sasl.username", "password": "sasl.password"}
_MODULES = {
    "org.apache.kafka.common.security.plain.PlainLoginModule": (("PLAIN",), _PASSWORD),
    "org.apache.kafka.common.security.scram.ScramLoginModule": (("SCRAM-SHA-256", "SCRAM-SHA-512"), _PASSWORD),
    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule": (
        ("OAUTHBEARER",),
        {
            "clientId": "sasl.oauthbearer.client.credentials.client.id",
            "clientSecret": "sasl.oauthbearer.client.credentials.client.secret",
            "scope": "sasl.oauthbearer.scope",
        },
    ),
}
_FLAGS = ("required", "requisite", "sufficient", "optional")
# Java's StreamTokenizer: what it skips, a quoted text, a word, a sign.
_TOKEN = re.compile(
    r"""
    [\x00-\x20]+ | /\*.*?(?:\*/|\Z) | /[^\r\n]*
    | (?P<quoted> "(?:[^"\\\r\n]|\\.)*" | '(?:[^'\\\r\n]|\\.)*' )
    | (?P<word> [\w.$\-\xa0-\U0010ffff]+ )
    | (?P<sign> [=;] )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\([0-3][0-7]{2}|[0-7]{1,2}|.)", re.DOTALL)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Login(NamedTuple):
    """The options of a login module."""

    mechanisms: tuple[str, ...]  # of SASL: those that the module is for
    options: dict[str, str]  # option of fastprod -> value


def parse(text: str) -> Login:
    """Parses the text. ValueError says why it is malformed, and never shows a value, which may be a password."""
    tokens = _tokens(text)
    module, flag = tokens[0][0] if tokens else "", tokens[1][0] if len(tokens) > 1 else ""
    if module.rpartition(".")[2] == "Krb5LoginModule":
        raise ValueError("Krb5LoginModule is Java's: use sasl.kerberos.*")
    if module not in _MODULES:
        raise ValueError("the login module must be one of " + ", ".join(_MODULES))
    if flag.lower() not in _FLAGS:
        raise ValueError("after the login module there must be a flag, such as required")
    mechanisms, names = _MODULES[module]
    if not tokens[2:] or tokens[-1] != (";", True):
        raise ValueError("a semicolon must end it")
    pairs, options = tokens[2:-1], {}
    if len(pairs) % 3:
        raise ValueError('options must be name="value"')
    for (name, _), equals, (value, is_sign) in zip(pairs[::3], pairs[1::3], pairs[2::3], strict=True):
        if equals != ("=", True) or is_sign:
            raise ValueError('options must be name="value"')
        if name not in names:
            raise ValueError(f"librdkafka supports only these options of the module: {', '.join(names)}")
        if "\0" in value:
            raise ValueError("a value contains NUL, which librdkafka does not support")
        options[names[name]] = value
    if names is _PASSWORD and len(options) < len(names):
        raise ValueError("the module needs both username and password")
    return Login(mechanisms, options)


def _tokens(text: str) -> list[tuple[str, bool]]:
    """The words and signs, each with whether it is a sign."""
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(
                'values must be in double quotes that close on the same line, with \\" and \\\\ for " and \\'
            )
        if quoted := match["quoted"]:
            found.append((_ESCAPE.sub(_unescaped, quoted[1:-1]), False))
        elif match["word"] or match["sign"]:
            found.append((match[0], match["sign"] is not None))
        place = match.end()
    return found


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code, 8)) if code[0] in "01234567" else _ESCAPED.get(code, code)
