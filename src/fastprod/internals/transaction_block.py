"""The `with` block of Producer.transaction()."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fastprod.errors import KafkaError
from fastprod.internals.logs import logger


@contextlib.contextmanager
def transaction(producer: Any) -> Iterator[None]:
    """Begins a transaction of the producer. Commits at the end of the block, or aborts if the block raises."""
    producer.begin_transaction()
    try:
        yield
    except BaseException:
        _abort_quietly(producer)
        raise
    try:
        producer.commit_transaction()
    except KafkaError as error:
        if error.abortable:
            _abort_quietly(producer)
        raise


def _abort_quietly(producer: Any) -> None:
    """Aborts after an error, and only logs an error of its own: the first one matters more."""
    try:
        producer.abort_transaction()
    except (KafkaError, TimeoutError) as error:
        logger().warning("the transaction could not be aborted: %s", error)
