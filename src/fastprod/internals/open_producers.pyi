def memory_in_use() -> int:
    """Bytes of `buffer.memory` that the records and callbacks of all producers of this process take now.

    What librdkafka allocates comes on top: at most 24 MiB for each producer. The call is cheap and
    thread-safe.

    ```python
    print(memory_in_use())
    ```
    """
