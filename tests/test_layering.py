"""Who may know whom: the arrows between the modules, read from their imports and cimports."""

import graphlib
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fastprod"
CSRC = ROOT / "csrc"

# Module -> what it may know, by import, cimport or C header. A new arrow is a decision: make it here.
MAY_KNOW = {
    # config
    "config.options": set(),
    "config.jaas": set(),
    "config": set(),
    "config.pem": set(),
    "config.parse": {"config.jaas", "config.options", "errors"},
    "config.rules": {"config.jaas", "config.options", "config.parse", "config.pem", "errors"},
    "config.librdkafka_properties": {"config.options", "config.parse", "errors"},
    "config.producer_config": {
        "config.jaas", "config.librdkafka_properties", "config.options", "config.parse", "config.rules", "errors",
    },
    # librdkafka
    "librdkafka.loader": set(),
    "librdkafka": set(),
    "librdkafka.codes": set(),
    "librdkafka.functions": {"librdkafka.h", "librdkafka.loader"},
    "librdkafka.declarations": {"librdkafka.h"},
    # internals
    "internals.error_codes": {"errors"},
    "internals.logs": set(),
    "internals.autospec": set(),
    "internals.interpreter": set(),
    "internals": set(),
    "internals.sync": {"sync.h"},
    "internals.partitioner": {"murmur2.h"},
    "internals.record": {"record.h"},
    "internals.threads": {"errors", "internals.sync"},
    "internals.input": {"errors", "internals.record"},
    "internals.buffer_pool": {"errors", "internals.sync", "internals.threads"},
    "internals.tokens": {"internals.threads"},
    "internals.produce_request_result": {
        "internals.buffer_pool", "internals.error_codes", "internals.sync", "librdkafka.codes", "librdkafka.loader",
    },
    "internals.callback_check": set(),
    "internals.future": {
        "errors", "internals.callback_check", "internals.produce_request_result", "internals.sync",
        "internals.threads", "records",
    },
    "internals.callbacks": {
        "errors", "internals.buffer_pool", "internals.future", "internals.logs", "internals.produce_request_result",
        "internals.sync", "internals.threads",
    },
    "internals.producer_batch": {"internals.buffer_pool", "internals.produce_request_result", "internals.record"},
    "internals.in_flight_partition": {"internals.producer_batch", "librdkafka.codes"},
    "internals.partition_queue": {"internals.in_flight_partition", "internals.partitioner", "internals.producer_batch"},
    "internals.failed_records": {
        "errors", "internals.error_codes", "internals.produce_request_result", "internals.producer_batch",
        "internals.sync", "librdkafka.codes", "librdkafka.loader", "records",
    },
    "internals.drain_scheduler": {"internals.partition_queue", "internals.producer_batch"},
    "internals.incomplete_batches": {"internals.partition_queue", "internals.producer_batch", "internals.sync"},
    "internals.topics": {
        "internals.buffer_pool", "internals.drain_scheduler", "internals.in_flight_partition",
        "internals.partition_queue", "internals.partitioner", "internals.producer_batch", "internals.sync",
    },
    "internals.open_batches": {
        "internals.buffer_pool", "internals.drain_scheduler", "internals.incomplete_batches",
        "internals.partition_queue", "internals.partitioner", "internals.produce_request_result",
        "internals.producer_batch", "internals.record", "internals.sync", "internals.topics",
    },
    "internals.record_accumulator": {
        "errors", "internals.buffer_pool", "internals.drain_scheduler", "internals.in_flight_partition",
        "internals.incomplete_batches", "internals.open_batches", "internals.partition_queue",
        "internals.produce_request_result", "internals.producer_batch", "internals.record", "internals.sync",
        "internals.topics",
    },
    "internals.completion": {
        "internals.buffer_pool", "internals.callbacks", "internals.delivery_report", "internals.failed_records",
        "internals.in_flight_partition", "internals.partition_queue", "internals.produce_request_result",
        "internals.producer_batch", "internals.record_accumulator", "internals.sync", "internals.transport",
        "librdkafka.codes",
    },
    "internals.handle": {"config.options", "errors", "librdkafka.declarations", "librdkafka.functions"},
    "internals.client_errors": {"internals.sync", "librdkafka.declarations"},
    "internals.transaction_call": {"librdkafka.declarations", "librdkafka.functions"},
    "internals.metadata_requests": {
        "errors", "internals.handle", "internals.transport", "librdkafka.declarations", "librdkafka.functions",
    },
    "internals.token_requests": {
        "internals.sync", "internals.threads", "internals.transport", "librdkafka.declarations",
        "librdkafka.functions",
    },
    "internals.delivery_report": {
        "internals.produce_request_result", "librdkafka.declarations", "librdkafka.functions",
    },
    "internals.partition_pause": {"internals.handle", "librdkafka.declarations", "librdkafka.functions"},
    "internals.transaction_block": {"errors", "internals.logs"},
    "internals.topic_metadata": {"internals.partition_queue"},
    "internals.update_request": {"internals.sync"},
    "internals.recreated_topics": {"internals.partition_queue", "internals.sync"},
    "internals.transport": {
        "internals.callbacks", "internals.client_errors", "internals.delivery_report", "internals.handle",
        "internals.produce_request_result", "internals.producer_batch", "internals.record",
        "internals.recreated_topics", "internals.sync", "internals.update_request", "librdkafka.codes",
        "librdkafka.declarations", "librdkafka.functions",
    },
    "internals.produce_requests": {
        "internals.callbacks", "internals.completion", "internals.delivery_report", "internals.handle",
        "internals.in_flight_partition", "internals.partition_pause", "internals.partition_queue",
        "internals.produce_request_result", "internals.producer_batch", "internals.record_accumulator",
        "internals.sync", "internals.transport", "librdkafka.codes", "librdkafka.declarations",
    },
    "internals.sender": {
        "internals.completion", "internals.delivery_report", "internals.handle", "internals.incomplete_batches",
        "internals.partition_queue", "internals.produce_request_result", "internals.produce_requests",
        "internals.producer_batch", "internals.record_accumulator", "internals.sync", "internals.transport",
        "librdkafka.codes", "librdkafka.declarations",
    },
    "internals.pending_records": {
        "errors", "internals.callbacks", "internals.incomplete_batches", "internals.produce_request_result",
        "internals.record_accumulator", "internals.sender", "internals.sync", "internals.threads",
    },
    "internals.metadata_updater": {
        "internals.client_renewal", "internals.metadata_requests", "internals.producer_metadata", "internals.sender",
        "internals.sync", "internals.threads", "internals.transport", "internals.update_request",
    },
    "internals.client_renewal": {
        "internals.metadata_requests", "internals.producer_metadata", "internals.sender", "internals.sync",
        "internals.topic_metadata", "internals.transport",
    },
    "internals.producer_metadata": {
        "errors", "internals.error_codes", "internals.input", "internals.record_accumulator", "internals.sender",
        "internals.sync", "internals.threads", "internals.topic_metadata", "internals.transport",
        "internals.update_request", "librdkafka.codes", "librdkafka.loader", "records",
    },
    "internals.transaction_manager": {
        "errors", "internals.error_codes", "internals.logs", "internals.pending_records",
        "internals.produce_request_result", "internals.record_accumulator", "internals.sender", "internals.sync",
        "internals.threads", "internals.transaction_call", "internals.transport", "librdkafka.codes",
        "librdkafka.loader",
    },
    "internals.open_producers": {"internals.produce_request_result"},
    "internals.serializers": {"errors", "internals.input"},
    "internals.interceptors": {
        "errors", "internals.callback_check", "internals.callbacks", "internals.error_codes", "internals.input",
        "internals.produce_request_result", "records",
    },
    "internals.producer_metrics": {
        "internals.buffer_pool", "internals.callbacks", "internals.completion", "internals.drain_scheduler",
        "internals.record_accumulator", "internals.sync", "internals.transport",
    },
    "internals.producer_state": {
        "errors", "internals.client_errors", "internals.produce_request_result", "internals.sync",
        "internals.transaction_manager",
    },
    "internals.record_appender": {
        "errors", "internals.callback_check", "internals.client_errors", "internals.error_codes", "internals.future",
        "internals.input", "internals.interceptors", "internals.open_batches", "internals.partitioner",
        "internals.produce_request_result", "internals.producer_metadata", "internals.producer_state",
        "internals.record", "internals.record_accumulator", "internals.serializers", "internals.sync",
        "internals.topic_metadata",
    },
    "internals.deferred_cleanup": {
        "internals.produce_request_result", "internals.sender", "internals.sync", "internals.transaction_manager",
        "internals.transport",
    },
    "internals.producer_parts": {
        "internals.buffer_pool", "internals.callbacks", "internals.completion", "internals.deferred_cleanup",
        "internals.in_flight_partition", "internals.interceptors", "internals.metadata_updater",
        "internals.pending_records", "internals.produce_requests", "internals.producer_metadata",
        "internals.producer_metrics", "internals.producer_state", "internals.record_accumulator",
        "internals.record_appender", "internals.sender", "internals.serializers", "internals.threads",
        "internals.token_requests", "internals.tokens", "internals.transaction_manager", "internals.transport",
    },
    "internals.producer_shutdown": {
        "errors", "internals.open_producers", "internals.produce_request_result", "internals.producer_parts",
        "internals.producer_state", "internals.sync", "internals.threads",
    },
    # bulk
    "bulk": set(),
    "bulk.bulk_future": {
        "errors", "internals.error_codes", "internals.future", "internals.open_batches",
        "internals.produce_request_result", "internals.sync", "internals.threads", "librdkafka.loader", "records",
    },
    "bulk.bulk_append": {
        "bulk.bulk_future", "errors", "internals.error_codes", "internals.open_batches", "internals.partitioner",
        "internals.producer_metadata", "internals.record", "internals.record_accumulator", "internals.record_appender",
        "internals.sync", "internals.topic_metadata",
    },
    "bulk.sequence_append": {
        "bulk.bulk_append", "bulk.bulk_future", "internals.error_codes", "internals.input", "internals.record",
        "internals.record_appender", "internals.sync",
    },
    "bulk.arrow": {"arrow.h"},
    "bulk.arrow_column": {"bulk.arrow"},
    "bulk.arrow_stream": {"bulk.arrow", "bulk.arrow_column", "internals.input"},
    "bulk.arrow_headers": {"bulk.arrow", "bulk.arrow_column", "bulk.bulk_append", "internals.record"},
    "bulk.arrow_append": {
        "bulk.arrow", "bulk.arrow_column", "bulk.arrow_headers", "bulk.arrow_stream", "bulk.bulk_append",
        "bulk.bulk_future", "errors", "internals.input", "internals.record", "internals.record_appender",
        "internals.sync",
    },
    # What users import
    "records": set(),
    "errors": {"records"},
    "testing": {"librdkafka.loader"},
    "producer": {
        "bulk.arrow_append", "bulk.bulk_future", "bulk.sequence_append", "config.producer_config", "errors",
        "internals.callbacks", "internals.future", "internals.handle", "internals.logs", "internals.open_producers",
        "internals.produce_request_result", "internals.producer_parts", "internals.producer_shutdown",
        "internals.producer_state", "internals.record_appender", "internals.sync", "internals.threads",
        "internals.transaction_block", "internals.transaction_manager", "records",
    },
    "__init__": {
        "bulk.bulk_future", "errors", "internals.autospec", "internals.future", "internals.interpreter",
        "internals.open_producers", "internals.partitioner", "producer", "records",
    },
    "__main__": {"cli"},
    # cli
    "cli.stop": set(),
    "cli.console": set(),
    "cli.settings": {"config.options"},
    "cli.content": {"cli.stop"},
    "cli.columnar": {"cli.content", "cli.stop"},
    "cli.readers": {"cli.columnar", "cli.content", "cli.stop", "cli.text_formats"},
    "cli.tally": {"errors", "records"},
    "cli.read_back": {"cli.tally"},
    "cli.report": {"cli.console", "cli.readers", "cli.tally"},
    "cli.connection": {"__init__", "cli.console", "cli.report", "cli.settings", "cli.tally", "errors", "testing"},
    "cli.text_formats": {"cli.columnar", "cli.content"},
    "cli.send": {
        "cli.columnar", "cli.connection", "cli.read_back", "cli.readers", "cli.report", "cli.stop", "cli.tally",
        "errors",
    },
    "cli": {"__init__", "cli.console", "cli.send", "librdkafka.loader"},
}  # fmt: skip

