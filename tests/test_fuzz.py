"""A few seconds of tests/fuzz.py; `make fuzz SECONDS=600 SEED=5` runs more of it."""

import subprocess
import sys


def test_what_nobody_would_think_of_works_or_is_refused():
    command = [sys.executable, "-m", "tests.fuzz", "4"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    print(ended.stdout[-5000:])  # with the seed, and the file of an input that failed
    assert ended.returncode == 0
