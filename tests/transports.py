"""Transports whose batches a test makes and hands over: what the tests of the transport and of its parts share."""

import contextlib
import time

import pytest

from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from tests.conftest import eventually


def now_ms():
    return int(time.time() * 1000)


@pytest.fixture
def make_transport(mock_cluster, topic):
    """make_transport(servers, **properties): transports with the test's topic."""
    from fastprod_core_access import ManualTransport  # an installed package may lack it

    with contextlib.ExitStack() as stack:

        def make_transport(servers=mock_cluster.bootstrap_servers, topic=topic, **properties):
            properties = {
                name if name == "log_level" else name.replace("_", "."): properties[name] for name in properties
            }
            callbacks = Callbacks(BufferPool(1 << 20, 1 << 14))
            transport = ManualTransport({"bootstrap.servers": servers, **properties}, callbacks)
            stack.callback(transport.close)
            transport.open(topic)
            return transport

        yield make_transport


def serve(transport, records):
    """Serves events until so many records are reported."""
    assert eventually(lambda: transport.serve_one(100) and transport.reported >= records)
    assert transport.reported == records


def outcomes(transport):
    """{(batch, index): (code, offset)} of all records; each is reported once."""
    found = {}
    for number, first, count, code, offset in transport.reports:
        for i in range(count):
            assert (number, first + i) not in found
            found[number, first + i] = (code, offset + i if offset >= 0 else -1)
    return found
