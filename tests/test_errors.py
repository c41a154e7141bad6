"""errors.py: the tree of exceptions, their copies and their pickles."""

import copy
import pickle

import pytest

from fastprod import errors

BUILT_IN_BASES = {
    errors.ConfigError: ValueError,
    errors.BufferExhaustedError: TimeoutError,
    errors.MetadataTimeoutError: TimeoutError,
    errors.RecordTooLargeError: ValueError,
    errors.SerializationError: ValueError,
    errors.DeliveryError: Exception,
    errors.DeliveryTimeoutError: TimeoutError,
    errors.BulkDeliveryError: errors.DeliveryError,
    errors.AuthenticationError: Exception,
    errors.AuthorizationError: Exception,
    errors.UnknownTopicOrPartitionError: Exception,
    errors.FencedError: Exception,
    errors.TransactionStateError: RuntimeError,
    errors.ProducerClosedError: RuntimeError,
    errors.ForkedProducerError: RuntimeError,
}


def test_every_class_is_in_the_table():
    defined = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.KafkaError)}
    assert defined == {errors.KafkaError, *BUILT_IN_BASES}


@pytest.mark.parametrize(("kind", "base"), BUILT_IN_BASES.items())
def test_tree(kind, base):
    assert issubclass(kind, errors.KafkaError)
    assert issubclass(kind, base)


@pytest.mark.parametrize("kind", [errors.KafkaError, *BUILT_IN_BASES])
def test_defaults(kind):
    error = kind("what happened")
    assert str(error) == "what happened"
    assert (error.code, error.retriable, error.fatal, error.abortable) == (None, False, False, False)
    assert error.persisted == ("possibly" if isinstance(error, errors.DeliveryError) else None)


@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", [errors.KafkaError, *BUILT_IN_BASES])
def test_round_trip(kind, duplicate):
    error = kind("what happened", code=-192, retriable=True, fatal=True)
    error.persisted = "yes"
    twin = duplicate(error)
    assert type(twin) is kind
    assert str(twin) == "what happened"
    assert (twin.code, twin.retriable, twin.fatal, twin.persisted) == (-192, True, True, "yes")


def test_a_single_error_has_nothing_to_aggregate():
    error = errors.DeliveryError("one failed")
    assert (error.count, error.reasons, error.records) == (1, {}, [])
    assert errors.DeliveryError("another").reasons is not error.reasons
