"""The exceptions of fastprod.

Source: the exceptions of Kafka's Java client, most of which are in org.apache.kafka.common.errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .records import ProducerRecord, repr_of


class KafkaError(Exception):
    """Base of all errors that fastprod raises.

    * `code`: Kafka's error code (positive), librdkafka's own (negative), or `None` if the error comes from neither.
    * `retriable`: the same call may succeed when you make it again. An error about several records is retriable if all
      of them are.
    * `fatal`: this producer cannot go on. Close it and create a new one.
    * `abortable`: the open transaction cannot be committed any more. Abort it and repeat its work.
    * `persisted`: whether a failed record is in the log: `"no"`, `"possibly"` or `"yes"`. `None` if the error is not
      about a record.
    * `topic`: the topic of the record or call that failed. `None` if the error is not about a single topic.
    * `partition`: the partition of the record. `None` if it had none yet, or if the error is not about a single record.
    * `record`: the record with its serialized key and value. Only the errors in `DeliveryError.records` have it. In all
      other cases fastprod frees the record's memory before your callback runs. If a callback needs the record, bind it
      with `functools.partial`.

    ```python
    try:
        producer.send("orders", b"value").result(timeout=10)
    except KafkaError as error:
        print(error.code, error.retriable, error.persisted)
    ```
    """

    persisted: str | None = None
    abortable: bool = False
    topic: str | None = None
    partition: int | None = None
    record: ProducerRecord | None = None

    def __init__(self, message: str, *, code: int | None = None, retriable: bool = False, fatal: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable
        self.fatal = fatal


class ConfigError(KafkaError, ValueError):
    """An option is unknown, out of range, or contradicts another one. The message says what to use instead.

    ```python
    try:
        Producer(bootstrap_servers="localhost:9092", linger=5)
    except ConfigError as error:
        print(error)
    ```
    """


class BufferExhaustedError(KafkaError, TimeoutError):
    """`buffer.memory` was full for `max.block.ms`. The record was not taken.

    ```python
    try:
        producer.send("orders", b"value")
    except BufferExhaustedError:
        print("slow down")
    ```
    """


class MetadataTimeoutError(KafkaError, TimeoutError):
    """No broker answered about the topic within `max.block.ms` or the call's timeout. No record was taken.

    ```python
    try:
        producer.partitions_for("orders")
    except MetadataTimeoutError as error:
        print("no broker answers:", error)
    ```
    """


class RecordTooLargeError(KafkaError, ValueError):
    """The record is larger than `max.request.size`, `buffer.memory`, or what the broker or topic accepts.

    ```python
    try:
        producer.send("orders", b"x" * 2_000_000)
    except RecordTooLargeError as error:
        print(error)
    ```
    """


class SerializationError(KafkaError, ValueError):
    """A serializer raised, or returned something that cannot be sent.

    ```python
    with Producer(bootstrap_servers="localhost:9092", value_serializer=str.encode) as texts:
        try:
            texts.send("orders", 5)
        except SerializationError as error:
            print(error, error.__cause__)
    ```
    """


class FailedRecord(NamedTuple):
    """A record that was not acknowledged, with everything that is needed to send it again.

    `DeliveryError.records` has them.

    ```python
    try:
        producer.flush()
    except DeliveryError as failed:
        for r in failed.records:
            producer.send(r.topic, r.value, r.key, partition=r.partition, timestamp=r.timestamp, headers=r.headers)
    ```
    """

    topic: str
    partition: int
    key: bytes | None  # as serialized
    value: bytes | None  # as serialized
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int  # milliseconds since the epoch
    error: KafkaError  # error.persisted says whether the record may be in the log all the same

    def __repr__(self) -> str:
        return repr_of(self, self._fields)


class DeliveryError(KafkaError):
    """A record was not acknowledged.

    `flush()` and `close()` raise it if records failed and the program has not seen the errors.

    * `count`: how many records failed.
    * `reasons`: maps the text of each failure to the number of records.
    * `records`: the failed records, as `FailedRecord`, to store or to send again.

    `reasons` and `records` are empty in the error of a single record. For several records, `persisted` is the value
    that all of them have. If the values differ, it is `"possibly"`.

    ```python
    try:
        producer.flush()
    except DeliveryError as error:
        print(error.count, error.reasons, error.records)
    ```
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        retriable: bool = False,
        fatal: bool = False,
        persisted: str = "possibly",
        count: int = 1,
        reasons: Mapping[str, int] | None = None,
        records: Sequence[FailedRecord] = (),
    ) -> None:
        super().__init__(message, code=code, retriable=retriable, fatal=fatal)
        self.persisted = persisted
        self.count = count
        self.reasons = dict(reasons or {})
        self.records = list(records)


