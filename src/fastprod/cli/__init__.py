"""The command ``fastprod``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import fastprod

from ..librdkafka import loader as librdkafka
from . import console, send


class _Version(argparse.Action):
    """Prints the versions of fastprod and of the librdkafka it has loaded."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the versions of fastprod and librdkafka")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        console.write(sys.stdout, f"fastprod {fastprod.__version__}, librdkafka {librdkafka.version()}\n")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Ignores an output that is closed or full, as argparse does since Python 3.11."""
        with contextlib.suppress(OSError):
            super()._print_message(message, file)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns its exit code. Raises SystemExit(2) if argparse refuses the arguments."""
    description = "A Kafka producer for jobs that send many records."
    parser = _Parser(prog="fastprod", description=description, allow_abbrev=False)
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    send.add_parser(commands)
    console.open_standard_streams()
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)