# Package -> the other packages that its modules may know. What stands beside the packages is in the table above.
PACKAGES_MAY_KNOW = {
    "config": set(),
    "librdkafka": set(),
    "internals": {"config", "librdkafka"},
    "bulk": {"internals", "librdkafka"},
    "cli": {"config", "librdkafka"},
}

STATEMENT = re.compile(
    r"""^[ \t]*(?:
        from[ ]+(?P<module>[.\w]+)[ ]+c?import[ ]+(?:\((?P<many>[^)]*)\)|(?P<names>[^\n#]*))
        | c?import[ ]+(?P<modules>[\w., ]+)
        | cdef[ ]+extern[ ]+from[ ]+"(?P<header>[^"]+)"
    )""",
    re.MULTILINE | re.VERBOSE,
)
SUFFIXES = (".py", ".pyx", ".pxd", ".pyi")


def module_of(path):
    """A file's module without "fastprod.", which is "__init__" itself; a package's is its name."""
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    return name.removesuffix(".__init__") or "__init__"


FILES = sorted(path for path in SOURCE.rglob("*") if path.suffix in SUFFIXES)
MODULES = {module_of(path) for path in FILES}


def known_in(text, package="fastprod"):
    """The modules of fastprod and the headers of csrc that a source file names, those that only types need too."""
    known = set()
    for found in STATEMENT.finditer(text):
        if found["header"]:
            if (CSRC / found["header"]).exists():
                known.add(found["header"])
            continue
        if found["modules"]:
            full = [name.split()[0] for name in found["modules"].split(",") if name.strip()]
        else:
            module = found["module"]
            if dots := len(module) - len(module.lstrip(".")):
                parents = package.split(".")
                module = ".".join([*parents[: len(parents) + 1 - dots], *filter(None, [module[dots:]])])
            names = re.sub(r"#.*", "", found["many"] or found["names"])
            full = [f"{module}.{name.split()[0]}" for name in names.split(",") if name.strip()]
        for name in full:
            first, _, rest = name.partition(".")
            if first == "fastprod":
                while rest and rest not in MODULES:
                    rest = rest.rpartition(".")[0]
                known.add(rest or "__init__")
    return known


