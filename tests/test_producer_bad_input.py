"""What send(), flush(), close() and the configuration refuse, and that the producer works on after each refusal."""

import array
import datetime
import functools
import itertools
import math
import mmap
import re
import sys
import threading
import types
import unittest.mock

import pytest

from fastprod import (
    ConfigError,
    Producer,
    ProducerRecord,
    RecordTooLargeError,
    SerializationError,
    UnknownTopicOrPartitionError,
)
from tests.conftest import QUICK, shown

pytestmark = pytest.mark.mock
PARTITIONS = 4
TOPIC = "bad-input"
RECORD_OVERHEAD = 61 + 21  # a batch's header and a record's, as Java estimates them
TIMESTAMP_LIMIT = 2**63 - 1


@pytest.fixture(scope="module")
def producer(mock_cluster):
    """One producer for every bad thing in this file."""
    mock_cluster.create_topic(TOPIC, PARTITIONS)
    with Producer(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers, linger_ms=0) as producer:
        producer.send(TOPIC, b"first").result(20)
        yield producer


def check_refused(producer, call, expected, said):
    """The call raises that very class with that message, takes nothing, and the producer still delivers."""
    producer.flush(20)
    with pytest.raises(Exception, match=said) as caught:
        call()
    assert type(caught.value) is expected
    assert len(producer) == 0
    assert producer.send(TOPIC, b"good", b"key", headers=[("h", b"v")]).result(20).topic == TOPIC


def released_view():
    view = memoryview(b"value")
    view.release()
    return view


class Unrepresentable:
    def __repr__(self):
        return "<" + "long" * 1000 + ">"


class RaisesFromBuffer:
    def __buffer__(self, flags):
        raise AssertionError("never asked")


class RaisesFromItsBuffer(bytearray):
    def __buffer__(self, flags):
        raise ValueError("not now")


# topic

NO_NAME = "is not a topic name: use 1 to 249 of the characters"


@pytest.mark.parametrize(
    ("topic", "expected", "said"),
    [
        (None, TypeError, "topic must be str, not NoneType: None"),
        (b"t", TypeError, "topic must be str, not bytes: b't'"),
        (5, TypeError, "topic must be str, not int: 5"),
        (["t"], TypeError, r"topic must be str, not list: \['t'\]"),
        (Producer, TypeError, "topic must be str, not type: .*Producer"),
        (Unrepresentable(), TypeError, r"topic must be str, not Unrepresentable: <longlong.{50,100}\.\.\."),
        ("", ValueError, f"'' {NO_NAME}"),
        (".", ValueError, rf"'\.' {NO_NAME}.* not \. or \.\."),
        ("..", ValueError, rf"'\.\.' {NO_NAME}"),
        ("a" * 250, ValueError, rf"'aaaaaa.*\.\.\. {NO_NAME}"),
        ("a" * 1_000_000, ValueError, rf"^'a{{70,80}}\.\.\. {NO_NAME}"),
        ("a b", ValueError, f"'a b' {NO_NAME}"),
        ("a/b", ValueError, f"'a/b' {NO_NAME}"),
        ("a\n", ValueError, rf"'a\\n' {NO_NAME}"),
        ("ü", ValueError, f"'ü' {NO_NAME}"),
        ("٣", ValueError, f"'٣' {NO_NAME}"),
        ("a\0b", ValueError, rf"'a\\x00b' {NO_NAME}"),
        (TOPIC + "\0", ValueError, rf"'{TOPIC}\\x00' {NO_NAME}"),
        ("\ud800", ValueError, rf"'\\ud800' {NO_NAME}"),
    ],
    ids=shown,
)
@pytest.mark.parametrize("way", ["send", "record", "partitions_for"])
def test_a_bad_topic_is_refused(producer, way, topic, expected, said):
    ways = {
        "send": lambda: producer.send(topic, b"v"),
        "record": lambda: producer.send(ProducerRecord(topic, b"v")),
        "partitions_for": lambda: producer.partitions_for(topic),
    }
    check_refused(producer, ways[way], expected, said)


def test_a_topic_name_of_the_greatest_length_is_taken(producer, mock_cluster):
    name = "a" * 249
    mock_cluster.create_topic(name, 1)
    assert producer.send(name, b"v").result(20).topic == name


# value, key

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
        (Unrepresentable(), TypeError, rf"the FIELD {WANTED} Unrepresentable: <long.{{60,90}}\.\.\."),
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


