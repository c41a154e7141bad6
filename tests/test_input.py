"""Input: which values, keys, headers and timestamps are taken, and what the refusal of others says."""

import array
import datetime
import itertools
import math
import mmap
import sys

import numpy
import pytest

from fastprod import RecordTooLargeError, SerializationError
from fastprod_core_access import headers_of, timestamp_of, whole_number_of
from tests.bad_input import TOPIC, LongRepr, check_refused
from tests.conftest import shown

pytestmark = pytest.mark.mock


TIMESTAMP_LIMIT = 2**63 - 1


def released_view():
    view = memoryview(b"value")
    view.release()
    return view


class RaisesFromBuffer:
    def __buffer__(self, flags):
        raise AssertionError("never asked")


class RaisesFromItsBuffer(bytearray):
    def __buffer__(self, flags):
        raise ValueError("not now")


WANTED = "must be bytes, bytearray, memoryview, str or None, not"


@pytest.mark.parametrize("field", ["value", "key"])
@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        (5, TypeError, f"the FIELD {WANTED} int: 5; give FIELD_serializer"),
        (1.5, TypeError, f"the FIELD {WANTED} float: 1.5"),
        (True, TypeError, f"the FIELD {WANTED} bool: True"),
        ({"a": 1}, TypeError, f"the FIELD {WANTED} dict: {{'a': 1}}"),
        ([1], TypeError, rf"the FIELD {WANTED} list: \[1\]"),
        (object, TypeError, f"the FIELD {WANTED} type: <class 'object'>"),
        (array.array("i", [1]), TypeError, rf"the FIELD {WANTED} array: array\('i', \[1\]\)"),
        (RaisesFromBuffer(), TypeError, f"the FIELD {WANTED} RaisesFromBuffer"),
        (LongRepr(), TypeError, rf"the FIELD {WANTED} LongRepr: <long.{{60,90}}\.\.\."),
        ("\ud800", SerializationError, r"the FIELD is not valid text: .*\\ud800"),
        ("good" * 1000 + "\udfff", SerializationError, r"the FIELD is not valid text: .*\\udfff.*position 4000"),
        (memoryview(b"abcdef")[::2], SerializationError, "the FIELD cannot be read as one run of bytes: .*contiguous"),
        (memoryview(b"abcdef")[::-1], SerializationError, "the FIELD cannot be read as one run of bytes"),
        (released_view(), SerializationError, "the FIELD cannot be read as one run of bytes: .*released"),
    ],
    ids=shown,
)
def test_a_bad_value_or_key_is_refused(producer, field, given, expected, said):
    check_refused(producer, lambda: producer.send(TOPIC, **{field: given}), expected, said.replace("FIELD", field))


@pytest.mark.parametrize("field", ["value", "key"])
def test_a_buffer_that_raises_is_refused(producer, field):
    given = {field: RaisesFromItsBuffer(b"v")}
    if sys.version_info < (3, 12):  # nobody calls __buffer__ there
        assert producer.send(TOPIC, **given).result(20).topic == TOPIC
    else:
        said = f"the {field} cannot be read as one run of bytes: not now"
        check_refused(producer, lambda: producer.send(TOPIC, **given), SerializationError, said)


@pytest.mark.parametrize("field", ["value", "key"])
def test_what_is_refused_may_be_changed_and_resized(producer, field):
    other = "key" if field == "value" else "value"
    given = bytearray(b"abc")
    check_refused(
        producer, lambda: producer.send(TOPIC, **{field: given, other: 5}), TypeError, f"the {other} must be bytes"
    )
    given.extend(b"d")  # BufferError if the refused send() still held it


@pytest.mark.parametrize("field", ["value", "key"])
@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**32 + 5])
def test_more_bytes_than_kafka_can_count_are_refused(producer, field, size):
    limit = "Kafka's limit is 2147483647" if size > 2**31 - 1 else r"max\.request\.size=1048576"
    with (
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as huge,  # its pages are never touched
        memoryview(huge) as view,
    ):
        said = rf"{size // 1000}.*{limit}"
        check_refused(producer, lambda: producer.send(TOPIC, **{field: view}), RecordTooLargeError, said)


@pytest.mark.parametrize(
    ("timestamp", "expected", "said"),
    [
        (-5, ValueError, "timestamp is -5: it must be 0 to"),
        (2**63, ValueError, f"timestamp is {2**63}: it must be 0 to {TIMESTAMP_LIMIT} ms"),
        (-(2**63) - 1, ValueError, "timestamp is -9223372036854775809"),
        (math.nan, TypeError, r"timestamp must be an int \(ms since the epoch\) or None, not float: nan"),
        (1.7e12, TypeError, "timestamp must be an int .*, not float: 1700000000000.0"),
        (True, TypeError, "timestamp must be an int .*, not bool: True"),
        ("1700000000000", TypeError, "timestamp must be an int .*, not str: '1700000000000'"),
        (datetime.datetime(2024, 1, 2), TypeError, r"timestamp must be an int .*, not datetime: .*2024, 1, 2"),
    ],
    ids=shown,
)
def test_a_bad_timestamp_is_refused(producer, timestamp, expected, said):
    check_refused(producer, lambda: producer.send(TOPIC, b"v", timestamp=timestamp), expected, said)


