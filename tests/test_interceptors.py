"""The user's interceptors."""

import pyarrow
import pytest

from fastprod import (
    BufferExhaustedError,
    ConfigError,
    MetadataTimeoutError,
    Producer,
    ProducerClosedError,
    ProducerRecord,
    RecordTooLargeError,
    SerializationError,
    UnknownTopicOrPartitionError,
)
from tests.conftest import TOPIC, pausing

pytestmark = pytest.mark.mock


class Hooks:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def on_send(self, record):
        self.log.append((self.name, record.value))
        headers = [*(record.headers or ()), (self.name, b"")]
        return ProducerRecord(record.topic, record.value + b"!", record.key, record.partition, None, headers)

    def on_acknowledgement(self, metadata, error):
        self.log.append((self.name, metadata, error))

    def close(self):
        self.log.append((self.name, "closed"))


def test_interceptors_change_records_in_order_and_hear_of_their_fate(make, topic, read):
    log, outcomes = [], []
    producer = make(interceptors=[Hooks("a", log), Hooks("b", log)])
    future = producer.send(topic, b"v", partition=2, on_delivery=lambda *outcome: outcomes.append(outcome))
    metadata = future.result(10)
    producer.close(10)
    assert log == [("a", b"v"), ("b", b"v!"), ("a", metadata, None), ("b", metadata, None),
                   ("a", "closed"), ("b", "closed")]  # fmt: skip
    assert outcomes == [(metadata, None)]
    (message,) = read(topic, 1)
    assert (message.value(), message.headers()) == (b"v!!", [("a", b""), ("b", b"")])


class Marking:
    def on_send(self, record):
        if isinstance(record.headers, dict):
            record.headers["mark"] = b""
        else:
            record.headers.append(("mark", b""))
        return record


@pytest.mark.parametrize("headers", [[("a", b"1")], {"a": b"1"}], ids=["pairs", "mapping"])
def test_headers_that_an_interceptor_changes_are_its_records_alone(make, topic, read, headers):
    producer = make(interceptors=[Marking()])
    given = headers.copy()
    producer.send(topic, b"v", headers=given)
    producer.send(ProducerRecord(topic, b"v", headers=given))
    producer.send_many(topic, [b"v"] * 3, headers=given)
    producer.send_many(topic, [b"v"] * 3, headers=[given] * 3)
    producer.flush(10)
    assert given == headers
    assert [m.headers() for m in read(topic, 8)] == [[("a", b"1"), ("mark", b"")]] * 8


@pytest.mark.parametrize("kind", [LookupError, SystemExit])
def test_an_interceptor_that_raises_hinders_neither_the_others_nor_on_delivery(make, topic, monkeypatch, kind):
    class Raising:
        def on_acknowledgement(self, metadata, error):
            raise kind("interceptor")

    unraisable, log, outcomes = [], [], []
    monkeypatch.setattr("sys.unraisablehook", lambda raised: unraisable.append(raised.exc_type))
    producer = make(interceptors=[Raising(), Hooks("b", log)])
    producer.send(topic, b"v", on_delivery=lambda *outcome: outcomes.append(outcome))
    producer.flush(10)
    assert (len(outcomes), len(log), unraisable) == (1, 2, [kind])


@pytest.mark.parametrize("returned", [None, "text"], ids=repr)
def test_an_interceptor_must_return_a_record(make, topic, returned):
    class Forgetful:
        def on_send(self, record):
            return returned if record.value == b"bad" else record

    producer = make(interceptors=[Forgetful()])
    with pytest.raises(TypeError, match="Forgetful.on_send must return a ProducerRecord"):
        producer.send(topic, b"bad")
    assert producer.send(topic, b"good").result(10).offset == 0


class Hearing:
    """An interceptor that keeps the outcomes."""

    def __init__(self):
        self.outcomes = []
        self.sent = 0

    def on_send(self, record):
        self.sent += 1
        return record

    def on_acknowledgement(self, metadata, error):
        self.outcomes.append((metadata, error))


def refuse_key(key):
    if key == b"bad":
        raise LookupError(key)
    return key


REFUSED = {  # what send() is given, and what comes of it
    "too large": ({"value": bytes(2_000_000)}, RecordTooLargeError),
    "not bytes": ({"value": 5}, TypeError),
    "serializer": ({"value": b"v", "key": b"bad"}, SerializationError),
    "partition": ({"value": b"v", "partition": 99}, UnknownTopicOrPartitionError),
    "timestamp": ({"value": b"v", "timestamp": -1}, ValueError),
    "headers": ({"value": b"v", "headers": [(1, b"")]}, TypeError),
}


WAYS = [(case, way) for case in REFUSED for way in ("send", "ProducerRecord", "send_many")]
WAYS += [("too large", "send_arrow"), ("serializer", "send_arrow")]  # its columns are checked before on_send()


