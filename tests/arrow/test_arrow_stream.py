"""ArrowStream: what is taken over from other libraries is released once, however the call ends."""

import contextlib
import errno
import os
import signal

import pyarrow as pa
import pytest

from fastprod import (
    BufferExhaustedError,
    MetadataTimeoutError,
    ProducerClosedError,
    UnknownTopicOrPartitionError,
)
from tests.arrow.data import COLUMN, WORD, batches, table
from tests.arrow_builder import ArrowBuilder, Type, Values
from tests.conftest import TOPIC, interrupted

pytestmark = pytest.mark.mock


@pytest.mark.parametrize("given", [None, 5, (), (1, 2), "capsule"])
def test_another_capsule_is_refused(make, topic, given):
    class Stream:
        def __arrow_c_stream__(self, requested_schema=None):
            return given

    class Array:
        def __arrow_c_array__(self, requested_schema=None):
            return given

    for wrong in (Stream(), Array()):
        with pytest.raises(TypeError, match="capsule"):
            make().send_arrow(topic, wrong)


@pytest.mark.parametrize(
    "type",
    [
        Type("+s", children=[Type("u", "value"), Type("+l", "h", children=[None])]),
        Type("+s", children=[Type("u", "value"), Type("+l", "h", children=[Type("+s", children=[None, Type("u")])])]),
        Type("+s", children=[Type("u", "value"), None]),
        Type("+s", children=[Type("c", "value", dictionary=Type(None)), Type("u", "h")]),
        Type("+s", children=[Type("u", "value"), Type("+m", "h", children=[Type(None)])]),
        Type(None),
    ],
    ids=["no list", "no key", "no column", "dictionary of no format", "list of no format", "no format"],
)
def test_a_schema_with_something_missing_is_refused(make, topic, type):
    built = ArrowBuilder(type, [])
    with pytest.raises(ValueError, match="malformed Arrow data: the schema"):
        make().send_arrow(topic, built, headers="h")


def test_a_stream_that_fails_is_raised_with_its_own_words(make, topic):
    def fail():
        raise OSError(errno.EIO, "the disk is gone")

    def no_memory():
        raise OSError(errno.ENOMEM, "too large")

    batch = Values(1, [None], children=[WORD])
    producer = make()
    for ends, error, message in ((fail, OSError, "the disk is gone"), (no_memory, MemoryError, "too large")):
        built = ArrowBuilder(COLUMN, [batch, batch, ends])
        with pytest.raises(error, match=message) as caught:
            producer.send_arrow(topic, built)
        assert caught.value.index == 2
        assert caught.value.sent.result(10).count == 2
        built.check()
    built = ArrowBuilder(OSError(errno.EINVAL, ""), [])
    with pytest.raises(OSError, match="Invalid argument") as caught:
        producer.send_arrow(topic, built)
    assert (caught.value.index, caught.value.errno) == (0, errno.EINVAL)
    built.check()


def test_a_generator_behind_a_stream_may_raise(make, topic):
    data = table(["v"] * 100)

    def batches():
        yield from data.to_batches()
        raise LookupError("no more")

    with pytest.raises(OSError, match="no more") as caught:
        make().send_arrow(topic, pa.RecordBatchReader.from_batches(data.schema, batches()))
    assert caught.value.index == 100


def test_ctrl_c_in_a_generator_behind_a_stream_is_one(make, topic):
    data = table(["v"])

    def batches():
        yield from data.to_batches()
        os.kill(os.getpid(), signal.SIGINT)
        yield from data.to_batches()

    with pytest.raises(KeyboardInterrupt) as caught:
        make().send_arrow(topic, pa.RecordBatchReader.from_batches(data.schema, batches()))
    assert caught.value.sent.result(10).count == caught.value.index <= 1


# Everything is released once


@pytest.mark.parametrize("export", ["stream", "array"])
@pytest.mark.parametrize("options", [{}, {"value": "v"}, {"key": "value", "timestamp": "value"}, {"partition": 99}])
def test_structures_are_released_however_it_ends(make, topic, export, options):
    built = ArrowBuilder(COLUMN, batches(3), export)
    with contextlib.suppress(TypeError, ValueError, UnknownTopicOrPartitionError):
        future = make().send_arrow(topic, built, **options)
        assert future.result(10).count == (3_000 if export == "stream" else 1_000)
    if built.exported:
        built.check()
    else:
        assert options == {"partition": 99}


