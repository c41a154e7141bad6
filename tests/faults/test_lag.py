"""The lag is that of this process, however it comes about."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from tests.faults.lag import Lag


def test_a_process_that_was_stopped_has_lagged() -> None:
    helper = subprocess.Popen(["sh", "-c", f"sleep 0.4; kill -CONT {os.getpid()}"])
    with Lag() as lag:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.05)
    assert helper.wait() == 0
    assert lag.longest >= 0.15
