"""Turns librdkafka's error codes into exceptions, with advice on what to do.

Source: the codes are those of rd_kafka_resp_err_t; the classes are those of Java's org.apache.kafka.common.errors.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence

from ..errors import (
    AuthenticationError,
    AuthorizationError,
    DeliveryError,
    DeliveryTimeoutError,
    FailedRecord,
    FencedError,
    KafkaError,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
)

# Codes of states that pass: the brokers may accept the same record later.
_TRANSIENT = frozenset(
    (
        -195,  # _TRANSPORT
        -193,  # _RESOLVE
        -192,  # _MSG_TIMED_OUT
        -187,  # _ALL_BROKERS_DOWN
        -185,  # _TIMED_OUT
        -184,  # _QUEUE_FULL
        -166,  # _TIMED_OUT_QUEUE
        2,  # INVALID_MSG (a checksum that did not match on arrival)
        3,  # UNKNOWN_TOPIC_OR_PART
        5,  # LEADER_NOT_AVAILABLE
        6,  # NOT_LEADER_FOR_PARTITION
        7,  # REQUEST_TIMED_OUT
        9,  # REPLICA_NOT_AVAILABLE
        13,  # NETWORK_EXCEPTION
        14,  # COORDINATOR_LOAD_IN_PROGRESS
        15,  # COORDINATOR_NOT_AVAILABLE
        16,  # NOT_COORDINATOR
        19,  # NOT_ENOUGH_REPLICAS
        20,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
        51,  # CONCURRENT_TRANSACTIONS
        56,  # KAFKA_STORAGE_ERROR
        72,  # LISTENER_NOT_FOUND
        74,  # FENCED_LEADER_EPOCH
        75,  # UNKNOWN_LEADER_EPOCH
        89,  # THROTTLING_QUOTA_EXCEEDED
    )
)
_ACCESS = "grant write access to these credentials, or use other ones"
_CREDENTIALS = "check security.protocol, sasl.mechanism and the credentials"
_HANDSHAKE = "check security.protocol and the ssl.* options"
_MISSING = "create it, or correct the name or number"
_PURGED = "purge(), close() or an aborted transaction dropped it: call flush() first, or give close() more time"
_FENCED = (
    "another producer uses this transactional.id, or the transaction took longer than transaction.timeout.ms: "
    "close this producer and give each producer its own id"
)

_AUTHENTICATION, _SSL = -169, -181

# Code -> its class, and what to do. Subclasses exist only where a caller would act differently.
_BY_CODE: dict[int, tuple[type[KafkaError], str]] = {
    -192: (DeliveryTimeoutError, "check that the brokers answer, or raise delivery.timeout.ms"),
    10: (RecordTooLargeError, "make it smaller, or raise max.request.size here and max.message.bytes of the topic"),
    29: (AuthorizationError, _ACCESS),
    31: (AuthorizationError, _ACCESS),
    53: (AuthorizationError, _ACCESS),
    _AUTHENTICATION: (AuthenticationError, _CREDENTIALS),
    58: (AuthenticationError, _CREDENTIALS),
    _SSL: (AuthenticationError, _HANDSHAKE),
    3: (UnknownTopicOrPartitionError, _MISSING),
    -188: (UnknownTopicOrPartitionError, _MISSING),
    -190: (UnknownTopicOrPartitionError, _MISSING),
    -144: (FencedError, _FENCED),
    47: (FencedError, _FENCED),
    90: (FencedError, _FENCED),
    -197: (DeliveryError, "its topic was deleted, or its broker left the cluster"),
    -152: (DeliveryError, _PURGED),
    -151: (DeliveryError, _PURGED),
    -150: (DeliveryError, "this producer cannot go on: close it and make a new one"),
}
_FATAL = -150

_PERSISTED = {
    "no": "it was not written",
    "possibly": "it may have been written",
    "yes": "it was written",
}


def for_delivery(code: int, reason: str, persisted: str, topic: str, partition: int) -> KafkaError:
    """A new exception for one record that was not acknowledged, or for the producer as a whole.

    code: librdkafka's error code of the delivery report.
    reason: its text.
    persisted: "no", "possibly" or "yes".
    topic: "" if the error is about the connection or the producer.
    partition: negative if the record had none yet.

    Each caller gets a new exception. An exception that several threads raise would collect all their tracebacks.
    """
    otherwise = (
        "send it again when the cluster has recovered" if code in _TRANSIENT else "see the broker's log for the cause"
    )
    kind, advice = _BY_CODE.get(code, (DeliveryError, otherwise))
    reason = " ".join(reason.split())  # a broker's text may hold line breaks; a log line must not
    what = f"{reason} (code {code})"
    if topic:
        place = f"{topic} [{partition}]" if partition >= 0 else topic
        what = f"a record for {place} was not acknowledged: {what}; {_PERSISTED[persisted]}"
    error = kind(
        f"{what}; {advice}",
        code=code,
        retriable=code in _TRANSIENT,
        fatal=code == _FATAL or kind is FencedError,
    )
    error.persisted = persisted
    set_place(error, topic, partition)
    return error


def set_place(error: BaseException, topic: object, partition: object) -> None:
    """Sets the topic and partition of a KafkaError where it has none yet. Ignores other exceptions.

    topic, partition: as given to ``send()``. Values of a wrong type are ignored.
    """
    if not isinstance(error, KafkaError):
        return
    if error.topic is None and isinstance(topic, str) and topic:
        error.topic = str.__str__(topic)  # of an enum, its value
    if error.partition is None and not isinstance(partition, bool):
        try:
            number = operator.index(partition)  # type: ignore[arg-type]
        except Exception:  # None, or not a number
            return
        error.partition = number if number >= 0 else None


def for_several(
    message: str,
    kinds: Collection[tuple[int, str]],
    *,
    reasons: Mapping[str, int],
    records: Sequence[FailedRecord],
) -> DeliveryError:
    """A new exception for failed records whose errors the program has not seen.

    kinds: the distinct pairs of code and ``persisted``. reasons, records: as in the exception.
    """
    errors = [for_delivery(code, "", persisted, "", -1) for code, persisted in kinds]
    return DeliveryError(
        message,
        code=getattr(records[0].error, "code", None) if records else None,
        retriable=all(error.retriable for error in errors),
        fatal=any(error.fatal for error in errors),
        persisted=joint_persisted([persisted for _, persisted in kinds]),
        count=sum(reasons.values()),
        reasons=reasons,
        records=records,
    )


def joint_persisted(outcomes: Collection[str]) -> str:
    """The ``persisted`` of several records: "no" or "yes" if all are alike, otherwise "possibly"."""
    distinct = set(outcomes)
    return distinct.pop() if len(distinct) == 1 else "possibly"


def for_transaction(code: int, what: str, fatal: bool) -> KafkaError:
    """A new exception for a transaction that cannot be committed. It is fatal or abortable.

    code: librdkafka's error code.
    what: what happened.
    """
    kind, advice = _BY_CODE.get(code, (KafkaError, ""))
    if not fatal:
        # The coordinator can fence a producer when its transaction times out. The abort then gets a new epoch.
        kind = KafkaError if kind is FencedError else kind
        advice = "call abort_transaction(), then repeat the work"
    elif kind is not FencedError:
        advice = "this producer cannot go on: close it and make a new one"
    error = kind(f"{' '.join(what.split())}; {advice}", code=code, fatal=fatal)
    error.abortable = not fatal
    return error


# OpenSSL's reasons to refuse a certificate (X509_V_ERR_...): what they mean for an option.
_UNKNOWN_AUTHORITY = "no authority in ssl.ca.location has signed the broker's certificate"
_OTHER_HOST = "the broker's certificate does not name the host of bootstrap.servers or of advertised.listeners"
_CERTIFICATES = {
    2: _UNKNOWN_AUTHORITY,
    18: _UNKNOWN_AUTHORITY,
    19: _UNKNOWN_AUTHORITY,
    20: _UNKNOWN_AUTHORITY,
    21: _UNKNOWN_AUTHORITY,
    9: "the broker's certificate is not valid yet",
    10: "the broker's certificate has expired",
    23: "the broker's certificate has been revoked",
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}


def for_authentication(code: int, reason: str, certificate: int = 0) -> KafkaError | None:
    """A new exception if a connection error is permanent (credentials, TLS), otherwise None.

    code, reason: librdkafka's, of the error event.
    certificate: OpenSSL's code for why the broker's certificate was refused, or 0.
    """
    if "SSL alert number" in reason:  # the broker refused our certificate; librdkafka reports a disconnect
        code = _SSL
    if code not in (_AUTHENTICATION, _SSL):
        return None
    if "certificate verify failed" in reason and certificate in _CERTIFICATES:
        reason = f"{_CERTIFICATES[certificate]}: {reason}"
    return for_delivery(code, reason, "no", "", -1)
