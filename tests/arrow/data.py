"""What the tests of Arrow data share: values, types, and record batches built by hand."""

import struct

import pyarrow as pa

from tests.arrow_builder import ArrowBuilder, Type, Values

# "b" twice, a value longer than a view holds itself, and what is empty or null.
WORDS = ["a", None, "", "b", "longer than a view holds", "b", "another one, as long as that", None]
BYTES_TYPES = [pa.binary(), pa.large_binary(), pa.binary_view()]
MAP = pa.map_(pa.string(), pa.binary())
BYTE_MAP = pa.map_(pa.binary(), pa.binary())
NAMED_PAIRS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view()]


class Bystander:
    """An interceptor: records go through send() one by one."""

    def on_send(self, record):
        return record


def encoded(words):
    return [word.encode() if isinstance(word, str) else word for word in words]


def table(values=WORDS, **columns):
    return pa.table({"value": pa.array(values), **columns})


COLUMN = Type("+s", children=[Type("z", "value")])


def offsets(*given):
    return struct.pack(f"{len(given)}i", *given)


def column(type, values, length=None):
    """A record batch with that column, as it is."""
    length = values.length if length is None else length
    return ArrowBuilder(Type("+s", children=[type]), [Values(length, [None], children=[values])])


WORD = Values(1, [None, offsets(0, 3), b"abc"])
BINARY = Type("z", "value")


def batches(count, rows=1_000, size=100):
    """`count` record batches; the arrays are the same, the structures are not."""
    value = Values(rows, [None, offsets(*range(0, (rows + 1) * size, size)), b"x" * rows * size])
    return [Values(rows, [None], children=[value])] * count
