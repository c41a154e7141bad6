from collections.abc import Generator
from typing import Any, NoReturn, final

from fastprod.errors import BulkDeliveryError
from fastprod.records import BulkMetadata

@final
class BulkFuture:
    """The outcome of the records of one `send_many()` or `send_arrow()`. It can be awaited.

    ```python
    bulk = producer.send_many("orders", [b"one", b"two"])
    print(bulk.result(timeout=10).partitions)
    ```
    """

    def __init__(self) -> None: ...
    @property
    def topic(self) -> str:
        """The topic of the call."""
    @property
    def count(self) -> int:
        """How many records the call has sent."""
    def done(self) -> bool:
        """Whether all records have settled. This does not count as observing the outcome."""
    def result(self, timeout: float | None = None) -> BulkMetadata:
        """Waits for all records and returns the `BulkMetadata`.

        * `timeout`: seconds, or `None` for no limit. After a `TimeoutError` the records are still on their way;
          ask again.

        `BulkDeliveryError`: some failed; `error.failures` has the index and the error of each.

        ```python
        try:
            producer.send_many("orders", [b"one", b"two"]).result(timeout=10)
        except BulkDeliveryError as error:
            print(error.failures)
        ```
        """
    def exception(self, timeout: float | None = None) -> BulkDeliveryError | None:
        """Waits for all records and returns the `BulkDeliveryError`, or `None` if all were delivered."""
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, memo: dict[int, Any]) -> BulkFuture: ...
    def __await__(self) -> Generator[Any, None, BulkMetadata]: ...
