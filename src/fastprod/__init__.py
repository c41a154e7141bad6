"""fastprod: a Kafka producer for Python jobs that push volume."""

from fastprod import _interpreter  # first: what follows cannot be loaded in a subinterpreter
from fastprod._autospec import describe
from fastprod._bulk import BulkFuture
from fastprod._future import FutureRecordMetadata
from fastprod._partitioner import murmur2, partition_for_key
from fastprod._producer import Producer, memory_in_use
from fastprod.errors import (
    AuthenticationError,
    AuthorizationError,
    BufferExhaustedError,
    BulkDeliveryError,
    ConfigError,
    DeliveryError,
    DeliveryTimeoutError,
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
from fastprod.records import (
    BulkMetadata,
    Cluster,
    FailedRecord,
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