def arrows(module):
    found = set()
    for path in FILES:
        if module_of(path) == module:
            package = ".".join(("fastprod", *path.relative_to(SOURCE).parts[:-1]))
            found |= known_in(path.read_text(), package)
    return found - {module}


def package_of(module):
    """Where a module lives: a package, or "fastprod" for what stands beside them."""
    return module.partition(".")[0] if "." in module or module in PACKAGES_MAY_KNOW else "fastprod"


def test_the_reader_sees_every_form():
    text = """
from fastprod import config as options, errors
from fastprod import __version__
from fastprod.internals.producer_batch cimport (   # a comment
    Batch,  # another
)
from fastprod.internals.sync cimport *
cimport fastprod.internals.record
import os, fastprod.records as r
    from .testing import MockCluster
    from . import librdkafka
from fastprodder import future
cdef extern from "murmur2.h" nogil:
cdef extern from "Python.h":
if TYPE_CHECKING:
    from .internals.logs import Log

    from .internals import tokens
"""
    assert known_in(text) == {
        "config", "errors", "__init__", "internals.producer_batch", "internals.sync", "internals.record", "records",
        "testing", "librdkafka", "murmur2.h", "internals.logs", "internals.tokens",
    }  # fmt: skip
    text = "from ..errors import KafkaError\nfrom .. import Producer, testing\nfrom .readers import Input"
    assert known_in(text, "fastprod.cli") == {"errors", "__init__", "testing", "cli.readers"}