class DeliveryTimeoutError(DeliveryError, TimeoutError):
    """`delivery.timeout.ms` passed before the record was acknowledged.

    ```python
    try:
        producer.send("orders", b"value").result(timeout=10)
    except DeliveryTimeoutError as error:
        print("possibly written" if error.persisted == "possibly" else "not written")
    ```
    """


class BulkDeliveryError(DeliveryError):
    """Some records of a `send_many()` or `send_arrow()` failed.

    * `failures`: pairs of index and error, ordered by the index, which is the record's place in the call.
    * `records`: always empty, because you have the records already. If you gave a generator and did not keep them, do
      not ask the future. Then `flush()` raises `DeliveryError`, which holds the records.

    ```python
    values = [b"one", b"two"]
    try:
        producer.send_many("orders", values).result(timeout=10)
    except BulkDeliveryError as error:
        for index, reason in error.failures:
            print(values[index], reason)
    ```
    """

    def __init__(
        self,
        message: str,
        *,
        failures: Sequence[tuple[int, KafkaError]] = (),
        code: int | None = None,
        retriable: bool = False,
        fatal: bool = False,
        persisted: str = "possibly",
        reasons: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(
            message,
            code=code,
            retriable=retriable,
            fatal=fatal,
            persisted=persisted,
            count=len(failures),
            reasons=reasons,
        )
        self.failures = list(failures)


class AuthenticationError(KafkaError):
    """The brokers refuse the credentials, or the TLS handshake failed.

    ```python
    try:
        producer.wait_ready(timeout=10)
    except AuthenticationError as error:
        print(error)
    ```
    """


class AuthorizationError(KafkaError):
    """The credentials are valid, but do not permit this.

    ```python
    try:
        producer.send("orders", b"value").result(timeout=10)
    except AuthorizationError as error:
        print("no write access to", error.topic)
    ```
    """


class UnknownTopicOrPartitionError(KafkaError):
    """The topic does not exist, or has no such partition.

    ```python
    try:
        producer.send("orders", b"value", partition=1000)
    except UnknownTopicOrPartitionError as error:
        print(error.topic, error.partition)
    ```
    """


class FencedError(KafkaError):
    """Another producer with the same `transactional.id` has taken over. This is always fatal.

    ```python
    with Producer(bootstrap_servers="localhost:9092", transactional_id="fenced-1") as transactional:
        transactional.init_transactions()
        try:
            with transactional.transaction():
                transactional.send("orders", b"value")
        except FencedError:
            print("another producer uses this transactional.id")
    ```
    """


class TransactionStateError(KafkaError, RuntimeError):
    """The transaction's state does not allow this call. For example, `send()` comes before `begin_transaction()`.

    ```python
    with Producer(bootstrap_servers="localhost:9092", transactional_id="state-1") as transactional:
        try:
            transactional.begin_transaction()
        except TransactionStateError as error:
            print(error)  # names the call to make first
    ```
    """


class ProducerClosedError(KafkaError, RuntimeError):
    """The producer is closed.

    ```python
    closed = Producer(bootstrap_servers="localhost:9092")
    closed.close()
    try:
        closed.send("orders", b"value")
    except ProducerClosedError as error:
        print(error)
    ```
    """


class ForkedProducerError(KafkaError, RuntimeError):
    """A forked child uses its parent's producer. Create a new producer in the child.

    ```python
    try:
        producer.send("orders", b"value")
    except ForkedProducerError:
        producer = Producer(bootstrap_servers="localhost:9092")
    ```
    """
