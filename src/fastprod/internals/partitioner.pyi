from typing_extensions import Buffer

KINDS: dict[str, int]

def murmur2(data: Buffer) -> int:
    """Kafka's 32-bit murmur2 of a bytes-like object, signed as in Java.

    ```python
    assert murmur2(b"21") == -973932308
    ```
    """

def partition_for_key(key: Buffer | str, num_partitions: int) -> int:
    """The partition, from 0 to `num_partitions - 1`, that Java's producer gives to a key.

    ```python
    assert partition_for_key("customer-7", 12) == partition_for_key(b"customer-7", 12)
    ```
    """

def key_partitions_of(keys: list[bytes], count: int) -> list[int]: ...
