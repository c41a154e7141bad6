"""A subinterpreter cannot import fastprod."""

import pytest

from tests.test_producer_process import check_quiet, run

pytestmark = pytest.mark.mock


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import fastprod"], ids=["alone", "after the main one"])
def test_a_subinterpreter_is_refused_with_advice(first):
    script = f"""
try:
    import _interpreters as interpreters  # since Python 3.13
except ImportError:
    import _xxsubinterpreters as interpreters
{first}
execute = getattr(interpreters, "exec", None) or interpreters.run_string
try:
    said = execute(interpreters.create(), "import fastprod")
except Exception as error:
    said = error
assert "ImportError" in str(said) and "main interpreter only" in str(said), said
import fastprod, logging
logging.disable()
fastprod.Producer(bootstrap_servers="127.0.0.1:1").close()
"""
    check_quiet(run(script))
