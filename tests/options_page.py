"""The tables of docs/options.md, printed from the one in the code: ``python -m tests.options_page`` rewrites them."""

import pathlib
import re

from fastprod.config.options import ALIASES, OPTIONS

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "options.md"

# What most jobs should look at, in the order in which a record meets it.
IMPORTANT = """
bootstrap.servers acks linger.ms batch.size buffer.memory max.block.ms delivery.timeout.ms request.timeout.ms
max.request.size compression.type connections.max.idle.ms partitioner security.protocol sasl.mechanism
""".split()  # noqa: SIM905 (a list of names reads better than quotes)


def important():
    rows = [f"| `{o.name}` | {_default(o)} | {_unit(o)}{o.doc} |" for o in map(OPTIONS.get, IMPORTANT)]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])


def complete():
    rows = [f"| `{o.name}` | {_default(o)} | {_values(o)} | {_meaning(o)} |" for o in OPTIONS.values()]
    return "\n".join(["| option | default | values | meaning |", "|---|---|---|---|", *rows])


def render(text):
    """The page with its tables as they should be; ValueError if a mark is missing."""
    for name, table in (("important options", important()), ("all options", complete())):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{PAGE.name} must have {begin} and {end} once each")
        text = re.sub(f"{begin}.*{end}", lambda _, b=begin, t=table, e=end: f"{b}\n\n{t}\n\n{e}", text, flags=re.DOTALL)
    return text


def _default(option):
    if option.name == "bootstrap.servers":
        return "required"
    if option.default in (None, "", ()):
        return ""
    return f"`{str(option.default).lower() if isinstance(option.default, bool) else option.default}`"


def _unit(option):
    return f"{option.unit}. " if option.unit in ("bytes", "ms", "ms, fractions allowed") else ""


def _values(option):
    if option.owner in ("refused", "no effect"):
        return option.owner
    if isinstance(option.valid, range):
        return f"{option.valid.start} to {option.valid.stop - 1} {option.unit}"
    if option.valid and option.unit == "level":
        return f"{option.valid[0]}, {option.valid[1]} to {option.valid[-1]}"
    if option.valid:
        return ", ".join(f"`{value}`" if value else "empty" for value in option.valid)
    return option.unit


def _meaning(option):
    names = [alias for alias, name in ALIASES.items() if name == option.name]
    also = f" Also `{'`, `'.join(names)}`." if names else ""
    return option.doc.replace("|", "\\|") + also


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
