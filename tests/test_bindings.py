"""Which librdkafka is bound, and what import says when it is none, too old, or lacks a function."""

import glob
import os
import re
import shutil
import subprocess
import sys

import confluent_kafka
import pytest

from fastprod.librdkafka import loader as librdkafka


def import_fastprod(path=None, before=""):
    """The last line that ``import fastprod`` leaves on stderr in a fresh interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "FASTPROD_LIBRDKAFKA"}
    if path is not None:
        environment["FASTPROD_LIBRDKAFKA"] = str(path)
    ended = subprocess.run(
        [sys.executable, "-c", f"{before}\nimport fastprod"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1, ended
    return ended.stderr.strip().splitlines()[-1]


@pytest.fixture
def library(tmp_path):
    """library(source): the path of a shared library made of that C source."""

    def compile(source):
        path = tmp_path / "other.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(path), "-"], input=source, text=True, check=True, timeout=60
        )
        return path

    return compile


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "missing.so"
    said = import_fastprod(path)
    assert said.startswith(f"ImportError: fastprod cannot load librdkafka from {path}: ")


def test_a_file_that_is_no_library_is_named(tmp_path):
    path = tmp_path / "text.so"
    path.write_text("not a library")
    assert import_fastprod(path).startswith(f"ImportError: fastprod cannot load librdkafka from {path}: ")


def test_another_library_is_named(library):
    path = library("int something_else(void) { return 1; }")
    assert import_fastprod(path) == f"ImportError: fastprod found no librdkafka in {path}: it lacks rd_kafka_version"


def test_an_old_librdkafka_is_refused_with_both_versions(library):
    path = library("int rd_kafka_version(void) { return 0x020000ff; }")
    needed = ".".join(map(str, librdkafka.MINIMUM_VERSION))
    assert import_fastprod(path) == (
        f"ImportError: fastprod needs librdkafka {needed} or newer, but {path} is 2.0.0: "
        "pip install --upgrade confluent-kafka"
    )


def test_the_release_just_before_the_minimum_is_refused(library):
    major, minor, patch = librdkafka.MINIMUM_VERSION
    before = (major << 16 | minor << 8 | patch) - 1
    path = library(f"int rd_kafka_version(void) {{ return {before << 8 | 0xFF}; }}")
    assert import_fastprod(path).startswith("ImportError: fastprod needs librdkafka ")


@pytest.mark.parametrize("version", [librdkafka.MINIMUM_VERSION, (2, 254, 0), (99, 0, 0)], ids=str)
def test_a_missing_function_is_named(library, version):
    major, minor, patch = version
    code = major << 24 | minor << 16 | patch << 8 | 0xFF
    path = library(f"int rd_kafka_version(void) {{ return {code:#x}; }}")
    said = import_fastprod(path)
    assert re.fullmatch(
        rf"ImportError: fastprod needs rd_kafka_\w+, which this librdkafka lacks \({re.escape(str(path))}\): "
        "pip install --upgrade confluent-kafka",
        said,
    )


WITH_ANOTHER_COPY = """
import ctypes, sys
ctypes.CDLL(sys.argv[1])  # as Python loads the extension modules of other packages, with what they bring along
from fastprod import Producer
from fastprod.librdkafka import loader as librdkafka
from fastprod.testing import MockCluster
with MockCluster(topics={"t": 1}) as cluster, Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
    assert producer.send("t", b"v").result(20).offset == 0
print(librdkafka.version())
"""


@pytest.mark.parametrize("which", ["the same", "another"])
def test_a_copy_that_was_loaded_before_is_not_taken_for_confluent_kafkas(library, tmp_path, which):
    if which == "the same":
        folder = os.path.dirname(confluent_kafka.__file__)
        (real,) = glob.glob(f"{folder}.libs/librdkafka*") + glob.glob(f"{folder}/.dylibs/librdkafka.*")
        copy = shutil.copy(real, tmp_path / "librdkafka-copy.so.1")
    else:
        copy = library(
            "int rd_kafka_version(void) { return 0x010000ff; } const char *rd_kafka_version_str(void) { return 0; } "
            "void *rd_kafka_new(void) { return 0; } void *rd_kafka_conf_new(void) { return 0; }"
        )
    command = [sys.executable, "-c", WITH_ANOTHER_COPY, copy]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{librdkafka.version()}\n", "")


def test_without_confluent_kafka_import_says_what_to_install():
    said = import_fastprod(before="import sys; sys.modules['confluent_kafka'] = None")
    assert said == "ImportError: fastprod needs librdkafka from confluent-kafka: pip install confluent-kafka"


def test_an_empty_variable_is_as_good_as_none():
    environment = {**os.environ, "FASTPROD_LIBRDKAFKA": ""}
    subprocess.run([sys.executable, "-c", "import fastprod"], env=environment, check=True, timeout=60)


@pytest.mark.skipif("FASTPROD_LIBRDKAFKA" in os.environ, reason="another librdkafka is asked for")
def test_the_library_is_the_one_that_confluent_kafka_uses():
    assert librdkafka.version() == confluent_kafka.libversion()[0]


def test_the_version_is_dotted_and_new_enough():
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", librdkafka.version()).groups()
    assert tuple(map(int, numbers)) >= librdkafka.MINIMUM_VERSION


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "Success"), (3, "Broker: Unknown topic or partition"), (-192, "Local: Message timed out")],
)
def test_error_codes_have_librdkafkas_texts(code, text):
    assert librdkafka.describe(code) == text


@pytest.mark.parametrize("code", [-100_000, 100_000, 2**31 - 1])
def test_an_unknown_error_code_has_a_text_too(code):
    assert str(code) in librdkafka.describe(code)


def test_the_address_of_a_function_that_is_not_there_is_an_import_error():
    assert librdkafka.address("rd_kafka_version") > 0
    with pytest.raises(ImportError, match="rd_kafka_no_such_thing.*pip install"):
        librdkafka.address("rd_kafka_no_such_thing")