@pytest.mark.parametrize(("case", "way"), WAYS)
def test_interceptors_hear_once_of_a_record_that_is_refused_after_on_send(make, topic, case, way):
    given, expected = REFUSED[case]
    given = {"key": None, "partition": None, "timestamp": None, "headers": None, **given}
    first, second, called = Hearing(), Hearing(), []
    producer = make(interceptors=[first, second], key_serializer=refuse_key)

    def send():
        if way == "send":
            producer.send(topic, on_delivery=lambda *outcome: called.append(outcome), **given)
        elif way == "ProducerRecord":
            producer.send(ProducerRecord(topic, **given))
        elif way == "send_many":
            columns = {name.rstrip("s") + "s": [value] for name, value in given.items()}
            producer.send_many(topic, **columns)
        else:
            producer.send_arrow(topic, pyarrow.table({"value": [given["value"]], "key": [given["key"]]}), key="key")

    with pytest.raises(expected) as caught:
        send()
    assert first.outcomes == second.outcomes == [(None, caught.value)]
    assert first.sent == second.sent == 1 and called == []
    assert getattr(caught.value, "topic", topic) == topic
    assert producer.send(topic, b"good").result(10).topic == topic
    producer.flush(10)
    assert len(first.outcomes) == 2 and first.outcomes[1][1] is None


def test_interceptors_hear_of_a_record_for_which_there_is_no_memory_or_no_topic(make, cluster):
    hearing = Hearing()
    producer = make(cluster.bootstrap_servers, interceptors=[hearing], max_block_ms=200, buffer_memory=20_000)
    producer.partitions_for(TOPIC)
    with pausing(cluster):
        future = producer.send(TOPIC, bytes(15_000), partition=0)
        with pytest.raises(BufferExhaustedError) as full:
            producer.send(TOPIC, bytes(15_000), partition=1)
        with pytest.raises(MetadataTimeoutError) as unknown:
            producer.send("missing", b"v")
        assert hearing.outcomes == [(None, full.value), (None, unknown.value)]
        assert (full.value.topic, full.value.partition, unknown.value.topic) == (TOPIC, 1, "missing")
    producer.flush(20)
    assert hearing.outcomes[2:] == [(future.result(0), None)]


def test_interceptors_hear_of_a_record_that_a_close_meanwhile_refuses(make, topic):
    class Closing(Hearing):
        def on_send(self, record):
            producer.close(10)
            return super().on_send(record)

    hearing = Closing()
    producer = make(interceptors=[hearing])
    producer.partitions_for(topic)
    with pytest.raises(ProducerClosedError) as caught:
        producer.send(topic, b"v", b"k")
    assert hearing.outcomes == [(None, caught.value)]
    assert caught.value.topic == topic
    with pytest.raises(ProducerClosedError):
        producer.send(topic, b"v")
    assert (hearing.sent, len(hearing.outcomes)) == (1, 1)  # it was not asked


def test_when_on_send_raises_those_hear_of_it_that_had_the_record_before(make, topic):
    class Refusing(Hearing):
        def on_send(self, record):
            raise LookupError("no")

    before, refusing, behind = Hearing(), Refusing(), Hearing()
    with pytest.raises(LookupError) as caught:
        make(interceptors=[before, refusing, behind]).send(topic, b"v")
    assert before.outcomes == [(None, caught.value)]
    assert refusing.outcomes == behind.outcomes == [] and behind.sent == 0


def test_an_interceptor_that_raises_about_a_refusal_hinders_neither_the_others_nor_the_refusal(
    make, topic, monkeypatch
):
    class Raising(Hearing):
        def on_acknowledgement(self, metadata, error):
            raise LookupError("interceptor")

    unraisable, hearing = [], Hearing()
    monkeypatch.setattr("sys.unraisablehook", lambda raised: unraisable.append(raised.exc_type))
    with pytest.raises(RecordTooLargeError):
        make(interceptors=[Raising(), hearing]).send(topic, bytes(2_000_000))
    assert (len(hearing.outcomes), unraisable) == (1, [LookupError])


class SwappedInterceptor:
    def on_acknowledgement(self, error, metadata):
        raise AssertionError("the arguments are the other way round")


class AsyncInterceptor:
    async def on_acknowledgement(self, metadata, error):
        raise AssertionError("never awaited")


@pytest.mark.parametrize(
    ("interceptor", "said"),
    [
        (SwappedInterceptor(), "SwappedInterceptor.on_acknowledgement is called with .* named 'error': swap"),
        (AsyncInterceptor(), "AsyncInterceptor.on_acknowledgement is a coroutine function"),
    ],
    ids=["swapped", "async"],
)
def test_an_interceptor_that_would_take_an_acknowledgement_wrongly_makes_no_producer(mock_cluster, interceptor, said):
    with pytest.raises(ConfigError, match=f"interceptors: {said}"):
        Producer(bootstrap_servers=mock_cluster.bootstrap_servers, interceptors=[interceptor])
