"""Sends records in every way there is, and prints what memory the process has as it goes on: for test_leaks.py.

python -m tests.leaks RECORDS ROUNDS [WAY]: it prints, as JSON, a list of what it had after each round: records sent so
far, resident bytes, bytes that C's allocator has given out, and blocks that Python's has. WAY: only in one way, a
method of Workload.
"""

import array
import contextlib
import ctypes
import gc
import json
import logging
import os
import resource
import sys
import warnings

from fastprod import BufferExhaustedError, DeliveryError, MetadataTimeoutError, Producer, ProducerRecord
from fastprod.testing import MockCluster
from tests.arrow_builder import ArrowBuilder, Type, Values
from tests.conftest import QUICK

FORBIDDEN = 29  # an answer after which librdkafka does not retry


def resident():
    """Without the free memory that C's allocator keeps, which depends on how much was ever in flight at a time."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


class Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def mallinfo():
    figures = ctypes.CDLL(None).mallinfo2
    figures.restype = Mallinfo
    return figures()


def allocated():
    """Bytes given out and not given back, whatever the allocator keeps beside: no guess, unlike the resident ones."""
    found = mallinfo()
    return found.uordblks + found.hblkhd


def free_pieces():
    """Blocks of free memory, none of them next to another."""
    return mallinfo().ordblks


class Boom(Exception):
    pass


class Workload:
    """A producer that writes, and one whose batches are small and fail."""

    def __init__(self, cluster, failing):
        self.cluster = cluster
        self.broken = failing  # whose errors hit nobody else
        options = {"bootstrap.servers": cluster.bootstrap_servers, **QUICK}
        self.writer = Producer(options, linger_ms=5)
        self.failing = Producer(
            QUICK, bootstrap_servers=failing.bootstrap_servers, batch_size=300, linger_ms=50, enable_idempotence=False
        )
        self.tiny = Producer(options, buffer_memory=20_000, batch_size=1000, max_block_ms=0, linger_ms=50)
        self.called = 0
        while True:
            with contextlib.suppress(MetadataTimeoutError):
                self.tiny.partitions_for("t")
                break

    def notified(self, metadata, error):
        self.called += 1

    def done(self, future):
        self.called += 1

    def fail(self, *_):
        raise Boom

    # Each returns how many records it has sent.

    def futures_dropped(self, count):
        for i in range(count):
            self.writer.send("t", b"value %d" % i)
        return count

    def futures_kept(self, count):
        futures = [self.writer.send("t", b"v", b"key %d" % i) for i in range(count)]
        self.writer.flush(60)
        assert all(future.done() for future in futures)
        return sum(future.result(0).partition >= 0 for future in futures)

    def callbacks(self, count):
        for i in range(count):
            self.writer.send("t", "text", headers=[("name", b"%d" % i)], on_delivery=self.notified)
        return count

    def done_callbacks(self, count):
        for i in range(count):
            self.writer.send(ProducerRecord("t", bytearray(b"v"), partition=i % 4)).add_done_callback(self.done)
        return count

    def callbacks_that_raise(self, count):
        for _ in range(count):
            self.writer.send("t", b"v", on_delivery=self.fail)
        return count

    def bad_input(self, count):
        for i in range(count):
            for keywords in ({"value": 5}, {"key": "\ud800"}, {"headers": [("n", b"v"), ("", b"")]}, {"partition": -1}):
                with contextlib.suppress(TypeError, ValueError):
                    self.writer.send("t", **{"value": b"%d" % i, **keywords}, on_delivery=self.notified)
        return 0

    def lists(self, count):
        values = [b"value %d" % i for i in range(count)]
        future = self.writer.send_many("t", values, (b"%d" % i for i in range(count)))
        with contextlib.suppress(TypeError):
            self.writer.send_many("t", [b"v", 5, b"v"])
        assert future.result(60).count == count
        return count + 1

    def columns(self, count):
        offsets, data = (
            array.array("i", range(0, 6 * count + 1, 6)).tobytes(),
            b"".join(b"%06d" % i for i in range(count)),
        )
        column = Values(count, [None, offsets, data])
        built = ArrowBuilder(Type("+s", children=[Type("z", "value")]), [Values(count, [None], children=[column])])
        future = self.writer.send_arrow("t", built)
        built.check()
        assert future.result(60).count == count
        return count

    def failures(self, count):
        """The first batches fail: with a callback, asked, or raised by flush(), with the records."""
        self.broken.push_request_errors("Produce", [FORBIDDEN] * 10)
        futures = []
        for i in range(count):
            match i % 4:
                case 0:
                    self.failing.send("f", b"v", on_delivery=self.notified)
                case 1:
                    futures.append(self.failing.send("f", b"v", b"k", headers={"a": b"b"}))
                case _:
                    self.failing.send("f", b"value %d" % i, headers={"a": None})
        try:
            self.failing.flush(60)
        except DeliveryError as error:
            assert error.records
        for future in futures:
            future.exception(60)
        return count

    def no_memory(self, count):
        sent = 0
        for _ in range(count):
            with contextlib.suppress(BufferExhaustedError):
                self.tiny.send("t", bytes(200), on_delivery=self.notified)
                sent += 1
        self.tiny.flush(60)
        return sent

    def short_lives(self, count):
        """Producers that come and go, with what they had not sent."""
        for timeout in (0, None) * (count // 4):
            producer = Producer(QUICK, bootstrap_servers=self.cluster.bootstrap_servers, linger_ms=1000)
            with contextlib.suppress(DeliveryError):
                producer.send("t", b"v").add_done_callback(self.done)
                producer.send("t", b"v")
                producer.close(timeout)
        return count

    def round(self, count):
        share = count // 10
        sent = self.futures_kept(2 * share) + self.callbacks(2 * share) + self.done_callbacks(share)
        sent += self.callbacks_that_raise(share // 10) + self.failures(min(share, 20_000)) + self.no_memory(share // 10)
        sent += self.bad_input(share // 100) + self.lists(share) + self.columns(share)
        sent += self.futures_dropped(count - sent)
        self.writer.flush(60)
        return sent


def main(records, rounds, way="round"):
    sys.unraisablehook = lambda raised: None
    warnings.simplefilter("ignore")
    logging.disable()
    with MockCluster(topics={"t": 4}, process=True) as cluster, MockCluster(topics={"f": 4}, process=True) as failing:
        workload = Workload(cluster, failing)
        sent, samples = 0, []
        for _ in range(rounds):
            sent += getattr(workload, way)(records // rounds)
            workload.writer.flush(60)
            gc.collect()
            samples.append((sent, resident(), allocated(), sys.getallocatedblocks()))
            if os.environ.get("FASTPROD_LEAKS_VERBOSE"):
                print(samples[-1], file=sys.stderr)
        print(json.dumps(samples))
        for producer in (workload.writer, workload.failing, workload.tiny):
            producer.close(20)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
