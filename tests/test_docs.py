"""README.md, docs/ and docstrings: each Python snippet runs against an embedded broker; the options page is the code's.

The snippets of a page share their names and run in order. ``localhost:9092`` is the embedded broker, and the current
directory holds the FILES. ``<!-- setup`` begins lines of Python that run too and are not shown, up to ``-->``.
``<!-- no-run: why -->`` before a snippet leaves it out.
"""

import ast
import contextlib
import logging
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

import fastprod
from fastprod import BulkFuture, FutureRecordMetadata, Producer
from fastprod.config.options import OPTIONS
from fastprod.testing import MockCluster
from tests import options_page

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "src").rglob("*.py*"))]
TOPICS = {"orders": 12, "payments": 4, "out": 4, "flights": 12}
FILES = {
    "orders.ndjson": '{"id": 1, "customer": "ada"}\n{"id": 2, "customer": "bob"}\n',
    "events.txt": "started\nstopped\n",
}
MAX_LEFT_OUT = 6
INTERNAL = {"wait_deadline", "key_partitions_of"}  # which the stubs know, and users need not
PART = re.compile(
    r"""
    ^<!--[ ]setup\n(?P<setup>.*?)^-->
    | ^<!--[ ]no-run:[ ](?P<why>.+?)[ ]-->$
    | ^[ ]*```python\n(?P<code>.*?)^[ ]*```$
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


class Snippet(NamedTuple):
    page: Path
    line: int
    code: str
    left_out: str  # why, or ""

    def __str__(self):
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def snippets(page, text):
    """The snippets of a page; lines of set-up belong to the snippet that follows them."""
    found = []
    setup, why = "", ""
    for match in PART.finditer(text):
        if match["setup"]:
            setup += padded(match["setup"], text, match.start("setup"))
        elif match["why"]:
            why = match["why"]
        else:
            code = padded(textwrap.dedent(match["code"]), text, match.start("code"))
            if setup:
                code = setup + code[setup.count("\n") :]
            found.append(Snippet(page, text[: match.start()].count("\n") + 1, code, why))
            setup, why = "", ""
    return found


def padded(code, text, start):
    """The code on the lines that it has in the page, so that tracebacks show these."""
    return "\n" * text[:start].count("\n") + code


def all_snippets():
    texts = [page for page in PAGES if page.suffix in (".md", ".py", ".pyi")]
    return [snippet for page in texts for snippet in snippets(page, page.read_text())]


class Run:
    """The snippets of one page, run in order; asked for one, it runs those before it first."""

    def __init__(self, page, servers, folder):
        self.names = {"__name__": "__main__"}
        self.left = snippets(page, page.read_text())
        self.servers = servers
        self.folder = folder
        self.given = {}
        if page.is_relative_to(ROOT / "src"):  # the examples of docstrings have the public names, and a producer
            self.given = {name: getattr(fastprod, name) for name in fastprod.__all__}
            self.given["producer"] = Producer(bootstrap_servers=servers)

    def run_up_to(self, snippet):
        while self.left and self.left[0].line <= snippet.line:
            one = self.left.pop(0)
            self.names.update(self.given)
            if not one.left_out:
                code = one.code.replace("localhost:9092", self.servers)
                code = code.replace("timeout=10)", "timeout=60)").replace("max_block_ms=1000", "max_block_ms=60_000")
                exec(compile(code, str(one.page), "exec"), self.names)

    def close(self):
        for value in self.names.values():
            if isinstance(value, FutureRecordMetadata | BulkFuture):
                value.exception(20)
        for value in list(self.names.values()):
            if isinstance(value, Producer | MockCluster):
                value.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    trustme.CA().cert_pem.write_to_path(folder / "ca.pem")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """The Run of a page."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(MockCluster(topics=TOPICS, process=True))
        runs = {}

        def run_of(page):
            if page not in runs:
                runs[page] = Run(page, cluster.bootstrap_servers, folder)
                stack.callback(runs[page].close)
            return runs[page]

        yield run_of


@pytest.fixture
def logging_kept():
    """A snippet may configure logging, which the other tests of the process must not see."""
    root, own = logging.getLogger(), logging.getLogger("fastprod")
    handlers, levels = root.handlers[:], (root.level, own.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


@pytest.mark.mock
@pytest.mark.usefixtures("logging_kept")
@pytest.mark.parametrize("snippet", [one for one in all_snippets() if not one.left_out], ids=str)
def test_a_snippet_runs(snippet, run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KAFKA_PASSWORD", "secret")
    run(snippet.page).run_up_to(snippet)


def test_few_snippets_are_left_out():
    assert len([one for one in all_snippets() if one.left_out]) <= MAX_LEFT_OUT


def test_the_snippets_that_are_left_out_are_python():
    for one in all_snippets():
        ast.parse(one.code, str(one))


def test_a_page_is_cut_into_its_snippets():
    text = "# T\n<!-- setup\nx = 1\n-->\n```python\ny = x\n```\n"
    text += "<!-- no-run: why -->\n\n```python\nz\n```\n```sh\nls\n```\n"
    first, second = snippets(ROOT / "page.md", text)
    assert (first.line, first.code, first.left_out) == (5, "\n\nx = 1\n\n\ny = x\n", "")
    assert (second.line, second.code.strip(), second.left_out) == (10, "z", "why")


def test_the_readme_is_short_and_begins_with_a_snippet():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert "```python" in lines[:20]


def test_the_tables_are_those_that_make_options_would_write():
    text = options_page.PAGE.read_text()
    assert options_page.render(text) == text, "run: make options"


def test_every_option_is_on_the_page():
    text = options_page.PAGE.read_text()
    assert [name for name in OPTIONS if f"\n| `{name}` |" not in text] == []


def test_every_public_name_is_in_the_api_reference():
    text = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in [*fastprod.__all__, "MockCluster"] if f".{name}\n" not in text] == []


@pytest.mark.parametrize(
    "stub", ["producer", "internals/future", "internals/open_producers", "bulk/bulk_future", "internals/partitioner"]
)
def test_every_public_name_of_a_stub_has_a_docstring(stub):
    nodes = ast.parse((ROOT / "src" / "fastprod" / f"{stub}.pyi").read_text()).body
    public = [one for one in nodes if getattr(one, "name", "_")[0] != "_" and one.name not in INTERNAL]
    for one in public[:]:
        public += [inner for inner in one.body if getattr(inner, "name", "_")[0] != "_"]
    assert [one.name for one in public if not ast.get_docstring(one)] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_links_that_sphinx_does_not_see_lead_somewhere(page):
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)", path.read_text())
    assert [target for target in targets if ":" not in target and not (path.parent / target).exists()] == []
