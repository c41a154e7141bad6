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
    # Leaves
    "errors": set(),
    "records": {"errors"},
    "options": set(),
    "jaas": set(),
    "pem": set(),
    "config": {"errors", "jaas", "options", "pem"},
    "librdkafka": set(),
    "_interpreter": set(),
    "_autospec": set(),
    "logs": set(),
    "tokens": {"_threads"},
    # C as Cython sees it
    "_sync": {"sync.h"},
    "_record": {"record.h"},
    "_rdkafka": {"librdkafka.h"},
    # Parts
    "_partitioner": {"murmur2.h"},
    "_threads": {"_sync", "errors"},
    "_buffer_pool": {"_sync", "_threads", "errors"},
    "_future": {"_buffer_pool", "_sync", "_threads", "errors", "librdkafka", "records"},
    "_batch": {"_buffer_pool", "_future", "_record"},
    "_callbacks": {"_buffer_pool", "_future", "_sync", "_threads", "errors", "logs"},
    "_input": {"_record", "errors"},
    "_accumulator": {"_batch", "_buffer_pool", "_future", "_partitioner", "_record", "_sync", "errors"},
    "_transport": {
        "_batch", "_callbacks", "_future", "_rdkafka", "_record", "_sync", "_threads", "errors", "librdkafka",
        "options",
    },
    "_metadata": {
        "_accumulator", "_input", "_sender", "_sync", "_threads", "_transport", "errors", "librdkafka", "records",
    },
    "_bulk": {
        "_accumulator", "_future", "_input", "_metadata", "_partitioner", "_record", "_sync", "_threads", "errors",
        "librdkafka", "records",
    },
    "_arrow": {"_bulk", "_input", "_record", "_sync", "arrow.h", "errors"},
    "_sender": {
        "_accumulator", "_batch", "_buffer_pool", "_callbacks", "_future", "_rdkafka", "_sync", "_threads",
        "_transport", "errors", "librdkafka", "records",
    },
    "_transaction": {
        "_accumulator", "_future", "_sender", "_sync", "_threads", "_transport", "errors", "librdkafka", "logs",
    },
    # The whole
    "_producer": {
        "_accumulator", "_arrow", "_buffer_pool", "_bulk", "_callbacks", "_future", "_input", "_metadata",
        "_partitioner", "_record", "_sender", "_sync", "_threads", "_transaction", "_transport", "config", "errors",
        "logs", "records", "tokens",
    },
    "__init__": {"_autospec", "_interpreter", "_bulk", "_future", "_partitioner", "_producer", "errors", "records"},
    "testing": {"librdkafka"},
    "__main__": {"cli"},
}  # fmt: skip

STATEMENT = re.compile(
    r"""^[ \t]*(?:
        from[ ]+(?P<module>[.\w]+)[ ]+c?import[ ]+(?:\((?P<many>[^)]*)\)|(?P<names>[^\n#]*))
        | c?import[ ]+(?P<modules>[\w., ]+)
        | cdef[ ]+extern[ ]+from[ ]+"(?P<header>[^"]+)"
    )""",
    re.MULTILINE | re.VERBOSE,
)
MODULES = {path.stem for path in SOURCE.iterdir() if path.suffix in (".py", ".pyx", ".pxd")}
PACKAGES = {path.parent.name for path in SOURCE.glob("*/__init__.py")}


def known_in(text, package="fastprod"):
    """The modules of fastprod and the headers of csrc that a source file names, but for what only types need."""
    known = set()
    text = re.sub(r"^if TYPE_CHECKING:\n(?:(?:[ \t].*)?\n)+", "", text, flags=re.MULTILINE)
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
                inner = rest.split(".")[0]
                known.add(inner if inner in MODULES | PACKAGES else "__init__")
    return known


def arrows(module):
    paths = [SOURCE / (module + suffix) for suffix in (".py", ".pyx", ".pxd", ".pyi")]
    return set().union(*(known_in(path.read_text()) for path in paths if path.exists())) - {module}


def test_the_reader_sees_every_form():
    text = """
from fastprod import config as options, errors
from fastprod import __version__
from fastprod._batch cimport (   # a comment
    Batch,  # another
)
from fastprod._sync cimport *
cimport fastprod._record
import os, fastprod.records as r
    from .testing import MockCluster
    from . import librdkafka
from fastprodder import _future
cdef extern from "murmur2.h" nogil:
cdef extern from "Python.h":
if TYPE_CHECKING:
    from .logs import Log

    from .tokens import Token
"""
    assert known_in(text) == {
        "config", "errors", "__init__", "_batch", "_sync", "_record", "records", "testing", "librdkafka", "murmur2.h",
    }  # fmt: skip
    text = "from ..errors import KafkaError\nfrom .. import Producer, testing\nfrom .readers import Input"
    assert known_in(text, "fastprod.cli") == {"errors", "__init__", "testing", "cli"}


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
    assert order.index("_producer") < order.index("__init__")


@pytest.mark.parametrize("leaf", ["records", "errors", "options", "jaas", "pem", "config", "librdkafka"])
def test_leaves_know_only_leaves(leaf):
    assert arrows(leaf) <= {"records", "errors", "options", "jaas", "pem"} and not any(
        name.startswith("_") for name in arrows(leaf)
    )


def test_only_the_transport_and_the_sender_know_librdkafkas_types():
    assert {module for module in MODULES if "_rdkafka" in arrows(module)} == {"_transport", "_sender"}


def test_the_accumulator_and_what_it_stands_on_know_neither_sender_nor_transport():
    graph = {module: arrows(module) for module in MODULES}
    reached, left = set(), ["_accumulator"]
    while left:
        module = left.pop()
        if module not in reached:
            reached.add(module)
            left += graph.get(module, ())
    assert reached.isdisjoint({"_sender", "_transport", "_producer", "_metadata", "_callbacks", "_rdkafka"})


def test_importing_it_imports_nothing_large():
    code = "import sys, fastprod; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert not {"asyncio", "concurrent", "confluent_kafka", "multiprocessing", "pyarrow"} & set(done.stdout.split())


def test_the_command_line_uses_what_users_use():
    for path in (SOURCE / "cli").glob("*.py"):
        private = {name for name in known_in(path.read_text(), "fastprod.cli") if name.startswith("_")} - {"__init__"}
        assert private == set(), path.name


@pytest.mark.parametrize(
    "module", ["_sender", "_accumulator", "_buffer_pool", "_batch", "_partitioner", "_transport", "_record", "_sync"]
)
def test_the_hot_path_never_takes_the_gil(module):
    for path in SOURCE.glob(f"{module}.p[yx]*"):
        if path.suffix in (".pyx", ".pxd"):
            assert not re.search(r"\bwith\s+gil\b", path.read_text()), path.name


def test_csrc_is_plain_c():
    sources = [path for path in CSRC.rglob("*") if path.suffix in (".c", ".h")]
    assert sources
    for path in sources:
        included = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(), re.MULTILINE)
        assert "Python.h" not in {name.rpartition("/")[2] for name in included}, path.name
