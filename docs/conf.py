"""How Sphinx builds the documentation: ``make docs`` writes it to build/docs."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_extensions"))

project = "fastprod"
author = "the fastprod maintainers"
html_title = "fastprod"
html_theme = "furo"

extensions = ["myst_parser", "from_stubs"]
exclude_patterns = ["_extensions"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # other pages link to headings down to this level

# Types of the standard library and private names of the stubs have no page here.
nitpick_ignore_regex = [(r"py:.*", r"(?!fastprod\.).*")]