# partition


@pytest.mark.parametrize(
    ("partition", "expected", "said"),
    [
        (-1, ValueError, "partition is -1: it must be 0 to 2147483647"),
        (-2, ValueError, "partition is -2: it must be 0 to 2147483647"),
        (-(2**70), ValueError, "partition is -1180591620717411303424"),
        (2**31, ValueError, "partition is 2147483648"),
        (2**32, ValueError, "partition is 4294967296"),
        (2**70, ValueError, "partition is 1180591620717411303424"),
        (1.5, TypeError, "partition must be an int or None, not float: 1.5"),
        (1.0, TypeError, "partition must be an int or None, not float: 1.0"),
        (math.nan, TypeError, "partition must be an int or None, not float: nan"),
        (True, TypeError, "partition must be an int or None, not bool: True"),
        (False, TypeError, "partition must be an int or None, not bool: False"),
        ("0", TypeError, "partition must be an int or None, not str: '0'"),
        (b"\0", TypeError, "partition must be an int or None, not bytes"),
        (PARTITIONS, UnknownTopicOrPartitionError, f"partition 4 of '{TOPIC}' does not exist.*0 to 3"),
        (2**31 - 1, UnknownTopicOrPartitionError, f"partition 2147483647 of '{TOPIC}' does not exist.*0 to 3"),
    ],
    ids=shown,
)
def test_a_bad_partition_is_refused(producer, partition, expected, said):
    check_refused(producer, lambda: producer.send(TOPIC, b"v", partition=partition), expected, said)


# timestamp


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


# headers


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


# callback


async def coroutine_function(metadata, error):
    raise AssertionError("never awaited")


class AsyncMethod:
    async def told(self, metadata, error):
        raise AssertionError("never awaited")

    async def __call__(self, metadata, error):
        raise AssertionError("never awaited")


@pytest.mark.parametrize(
    ("on_delivery", "expected", "said"),
    [
        (5, TypeError, "on_delivery must be callable, not int: 5"),
        ("print", TypeError, "on_delivery must be callable, not str: 'print'"),
        (False, TypeError, "on_delivery must be callable, not bool: False"),
        ([], TypeError, r"on_delivery must be callable, not list: \[\]"),
        (coroutine_function, TypeError, "coroutine function, and nothing would await it: await the future instead"),
    ],
    ids=shown,
)
def test_a_bad_callback_is_refused_by_send(producer, on_delivery, expected, said):
    check_refused(producer, lambda: producer.send(TOPIC, b"v", on_delivery=on_delivery), expected, said)


@pytest.mark.parametrize(
    "on_delivery",
    [AsyncMethod().told, AsyncMethod(), functools.partial(coroutine_function, None)],
    ids=["method", "__call__", "partial"],
)
def test_a_coroutine_function_in_disguise_is_refused_by_send(producer, on_delivery):
    check_refused(
        producer, lambda: producer.send(TOPIC, b"v", on_delivery=on_delivery), TypeError, "coroutine function"
    )


def confluents(err, msg):
    raise AssertionError("the arguments are the other way round")


def forwarding(function):
    @functools.wraps(function)
    def forward(*arguments):
        return function(*arguments)

    return forward


class Confluents:
    def told(self, error, metadata):
        raise AssertionError("the arguments are the other way round")

    def __call__(self, exc, metadata):
        raise AssertionError("the arguments are the other way round")

    @classmethod
    def of_the_class(cls, err, msg):
        raise AssertionError("the arguments are the other way round")

    @staticmethod
    def of_nothing(kafka_error, _):
        raise AssertionError("the arguments are the other way round")


SWAPPED = {
    "function": (confluents, "err"),
    "lambda": (lambda e, m: None, "e"),
    "error_or_none": (lambda error_or_none, metadata_or_none: None, "error_or_none"),
    "one alone": (lambda exception: None, "exception"),
    "method": (Confluents().told, "error"),
    "__call__": (Confluents(), "exc"),
    "classmethod": (Confluents.of_the_class, "err"),
    "staticmethod": (Confluents.of_nothing, "kafka_error"),
    "partial": (functools.partial(lambda key, err, msg: None, b"key"), "err"),
    "partial of a method": (functools.partial(Confluents().told), "error"),
    "decorated": (forwarding(confluents), "err"),
}


