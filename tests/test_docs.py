"""docs/options.md says what the table of options in the code says."""

from fastprod.options import OPTIONS
from tests import options_page


def test_the_tables_are_those_that_make_options_would_write():
    text = options_page.PAGE.read_text()
    assert options_page.render(text) == text, "run: make options"


def test_every_option_is_on_the_page():
    text = options_page.PAGE.read_text()
    assert [name for name in OPTIONS if f"\n| `{name}` |" not in text] == []
