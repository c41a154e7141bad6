"""fastprod: a Kafka producer for Python jobs that send many records."""

# First: what follows cannot be loaded in a subinterpreter.
from fastprod.internals import interpreter as _interpreter  # isort: split

from fastprod.bulk.bulk_future import BulkFuture
from fastprod.errors import (
    AuthenticationError,
    AuthorizationError,
    BufferExhaustedError,
    BulkDeliveryError,
    ConfigError,
    DeliveryError,
    DeliveryTimeoutError,
    FailedRecord,
    FencedError,
    ForkedProducerError,
    KafkaError,
    MetadataTimeoutError,
    ProducerClosedError,
    RecordTooLargeError,
    SerializationError,
    TransactionStateError,
    UnknownTopicOrPartitionError,
)
from fastprod.internals.autospec import describe
from fastprod.internals.future import FutureRecordMetadata
from fastprod.internals.open_producers import memory_in_use
from fastprod.internals.partitioner import murmur2, partition_for_key
from fastprod.producer import Producer
from fastprod.records import (
    BulkMetadata,
    Cluster,
    PartitionInfo,
    ProducerRecord,
    RecordMetadata,
    TopicPartition,
)

describe(Producer, BulkFuture, FutureRecordMetadata, memory_in_use, murmur2, partition_for_key)
del _interpreter, describe


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up when it is asked for: the module that does it takes long to import
        from importlib.metadata import version

        return version("fastprod")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AuthenticationError",
    "AuthorizationError",
    "BufferExhaustedError",
    "BulkDeliveryError",
    "BulkFuture",
    "BulkMetadata",
    "Cluster",
    "ConfigError",
    "DeliveryError",
    "DeliveryTimeoutError",
    "FailedRecord",
    "FencedError",
    "ForkedProducerError",
    "FutureRecordMetadata",
    "KafkaError",
    "MetadataTimeoutError",
    "PartitionInfo",
    "Producer",
    "ProducerClosedError",
    "ProducerRecord",
    "RecordMetadata",
    "RecordTooLargeError",
    "SerializationError",
    "TopicPartition",
    "TransactionStateError",
    "UnknownTopicOrPartitionError",
    "memory_in_use",
    "murmur2",
    "partition_for_key",
]
