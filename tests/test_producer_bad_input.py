"""What send(), flush(), close() and the configuration refuse, and that the producer works on after each refusal."""

import datetime
import math
import re
import threading

import pytest

from fastprod import (
    ConfigError,
    Producer,
    ProducerRecord,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
)
from tests.bad_input import PARTITIONS, TOPIC, LongRepr, check_refused
from tests.conftest import QUICK, shown

pytestmark = pytest.mark.mock
RECORD_OVERHEAD = 61 + 21  # a batch's header and a record's, as Java estimates them


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
        (LongRepr(), TypeError, r"topic must be str, not LongRepr: <longlong.{50,100}\.\.\."),
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


@pytest.mark.parametrize("name", ["flush", "close"])
def test_waiting_for_oneself_inside_a_callback_is_refused(producer, name):
    raised, called = [], threading.Event()

    def wait(metadata, error):
        try:
            getattr(producer, name)()
        except Exception as error:
            raised.append(error)
        called.set()

    producer.send(TOPIC, b"v", on_delivery=wait)
    assert called.wait(20)
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
