from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, SupportsIndex, overload

from typing_extensions import Self, disjoint_base

from fastprod.bulk.bulk_future import BulkFuture
from fastprod.config.producer_config import ProducerConfig
from fastprod.errors import KafkaError
from fastprod.internals.future import FutureRecordMetadata
from fastprod.records import HeaderValue, PartitionInfo, ProducerRecord, RecordMetadata

_Headers = Iterable[tuple[str, HeaderValue]] | Mapping[str, HeaderValue]
_HeadersOfAll = Sequence[tuple[str, HeaderValue]] | Mapping[str, HeaderValue]
_OnDelivery = Callable[[RecordMetadata | None, KafkaError | None], object]

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class _ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

class _Offset(Protocol):
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...

@disjoint_base
class Producer:
    """Sends records to Kafka.

    It is thread-safe, and meant to be the only one of its process. `close()` ends its threads; a `with`
    block calls it. In a forked child every call raises `ForkedProducerError`. Subclasses call
    `super().__init__()`.

    * `config`: options in a mapping, with Java's names: `"linger.ms"`.
    * `keywords`: options with underscores: `linger_ms=`. Both forms are merged.

    `ConfigError`: an option is unknown or wrong. Nothing has been started then.

    ```python
    with Producer({"bootstrap.servers": "localhost:9092"}, linger_ms=5) as producer:
        producer.send("orders", b"value", b"key")
    ```
    """

    def __init__(self, config: Mapping[str, Any] | None = None, **keywords: Any) -> None: ...
    @property
    def config(self) -> ProducerConfig:
        """The checked options, without secrets.

        ```python
        print(producer.config.linger_ms)
        ```
        """
    @overload
    def send(self, topic: ProducerRecord, *, on_delivery: _OnDelivery | None = None) -> FutureRecordMetadata:
        """Sends a `ProducerRecord`."""
    @overload
    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        *,
        partition: SupportsIndex | None = None,
        timestamp: SupportsIndex | None = None,
        headers: _Headers | None = None,
        on_delivery: _OnDelivery | None = None,
    ) -> FutureRecordMetadata:
        """Sends a record and returns its future at once.

        * `topic`: a name, or a `ProducerRecord` with all fields.
        * `value`, `key`: bytes-like, `str` (sent as UTF-8), `None`, or what the serializers take. A `None` value
          is a tombstone. `key=None` sends no key.
        * `partition`: a number, or `None` to let the partitioner choose.
        * `timestamp`: milliseconds since the epoch, or `None` for now.
        * `headers`: a mapping, or pairs of name and value.
        * `on_delivery`: called once with `(metadata, None)` or `(None, error)`, on the callback thread.

        It waits at most `max.block.ms` if the topic is new or `buffer.memory` is full. Then it raises
        `MetadataTimeoutError` or `BufferExhaustedError`. A wrong record raises `TypeError`, `ValueError`,
        `SerializationError` or `RecordTooLargeError`. After each of these errors the record was not taken, and the
        producer still works.

        ```python
        future = producer.send("orders", b"value", b"key", headers={"trace": b"1"})
        print(future.result(timeout=10).offset)
        ```
        """
    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        keys: Iterable[Any] | None = None,
        *,
        partitions: SupportsIndex | Iterable[SupportsIndex | None] | None = None,
        timestamps: SupportsIndex | Iterable[SupportsIndex | None] | None = None,
        headers: _HeadersOfAll | Iterable[_Headers | None] | None = None,
    ) -> BulkFuture:
        """Sends a record for each of `values` and returns one future for all.

        * `values`, `keys`: iterables of what `send()` takes, of equal length. From a generator it takes more as room in
          `buffer.memory` becomes free.
        * `partitions`, `timestamps`: iterables, or one number for all records.
        * `headers`: the headers of all records, or an iterable with those of each.

        It waits and raises as `send()` does. If it raises, the records before the wrong one have been sent.
        `error.index` says how many they are, and `error.sent` is their future.

        ```python
        bulk = producer.send_many("orders", [b"one", b"two"], keys=[b"a", b"b"])
        print(bulk.result(timeout=10).count)
        ```
        """
    def send_arrow(
        self,
        topic: str,
        data: _ArrowStream | _ArrowArray,
        *,
        value: str = "value",
        key: str | None = None,
        partition: str | SupportsIndex | None = None,
        timestamp: str | SupportsIndex | None = None,
        headers: str | Mapping[str, str | bytes | None] | Sequence[tuple[str, str | bytes | None]] | None = None,
    ) -> BulkFuture:
        """Sends a record for each row of Arrow data and returns one future for all.

        * `data`: a table, record batch, reader or data frame of pyarrow, Polars, pandas or DuckDB: anything with
          `__arrow_c_stream__` or `__arrow_c_array__`. A single column holds the values.
        * `value`, `key`: names of string or binary columns. A null value is a tombstone, and a null key sends no
          key.
        * `partition`: the name of an integer column, or a number for all rows.
        * `timestamp`: the name of a column of int64 (ms) or of timestamps, or ms for all rows.
        * `headers`: a mapping, or the name of a map column. A mapping has a column name for each header name, or
          `bytes` or `None` for all rows.

        It waits and raises as `send_many()` does. `ValueError`: a column is missing. `TypeError`: a column has
        another type. `OSError`: the stream failed.

        ```python
        import pyarrow as pa

        table = pa.table({"value": ["one", "two"], "id": ["a", "b"]})
        producer.send_arrow("orders", table, key="id").result(timeout=10)
        ```
        """
    def flush(self, timeout: float | None = None) -> None:
        """Returns when every record sent before has settled and its callbacks have run.

        It does not wait for `linger.ms`.

        * `timeout`: seconds, or `None` for no limit.

        `TimeoutError`: the time is over; the records are still on their way. `DeliveryError`: records failed and
        the program has not seen the errors; the exception holds the records.

        ```python
        producer.flush(timeout=30)
        ```
        """
    def purge(self) -> None:
        """Fails all pending records now, and returns when all have failed. The producer still works.

        Each fails with `DeliveryError`; `error.persisted` is `"possibly"` if the record was in flight.
        `TransactionStateError`: the producer has a `transactional.id`; use `abort_transaction()`.

        ```python
        producer.purge()
        ```
        """
    def close(self, timeout: float | None = None) -> None:
        """Sends what is left, waits for it, and ends the producer's threads. A second call does nothing.

        * `timeout`: seconds. `None` waits until each record has settled, at most about `delivery.timeout.ms`.
          Records that are pending at the timeout fail.

        `DeliveryError`: records failed and the program has not seen the errors; the exception holds the records.

        ```python
        other = Producer(bootstrap_servers="localhost:9092")
        other.close(timeout=30)
        ```
        """
    def wait_ready(self, timeout: float | None = None) -> None:
        """Returns when a broker has answered and has accepted the credentials.

        * `timeout`: seconds, or `None` for no limit.

        `AuthenticationError`: the credentials or a certificate are refused. `MetadataTimeoutError`: the time is
        over; the message has the last connection error.

        ```python
        producer.wait_ready(timeout=10)
        ```
        """
    def init_transactions(self, timeout: float | None = None) -> None:
        """Fences older producers with this `transactional.id` and aborts the transaction that they left open.

        Call it once, before all else.

        * `timeout`: seconds, or `None` for `max.block.ms`. After a `TimeoutError`, call it again.

        ```python
        with Producer(bootstrap_servers="localhost:9092", transactional_id="job-1") as copier:
            copier.init_transactions()
            copier.begin_transaction()
            copier.send("out", b"value")
            copier.commit_transaction()
        ```
        """
    def begin_transaction(self) -> None:
        """Opens a transaction. See `init_transactions()` for an example.

        The records that you send after it are committed or aborted together.
        """
    def send_offsets_to_transaction(
        self, offsets: Iterable[_Offset] | Mapping[tuple[str, int], int], group_metadata: bytes
    ) -> None:
        """Makes consumed offsets part of the transaction.

        * `offsets`: `confluent_kafka.TopicPartition` objects, or a mapping of `(topic, partition)` to the offset
          of the next record to consume.
        * `group_metadata`: the result of `consumer.consumer_group_metadata()`.

        It waits at most `max.block.ms`. After any error but `TypeError`, `ValueError` and
        `TransactionStateError`, abort the transaction. The page Transactions of the documentation has an
        example.
        """
    def commit_transaction(self, timeout: float | None = None) -> None:
        """Sends what is left, waits for it and its callbacks, and commits. See `init_transactions()` for an
        example.

        * `timeout`: seconds, or `None` for `max.block.ms`. After a `TimeoutError` the outcome is open: call it
          again.

        If a record failed or the broker refuses, it raises an error with `abortable`. Nothing was committed
        then: call `abort_transaction()`. `FencedError`: another producer has taken over.
        """
    def abort_transaction(self, timeout: float | None = None) -> None:
        """Drops the transaction's records that were not sent, waits for those in flight, and aborts.

        * `timeout`: seconds, or `None` for `max.block.ms`. After a `TimeoutError`, call it again.

        Dropped records fail with `error.persisted == "no"`. `flush()` and `close()` do not raise for them.

        ```python
        with Producer(bootstrap_servers="localhost:9092", transactional_id="job-2") as copier:
            copier.init_transactions()
            copier.begin_transaction()
            copier.send("out", b"value")
            copier.abort_transaction()
        ```
        """
    def transaction(self) -> AbstractContextManager[None]:
        """A `with` block that is a transaction. It commits at the end of the block and aborts if the block raises.

        ```python
        with Producer(bootstrap_servers="localhost:9092", transactional_id="job-3") as copier:
            copier.init_transactions()
            with copier.transaction():
                copier.send("out", b"value")
        ```
        """
    def partitions_for(self, topic: str) -> list[PartitionInfo]:
        """The partitions of a topic. If they are not known, it asks the brokers and waits at most `max.block.ms`.

        ```python
        print(len(producer.partitions_for("orders")))
        ```
        """
    def metrics(self) -> dict[str, float]:
        """The figures of this producer since its creation, by Java's metric names.

        Sizes are in bytes, `-avg` and `-max` times in ms unless the name says ns, and rates per second.

        ```python
        print(producer.metrics()["record-send-total"])
        ```
        """
    @property
    def buffer_available(self) -> int:
        """Free bytes of `buffer.memory`.

        ```python
        print(producer.buffer_available)
        ```
        """
    def __len__(self) -> int:
        """Records sent and not yet settled."""
    def __bool__(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def __del__(self) -> None: ...
