"""The producer of ``fastprod send``: its configuration, its brokers, and the wait for them."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ..errors import AuthenticationError, KafkaError
from ..testing import MockCluster
from . import console, settings
from .report import say
from .settings import Settings, SettingsError
from .tally import Future

READY_TIMEOUT = 30.0  # seconds to connect
SILENT_SECONDS = 1.0  # of them, before it says that it waits


class Producer(Protocol):
    """The methods of ``fastprod.Producer`` that the command uses."""

    def send(self, topic: str, value: bytes | None, key: bytes | None) -> Future: ...

    def send_arrow(self, topic: str, data: Any, *, value: str, key: str | None) -> Future: ...

    def wait_ready(self, timeout: float) -> Any: ...

    def partitions_for(self, topic: str) -> Any: ...

    def flush(self, timeout: float | None = None) -> Any: ...

    def close(self, timeout: float | None = None) -> Any: ...


ProducerFactory = Callable[[Mapping[str, str]], Producer]


class RefusedError(Exception):
    """Nothing was sent; the message says why."""


def read_options(arguments: argparse.Namespace) -> Settings:
    try:
        options = settings.read(os.environ, arguments.option_files, arguments.options)
    except SettingsError as error:
        raise RefusedError(str(error)) from None
    for name, origin in options.origins.items():
        if settings.setting(name) == "transactional.id":
            given = f"-X {name}={options.options[name]}" if origin == "-X" else f"{name} from {origin}"
            raise RefusedError(f"{given}: this command does not use transactions; leave {name} out")
    return options


@contextlib.contextmanager
def brokers(arguments: argparse.Namespace, options: Settings) -> Iterator[dict[str, str]]:
    """The producer's configuration. With --embedded, the broker runs until the block ends."""
    given = options.origin_of("bootstrap.servers")
    if (
        arguments.bootstrap_servers
        and arguments.embedded
        or (given == "-X" and (arguments.bootstrap_servers or arguments.embedded))
    ):
        raise RefusedError("--bootstrap-servers, --embedded and -X bootstrap.servers exclude each other")
    if arguments.partitions is not None and not arguments.embedded:
        raise RefusedError("--partitions needs --embedded; it does not change a topic of a real cluster")
    if arguments.bootstrap_servers:
        options.add({"bootstrap.servers": arguments.bootstrap_servers}, {"bootstrap.servers": "--bootstrap-servers"})
    elif not arguments.embedded and not given:
        raise RefusedError("no brokers are given: use --bootstrap-servers HOST:PORT,... or --embedded")
    shown = settings.in_clear(arguments.options)
    if shown:
        say(
            f"note: every user of this machine can read {', '.join(shown)} in the list of processes; "
            f"give -F FILE, -X {shown[0]}=@FILE or {settings.variable(shown[0])} instead"
        )
    if not arguments.embedded:
        yield options.options
        return
    partitions = 12 if arguments.partitions is None else arguments.partitions
    try:
        cluster = MockCluster(topics={arguments.topic: partitions}, process=True)
    except (ValueError, RuntimeError) as error:
        raise RefusedError(str(error)) from None
    with cluster:
        options.add({"bootstrap.servers": cluster.bootstrap_servers}, {"bootstrap.servers": "--embedded"})
        yield options.options


def new_producer(config: Mapping[str, str]) -> Producer:
    from .. import Producer as FastProducer

    producer: Producer = FastProducer(config)
    return producer


def connect(factory: ProducerFactory, config: Mapping[str, str], topic: str, options: Settings) -> tuple[Producer, int]:
    """A producer that has reached the brokers, and the topic's number of partitions."""
    try:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            producer = factory(config)
    except KafkaError as error:
        raise RefusedError(options.explained(str(error))) from None
    for note in notes:
        say(f"note: {note.message}")
    waiting = threading.Timer(SILENT_SECONDS, say, [f"waiting up to {READY_TIMEOUT:.0f} s for a broker"])
    waiting.daemon = True
    try:
        waiting.start()
        try:
            producer.wait_ready(READY_TIMEOUT)
        finally:
            waiting.cancel()
        return producer, len(producer.partitions_for(topic))
    except BaseException as error:
        close(producer)
        if isinstance(error, (KafkaError, TimeoutError, ValueError)):
            message = options.explained(str(error), isinstance(error, AuthenticationError))
            raise RefusedError(message) from None
        raise


def close(producer: Producer) -> None:
    with contextlib.suppress(KafkaError, TimeoutError):
        producer.close(0)


class _FirstOfItsKind(logging.Filter):
    """Passes each kind of line once. A client that cannot connect logs many of them each second."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = re.sub(r"\d+", "", record.getMessage())
        new = kind not in self._seen
        self._seen.add(kind)
        return new


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Shows the producer's warnings in this command's style."""
    handler = logging.StreamHandler(console.Lenient(sys.stderr))
    handler.addFilter(_FirstOfItsKind())
    handler.setFormatter(logging.Formatter("fastprod send: %(message)s"))
    logger = logging.getLogger("fastprod")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
