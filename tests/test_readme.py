"""README.md says what the table of options in the code says."""

from fastprod.options import OPTIONS
from tests import readme


def test_the_tables_are_those_that_make_readme_would_write():
    text = readme.README.read_text()
    assert readme.render(text) == text, "run: make readme"


def test_every_option_is_in_it():
    text = readme.README.read_text()
    assert [name for name in OPTIONS if f"\n| `{name}` |" not in text] == []
