"""Runs the tests that need no Kafka on each CPython that fastprod supports and that is found on this machine.

python -m tests.pythons [VERSION ...] [-- ARGUMENT ...]: with arguments for pytest, such as files.

Each gets an environment of its own in build/pythons, with a wheel built from the sdist, and runs the tests outside this
tree, as an installed package. What was run, and which versions were not found, stands in a table at the end.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import findpython
import tomllib

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "pythons"
CHOICE = ["-q", "-m", "not kafka", "--ignore", "tests/test_instructions.py"]  # its budget is one Python's


def supported():
    """The versions in pyproject.toml's classifiers, such as "3.10"."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        classifiers = tomllib.load(file)["project"]["classifiers"]
    prefix = "Programming Language :: Python :: 3."
    return ["3." + text.removeprefix(prefix) for text in classifiers if text.startswith(prefix)]


def find(version):
    """The interpreter of a version that extensions can be built for, or None."""
    for found in findpython.find_all(*map(int, version.split(".")), allow_prereleases=True):
        ask = [str(found.executable), "-c", "import sysconfig; print(sysconfig.get_path('include'))"]
        include = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
        if found.implementation.lower() == "cpython" and Path(include, "Python.h").exists():
            return found.executable
    return None


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def run_tests(interpreter, version, sdist, arguments):
    """Builds, installs and tests fastprod on one interpreter; CalledProcessError if any of that fails."""
    folder = FOLDER / version
    shutil.rmtree(folder, ignore_errors=True)
    run(interpreter, "-m", "venv", folder / "env")
    python = folder / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    run(python, "-m", "pip", "install", "--quiet", "--group", f"{ROOT / 'pyproject.toml'}:test", sdist)
    shutil.copytree(ROOT / "tests", folder / "tree" / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder / "tree")
    run(python, "-m", "pytest", *CHOICE, *arguments, cwd=folder / "tree")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="such as 3.12; default: all that are supported")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, for_pytest = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    shutil.rmtree(FOLDER, ignore_errors=True)
    run(sys.executable, "-m", "build", "--sdist", "--outdir", FOLDER, ROOT, stdout=subprocess.DEVNULL)
    (sdist,) = FOLDER.glob("*.tar.gz")
    os.environ.setdefault("FASTPROD_JOBS", "2")
    os.environ["FASTPROD_TESTS"] = "1"
    results = {}
    for version in arguments.versions or supported():
        interpreter = find(version)
        if interpreter is None:
            results[version] = "not found"
            continue
        print(f"Python {version}: {interpreter}", flush=True)
        started = time.monotonic()
        try:
            run_tests(interpreter, version, sdist, for_pytest)
            results[version] = f"passed, {time.monotonic() - started:.0f} s"
        except subprocess.CalledProcessError as error:
            results[version] = f"failed: {' '.join(error.cmd[1:4])} ..."
    for version, result in results.items():
        print(f"Python {version}: {result}")
    missing = [version for version in arguments.versions if results[version] == "not found"]
    return any(result.startswith("failed") for result in results.values()) or bool(missing)


if __name__ == "__main__":
    sys.exit(main())