def test_data_is_not_opened_before_the_topic_is_known(make):
    built = ArrowBuilder(COLUMN, batches(1))
    with pytest.raises((UnknownTopicOrPartitionError, MetadataTimeoutError)) as caught:
        make(max_block_ms=300).send_arrow("nowhere", built)
    assert caught.value.index == caught.value.sent.count == 0
    assert not built.exported


def test_a_stream_can_be_taken_once(make, topic):
    built = ArrowBuilder(COLUMN, batches(1))
    capsule = built.stream_capsule()
    built.__arrow_c_stream__ = lambda requested_schema: capsule
    producer = make()
    assert producer.send_arrow(topic, built).result(10).count == 1_000
    with pytest.raises(ValueError, match="released or read before"):
        producer.send_arrow(topic, built)
    built.check()


def test_a_producer_closed_in_between_releases_the_data(make, topic):
    producer = make()

    def close():
        producer.close(10)
        return batches(1)[0]

    built = ArrowBuilder(COLUMN, [*batches(2), close, *batches(2)])
    with pytest.raises(ProducerClosedError) as caught:
        producer.send_arrow(topic, built)
    assert caught.value.index == caught.value.sent.result(10).count == 2_000
    built.check()


def test_ctrl_c_releases_the_data_and_leaves_what_was_sent(cluster, make):
    producer = make(cluster.bootstrap_servers, buffer_memory=100_000)
    producer.send(TOPIC, b"first").result(10)
    cluster.pause()
    built = ArrowBuilder(COLUMN, batches(20))
    sent = []

    def send():
        try:
            producer.send_arrow(TOPIC, built)
        except BaseException as error:
            sent.append((error.index, error.sent))
            raise

    with interrupted():
        send()
    built.check()
    cluster.resume()
    index, future = sent[0]
    assert 0 < index < 20_000
    assert future.result(20).count == index


def test_ctrl_c_reaches_a_call_that_never_waits(make, topic):
    built = ArrowBuilder(Type("w:0"), [Values(1 << 50, [None, None])])
    producer = make()
    with interrupted():
        producer.send_arrow(topic, built)
    built.check()


def test_ctrl_c_comes_through_serializers_that_run_no_python(make, topic):
    built = ArrowBuilder(Type("w:1"), [Values(1_000_000, [None, b"v" * 1_000_000])])
    producer = make(value_serializer=bytes, buffer_memory=1 << 28)
    producer.send(topic, b"first").result(10)
    with interrupted(0.05) as caught:
        producer.send_arrow(topic, built)
    assert 0 < caught.value.index < 1_000_000
    assert caught.value.sent.result(20).count == caught.value.index
    built.check()


def test_memory_that_does_not_come_releases_the_data(cluster, make):
    producer = make(cluster.bootstrap_servers, buffer_memory=100_000, max_block_ms=2_000)
    producer.send(TOPIC, b"first").result(10)
    cluster.pause()
    built = ArrowBuilder(COLUMN, batches(20))
    with pytest.raises(BufferExhaustedError) as caught:
        producer.send_arrow(TOPIC, built)
    built.check()
    cluster.resume()
    assert caught.value.sent.result(20).count == caught.value.index > 0


def test_a_stream_larger_than_memory_is_read_as_it_is_sent(make, topic):
    producer = make(buffer_memory=1_000_000, batch_size=16_384)
    ahead = []
    taken = 0

    def batch():
        nonlocal taken
        taken += 1
        ahead.append(taken * 1_000 - len(producer))
        return batches(1)[0]

    built = ArrowBuilder(COLUMN, [batch] * 300)
    assert producer.send_arrow(topic, built).result(30).count == 300_000
    assert producer.metrics()["bufferpool-wait-time-ns-total"] > 0
    built.check()
    assert built.exported.count("array") == 600


def test_arrays_are_released_as_soon_as_the_next_is_asked_for(make, topic):
    alive = []

    def batch():
        alive.append(sum(kind == "array" for kind in built.exported) - (len(built.released)))
        return batches(1)[0]

    built = ArrowBuilder(COLUMN, [batch] * 5)
    make().send_arrow(topic, built).result(10)
    assert alive == [0] * 5
    built.check()
