"""Sends COUNT records, then twice as many, in one WAY, in a process under callgrind: for tests.instructions.

python -m tests.instructions.workload WAY SERVERS TOPIC COUNT, with counted.c before libc.
"""

import ctypes
import os
import sys

import fastprod
from fastprod import Producer
from tests.conftest import QUICK

PARTITIONS = 12
PARTS = 10  # calls of send_many()
VALUE = b"v" * 100
OLD = 1_600_000_000_000  # ms: not of now, so librdkafka must be given it


def send(producer, topic, values, keys):
    send = producer.send
    for value in values:
        send(topic, value)


def send_keyed(producer, topic, values, keys):
    send = producer.send
    for value, key in zip(values, keys, strict=True):
        send(topic, value, key)


def send_many(producer, topic, values, keys, **fields):
    size = len(values) // PARTS
    for at in range(0, len(values), size):
        producer.send_many(topic, values[at : at + size], keys and keys[at : at + size], **fields)


def send_many_unkeyed(producer, topic, values, keys):
    send_many(producer, topic, values, None)


def send_many_stamped(producer, topic, values, keys):
    send_many(producer, topic, values, None, timestamps=OLD)


def send_arrow(producer, topic, values, keys):
    import pyarrow

    producer.send_arrow(topic, pyarrow.table({"value": values}))


def send_arrow_keyed(producer, topic, values, keys):
    import pyarrow

    producer.send_arrow(topic, pyarrow.table({"value": values, "key": keys}), key="key")


WAYS = {
    "send()": send,
    "send() keyed": send_keyed,
    "send_many()": send_many_unkeyed,
    "send_many() keyed": send_many,
    "send_many() with timestamps": send_many_stamped,
    "send_arrow()": send_arrow,
    "send_arrow() keyed": send_arrow_keyed,
}


def freeze_wall_clock(library):
    """For fastprod's own code."""
    package = os.path.dirname(fastprod.__file__) + "/"
    frozen = 0
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, flags, *_, path = line.split()
            if "x" in flags and path.startswith(package):
                library.freeze_wall_clock_of(*(ctypes.c_size_t(int(a, 16)) for a in addresses.split("-")))
                frozen += 1
    assert frozen, "no extension of fastprod's is loaded"


def mark():
    """callgrind writes out what it counted, and counts from 0 again, when it sees a call of this function of libc's."""
    os.getpgid(0)


def main(way, servers, topic, count):
    freeze_wall_clock(ctypes.CDLL(None))
    producer = Producer(QUICK, bootstrap_servers=servers, linger_ms=5)
    for _ in range(3):  # until a partition may have as much under way as there is: the first records go alone
        for partition in range(PARTITIONS):
            producer.send(topic, VALUE, b"k" * 16, partition=partition)
        producer.flush(60)
    inputs = [([VALUE] * n, [b"key %012d" % (i % 1000) for i in range(n)]) for n in (count // 2, count, 2 * count)]
    for values, keys in inputs:  # the first time nothing is counted: pools fill, Python specializes its bytecode
        mark()
        WAYS[way](producer, topic, values, keys)
        producer.flush(60)
    mark()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
