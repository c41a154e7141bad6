"""pytest-benchmark, a group for each stage; a call of a door from Python costs some 50 ns beside what it does.

Where the name says 1000, that many records are in a call.
"""

import ctypes

import pytest

from benchmarks.peers.plain_c import build
from benchmarks.workload import BATCH_SIZE, distinct_keys, distinct_values
from fastprod import Producer, murmur2, partition_for_key
from fastprod.internals.partitioner import key_partitions_of
from fastprod.testing import MockCluster
from fastprod_core_access import ManualAccumulator, ManualPool, StickyPartitioner
from tests.test_murmur2 import reference

MEMORY = 32 << 20
VALUES = distinct_values(100)[:1000]
KEYS = distinct_keys()[:1000]
ROUNDS = 300  # of a stage that must be set up anew for each


@pytest.mark.benchmark(group="hash: one key of 16 B")
def test_murmur2(benchmark):
    assert benchmark(murmur2, KEYS[0]) & 0xFFFFFFFF == reference(KEYS[0])


@pytest.mark.benchmark(group="hash: one key of 16 B")
def test_murmur2_in_python(benchmark):
    benchmark(reference, KEYS[0])


@pytest.mark.benchmark(group="partition: 1000 keys of 16 B, in C")
@pytest.mark.parametrize("whose", ["fastprods", "librdkafkas"])
def test_one_after_the_other_in_c(benchmark, whose):
    partitions_of = getattr(ctypes.CDLL(build("murmur2", "-shared", "-fPIC")), whose)
    partitions_of.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int32)
    keys = b"".join(KEYS)
    assert benchmark(lambda: partitions_of(keys, 16, 1000, 12)) == sum(partition_for_key(key, 12) for key in KEYS)


@pytest.mark.benchmark(group="partition: 1000 keys of 16 B")
def test_partition_for_key_1000(benchmark):
    benchmark(lambda: [partition_for_key(key, 12) for key in KEYS])


@pytest.mark.benchmark(group="partition: 1000 keys of 16 B")
def test_partitions_of_columns_1000(benchmark):
    columns = [KEYS[at : at + 250] for at in range(0, 1000, 250)]
    found = benchmark(lambda: [key_partitions_of(column, 12) for column in columns])
    assert sum(found, []) == [partition_for_key(key, 12) for key in KEYS]


@pytest.mark.benchmark(group="partition: no key")
def test_uniform_sticky(benchmark):
    partitioner = StickyPartitioner(batch_size=BATCH_SIZE)
    partitioner.set_partitions([0] * 12)

    def place():
        partitioner.update(121)
        return partitioner.partition()

    assert 0 <= benchmark(place) < 12


def new_accumulator():
    accumulator = ManualAccumulator(ManualPool(MEMORY, BATCH_SIZE), batch_size=BATCH_SIZE, linger_ms=5)
    accumulator.set_topic("t", [0] * 12)
    return (accumulator,), {}


def fill(accumulator):
    put = accumulator.put
    for value in VALUES:
        put("t", value)
    return accumulator


@pytest.mark.benchmark(group="append")
def test_append_1000(benchmark):
    benchmark.pedantic(fill, setup=new_accumulator, rounds=ROUNDS)


@pytest.mark.benchmark(group="drain")
def test_drain_of_1000(benchmark):
    def filled():
        (accumulator,), _ = new_accumulator()
        return (fill(accumulator),), {}

    def drain(accumulator):
        return sum(len(batch.records) for batch in accumulator.drain_batches(now_ms=1000))

    assert benchmark.pedantic(drain, setup=filled, rounds=ROUNDS) == len(VALUES)


@pytest.mark.benchmark(group="pool")
def test_buffer_taken_and_given_back(benchmark):
    pool = ManualPool(MEMORY, BATCH_SIZE)

    def take():
        pool.allocate_buffer(BATCH_SIZE).deallocate()

    benchmark(take)
    assert pool.available_memory == MEMORY


@pytest.fixture(scope="module")
def producer():
    with MockCluster(topics={"t": 12}, process=True) as cluster:
        settings = {"acks": 1, "enable_idempotence": False, "batch_size": BATCH_SIZE, "linger_ms": 5}
        with Producer(bootstrap_servers=cluster.bootstrap_servers, **settings) as producer:
            producer.send("t", b"v").result()
            yield producer


@pytest.mark.benchmark(group="future")
def test_1000_results_of_futures_that_are_done(benchmark, producer):
    futures = [producer.send("t", value) for value in VALUES]
    producer.flush()
    assert benchmark(lambda: sum(future.result(0).offset >= 0 for future in futures)) == len(VALUES)


@pytest.mark.benchmark(group="all stages")
def test_1000_sent_and_acknowledged(benchmark, producer):
    def send():
        for value in VALUES:
            producer.send("t", value)
        producer.flush()

    benchmark(send)
