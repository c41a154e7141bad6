"""error_codes: each code against confluent-kafka's own constants, and the error that it becomes."""

import pickle

import confluent_kafka
import pytest

from fastprod import FailedRecord, errors
from fastprod.internals import error_codes

CODES = {
    "_DESTROY": -197,
    "_TRANSPORT": -195,
    "_RESOLVE": -193,
    "_MSG_TIMED_OUT": -192,
    "_UNKNOWN_PARTITION": -190,
    "_UNKNOWN_TOPIC": -188,
    "_ALL_BROKERS_DOWN": -187,
    "_TIMED_OUT": -185,
    "_QUEUE_FULL": -184,
    "_SSL": -181,
    "_AUTHENTICATION": -169,
    "_TIMED_OUT_QUEUE": -166,
    "_PURGE_QUEUE": -152,
    "_PURGE_INFLIGHT": -151,
    "_FATAL": -150,
    "_FENCED": -144,
    "INVALID_MSG": 2,
    "UNKNOWN_TOPIC_OR_PART": 3,
    "LEADER_NOT_AVAILABLE": 5,
    "NOT_LEADER_FOR_PARTITION": 6,
    "REQUEST_TIMED_OUT": 7,
    "REPLICA_NOT_AVAILABLE": 9,
    "MSG_SIZE_TOO_LARGE": 10,
    "NETWORK_EXCEPTION": 13,
    "COORDINATOR_LOAD_IN_PROGRESS": 14,
    "COORDINATOR_NOT_AVAILABLE": 15,
    "NOT_COORDINATOR": 16,
    "NOT_ENOUGH_REPLICAS": 19,
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND": 20,
    "TOPIC_AUTHORIZATION_FAILED": 29,
    "CLUSTER_AUTHORIZATION_FAILED": 31,
    "INVALID_PRODUCER_EPOCH": 47,
    "CONCURRENT_TRANSACTIONS": 51,
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": 53,
    "KAFKA_STORAGE_ERROR": 56,
    "SASL_AUTHENTICATION_FAILED": 58,
    "LISTENER_NOT_FOUND": 72,
    "FENCED_LEADER_EPOCH": 74,
    "UNKNOWN_LEADER_EPOCH": 75,
    "THROTTLING_QUOTA_EXCEEDED": 89,
    "PRODUCER_FENCED": 90,
}


CLASSES = {
    "_MSG_TIMED_OUT": errors.DeliveryTimeoutError,
    "MSG_SIZE_TOO_LARGE": errors.RecordTooLargeError,
    "TOPIC_AUTHORIZATION_FAILED": errors.AuthorizationError,
    "CLUSTER_AUTHORIZATION_FAILED": errors.AuthorizationError,
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": errors.AuthorizationError,
    "_AUTHENTICATION": errors.AuthenticationError,
    "SASL_AUTHENTICATION_FAILED": errors.AuthenticationError,
    "UNKNOWN_TOPIC_OR_PART": errors.UnknownTopicOrPartitionError,
    "_UNKNOWN_PARTITION": errors.UnknownTopicOrPartitionError,
    "_UNKNOWN_TOPIC": errors.UnknownTopicOrPartitionError,
    "_FENCED": errors.FencedError,
    "INVALID_PRODUCER_EPOCH": errors.FencedError,
    "PRODUCER_FENCED": errors.FencedError,
    "_DESTROY": errors.DeliveryError,
    "_PURGE_QUEUE": errors.DeliveryError,
    "_PURGE_INFLIGHT": errors.DeliveryError,
    "NOT_ENOUGH_REPLICAS": errors.DeliveryError,
    "_FATAL": errors.DeliveryError,
}


def test_codes_are_those_of_librdkafka():
    assert {name: getattr(confluent_kafka.KafkaError, name) for name in CODES} == CODES


def test_every_code_in_the_module_is_checked_above():
    assert error_codes._TRANSIENT | error_codes._BY_CODE.keys() == set(CODES.values())


@pytest.mark.parametrize(("name", "kind"), CLASSES.items())
def test_code_to_class(name, kind):
    error = error_codes.for_delivery(CODES[name], "the reason", "possibly", "orders", 3)
    assert type(error) is kind
    assert error.code == CODES[name]
    assert error.persisted == "possibly"


def test_an_unlisted_code_is_a_delivery_error():
    error = error_codes.for_delivery(87, "Broker: Invalid record", "no", "orders", 0)
    assert type(error) is errors.DeliveryError
    assert (error.code, error.retriable, error.fatal, error.count) == (87, False, False, 1)


@pytest.mark.parametrize("name", ["_MSG_TIMED_OUT", "NOT_ENOUGH_REPLICAS", "_TRANSPORT", "UNKNOWN_TOPIC_OR_PART"])
def test_transient_codes_are_retriable(name):
    assert error_codes.for_delivery(CODES[name], "x", "no", "t", 0).retriable


@pytest.mark.parametrize("name", ["MSG_SIZE_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED", "_FENCED", "_PURGE_QUEUE"])
def test_lasting_codes_are_not_retriable(name):
    assert not error_codes.for_delivery(CODES[name], "x", "no", "t", 0).retriable