def test_every_module_is_in_the_table():
    assert set(MAY_KNOW) == MODULES


@pytest.mark.parametrize("module", MAY_KNOW)
def test_a_module_knows_no_more_than_it_may(module):
    assert arrows(module) - MAY_KNOW[module] == set()


@pytest.mark.parametrize("module", MAY_KNOW)
def test_the_table_allows_nothing_that_is_not_used(module):
    assert MAY_KNOW[module] - arrows(module) == set()


def test_there_is_no_cycle():
    graph = {module: arrows(module) for module in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("producer") < order.index("__init__")


@pytest.mark.parametrize("package", PACKAGES_MAY_KNOW)
def test_a_package_knows_no_more_than_it_may(package):
    known = set().union(*(arrows(module) for module in MODULES if package_of(module) == package)) & MODULES
    assert {package_of(name) for name in known} - {package, "fastprod"} == PACKAGES_MAY_KNOW[package]


def test_the_packages_make_no_cycle():
    list(graphlib.TopologicalSorter(PACKAGES_MAY_KNOW).static_order())


@pytest.mark.parametrize("leaf", ["records", "errors", "config.producer_config", "librdkafka.loader"])
def test_leaves_know_only_leaves(leaf):
    assert {package_of(name) for name in arrows(leaf)} <= {"config", "fastprod"}
    assert arrows(leaf).isdisjoint({"__init__", "producer", "testing"})


def test_only_what_stands_around_the_transport_calls_librdkafka():
    called = {module for module in MODULES if "librdkafka.functions" in arrows(module)}
    assert called == {
        "internals." + name
        for name in (
            "delivery_report",
            "handle",
            "metadata_requests",
            "partition_pause",
            "token_requests",
            "transaction_call",
            "transport",
        )
    }
    known = {module for module in MODULES if "librdkafka.declarations" in arrows(module)}
    assert known - called - {"internals.client_errors"} == {"internals.produce_requests", "internals.sender"}


def test_the_accumulator_and_what_it_stands_on_know_neither_sender_nor_transport():
    graph = {module: arrows(module) for module in MODULES}
    reached, left = set(), ["internals.record_accumulator"]
    while left:
        module = left.pop()
        if module not in reached:
            reached.add(module)
            left += graph.get(module, ())
    upper = {"internals." + name for name in ("sender", "transport", "producer_metadata", "callbacks")}
    assert reached.isdisjoint(upper | {"producer", "librdkafka.declarations"})


def test_importing_it_imports_nothing_large():
    code = "import sys, fastprod; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert not {"asyncio", "concurrent", "confluent_kafka", "multiprocessing", "pyarrow"} & set(done.stdout.split())


def test_the_command_line_uses_what_users_use():
    for path in (SOURCE / "cli").glob("*.py"):
        known = {package_of(name) for name in known_in(path.read_text(), "fastprod.cli")}
        assert known.isdisjoint(("internals", "bulk")), path.name


@pytest.mark.parametrize(
    "module",
    [
        "sender",
        "produce_requests",
        "completion",
        "in_flight_partition",
        "record_accumulator",
        "partition_queue",
        "drain_scheduler",
        "incomplete_batches",
        "topics",
        "open_batches",
        "buffer_pool",
        "producer_batch",
        "partitioner",
        "transport",
        "record",
        "sync",
    ],
)
def test_the_hot_path_never_takes_the_gil(module):
    paths = [path for path in FILES if path.stem == module and path.suffix in (".pyx", ".pxd")]
    assert paths
    for path in paths:
        assert not re.search(r"\bwith\s+gil\b", path.read_text()), path.name


def test_csrc_is_plain_c():
    sources = [path for path in CSRC.rglob("*") if path.suffix in (".c", ".h")]
    assert sources
    for path in sources:
        included = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(), re.MULTILINE)
        assert "Python.h" not in {name.rpartition("/")[2] for name in included}, path.name
