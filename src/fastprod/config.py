"""From what a user wrote to a ``ProducerConfig``: values read by the table of options, and Java's rules between them.

``resolve()`` does all of it, or raises a ``ConfigError`` that says what is wrong.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import re
import stat
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from . import jaas, pem
from .errors import ConfigError
from .options import ALIASES, FOREIGN, OPTIONS, PARTITIONERS, Option, denied, dotted, is_sensitive, redact

_client_numbers = itertools.count(1)
_SPACE = "".join(map(chr, range(33)))  # what Java trims


class ProducerConfig:
    """Checked options. The attributes are what fastprod acts on itself, ``librdkafka`` what the transport sets.

    given: the names in ``OPTIONS`` that the user gave; everything else is a default or follows from one.
    The repr hides secrets, and it cannot be pickled, which would write them out.
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
        """Once librdkafka has the properties, nobody needs them here."""
        self.librdkafka = {name: redact(name, text) for name, text in self.librdkafka.items()}

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ProducerConfig may hold secrets and is not pickled: pass the options on instead")


def resolve(
    config: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    librdkafka_knows: Callable[[str], bool] = lambda name: False,
    warn: Callable[..., object] = warnings.warn,
) -> ProducerConfig:
    """The configuration a producer runs by.

    config: dotted names, as in Java; names with underscores are read too. None for none.
    options: keyword arguments, the same names with underscores. One setting given twice must agree.
    In both, an option that is None is not given: its default holds, or what another spelling of it says. Its name is
    checked all the same.
    librdkafka_knows: whether a name is a property of librdkafka; such a one passes through as it is.
    warn: called as ``warnings.warn`` for what is permitted but risky.

    ConfigError names the option, the value (unless it is a secret) and what is allowed. TypeError: ``config`` is not
    a mapping, or a name in it is not a str.
    """
    if config is None:
        config = {}
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping of option names to values, not {type(config).__name__}")
    given: dict[str, Any] = {}
    passed: dict[str, str] = {}
    forced: dict[str, str] = {}
    spelling: dict[str, str] = {}  # setting -> as the user wrote it first
    for key, value in (*config.items(), *options.items()):
        if not isinstance(key, str):
            raise TypeError(f"option names must be str, not {type(key).__name__}")
        name = dotted(key)
        option = OPTIONS.get(ALIASES.get(name, name))
        raw = name.startswith("librdkafka.")
        if raw or not option:
            name = _property(key[len("librdkafka.") :] if raw else key, librdkafka_knows)
            if value is not None:
                _put(forced if raw else passed, name, _property_text(key, value), key, spelling)
        elif option.owner == "refused":
            if _compact(value) not in ("", _compact(option.default)):
                raise ConfigError(f"{key} is not supported: {option.doc}")
        elif value is not None:
            _put(given, option.name, _PARSERS[option.unit](option, key, value), key, spelling)

    login: jaas.Login | None = given.get("sasl.jaas.config")
    for name, value in login.options.items() if login else ():
        _put(given, name, value, spelling["sasl.jaas.config"], spelling)
    values = {option.name: option.default for option in OPTIONS.values()} | given
    notes = [
        f"{spelling[name]} has no effect: {OPTIONS[name].doc}"
        for name, value in given.items()
        if OPTIONS[name].owner == "no effect" and value not in ("", OPTIONS[name].default)
    ]
    schemes = _take_schemes(values)
    _check_together(values, given, notes)
    properties = _transport(values, given, passed) | passed | forced
    for name, read in (("linger.ms", float), ("max.in.flight.requests.per.connection", int)):
        try:
            read(properties[name])
        except ValueError:
            raise ConfigError(f"{name}={properties[name]!r}: must be a number") from None
    _check_security(properties, values, notes)
    if others := schemes - {properties["security.protocol"].upper()}:
        notes.append(
            f"bootstrap.servers names {', '.join(sorted(others))}, which has no effect: "
            f"security.protocol={properties['security.protocol']} holds for all brokers"
        )
    _read_pem(properties, spelling)
    for note in notes:
        warn(note, stacklevel=2)
    return ProducerConfig(values, properties, frozenset(given))


