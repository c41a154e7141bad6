"""Libraries that stand before libc in a process of its own and misbehave on demand; Linux only."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(script, *arguments, library=None, tmp_path=None, timeout=180):
    """How a Python process with that script ended, with ``library``.c of this folder before libc."""
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    if library is not None:
        built = tmp_path / f"{library}.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, HERE / f"{library}.c", "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        environment["LD_PRELOAD"] = str(built)
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