@pytest.mark.parametrize("name", CLASSES)
def test_only_fencing_and_fatal_errors_are_fatal(name):
    fatal = error_codes.for_delivery(CODES[name], "x", "no", "t", 0).fatal
    assert fatal == (name in ("_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED", "_FATAL"))


@pytest.mark.parametrize(
    ("persisted", "said"),
    [("no", "it was not written"), ("possibly", "may have been written"), ("yes", "it was written")],
)
def test_message_says_what_where_and_what_to_do(persisted, said):
    message = str(error_codes.for_delivery(-192, "Local: Message timed out", persisted, "orders", 3))
    for part in ("orders [3]", "Local: Message timed out", "-192", said, "delivery.timeout.ms"):
        assert part in message


def test_message_without_partition():
    message = str(error_codes.for_delivery(-188, "Local: Unknown topic", "no", "orders", -1))
    assert "orders" in message
    assert "[" not in message


def test_message_without_a_record():
    message = str(error_codes.for_delivery(-169, "Authentication failed", "no", "", -1))
    assert message.startswith("Authentication failed (code -169); check security.protocol, sasl.mechanism")


@pytest.mark.parametrize(
    ("code", "reason", "certificate", "said"),
    [
        (-169, "Authentication failed: Invalid username or password", 0, "check security.protocol, sasl.mechanism"),
        (-181, "SSL handshake failed", 0, "ssl.* options"),
        (-181, "certificate verify failed", 20, "no authority in ssl.ca.location has signed"),
        (-181, "certificate verify failed", 62, "does not name the host"),
        (-181, "certificate verify failed", 10, "has expired"),
        (-195, "Receive failed: tls alert bad certificate: SSL alert number 42", 0, "bad certificate"),
    ],
)
def test_what_waiting_will_not_mend_is_an_authentication_error(code, reason, certificate, said):
    error = error_codes.for_authentication(code, reason, certificate)
    assert type(error) is errors.AuthenticationError and said in str(error) and reason in str(error)
    assert not error.retriable


@pytest.mark.parametrize("code", [0, -195, -193, -187])
def test_what_may_mend_itself_is_none(code):
    assert error_codes.for_authentication(code, "Connection refused", 62) is None


def test_message_is_one_line():
    assert "\n" not in str(error_codes.for_delivery(87, "bad\r\n2026-01-01 ERROR forged", "no", "orders", 0))


@pytest.mark.parametrize(
    ("code", "fatal", "kind"),
    [
        ("TOPIC_AUTHORIZATION_FAILED", False, errors.AuthorizationError),
        ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED", True, errors.AuthorizationError),
        ("_MSG_TIMED_OUT", False, errors.DeliveryTimeoutError),
        ("_FENCED", True, errors.FencedError),
        ("INVALID_PRODUCER_EPOCH", False, errors.KafkaError),
        ("CONCURRENT_TRANSACTIONS", True, errors.KafkaError),
    ],
)
def test_the_end_of_a_transaction_is_fatal_or_abortable(code, fatal, kind):
    error = error_codes.for_transaction(CODES[code], "commit_transaction() failed:\nthe reason", fatal)
    assert type(error) is kind
    assert (error.code, error.fatal, error.abortable, error.retriable) == (CODES[code], fatal, not fatal, False)
    assert str(error).startswith("commit_transaction() failed: the reason; ")
    assert ("abort_transaction()" in str(error)) == (not fatal)
    assert pickle.loads(pickle.dumps(error)).abortable == (not fatal)


def test_every_reader_gets_an_exception_of_its_own():
    first, second = (error_codes.for_delivery(-192, "x", "no", "t", 0) for _ in range(2))
    assert first is not second


def test_aggregate_carries_the_failed_records_through_pickle():
    cause = error_codes.for_delivery(10, "too large", "no", "orders", 1)
    record = FailedRecord("orders", 1, b"k", b"v", [("h", b"1")], 1700000000000, cause)
    error = errors.DeliveryError("2 records failed", count=2, reasons={"too large": 2}, records=[record, record])
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.count, twin.reasons) == (2, {"too large": 2})
    assert [r[:-1] for r in twin.records] == [record[:-1]] * 2
    assert type(twin.records[0].error) is errors.RecordTooLargeError


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({(-192, "no")}, (True, False, "no")),
        ({(-192, "no"), (7, "possibly")}, (True, False, "possibly")),
        ({(-192, "no"), (10, "no")}, (False, False, "no")),
        ({(-150, "yes")}, (False, True, "yes")),
    ],
)
def test_several_failures_say_together_what_holds_for_all_of_them(kinds, expected):
    error = error_codes.for_several("5 records failed", kinds, reasons={"a": 2, "b": 3}, records=[])
    assert (error.retriable, error.fatal, error.persisted) == expected
    assert (error.count, error.code) == (5, None)


def test_bulk_error_keeps_the_places():
    causes = [(7, error_codes.for_delivery(10, "too large", "no", "t", 0)), (9, errors.KafkaError("x"))]
    error = errors.BulkDeliveryError("2 of 10 failed", failures=causes)
    assert error.count == 2
    assert [index for index, _ in pickle.loads(pickle.dumps(error)).failures] == [7, 9]
