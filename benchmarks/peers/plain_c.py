"""Plain C on librdkafka, ../floor/floor.c: rd_kafka_produce_batch() in the tightest loop, the floor of all the others.

Records without a key go to one partition after the other, which spares librdkafka's partitioner; keys it hashes itself,
which is faster than librdkafka's way. The queue is the default one, of 100,000 records: with a larger one it is slower.
"""

import functools
import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.workload import LINGER_MS, distinct_keys, distinct_values
from fastprod.librdkafka import loader as librdkafka

NAME = "plain C, librdkafka"
FLOOR = Path(__file__).parents[1] / "floor"
HEADERS = Path(__file__).parents[2] / "csrc"
RUN, KEYED_RUN = 10_000, 1000  # records of a call


def fits(workload):
    return not workload.headers  # rd_kafka_produce_batch() has none


def loaded_librdkafka():
    """The file of the copy that this process has loaded, and so confluent_kafka and fastprod."""
    librdkafka.load()
    with open("/proc/self/maps") as maps:
        files = [Path(fields[5].strip()) for line in maps if len(fields := line.split(maxsplit=5)) > 5]
    return next(file for file in files if file.name.startswith("librdkafka"))


@functools.cache
def build(name, *flags):
    """What ../floor/NAME.c becomes, linked with the copy of librdkafka that all others here use."""
    library = loaded_librdkafka()
    built = Path("build/bench") / name
    built.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *(os.environ.get("CC") or "cc").split(),
            *("-O2", *flags, f"-I{HEADERS}", str(FLOOR / f"{name}.c"), str(library), f"-Wl,-rpath,{library.parent}"),
            *("-Wl,--allow-shlib-undefined", "-o", str(built)),
        ],
        check=True,
    )
    return str(built.resolve())


@functools.cache
def data(size, keyed):
    """A file with the values, and the keys after them."""
    with tempfile.NamedTemporaryFile(dir="build/bench", suffix=".data", delete=False) as out:
        out.write(b"".join(distinct_values(size)) + b"".join(distinct_keys() if keyed else ()))
    return out.name


def command(servers, topic, workload):
    settings = {
        "acks": workload.acks,
        "enable.idempotence": str(workload.idempotence).lower(),
        "compression.type": workload.compression,
        "linger.ms": LINGER_MS,
    }
    key_size = len(distinct_keys()[0]) if workload.keyed else 0
    numbers = (workload.partitions, workload.records, workload.size, key_size, KEYED_RUN if key_size else RUN)
    return [
        *(build("floor"), servers, topic, *map(str, (*numbers, workload.warm_up)), data(workload.size, workload.keyed)),
        *(f"{name}={value}" for name, value in settings.items()),
    ]