@pytest.mark.parametrize("timestamp", [0, TIMESTAMP_LIMIT])
def test_the_ends_of_the_range_of_timestamps_are_taken(producer, timestamp):
    assert producer.send(TOPIC, b"v", timestamp=timestamp).result(20).topic == TOPIC


def breaks_off():
    yield "good", b"v"
    raise LookupError("half-way")


class BadItems:
    items = 5


@pytest.mark.parametrize(
    ("headers", "expected", "said"),
    [
        (5, TypeError, r"headers must be a sequence of \(str, bytes\) or a mapping, not 5"),
        ("text", TypeError, "headers must be a sequence .*, not 'text'"),
        (b"text", TypeError, "headers must be a sequence .*, not b'text'"),
        ([("name",)], TypeError, r"a header must be a pair .*, not \('name',\)"),
        ([("name", b"v", 1)], TypeError, r"a header must be a pair .*, not \('name', b'v', 1\)"),
        (["ab"], TypeError, "a header must be a pair .*, not 'ab'"),
        ([None], TypeError, "a header must be a pair .*, not None"),
        (("name", b"v"), TypeError, "a header must be a pair .*, not 'name'"),
        ([(None, b"v")], TypeError, "a header's name must be str, not NoneType: None"),
        ([(b"name", b"v")], TypeError, "a header's name must be str, not bytes: b'name'"),
        ({5: b"v"}, TypeError, "a header's name must be str, not int: 5"),
        ([("a\0b", b"v")], ValueError, r"a header's name is 'a\\x00b': it must not hold a NUL"),
        ([("\ud800", b"v")], SerializationError, r"a header's name is not valid text: .*\\ud800"),
        ([("name", 5)], TypeError, f"the header's value {WANTED} int: 5"),
        ([("good", b"v"), ("name", [b"v"])], TypeError, rf"the header's value {WANTED} list: \[b'v'\]"),
        ({"name": "\ud800"}, SerializationError, r"the header's value is not valid text: .*\\ud800"),
        ([("name", memoryview(b"abcd")[::2])], SerializationError, "the header's value cannot be read"),
        (breaks_off(), LookupError, "half-way"),
        (BadItems(), TypeError, "not callable"),
    ],
    ids=shown,
)
def test_bad_headers_are_refused(producer, headers, expected, said):
    check_refused(producer, lambda: producer.send(TOPIC, b"v", headers=headers), expected, said)


@pytest.mark.parametrize(
    "headers", [itertools.repeat(("name", b"v")), itertools.repeat(("name", None))], ids=["v", "0"]
)
def test_headers_without_end_are_refused(producer, headers):
    said = "the headers take more than the 1048576 bytes that a record may have in all"
    check_refused(producer, lambda: producer.send(TOPIC, b"v", headers=headers), RecordTooLargeError, said)


@pytest.mark.parametrize("size", [2**21, 2**31 - 1, 2**31, 2**32 + 5])
def test_a_header_larger_than_a_record_is_refused_before_it_is_copied(producer, size):
    limit = "Kafka's limit is 2147483647" if size > 2**31 - 1 else "the headers take more than the 1048576 bytes"
    with (
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as huge,  # its pages are never touched
        memoryview(huge) as view,
    ):
        headers = [("good", b"v"), ("name", view)]
        check_refused(producer, lambda: producer.send(TOPIC, b"v", headers=headers), RecordTooLargeError, limit)


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_headers_may_repeat_a_name_any_number_of_times(producer, count):
    assert producer.send(TOPIC, b"v", headers=[("same", b"%d" % i) for i in range(count)]).result(20).topic == TOPIC


def varint_size(number):
    """Bytes of a length in record format v2."""
    return max(1, ((number << 1).bit_length() + 6) // 7)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 8191, 8192])
def test_headers_count_with_their_size_in_record_format_v2(size):
    name, value = "n" * size, b"v" * size
    each = varint_size(size) + size
    assert headers_of([(name, value)]) == (1, 2 * each)
    assert headers_of({name: value}) == (1, 2 * each)
    assert headers_of([(name, value), (name, None)]) == (2, 2 * each + each + 1)  # null takes a length of -1


def test_headers_may_take_exactly_the_limit():
    headers = [("name", b"value")] * 3
    _, size = headers_of(headers)
    assert headers_of(headers, size) == (3, size)
    with pytest.raises(RecordTooLargeError, match=f"more than the {size - 1} bytes"):
        headers_of(headers, size - 1)


@pytest.mark.parametrize("integer", [numpy.int32, numpy.int64, numpy.uint8])
def test_an_integer_of_numpy_is_an_int(integer):
    number = whole_number_of(integer(7))
    assert number == 7 and type(number) is int
    assert timestamp_of(integer(7)) == 7


@pytest.mark.parametrize("wrong", [1.0, "1", True, numpy.float64(1), numpy.bool_(True), None], ids=shown)
def test_what_is_not_an_integer_is_refused(wrong):
    with pytest.raises(TypeError, match=f"it must be an int, not {type(wrong).__name__}"):
        whole_number_of(wrong)
