"""The lag is that of this process, however it comes about."""

from __future__ import annotations

import os
import subprocess
import time

from tests.fault_bench.lag import Lag


def test_a_process_that_was_stopped_has_lagged() -> None:
    pid = os.getpid()
    with Lag() as lag:
        time.sleep(0.1)
        subprocess.run(["sh", "-c", f"kill -STOP {pid}; sleep 0.3; kill -CONT {pid}"], check=True)
        time.sleep(0.05)
    assert lag.longest >= 0.15
