from collections.abc import Callable, Generator
from typing import Any, final

from fastprod.errors import KafkaError
from fastprod.records import RecordMetadata

@final
class FutureRecordMetadata:
    """The outcome of one record. `Producer.send()` returns it.

    It is thread-safe and can be awaited. If the program asks it with `result()`, `exception()` or `await`,
    or leaves a callback, then `flush()` and `close()` do not raise for the record.

    ```python
    future = producer.send("orders", b"value")
    print(future.result(timeout=10))
    ```
    """

    def __init__(self) -> None: ...
    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Waits for the outcome and returns the `RecordMetadata`, or raises the error of the record.

        * `timeout`: seconds, or `None` for no limit. After a `TimeoutError` the record is still on its way; ask
          again.

        ```python
        print(producer.send("orders", b"value").result(timeout=10).offset)
        ```
        """
    def get(self, timeout: float | None = None) -> RecordMetadata:
        """The same as `result()`."""
    def exception(self, timeout: float | None = None) -> KafkaError | None:
        """Waits for the outcome and returns the error of the record, or `None` if it was delivered.

        ```python
        print(producer.send("orders", b"value").exception(timeout=10))
        ```
        """
    def done(self) -> bool:
        """Whether the record has settled: it was acknowledged or it failed.

        This does not count as asking for the outcome.
        """
    def add_done_callback(self, function: Callable[[FutureRecordMetadata], object]) -> None:
        """Calls `function(future)` when the record has settled.

        It runs on the callback thread, or at once on the calling thread if the record has settled already.

        ```python
        producer.send("orders", b"value").add_done_callback(lambda future: print(future.result()))
        ```
        """
    def __await__(self) -> Generator[Any, None, RecordMetadata]: ...

def wait_deadline(timeout: float | None) -> int: ...
