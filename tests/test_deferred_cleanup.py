"""What ends after close(), because librdkafka is in a call that cannot be interrupted."""

import pytest

from tests.test_producer_process import check_quiet, run

pytestmark = pytest.mark.mock


def test_an_answer_to_the_metadata_thread_may_come_when_the_producer_is_gone():
    """close() does not wait for it, and what it wakes has to be there still."""
    script = """
import gc, os, sys, time
from fastprod import MetadataTimeoutError, Producer
from fastprod.testing import MockCluster
with MockCluster(topics={"t": 2}, process=True) as cluster:
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        producer = Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, max_block_ms=300)
        producer.wait_ready(20)
        cluster.set_round_trip_time(1, 700)
        try:
            producer.send("t", b"v")
        except MetadataTimeoutError:
            pass
        producer.close(0)
        del producer
        gc.collect()
        reused = [b"\\1" * size for size in range(100, 700, 8) for _ in range(400)]
        deadline = time.monotonic() + 20  # until the answer has come and nothing of the producer is left
        while len(os.listdir("/proc/self/task")) > threads:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        cluster.set_round_trip_time(1, 0)
"""
    check_quiet(run(script))