def _property(key: str, librdkafka_knows: Callable[[str], bool]) -> str:
    """librdkafka's own spelling of one of its properties, the same for all of its aliases."""
    name = dotted(key)
    if reason := denied(name):
        raise ConfigError(f"{key} cannot be set: {reason}")
    if name in ALIASES:
        return OPTIONS[ALIASES[name]].maps_to or "linger.ms"
    if name == "delivery.timeout.ms":
        return "message.timeout.ms"
    if name.isascii() and name.isprintable():  # a NUL would end the name early and hide what follows from our checks
        for spelt in (key, name):
            if librdkafka_knows(spelt):
                return spelt
    raise ConfigError(f"unknown option {key!r}: {_hint(name.lower())}")


def _hint(name: str) -> str:
    """What to do about a dotted name in lower case that nobody knows."""
    if name in FOREIGN:
        return FOREIGN[name]
    import difflib  # only here: it costs a millisecond to import

    names = [*(option.name for option in OPTIONS.values() if option.owner != "refused"), *ALIASES]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)  # by less, names match that only sound alike
    return f"did you mean {near[0]}?" if near else "neither fastprod nor this librdkafka knows it"


def _put(store: dict[str, Any], name: str, value: Any, key: str, spelling: dict[str, str]) -> None:
    if name in store and store[name] is not value and store[name] != value:
        both = f"{_show(key, store[name])} and {_show(key, value)}"
        raise ConfigError(f"{name} is given twice, by {spelling[name]} and by {key}, with different values: {both}")
    store[name] = value
    spelling.setdefault(name, key)


def _show(key: str, value: object) -> str:
    text = repr(value)
    return redact(key, text if len(text) <= 80 else text[:80] + "...")


def _bad(option: Option, key: str, value: object, wanted: str) -> ConfigError:
    if isinstance(option.valid, range):
        wanted += f" from {option.valid.start} to {option.valid.stop - 1}"
    elif option.valid:
        wanted = f"one of {', '.join(map(repr, option.valid))} ({option.doc.rstrip('.')})"
    return ConfigError(f"{key}={_show(option.name, value)}: must be {wanted}")


def _whole(option: Option, key: str, value: Any) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and not value.strip(_SPACE).lstrip("+-").isdigit()):
            raise ValueError
        number = int(value) if isinstance(value, str) else operator.index(value)
        if option.valid is not None and number not in option.valid:
            raise ValueError
    except (TypeError, ValueError):
        raise _bad(option, key, value, f"a whole number ({option.unit})") from None
    return number


def _real(option: Option, key: str, value: Any) -> float:
    try:
        if isinstance(value, (bool, bytes, bytearray)) or (isinstance(value, str) and "_" in value):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        if isinstance(option.valid, range) and not option.valid.start <= number <= option.valid.stop - 1:
            raise ValueError
    except (OverflowError, TypeError, ValueError):
        raise _bad(option, key, value, f"a number ({option.unit})") from None
    return number


