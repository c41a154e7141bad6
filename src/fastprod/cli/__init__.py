"""The command ``fastprod``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from . import send


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code; SystemExit(2) for arguments that argparse does not take."""
    parser = argparse.ArgumentParser(prog="fastprod", description="A Kafka producer for jobs that push volume.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    send.add_parser(commands)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)
