"""PEM as people give it, written as OpenSSL reads it: a label, lines of 64, a label.

Java takes PEM whose line breaks became spaces, as they do in environment variables and YAML. OpenSSL does not.
"""

from __future__ import annotations

import base64
import re

CERTIFICATE, PRIVATE_KEY = "CERTIFICATE", "PRIVATE KEY"

_ESCAPED_BREAK = re.compile(r"\\+[nrt]?")  # \n as two characters, and the \ that continues a line; base64 has no \
_BEGIN = re.compile(r"-+BEGIN\s+([A-Z0-9 ]+?)\s*-+")
_BLOCK = re.compile(_BEGIN.pattern + r"(.*?)-+END\s+\1\s*-+", re.DOTALL)
_ENCRYPTED = re.compile(r"Proc-Type:\s*4,\s*ENCRYPTED\s+DEK-Info:\s*([\w-]+),\s*([0-9A-Fa-f]+)(?=\s)")


def normalize(text: str, kind: str) -> str:
    """The PEM blocks of one kind, CERTIFICATE or PRIVATE_KEY, without the text around them.

    ValueError says why the text is malformed. It never quotes the text, which may be a key.
    """
    text = _ESCAPED_BREAK.sub("\n", text)
    begun = [" ".join(label.split()) for label in _BEGIN.findall(text)]
    blocks = [(" ".join(label.split()), body) for label, body in _BLOCK.findall(text)]
    wanted = [(label, body) for label, body in blocks if label.endswith(kind)]
    if not begun:
        raise ValueError(f"is not PEM: it has no -----BEGIN {kind}-----")
    if not wanted and not any(label.endswith(kind) for label in begun):
        raise ValueError(f"holds no {kind}, but {', '.join(dict.fromkeys(begun))}")
    if len(wanted) < sum(label.endswith(kind) for label in begun):
        raise ValueError(f"is cut off: a {kind} has no -----END {kind}-----")
    if kind == PRIVATE_KEY and len(wanted) > 1:
        raise ValueError(f"holds {len(wanted)} private keys: leave one")
    return "".join(_written(label, body) for label, body in wanted)


def is_plain(text: str) -> bool:
    """Whether OpenSSL reads it as it is: each label has a line of its own."""
    return len(re.findall(r"^-----BEGIN [A-Z0-9 ]+-----\s*$", text, re.MULTILINE)) == len(_BEGIN.findall(text))


def _written(label: str, body: str) -> str:
    if label == "OPENSSH PRIVATE KEY":
        raise ValueError("holds an OPENSSH PRIVATE KEY, which TLS does not use: convert it by ssh-keygen -p -m PEM")
    header = ""
    if encrypted := _ENCRYPTED.search(body):
        header = f"Proc-Type: 4,ENCRYPTED\nDEK-Info: {encrypted[1]},{encrypted[2]}\n\n"
        body = body[encrypted.end() :]
    else:
        body = re.sub(r"^.*:.*$", "", body, flags=re.MULTILINE)  # Java ignores other headers too
    data = "".join(body.split())
    try:
        if not base64.b64decode(data, validate=True):
            raise ValueError
    except ValueError:
        raise ValueError(f"the {label} has no valid base64 between its BEGIN and END") from None
    lines = "".join(f"{data[i : i + 64]}\n" for i in range(0, len(data), 64))
    return f"-----BEGIN {label}-----\n{header}{lines}-----END {label}-----\n"
