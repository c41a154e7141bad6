"""``python -m fastprod``: the same as the command ``fastprod``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
