"""Worker processes hide nothing: a skip, a failure, a crash or an unstable id fails the run as without them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARALLEL = ["-n", "2", "--max-worker-restart=0"]  # as in the Makefile
MANY = "\n".join(f"def test_{i}(): pass" for i in range(4))
BODIES = {
    "passes": "def test(): pass",
    "fails": "def test(): assert 0",
    "skips": "import pytest\ndef test(): pytest.skip('a hole')",
    "crashes": "import os\ndef test(): os.abort()",
    "has an address for an id": "import pytest\n@pytest.mark.parametrize('x', [1], ids=[' at 0x1'])\ndef test(x): pass",
    "uses a broker unknown to workers.py": "def test(kafka): pass",
}


def run(tmp_path, body, *arguments, **environment):
    (tmp_path / "test_it.py").write_text(f"{body}\n{MANY}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", *arguments]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "FASTPROD_"))}
    own |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment}
    return subprocess.run([*command, str(tmp_path)], env=own, cwd=tmp_path, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("workers", [[], PARALLEL], ids=["one process", "workers"])
@pytest.mark.parametrize("what", BODIES)
def test_what_fails_the_run_does_so_with_workers_too(tmp_path, what, workers):
    done = run(tmp_path, BODIES[what], *workers, FASTPROD_NO_SKIPS="1")
    assert (done.returncode == 0) == (what == "passes"), done.stdout + done.stderr
    if what in ("passes", "fails", "skips"):
        assert "4 passed" in done.stdout or "5 passed" in done.stdout


def test_a_skip_fails_no_run_without_FASTPROD_NO_SKIPS(tmp_path):
    assert run(tmp_path, BODIES["skips"], *PARALLEL).returncode == 0
