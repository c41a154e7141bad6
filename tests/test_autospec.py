"""What unittest.mock.create_autospec() makes of compiled classes and functions."""

import unittest.mock

import pytest

import fastprod
from fastprod import FutureRecordMetadata, Producer

pytestmark = pytest.mark.mock
PUBLIC = [value for value in map(fastprod.__dict__.get, fastprod.__all__) if callable(value)]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda value: value.__name__)
def test_a_mock_can_be_made_of_everything_public(public):
    unittest.mock.create_autospec(public)


def test_a_mock_of_a_producer_has_its_methods_and_checks_its_arguments():
    mock = unittest.mock.create_autospec(Producer)
    with pytest.raises(TypeError, match="too many positional arguments"):
        mock({}, 1)
    producer = mock({"bootstrap.servers": "h:9092"}, linger_ms=5)
    with pytest.raises(AttributeError):
        producer.produce("t", b"v")
    for arguments, keywords in [((), {}), (("t",), {"partitions": 1}), (("t", b"v", b"k", 0), {})]:
        with pytest.raises(TypeError):
            producer.send(*arguments, **keywords)
    producer.send("t", value=b"v", partition=1)
    producer.send.assert_called_once_with("t", value=b"v", partition=1)
    with pytest.raises(AssertionError):
        producer.send.assert_called_with("t", value=b"other", partition=1)
    with pytest.raises(TypeError):
        producer.flush(1, 2)
    instance = unittest.mock.create_autospec(Producer, instance=True, spec_set=True)
    with pytest.raises(TypeError):
        instance.send_many("t")
    future = unittest.mock.create_autospec(FutureRecordMetadata, instance=True)
    with pytest.raises(TypeError):
        future.result(1, 2)
    with pytest.raises(TypeError):
        unittest.mock.create_autospec(fastprod.murmur2)()