def _bool(option: Option, key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip(_SPACE).lower() in ("true", "false"):
        return value.strip(_SPACE).lower() == "true"
    raise _bad(option, key, value, "true or false")


def _string(option: Option, key: str, value: Any) -> str:
    """As Java, it trims; but not secrets, which go through as they are."""
    text = _clean(option, key, value, "a str")
    if not is_sensitive(option.name):
        text = text.strip(_SPACE)
    if option.valid and text not in option.valid:
        raise _bad(option, key, value, "")
    if not text and option.default is None:
        raise _bad(option, key, value, "a str that is not empty")
    return text


def _clean(option: Option, key: str, value: Any, wanted: str) -> str:
    if not isinstance(value, str):
        raise _bad(option, key, value, f"{wanted}, not {type(value).__name__}")
    if not _is_clean(value):
        raise ConfigError(f"{key}={_show(option.name, value)}: must not hold NUL or lone surrogates")
    return value


def _name(option: Option, key: str, value: Any) -> str:
    if isinstance(value, str):
        for allowed in map(str, option.valid or ()):
            if allowed.lower() == value.strip(_SPACE).lower():
                return allowed
    raise _bad(option, key, value, "")


def _acks(option: Option, key: str, value: Any) -> str:
    text = str(value).strip(_SPACE) if isinstance(value, (int, str)) else ""
    if text not in (option.valid or ()):
        raise _bad(option, key, value, "")
    return "all" if text == "-1" else text


def _list(option: Option, key: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        if others := [type(item).__name__ for item in value if not isinstance(item, str)]:
            raise _bad(option, key, value, f"a str or a list of str, not of {others[0]}")
        value = ",".join(value)
    text = _clean(option, key, value, "a str or a list of str")
    return ",".join(item.strip(_SPACE) for item in text.split(","))


_HOST = re.compile(r"(?:(?P<scheme>[\w\-%.]*)://)?(?P<host>\[[\w.:%]*:[\w.:%]*\]|[\w\-.]+):(?P<port>\d+)", re.ASCII)


def _hosts(option: Option, key: str, value: Any) -> str:
    if "@" in repr(value):  # a password may stand before it
        raise ConfigError(f"{key}: an entry has an @; it must be host:port, and credentials belong into sasl.*")
    hosts = _list(option, key, value).split(",")
    if len(hosts) > 1000:
        raise ConfigError(f"{key} names {len(hosts)} hosts; a few are enough, since brokers name the others")
    for entry in hosts:
        match = _HOST.fullmatch(entry)
        if not entry:
            raise ConfigError(f"{key}={_show(key, value)}: an entry is empty")
        if not match:
            raise ConfigError(f"{key}: {_show(key, entry)} must be host:port or [IPv6]:port; a comma separates entries")
        if not 1 <= int(match["port"].lstrip("0")[:6] or 0) <= 65_535:
            raise ConfigError(f"{key}: {_show(key, entry)} must have a port from 1 to 65535")
    return ",".join(dict.fromkeys(hosts))


def _file(option: Option, key: str, value: Any) -> str:
    if option.maps_to == "ssl.ca.location" and value == "probe":
        return "probe"  # librdkafka then looks where distributions keep their certificates
    if isinstance(value, os.PathLike):
        path = _clean(option, key, os.fspath(value), "a path of str")
        path = os.path.join(os.curdir, path) if path[:1].isspace() else path  # librdkafka would drop the space
    else:
        path = _string(option, key, value)
    try:
        if os.path.isfile(path):  # a pipe must be left for librdkafka to read
            with open(path, "rb") as file:
                if option.unit == "PEM file" and b"-----BEGIN" not in file.read():
                    raise ConfigError(f"{key}={_show(key, path)}: is not PEM; convert it, or use ssl.keystore.location")
        elif stat.S_ISDIR(os.stat(path).st_mode) and option.maps_to != "ssl.ca.location":
            raise ConfigError(f"{key}={_show(key, path)}: is a directory")
    except OSError as error:
        raise ConfigError(f"{key}={_show(key, path)}: cannot be read: {error.strerror}") from None
    return path


def _jaas(option: Option, key: str, value: Any) -> jaas.Login:
    text = _string(option, key, value)
    try:
        return jaas.parse(text)
    except ValueError as error:  # never from it: the traceback would show the text, and with it the password
        raise ConfigError(f"{key}: {error}") from None


def _callable(option: Option, key: str, value: Any) -> Any:
    if not callable(value):
        raise _bad(option, key, value, "a callable")
    return value


def _serializer(option: Option, key: str, value: Any) -> Any:
    has_method = callable(getattr(value, "serialize", None))
    if not (callable(value) or has_method) or (isinstance(value, type) and has_method):
        raise _bad(option, key, value, "a callable, or an object (not a class) with serialize(topic, value)")
    return value


def _partitioner(option: Option, key: str, value: Any) -> Any:
    if isinstance(value, str) and value in PARTITIONERS:
        return value
    if isinstance(value, (str, bytes, bytearray, type)) or not callable(getattr(value, "partition", None)):
        names = ", ".join(PARTITIONERS)
        raise _bad(option, key, value, f"one of {names}, or an object (not a class) with partition()")
    return value


def _interceptors(option: Option, key: str, value: Any) -> tuple[Any, ...]:
    hooks = ("on_send", "on_acknowledgement")
    if not isinstance(value, (list, tuple)) or not all(
        not isinstance(item, type) and any(callable(getattr(item, hook, None)) for hook in hooks) for item in value
    ):
        raise _bad(option, key, value, "a list of objects (not classes) with on_send or on_acknowledgement")
    return tuple(value)


_PARSERS: dict[str, Callable[[Option, str, Any], Any]] = {
    "ms": _whole, "bytes": _whole, "count": _whole, "level": _whole, "seconds": _whole,
    "ms, fractions allowed": _real, "ratio": _real, "bool": _bool, "text": _string, "name": _name, "acks": _acks,
    "list": _list, "hosts": _hosts, "jaas": _jaas, "callable": _callable, "file": _file, "PEM file": _file,
    "serializer": _serializer, "partitioner": _partitioner, "interceptors": _interceptors,
}  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return str(value)


def _compact(value: Any) -> str:
    """For comparison: as Java, without white space around it or the items of a list, and true in any case."""
    return ",".join(item.strip(_SPACE) for item in _text(value).split(",")).lower()


def _property_text(key: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{key}={_show(key, value)}: must be a str, int, float or bool")
    if not _is_clean(text := _text(value)):
        raise ConfigError(f"{key}={_show(key, value)}: must not hold NUL or lone surrogates")
    return text


def _is_clean(text: str) -> bool:
    """Whether C can be given it."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def _take_schemes(values: dict[str, Any]) -> set[str]:
    """Takes the schemes from bootstrap.servers, as Java does; those that are security protocols, in capitals."""
    found = [entry.rpartition("://") for entry in (values["bootstrap.servers"] or "").split(",")]
    values["bootstrap.servers"] = ",".join(dict.fromkeys(host for _, _, host in found))
    return {scheme.upper() for scheme, _, _ in found}.intersection(OPTIONS["security.protocol"].valid or ())


def _read_pem(properties: dict[str, str], spelling: Mapping[str, str]) -> None:
    """Writes PEM as librdkafka reads it. A file whose PEM it could not read is given as text."""
    spelling = dict(spelling)
    for part in ("ca", "certificate", "key"):
        file = properties.get(f"ssl.{part}.location", "")
        if os.access(file, os.R_OK) and os.path.isfile(file) and f"ssl.{part}.pem" not in properties:
            with open(file, encoding="latin-1") as opened:
                text = opened.read()
            if not pem.is_plain(text):
                del properties[f"ssl.{part}.location"]
                properties[f"ssl.{part}.pem"] = text
                spelling[f"ssl.{part}.pem"] = f"ssl.{part}.location={_show('', file)}"
    for name in [name for name in properties if name.endswith(".pem")]:
        kind = pem.PRIVATE_KEY if name.endswith("key.pem") else pem.CERTIFICATE
        try:
            properties[name] = pem.normalize(properties[name], kind)
        except ValueError as error:  # never from it: the traceback would show the text
            given = spelling.get(ALIASES.get(name, name)) or spelling.get(name, name)
            raise ConfigError(f"{given}: {error}") from None


def _check_together(values: dict[str, Any], given: Mapping[str, Any], notes: list[str]) -> None:
    """Java's rules between options; changes ``values`` where a default has to give way."""
    if not values["bootstrap.servers"]:
        raise ConfigError("bootstrap.servers is required: host:port of one or more brokers")
    if values["batch.size"] > values["buffer.memory"]:
        raise ConfigError(
            f"batch.size={values['batch.size']} is larger than buffer.memory={values['buffer.memory']}: "
            "raise buffer.memory to at least batch.size x partitions x 2"
        )
    if "batch.size" in given and values["batch.size"] > values["max.request.size"]:
        raise ConfigError(
            f"batch.size={values['batch.size']} is larger than max.request.size={values['max.request.size']}: "
            "such a batch could not be sent; lower the one or raise the other"
        )
    _check_delivery_timeout(values, given, notes)
    _check_idempotence(values, given)
    for first, longest in (
        ("retry.backoff.ms", "retry.backoff.max.ms"),
        ("reconnect.backoff.ms", "reconnect.backoff.max.ms"),
    ):
        if values[first] > values[longest]:
            if longest not in given:
                values[longest] = values[first]
            else:
                if first in given:
                    notes.append(f"{first}={values[first]} is cut to {longest}={values[longest]}")
                values[first] = values[longest]
    if not values["client.id"]:
        values["client.id"] = f"producer-{values['transactional.id'] or next(_client_numbers)}"


def _check_delivery_timeout(values: dict[str, Any], given: Mapping[str, Any], notes: list[str]) -> None:
    linger, request, delivery = (values[n] for n in ("linger.ms", "request.timeout.ms", "delivery.timeout.ms"))
    least = math.ceil(linger) + request
    if delivery >= least:
        return
    rule = f"delivery.timeout.ms={delivery} is less than linger.ms={linger:g} + request.timeout.ms={request}"
    if "delivery.timeout.ms" in given:
        raise ConfigError(f"{rule}: it must be at least {least}, or one attempt could not finish")
    values["delivery.timeout.ms"] = least
    notes.append(f"{rule}: it is raised to {least}")


def _check_idempotence(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    if values["enable.idempotence"]:
        in_flight = values["max.in.flight.requests.per.connection"]
        if in_flight > 5:
            raise ConfigError(
                f"max.in.flight.requests.per.connection={in_flight}: must be at most 5 with enable.idempotence=true, "
                "the default; set enable.idempotence=false to allow more, and reordering"
            )
        for name, wanted, kept in (
            ("acks", "all", values["acks"] == "all"),
            ("retries", "at least 1", values["retries"] > 0),
        ):
            if not kept and "enable.idempotence" in given:
                raise ConfigError(f"{name}={values[name]}: must be {wanted} with enable.idempotence=true")
            values["enable.idempotence"] &= kept  # not asked for, so it gives way, as in Java
    if values["transactional.id"] and not values["enable.idempotence"]:
        raise ConfigError("transactional.id needs enable.idempotence=true, acks=all and retries of at least 1")


def _check_security(properties: Mapping[str, str], values: Mapping[str, Any], notes: list[str]) -> None:
    protocol = properties["security.protocol"].upper()
    _check_unsecured_token(properties)
    _check_mechanism(properties.get("sasl.mechanism", "GSSAPI"), values)
    secrets = [name for name in properties if name.startswith("sasl.") and is_sensitive(name)]
    if values["sasl.oauthbearer.token.provider"]:
        secrets.append("sasl.oauthbearer.token.provider")
    if secrets and not protocol.endswith("SSL"):
        risk = f"{', '.join(secrets)} set while security.protocol={protocol}: credentials would travel unencrypted"
        if not values["allow.plaintext.credentials"]:
            raise ConfigError(f"{risk}; use SASL_SSL, or allow it with allow.plaintext.credentials=true")
        notes.append(risk)
    for name in ("enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm"):
        if properties.get(name) in ("false", "f", "0", "none") and protocol.endswith("SSL"):
            notes.append(f"{name}={properties[name]}: anyone on the way to the broker can pose as it")
    has_key, has_certificate = (
        bool({f"ssl.{part}.location", f"ssl.{part}.pem"} & properties.keys()) for part in ("key", "certificate")
    )
    if has_key != has_certificate:
        given, missing = ("key", "certificate") if has_key else ("certificate", "key")
        raise ConfigError(f"a client {given} is set without its {missing}: give ssl.{missing}.location too")


def _check_unsecured_token(properties: Mapping[str, str]) -> None:
    """librdkafka's own errors about it would quote it."""
    text = properties.get("sasl.oauthbearer.config", "")
    if properties.get("enable.sasl.oauthbearer.unsecure.jwt") == "true" and text:
        names = "principal|principalClaimName|scope|scopeClaimName|extension_[A-Za-z]+"
        pair = f"(?:(?:{names})=[^ ]+|lifeSeconds=[0-9]{{1,9}})"
        if not re.fullmatch(f"{pair}(?: +{pair})*", text):
            raise ConfigError(
                "sasl.oauthbearer.config=[hidden]: must be name=value, separated by spaces, of principal, "
                "principalClaimName, scope, scopeClaimName, lifeSeconds, extension_<name>"
            )


def _check_mechanism(mechanism: str, values: Mapping[str, Any]) -> None:
    login: jaas.Login | None = values["sasl.jaas.config"]
    if login and mechanism not in login.mechanisms:
        wanted = " or ".join(login.mechanisms)
        raise ConfigError(f"the login module of sasl.jaas.config is for sasl.mechanism={wanted}, not {mechanism}")
    if values["sasl.oauthbearer.token.provider"]:
        if mechanism != "OAUTHBEARER":
            raise ConfigError(f"sasl.oauthbearer.token.provider needs sasl.mechanism=OAUTHBEARER, not {mechanism}")
        if values["sasl.oauthbearer.token.endpoint.url"]:
            raise ConfigError(
                "tokens come from sasl.oauthbearer.token.provider or .token.endpoint.url: give one of them"
            )


def _socket_timeout_ms(request_timeout_ms: int) -> int:
    """What makes librdkafka repeat a request that was not answered within a second after request.timeout.ms.

    It looks for such requests once a second (and the sender wakes it for that), connects anew and waits
    retry.backoff.ms, so it begins to look a little early: of 216 the last was repeated after 0.9 s.
    """
    return max(10, request_timeout_ms - min(250, request_timeout_ms // 4))


def _transport(values: Mapping[str, Any], given: Mapping[str, Any], passed: Mapping[str, str]) -> dict[str, str]:
    """Every property whose librdkafka default is not what fastprod needs or Java has, and the user's own."""
    properties = {}
    for option in OPTIONS.values():
        # TLS and SASL defaults are the same on both sides; set needlessly, librdkafka only complains of them.
        optional = option.name.startswith(("ssl.", "sasl.", "enable.ssl."))
        if option.maps_to and (option.name in given or not optional) and (text := _text(values[option.name])):
            properties[option.maps_to] = text
    properties |= {
        # fastprod lingers, bounds memory and chooses partitions: librdkafka is to do none of it again, but for
        # the last of the lingering, in which batches of a partition meet and share a request.
        "linger.ms": f"{min(values['linger.ms'] / 5, 1):g}",
        "queue.buffering.max.messages": "0",
        "queue.buffering.max.kbytes": "2147483647",
        "sticky.partitioning.linger.ms": "0",
        # Batches that wait for the same partition may share a request.
        "batch.size": str(min(max(values["batch.size"], 1_000_000), values["max.request.size"])),
        "batch.num.messages": "1000000",
        "socket.keepalive.enable": "true",
        "socket.timeout.ms": str(_socket_timeout_ms(values["request.timeout.ms"])),
        "log.queue": "true",
        # librdkafka's way forgets the brokers, and with them the leader epochs: it then believes a broker that is not
        # yet aware that it was deposed. ProducerMetadata has another.
        "metadata.recovery.strategy": "none",
    }
    # Java's values that librdkafka writes differently.
    for name in ("retry.backoff.ms", "retry.backoff.max.ms"):
        properties[name] = str(max(1, values[name]))
    for name in ("send.buffer.bytes", "receive.buffer.bytes", "connections.max.idle.ms"):
        properties[OPTIONS[name].maps_to] = str(max(0, values[name]))
    if "ssl.endpoint.identification.algorithm" in given:
        properties["ssl.endpoint.identification.algorithm"] = values["ssl.endpoint.identification.algorithm"] or "none"
    if values["ssl.keystore.type"] == "PEM" and "ssl.keystore.location" in properties:
        store = properties.pop("ssl.keystore.location")
        properties |= {"ssl.key.location": store, "ssl.certificate.location": store}
    if "ssl.cipher.suites" in properties:
        properties["ssl.cipher.suites"] = properties["ssl.cipher.suites"].replace(",", ":")
    if "sasl.oauthbearer.token.endpoint.url" in given:
        properties["sasl.oauthbearer.method"] = "oidc"
    level = f"compression.{values['compression.type']}.level"
    if level in given:
        properties["compression.level"] = str(values[level])
        if passed.get("compression.level", properties["compression.level"]) != properties["compression.level"]:
            raise ConfigError(f"{level} and compression.level are given with different values: leave one out")
    if not values["enable.idempotence"] and values["max.in.flight.requests.per.connection"] == 1:
        properties["linger.ms"] = "0"  # what fastprod hands over here is one request (Sender.feed()): nothing joins it
    if values["transactional.id"]:  # librdkafka demands that neither outlive the transaction
        for name in ("message.timeout.ms", "socket.timeout.ms"):
            properties[name] = str(min(int(properties[name]), values["transaction.timeout.ms"]))
    return properties
