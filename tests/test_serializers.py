"""The user's serializers."""

import enum
import re

import pytest

from fastprod import SerializationError, partition_for_key
from tests.conftest import PARTITIONS

pytestmark = pytest.mark.mock


class Upper:
    def serialize(self, topic, value):
        return f"{topic}:{value}".upper()


def test_serializers_are_callables_or_objects_with_serialize(make, topic, read):
    producer = make(key_serializer=lambda n: b"%d" % n, value_serializer=Upper())
    producer.send(topic, "value", 42).result(10)
    (message,) = read(topic, 1)
    assert (message.value().decode(), message.key()) == (f"{topic}:value".upper(), b"42")


def test_serializers_are_not_asked_about_null(make, topic, read):
    producer = make(key_serializer=str.encode, value_serializer=str.encode)
    producer.send(topic).result(10)
    (message,) = read(topic, 1)
    assert (message.value(), message.key()) == (None, None)


def test_the_key_as_serialized_decides_the_partition(make, topic):
    producer = make(key_serializer=lambda n: b"%d" % n)
    assert producer.send(topic, b"v", 42).result(10).partition == partition_for_key(b"42", PARTITIONS)


@pytest.mark.parametrize("field", ["key", "value"])
def test_a_failing_serializer_is_a_serialization_error(make, topic, field):
    producer = make(**{f"{field}_serializer": lambda n: b"%d" % n})
    with pytest.raises(SerializationError, match=f"{field}_serializer.*'seven'.*{topic}") as caught:
        producer.send(topic, **{field: "seven"})
    assert isinstance(caught.value.__cause__, TypeError)
    assert producer.send(topic, **{field: 7}).result(10).offset == 0


@pytest.mark.parametrize("field", ["key", "value"])
@pytest.mark.parametrize("wrong", [7, {"a": 1}, [b"7"]], ids=repr)
def test_a_serializer_must_give_bytes(make, topic, read, field, wrong):
    producer = make(**{f"{field}_serializer": lambda value: value})
    said = f"the {field}_serializer must return bytes.* {type(wrong).__name__} for '{topic}'.*{re.escape(repr(wrong))}"
    with pytest.raises(SerializationError, match=said):
        producer.send(topic, **{field: wrong})
    for given in (b"7", "7", bytearray(b"7"), memoryview(b"7"), None):
        producer.send(topic, **{field: given}).result(10)
    assert sum(getattr(message, field)() == b"7" for message in read(topic, 5)) == 4


def test_the_topic_may_be_of_a_class_of_str(make, topic):
    class Topics(str, enum.Enum):
        OUT = topic

    producer = make(key_serializer=str.encode, value_serializer=Upper())
    assert producer.send(Topics.OUT, "value", "key").result(10).topic == topic
