"""ProducerConfig: the checked options of a producer. `resolve()` makes them from the user's options."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from ..errors import ConfigError
from . import jaas
from .librdkafka_properties import librdkafka_properties
from .options import ALIASES, FOREIGN, OPTIONS, denied, dotted, redact
from .parse import compact, parse, property_text, show
from .rules import check_security, check_together, read_pem, take_schemes


class ProducerConfig:
    """Checked options. fastprod itself reads the attributes; the transport passes ``librdkafka`` on.

    given: the names in ``OPTIONS`` that the user gave. All others have defaults.
    The repr hides secrets. Pickling is refused, because it would write them out.
    """

    librdkafka: dict[str, str]  # exactly the properties to set on rd_kafka_conf_t
    given: frozenset[str]
    bootstrap_servers: str
    client_id: str
    transactional_id: str | None
    key_serializer: Any  # callable, object with serialize(topic, value), or None
    value_serializer: Any
    interceptors: tuple[Any, ...]
    partitioner: Any  # a name of PARTITIONERS, or an object
    partitioner_ignore_keys: bool
    partitioner_adaptive_partitioning_enable: bool
    partitioner_availability_timeout_ms: int
    partitioner_sticky_interval_ms: int
    max_block_ms: int
    buffer_memory: int  # bytes
    batch_size: int  # bytes, at least 1
    linger_ms: float
    max_request_size: int  # bytes
    acks: int  # -1 is "all"
    enable_idempotence: bool
    retries: int
    retry_backoff_ms: int
    delivery_timeout_ms: int
    request_timeout_ms: int
    metadata_max_age_ms: int
    metadata_max_idle_ms: int
    metadata_recovery_strategy: str
    allow_plaintext_credentials: bool
    sasl_oauthbearer_token_provider: Callable[..., Any] | None

    def __init__(self, values: Mapping[str, Any], librdkafka: dict[str, str], given: frozenset[str]) -> None:
        for option in OPTIONS.values():
            if option.owner == "fastprod":
                setattr(self, option.name.replace(".", "_"), values[option.name])
        self.acks = -1 if values["acks"] == "all" else int(values["acks"])
        self.batch_size = max(1, values["batch.size"])
        self.librdkafka = librdkafka
        self.given = given

    def __repr__(self) -> str:
        shown = {name: redact(name, repr(value)) for name, value in vars(self).items() if name != "librdkafka"}
        properties = {name: redact(name, text) for name, text in self.librdkafka.items()}
        return f"ProducerConfig({', '.join(f'{k}={v}' for k, v in shown.items())}, librdkafka={properties})"

    def forget_secrets(self) -> None:
        """Hides the secrets. Called when librdkafka has the properties."""
        self.librdkafka = {name: redact(name, text) for name, text in self.librdkafka.items()}

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ProducerConfig cannot be pickled, because it may hold secrets: pass the options instead")


def resolve(
    config: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    librdkafka_knows: Callable[[str], bool] = lambda name: False,
    warn: Callable[..., object] = warnings.warn,
) -> ProducerConfig:
    """The checked configuration of a producer.

    config: a mapping with dotted names, as in Java, or with underscores. None means no options.
    options: keyword arguments with underscores. If an option is given twice, both values must be equal.
    A value of None counts as not given, but its name is checked.
    librdkafka_knows: whether a name is a property of librdkafka. These properties pass through unchanged.
    warn: called like ``warnings.warn`` for options that are risky.

    Raises ConfigError with the option, the value (unless it is a secret) and the allowed values. Raises TypeError if
    ``config`` is not a mapping or a name is not a str.
    """
    if config is None:
        config = {}
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping of option names to values, not {type(config).__name__}")
    given, passed, forced, spelling = _read((*config.items(), *options.items()), librdkafka_knows)
    values = {option.name: option.default for option in OPTIONS.values()} | given
    notes = [
        f"{spelling[name]} has no effect: {OPTIONS[name].doc}"
        for name, value in given.items()
        if OPTIONS[name].owner == "no effect" and value not in ("", OPTIONS[name].default)
    ]
    schemes = take_schemes(values)
    check_together(values, given, notes)
    properties = librdkafka_properties(values, given, passed) | passed | forced
    _check_numbers(properties)
    check_security(properties, values, notes)
    if others := schemes - {properties["security.protocol"].upper()}:
        notes.append(
            f"bootstrap.servers names {', '.join(sorted(others))}, which has no effect: "
            f"security.protocol={properties['security.protocol']} holds for all brokers"
        )
    read_pem(properties, spelling)
    for note in notes:
        warn(note, stacklevel=2)
    return ProducerConfig(values, properties, frozenset(given))


def _read(
    options: Iterable[tuple[object, Any]], librdkafka_knows: Callable[[str], bool]
) -> tuple[dict[str, Any], dict[str, str], dict[str, str], dict[str, str]]:
    """Returns (given, passed, forced, spelling).

    given: values of the options in the table. passed: properties of librdkafka. forced: those with the prefix
    ``librdkafka.``. spelling: the user's first spelling of each name.
    """
    given: dict[str, Any] = {}
    passed: dict[str, str] = {}
    forced: dict[str, str] = {}
    spelling: dict[str, str] = {}
    for key, value in options:
        if not isinstance(key, str):
            raise TypeError(f"option names must be str, not {type(key).__name__}")
        name = dotted(key)
        option = OPTIONS.get(ALIASES.get(name, name))
        raw = name.startswith("librdkafka.")
        if raw or not option:
            name = _property(key[len("librdkafka.") :] if raw else key, librdkafka_knows)
            if value is not None:
                _put(forced if raw else passed, name, property_text(key, value), key, spelling)
        elif option.owner == "refused":
            if compact(value) not in ("", compact(option.default)):
                raise ConfigError(f"{key} is not supported: {option.doc}")
        elif value is not None:
            _put(given, option.name, parse(option, key, value), key, spelling)
    login: jaas.Login | None = given.get("sasl.jaas.config")
    for name, value in login.options.items() if login else ():
        _put(given, name, value, spelling["sasl.jaas.config"], spelling)
    return given, passed, forced, spelling


def _check_numbers(properties: Mapping[str, str]) -> None:
    for name, read in (("linger.ms", float), ("max.in.flight.requests.per.connection", int)):
        try:
            read(properties[name])
        except ValueError:
            raise ConfigError(f"{name}={properties[name]!r}: must be a number") from None


def _property(key: str, librdkafka_knows: Callable[[str], bool]) -> str:
    """librdkafka's own spelling of one of its properties, the same for all of its aliases."""
    name = dotted(key)
    if reason := denied(name):
        raise ConfigError(f"{key} cannot be set: {reason}")
    if name in ALIASES:
        return OPTIONS[ALIASES[name]].maps_to or "linger.ms"
    if name == "delivery.timeout.ms":
        return "message.timeout.ms"
    if (
        name.isascii() and name.isprintable()
    ):  # a NUL would end the name early, so librdkafka would see another name than these checks
        for spelt in (key, name):
            if librdkafka_knows(spelt):
                return spelt
    raise ConfigError(f"unknown option {key!r}: {_hint(name.lower())}")


def _hint(name: str) -> str:
    """The advice about an unknown option. name: dotted and in lower case."""
    if name in FOREIGN:
        return FOREIGN[name]
    import difflib  # only here: it costs a millisecond to import

    names = [*(option.name for option in OPTIONS.values() if option.owner != "refused"), *ALIASES]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)  # a lower cutoff matches unrelated names
    return f"did you mean {near[0]}?" if near else "neither fastprod nor this librdkafka knows it"


def _put(store: dict[str, Any], name: str, value: Any, key: str, spelling: dict[str, str]) -> None:
    if name in store and store[name] is not value and store[name] != value:
        both = f"{show(key, store[name])} and {show(key, value)}"
        raise ConfigError(f"{name} is given twice, by {spelling[name]} and by {key}, with different values: {both}")
    store[name] = value
    spelling.setdefault(name, key)