@pytest.mark.parametrize("way", SWAPPED)
def test_a_callback_that_expects_the_error_first_is_refused_by_send(producer, way):
    on_delivery, name = SWAPPED[way]
    said = rf"on_delivery is called with \(metadata, error\), .* first parameter is named '{name}': swap the two"
    for _ in range(2):  # what is known of the first must not let the second pass
        check_refused(producer, lambda: producer.send(TOPIC, b"v", on_delivery=on_delivery), TypeError, said)


STRAIGHT = {
    "anything": lambda a, b: None,
    "unnamed": lambda _, error: None,
    "either in the first": lambda metadata_or_error, error: None,
    "both alike": lambda err_or_metadata, err: None,
    "an event": lambda event, error: None,
    "bound": functools.partial(lambda error_count, metadata, error: None, 0),
    "any number": lambda *errors: None,
    "decorated": forwarding(lambda metadata, error: None),
    "builtin": print,
    "method of a builtin": [].__init__,
    "mock": unittest.mock.Mock(),
}


@pytest.mark.parametrize("way", STRAIGHT)
def test_a_callback_whose_parameters_do_not_say_that_is_taken(producer, way, monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", lambda raised: None)  # some cannot be called with two
    assert producer.send(TOPIC, b"v", on_delivery=STRAIGHT[way]).result(20).topic == TOPIC
    producer.flush(20)


def test_one_function_may_be_a_good_callback_bound_and_a_bad_one_unbound(producer):
    def told(err, metadata, error):
        pass

    said = "first parameter is named 'err'"
    for _ in range(2):
        assert producer.send(TOPIC, b"v", on_delivery=functools.partial(told, 1)).result(20).topic == TOPIC
        assert producer.send(TOPIC, b"v", on_delivery=types.MethodType(told, 1)).result(20).topic == TOPIC
        check_refused(producer, lambda: producer.send(TOPIC, b"v", on_delivery=told), TypeError, said)


@pytest.mark.parametrize("way", ["partial", "class", "__call__"])
def test_any_other_callable_is_taken(producer, way):
    told = []

    class Told:
        def __init__(self, *outcome):
            told.extend(outcome)

    class Callable:
        def __call__(self, *outcome):
            told.extend(outcome)

    ways = {
        "partial": functools.partial(lambda nothing, *outcome: told.extend(outcome), None),
        "class": Told,
        "__call__": Callable(),
    }
    metadata = producer.send(TOPIC, b"v", on_delivery=ways[way]).result(20)
    producer.flush(20)
    assert told == [metadata, None]


@pytest.mark.parametrize("on_delivery", [lambda: None, lambda one: None, lambda one, two, three: None])
def test_a_callback_of_the_wrong_arity_is_reported_and_harms_nothing(producer, monkeypatch, on_delivery):
    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", lambda raised: unraisable.append(raised.exc_type))
    assert producer.send(TOPIC, b"v", on_delivery=on_delivery).result(20).topic == TOPIC
    producer.flush(20)
    assert unraisable == [TypeError]
    assert producer.send(TOPIC, b"good").result(20).topic == TOPIC


@pytest.mark.parametrize("name", ["flush", "close"])
def test_waiting_for_oneself_inside_a_callback_is_refused(producer, name):
    raised, told = [], threading.Event()

    def wait(metadata, error):
        try:
            getattr(producer, name)()
        except Exception as error:
            raised.append(error)
        told.set()

    producer.send(TOPIC, b"v", on_delivery=wait)
    assert told.wait(20)
    assert [type(error) for error in raised] == [RuntimeError]
    assert re.match(rf"{name}\(\) in a callback would wait for that callback", str(raised[0]))
    assert producer.send(TOPIC, b"good").result(20).topic == TOPIC


# flush(timeout), close(timeout) and who else waits


@pytest.mark.parametrize(
    ("timeout", "expected", "said"),
    [
        (-1, ValueError, "timeout must be 0 or more seconds, or None, not -1"),
        (-1e-9, ValueError, "None, not -1e-09"),
        (math.nan, ValueError, "timeout must be 0 or more seconds, or None, not nan"),
        (-math.inf, ValueError, "None, not -inf"),
        ("1", TypeError, "timeout must be seconds or None, not str: '1'"),
        (True, TypeError, "timeout must be seconds or None, not bool: True"),
        (datetime.timedelta(seconds=1), TypeError, "timeout must be seconds or None, not timedelta"),
        ([], TypeError, r"timeout must be seconds or None, not list: \[\]"),
    ],
    ids=shown,
)
@pytest.mark.parametrize("name", ["flush", "close", "wait_ready"])
def test_a_bad_timeout_is_refused(producer, name, timeout, expected, said):
    check_refused(producer, lambda: getattr(producer, name)(timeout), expected, said)


@pytest.mark.parametrize("timeout", [2**63, 10**400, math.inf, 1e300, 60, 60.5, None], ids=shown)
def test_a_timeout_may_be_as_long_as_one_likes(producer, timeout):
    future = producer.send(TOPIC, b"v")
    producer.flush(timeout)
    assert future.result(timeout).topic == TOPIC


def test_a_timeout_of_0_does_not_wait_and_loses_nothing(mock_cluster, topic):
    with Producer(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers, linger_ms=50_000) as producer:
        future = producer.send(topic, b"v")
        with pytest.raises(TimeoutError, match="within 0 s; it is still on its way"):
            future.result(0)
        producer.flush(20)
        assert future.result(0).topic == topic


# The arguments themselves


@pytest.mark.parametrize(
    ("arguments", "keywords", "said"),
    [
        ((), {}, "topic|argument"),
        ((TOPIC, b"v", b"k", 0), {}, "positional"),
        ((TOPIC,), {"unknown": 1}, "unknown"),
        ((TOPIC, b"v"), {"value": b"v"}, "value"),
    ],
    ids=["none", "too many", "unknown", "twice"],
)
def test_bad_arguments_of_send_are_refused(producer, arguments, keywords, said):
    check_refused(producer, lambda: producer.send(*arguments, **keywords), TypeError, said)


# Configuration: test_config.py has every option; here that a Producer is not made, and harms no other


@pytest.mark.parametrize(
    ("options", "expected", "said"),
    [
        (5, TypeError, "config must be a mapping of option names to values, not int"),
        ("bootstrap.servers=h:1", TypeError, "config must be a mapping .*, not str"),
        ([("linger.ms", 1)], TypeError, "config must be a mapping .*, not list"),
        ({5: 1}, TypeError, "option names must be str, not int"),
        ({b"acks": 1}, TypeError, "option names must be str, not bytes"),
        ({"batchsize": 1}, ConfigError, "unknown option 'batchsize': did you mean batch.size"),
        ({"linger.ms": 1, "linger_ms": 2}, ConfigError, "linger.ms is given twice, by linger.ms and by linger_ms"),
        ({"linger.ms": 1, "queue.buffering.max.ms": 2}, ConfigError, "linger.ms is given twice"),
        ({}, ConfigError, "bootstrap.servers is required"),
        ({"security.protocol": "SASL_SSL"}, ConfigError, "GSSAPI is what sasl.mechanism is"),
        *(
            ({"bootstrap.servers": bad}, ConfigError, "bootstrap.servers")
            for bad in (
                "",
                ",",
                " ",
                "host",
                "host:0",
                "host:65536",
                "host:-1",
                "host:x",
                "[::1",
                "h\0:1",
                "h:1," * 9999,
            )
        ),
        *(({"acks": bad}, ConfigError, re.escape(f"acks={bad!r}: must be")) for bad in (2, -2, "alll", True, 1.0)),
        ({"enable.idempotence": True, "acks": 1}, ConfigError, "acks=1: must be all with enable.idempotence"),
        ({"enable.idempotence": True, "retries": 0}, ConfigError, "retries=0: must be at least 1"),
        *(({"batch.size": bad}, ConfigError, f"batch.size={bad!r}: must be") for bad in (-1, 2**31, "16k", math.nan)),
        ({"batch.size": 2**20, "buffer.memory": 2**19}, ConfigError, "batch.size=1048576 is larger than buffer.memory"),
        ({"batch.size": 2**21}, ConfigError, "batch.size=2097152 is larger than max.request.size=1048576"),
        *(
            ({"linger.ms": bad}, ConfigError, f"linger.ms={bad!r}: must be")
            for bad in (-1, math.nan, math.inf, 900_001, "five")
        ),
        *(({"buffer.memory": bad}, ConfigError, f"buffer.memory={bad!r}: must be") for bad in (-1, 2**63, math.nan)),
        *(
            ({name: bad}, ConfigError, f"{name}={bad!r}: must be")
            for name in ("max.block.ms", "request.timeout.ms", "delivery.timeout.ms", "retry.backoff.ms", "retries")
            for bad in (-1, math.nan, 2**64, True)
        ),
        ({"delivery.timeout.ms": 10}, ConfigError, "delivery.timeout.ms=10 is less than"),
        *(
            ({"max.in.flight.requests.per.connection": bad}, ConfigError, f"connection={bad}: must be")
            for bad in (0, -1, 6)
        ),
        ({"compression.type": "brotli"}, ConfigError, "compression.type='brotli': must be"),
        ({"compression.type": "gzip", "compression.gzip.level": 99}, ConfigError, "level=99: must be"),
        *(
            ({"max.request.size": bad}, ConfigError, f"max.request.size={bad}: must be")
            for bad in (999, 1_000_000_001, -1)
        ),
        ({"ssl.ca.location": "no/such/file.pem"}, ConfigError, "ssl.ca.location"),
        ({"value.serializer": 5}, ConfigError, "value.serializer=5: must be a callable"),
        ({"partitioner": "nearest"}, ConfigError, "partitioner='nearest': must be one of uniform_sticky"),
        ({"interceptors": 5}, ConfigError, "interceptors=5: must be a list"),
    ],
    ids=shown,
)
def test_a_bad_configuration_makes_no_producer(producer, options, expected, said):
    if isinstance(options, dict) and len(options) > 0 and "bootstrap.servers" not in options:
        options = {"bootstrap.servers": "localhost:9092", **options}
    before = threading.active_count()
    check_refused(producer, lambda: Producer(options), expected, said)
    assert threading.active_count() == before


# Sizes at the limit


def varint_size(number):
    """Bytes of a length in record format v2."""
    return max(1, ((number << 1).bit_length() + 6) // 7)


def nullable(data):
    return 1 if data is None else varint_size(len(data)) + len(data)


def largest_value(limit, key, headers):
    """How long a value can be, beside that key and those headers, for the record to take no more than limit."""
    rest = RECORD_OVERHEAD + nullable(key) + varint_size(len(headers))
    rest += sum(varint_size(len(name)) + len(name) + nullable(value) for name, value in headers)
    return max(n for n in range(limit) if rest + varint_size(n) + n <= limit)


@pytest.fixture(scope="module", params=[1000, 2000, 20_000])
def small(mock_cluster, producer, request):
    """A producer of that max.request.size."""
    servers = mock_cluster.bootstrap_servers
    with Producer(QUICK, bootstrap_servers=servers, linger_ms=0, max_request_size=request.param) as small:
        yield small


@pytest.mark.parametrize("key", [None, b"", b"k" * 63, b"k" * 64], ids=["null", "empty", "63", "64"])
@pytest.mark.parametrize("headers", [[], [("h", None), ("header", b"v" * 100)]], ids=["plain", "headers"])
def test_a_record_of_exactly_max_request_size_is_delivered_and_one_byte_more_refused(small, key, headers):
    limit = small.config.max_request_size
    largest = largest_value(limit, key, headers)
    for _ in range(2):
        assert small.send(TOPIC, b"v" * largest, key, headers=headers).result(20)[5] == largest
        small.flush(20)
        said = rf"the record for '{TOPIC}' takes up to {limit + 1} bytes, more than max\.request\.size={limit}: make it"
        with pytest.raises(RecordTooLargeError, match=said):
            small.send(TOPIC, b"v" * (largest + 1), key, headers=headers)
        assert len(small) == 0


def test_the_key_counts_too(mock_cluster, topic):
    with Producer(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers, max_request_size=1000) as small:
        with pytest.raises(RecordTooLargeError, match="max.request.size=1000"):
            small.send(topic, None, b"k" * 1000)
        assert small.send(topic, None, b"k" * 900).result(20)[4:] == (900, -1)


def test_buffer_memory_is_a_limit_too(mock_cluster, topic):
    servers = mock_cluster.bootstrap_servers
    largest = largest_value(50_000, None, [])
    with Producer(QUICK, bootstrap_servers=servers, linger_ms=0, buffer_memory=50_000, batch_size=1000) as small:
        with pytest.raises(RecordTooLargeError, match=r"takes up to 50001 bytes, more than buffer\.memory=50000"):
            small.send(topic, b"v" * (largest + 1))
        assert small.send(topic, b"v" * largest).result(20)[5] == largest
        assert small.send(topic, b"v").result(20)[5] == 1
