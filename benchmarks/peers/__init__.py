"""One way of producing a file, all alike, each at the settings that are best for it.

NAME, and either ``connect(servers, topic, workload)``, which returns an object with

* ``produce(records)``: sends the first `records` of the data it was made with, returns when all are settled, and then
  how many were acknowledged, or a function that counts them;
* ``one(value)``: sends one record and returns once it is acknowledged; only if its latency is measured;
* ``details()``, if it has any: more figures of the run;
* ``close()``;

or ``command(servers, topic, workload)``, the arguments of a program that measures itself and prints the same line of
JSON as run.py. SHARE is the part of a workload's records that a slow peer sends; ``fits(workload)`` says whether it can
send that at all. TIMES: it sends the workload's records so many times, and none before to warm up.
"""

from __future__ import annotations

import importlib
from types import ModuleType

FASTPROD = ("fastprod_send", "fastprod_futures", "fastprod_many", "fastprod_arrow")
CONFLUENT = ("confluent_plain", "confluent_callback", "confluent_batch", "confluent_asyncio")
OTHERS = ("aiokafka_send", "kafka_python_send")
ALL = ("plain_c", *FASTPROD, *CONFLUENT, *OTHERS)


def load(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.peers.{name}")
