"""How the workers of pytest-xdist share the tests: one by one, but those of a broker stay together.

A broker takes seconds to start, and each worker would start its own.
"""

import pytest

# Fixture of a broker -> the files whose tests use it. One worker runs all tests of these files.
TOGETHER = {
    "kafka": [
        "tests/test_benchmarks.py",
        "tests/test_kafka_server.py",
        "tests/test_producer_garbage.py",
        "tests/test_real_kafka.py",
        "tests/test_topics_kafka.py",
        "tests/transactions/test_transaction_kafka.py",
    ],
    "secure_kafka": ["tests/test_security.py"],
    "bench": [
        "tests/fault_bench/test_connections.py",
        "tests/fault_bench/test_faults.py",
        "tests/fault_bench/test_transactions.py",
    ],
}
FIXTURE_OF = {path: fixture for fixture, paths in TOGETHER.items() for path in paths}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    # Not --dist=loadgroup: since pytest 9.2, pytest-xdist 3.8 cannot put the group into a test's id.
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return FIXTURE_OF.get(nodeid.partition("::")[0], nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    for item in items:
        for fixture in TOGETHER.keys() & set(item.fixturenames):
            path = item.nodeid.partition("::")[0]
            if path not in TOGETHER[fixture]:
                raise pytest.UsageError(f"{path} uses {fixture}: tests/workers.py must have it in that row")
