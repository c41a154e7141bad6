"""Every option: its name, unit, default, range, and who acts on it: fastprod, librdkafka, or nobody.

``OPTIONS`` is the one source. Names, meanings and defaults are those of Kafka's Java producer 4.x, except that
``linger.ms`` is 0, the guide's default, and the socket buffers are left to the operating system.
``resolve()`` turns what a user wrote into a ``ProducerConfig``, or raises a ``ConfigError`` that says what is wrong.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from .errors import ConfigError

_INT = range(2**31)
_INT_FROM_1 = range(1, 2**31)
_HOUR_MS = range(3_600_001)
PARTITIONERS = ("uniform_sticky", "sticky", "timed_sticky", "round_robin", "random")


class Option(NamedTuple):
    """One row of the table."""

    name: str
    unit: str  # also says how a value is read: see _PARSERS
    default: Any
    valid: range | tuple[Any, ...] | None  # numbers from..to, or the values allowed; None: see the parser
    owner: str  # "fastprod" acts on it | "librdkafka" does | "refused" unless it is the default | "no effect"
    maps_to: str  # the property of librdkafka that gets the value, or ""
    doc: str  # one line; for the last two owners the reason, and what to use instead

    @property
    def sensitive(self) -> bool:
        """Whether the value must never be shown."""
        return is_sensitive(self.name)


def _own(name: str, unit: str, default: Any, valid: Any, doc: str, maps_to: str = "") -> Option:
    return Option(name, unit, default, valid, "fastprod", maps_to, doc)


def _rdk(name: str, unit: str, default: Any, valid: Any, doc: str, maps_to: str | None = None) -> Option:
    return Option(name, unit, default, valid, "librdkafka", name if maps_to is None else maps_to, doc)


def _refused(name: str, default: Any, doc: str) -> Option:
    return Option(name, "text", default, None, "refused", "", doc)


def _unused(name: str, unit: str, default: Any, doc: str) -> Option:
    return Option(name, unit, default, None, "no effect", "", doc)


_JVM = "a setting of the Java VM; librdkafka uses OpenSSL"
_JAVA = "org.apache.kafka.common."
_JAVA_CLASS = "names a Java class; "
_REFRESH = "librdkafka refreshes a token after 80 % of its life"
_BROKER_SIDE = "the broker verifies tokens, not the client"
_PEM_DOC = "PEM; Java's JKS stores must be converted."
_PARTITIONER_DOC = "Name or object that picks the partition; names: " + ", ".join(PARTITIONERS) + "."

_ROWS = (
    # What a record goes through, in order: serializer, partitioner, buffer, batch.
    _own("key.serializer", "serializer", None, None, "Callable, or object with serialize(topic, value), for keys."),
    _own("value.serializer", "serializer", None, None, "The same for values."),
    _own("interceptors", "interceptors", (), None, "Objects with on_send and/or on_acknowledgement, called in order."),
    _refused("interceptor.classes", None, _JAVA_CLASS + "give objects as interceptors=[...]"),
    _own("partitioner", "partitioner", "uniform_sticky", None, _PARTITIONER_DOC),
    _refused("partitioner.class", None, _JAVA_CLASS + "give a name or an object as partitioner="),
    _own("partitioner.ignore.keys", "bool", False, None, "Spread keyed records like those without a key."),
    _own("partitioner.adaptive.partitioning.enable", "bool", True, None, "Send less to partitions with long queues."),
    _own("partitioner.availability.timeout.ms", "ms", 0, _INT, "Avoid a partition stuck for this long; 0: never."),
    _own("partitioner.sticky.interval.ms", "ms", 100, _INT_FROM_1, "How often timed_sticky changes partition."),
    _refused("partitioner.rack.aware", False, "fastprod does not know which brokers share a rack"),
    _own("max.block.ms", "ms", 60_000, _INT, "Longest wait of send() for buffer memory or metadata."),
    _own("buffer.memory", "bytes", 33_554_432, range(1, 2**63), "Memory for records not yet acknowledged."),
    _unused("buffer.memory.allocation.strategy", "text", "full", "fastprod's pool has one strategy of its own"),
    _own("batch.size", "bytes", 16_384, _INT, "A batch of a partition is sent when it is this full; 0: no batching."),
    _own("linger.ms", "ms, fractions allowed", 0, range(900_001), "Longest wait of a batch for more records."),
    _own("max.request.size", "bytes", 1_048_576, range(1000, 1_000_000_001), "Largest record.", "message.max.bytes"),
    _rdk("compression.type", "text", "none", ("none", "gzip", "snappy", "lz4", "zstd"), "Compression of batches."),
    _rdk("compression.gzip.level", "level", -1, (-1, *range(1, 10)), "Used with gzip; -1: zlib's default.", ""),
    _rdk("compression.lz4.level", "level", 9, range(1, 13), "Used with lz4; Java goes up to 17.", ""),
    _rdk("compression.zstd.level", "level", 3, range(1, 13), "Used with zstd; Java goes from -131072 to 22.", ""),
    # Delivery.
    _own("acks", "acks", "all", ("all", "-1", "0", "1"), "Replicas that must have a record: all, 1, 0.", "acks"),
    _own("enable.idempotence", "bool", True, None, "No duplicates, no reordering by retries.", "enable.idempotence"),
    _own("retries", "count", 2**31 - 1, _INT, "Retries within delivery.timeout.ms.", "retries"),
    _own("retry.backoff.ms", "ms", 100, range(300_001), "First pause before a retry.", "retry.backoff.ms"),
    _rdk("retry.backoff.max.ms", "ms", 1000, range(300_001), "Longest pause before a retry."),
    _rdk("max.in.flight.requests.per.connection", "count", 5, range(1, 1_000_001), "At most 5 with idempotence."),
    _own("delivery.timeout.ms", "ms", 120_000, _INT, "From send() to success or failure.", "message.timeout.ms"),
    _own("request.timeout.ms", "ms", 30_000, range(10, 300_001), "Wait for one response.", "request.timeout.ms"),
    _own("transactional.id", "text", None, None, "Name of this producer across restarts.", "transactional.id"),
    _rdk("transaction.timeout.ms", "ms", 60_000, range(1000, 2**31), "The broker aborts an open transaction then."),
    _refused("transaction.two.phase.commit.enable", False, "librdkafka has no two-phase commit"),
    # Cluster and connections.
    _own("bootstrap.servers", "hosts", None, None, "host:port,... to start from; required.", "bootstrap.servers"),
    _unused("bootstrap.resolve.timeout.ms", "ms", 0, "librdkafka resolves names in the background and keeps trying"),
    _rdk("client.dns.lookup", "text", "use_all_dns_ips",
         ("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"), "How host names are resolved."),
    _own("client.id", "text", "", None, "Name in the broker's logs and quotas; default producer-N.", "client.id"),
    _rdk("client.rack", "text", "", None, "Rack of this client, told to the broker."),
    _own("metadata.max.age.ms", "ms", 300_000, range(1, 3_600_001), "Metadata older than this is asked for anew.",
         "topic.metadata.refresh.interval.ms"),
    _unused("metadata.max.idle.ms", "ms", 300_000, "librdkafka keeps the metadata of a topic as long as it is used"),
    _rdk("metadata.recovery.strategy", "name", "rebootstrap", ("none", "rebootstrap"), "When no broker is left."),
    _rdk("metadata.recovery.rebootstrap.trigger.ms", "ms", 300_000, _INT, "Bootstrap anew after so long without any."),
    _unused("metadata.cluster.check.enable", "bool", True, "librdkafka does not compare cluster ids"),
    _rdk("send.buffer.bytes", "bytes", -1, range(-1, 100_000_001),
         "SO_SNDBUF; -1: the system's, which adapts (Java: 131072).", "socket.send.buffer.bytes"),
    _rdk("receive.buffer.bytes", "bytes", -1, range(-1, 100_000_001),
         "SO_RCVBUF; -1: the system's, which adapts (Java: 32768).", "socket.receive.buffer.bytes"),
    _rdk("connections.max.idle.ms", "ms", 540_000, range(-1, 2**31), "Close idle connections; below 1: never."),
    _rdk("reconnect.backoff.ms", "ms", 50, _HOUR_MS, "First pause before connecting again."),
    _rdk("reconnect.backoff.max.ms", "ms", 1000, _HOUR_MS, "Longest pause before connecting again."),
    _rdk("socket.connection.setup.timeout.ms", "ms", 10_000, range(1000, 2**31), "For TCP, TLS and SASL together."),
    _unused("socket.connection.setup.timeout.max.ms", "ms", 30_000, "librdkafka's setup timeout does not grow"),
    _rdk("allow.auto.create.topics", "bool", False, None, "Let the broker create topics that do not exist."),
    # Metrics and plug-ins.
    _rdk("enable.metrics.push", "bool", True, None, "Let brokers subscribe to client metrics (KIP-714)."),
    _unused("metrics.sample.window.ms", "ms", 30_000, "metrics() are counters, not samples"),
    _unused("metrics.num.samples", "count", 2, "metrics() are counters, not samples"),
    _unused("metrics.recording.level", "text", "INFO", "all metrics are always kept"),
    _refused("metric.reporters", _JAVA + "metrics.JmxReporter", _JAVA_CLASS + "read producer.metrics()"),
    _refused("config.providers", None, "values are taken literally; read secrets before making the producer"),
    _refused("security.providers", None, _JVM),
    # TLS.
    _rdk("security.protocol", "name", "PLAINTEXT", ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
         "SSL and SASL_SSL encrypt; SASL_* authenticate by sasl.mechanism."),
    _own("allow.plaintext.credentials", "bool", False, None, "Permit SASL credentials on an unencrypted connection."),
    _rdk("ssl.truststore.location", "PEM file", None, None, "CA certificates, " + _PEM_DOC, "ssl.ca.location"),
    _rdk("ssl.truststore.certificates", "text", None, None, "CA certificates themselves, PEM.", "ssl.ca.pem"),
    Option("ssl.truststore.type", "text", None, ("PEM",), "no effect", "", "trust stores are always PEM"),
    _refused("ssl.truststore.password", None, "a PEM trust store has no password; convert a JKS store to PEM"),
    _rdk("ssl.keystore.location", "file", None, None, "Client certificate and key, PKCS#12."),
    _rdk("ssl.keystore.password", "text", None, None, "Password of that file."),
    Option("ssl.keystore.type", "text", None, ("PKCS12",), "no effect", "", "key stores are always PKCS#12"),
    _rdk("ssl.keystore.key", "text", None, None, "Client key itself, PEM.", "ssl.key.pem"),
    _rdk("ssl.keystore.certificate.chain", "text", None, None, "Client certificate, PEM.", "ssl.certificate.pem"),
    _rdk("ssl.key.location", "PEM file", None, None, "Client key, " + _PEM_DOC),
    _rdk("ssl.certificate.location", "PEM file", None, None, "Client certificate, " + _PEM_DOC),
    _rdk("ssl.key.password", "text", None, None, "Password of the client key."),
    _rdk("ssl.cipher.suites", "list", None, None, "Cipher suites, by OpenSSL's names."),
    _rdk("ssl.endpoint.identification.algorithm", "text", "https", ("https", "none", ""), "none: host name unchecked."),
    _rdk("enable.ssl.certificate.verification", "bool", True, None, "false: the broker's certificate is not checked."),
    _refused("ssl.protocol", "TLSv1.3", _JVM + "; restrict it by ssl.cipher.suites"),
    _refused("ssl.enabled.protocols", "TLSv1.2,TLSv1.3", _JVM + "; restrict it by ssl.cipher.suites"),
    _refused("ssl.provider", None, _JVM),
    _refused("ssl.keymanager.algorithm", "SunX509", _JVM),
    _refused("ssl.trustmanager.algorithm", "PKIX", _JVM),
    _refused("ssl.secure.random.implementation", None, _JVM),
    _refused("ssl.engine.factory.class", None, _JAVA_CLASS + "use the ssl.* options"),
    # SASL.
    _rdk("sasl.mechanism", "text", "GSSAPI", ("GSSAPI", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"),
         "How to authenticate."),
    _rdk("sasl.username", "text", None, None, "For PLAIN and SCRAM."),
    _rdk("sasl.password", "text", None, None, "For PLAIN and SCRAM."),
    _refused("sasl.jaas.config", None, "use sasl.username and sasl.password, sasl.kerberos.* or sasl.oauthbearer.*"),
    _refused("sasl.login.class", None, _JAVA_CLASS + "use the sasl.* options"),
    _refused("sasl.login.callback.handler.class", None, _JAVA_CLASS + "use sasl.oauthbearer.*"),
    _refused("sasl.client.callback.handler.class", None, _JAVA_CLASS + "use the sasl.* options"),
    _rdk("sasl.kerberos.service.name", "text", None, None, "Service part of the brokers' principal; default kafka."),
    _refused("sasl.kerberos.kinit.cmd", "/usr/bin/kinit", "a path in Java, a whole command line in librdkafka: "
             "give that as librdkafka.sasl.kerberos.kinit.cmd"),
    _rdk("sasl.kerberos.min.time.before.relogin", "ms", 60_000, range(86_400_001), "Between two runs of kinit."),
    _unused("sasl.kerberos.ticket.renew.window.factor", "ratio", 0.8, "see sasl.kerberos.min.time.before.relogin"),
    _unused("sasl.kerberos.ticket.renew.jitter", "ratio", 0.05, "see sasl.kerberos.min.time.before.relogin"),
    _unused("sasl.login.refresh.window.factor", "ratio", 0.8, _REFRESH),
    _unused("sasl.login.refresh.window.jitter", "ratio", 0.05, _REFRESH),
    _unused("sasl.login.refresh.min.period.seconds", "seconds", 60, _REFRESH),
    _unused("sasl.login.refresh.buffer.seconds", "seconds", 300, _REFRESH),
    _unused("sasl.login.connect.timeout.ms", "ms", None, "librdkafka asks for tokens with its own timeouts"),
    _unused("sasl.login.read.timeout.ms", "ms", None, "librdkafka asks for tokens with its own timeouts"),
    _unused("sasl.login.retry.backoff.ms", "ms", 100, "librdkafka asks for tokens with its own pauses"),
    _unused("sasl.login.retry.backoff.max.ms", "ms", 10_000, "librdkafka asks for tokens with its own pauses"),
    _rdk("sasl.oauthbearer.token.endpoint.url", "text", None, None, "Where tokens come from; implies the oidc method."),
    _rdk("sasl.oauthbearer.scope", "text", None, None, "Scope to ask for."),
    _rdk("sasl.oauthbearer.client.credentials.client.id", "text", None, None, "Client id.",
         "sasl.oauthbearer.client.id"),
    _rdk("sasl.oauthbearer.client.credentials.client.secret", "text", None, None, "Client secret.",
         "sasl.oauthbearer.client.secret"),
    _rdk("sasl.oauthbearer.assertion.algorithm", "name", "RS256", ("RS256", "ES256"), "Signature of the assertion."),
    _rdk("sasl.oauthbearer.assertion.claim.aud", "text", None, None, "Audience claim."),
    _rdk("sasl.oauthbearer.assertion.claim.exp.seconds", "seconds", 300, range(1, 86_401), "Life of the assertion."),
    _rdk("sasl.oauthbearer.assertion.claim.iss", "text", None, None, "Issuer claim."),
    _rdk("sasl.oauthbearer.assertion.claim.jti.include", "bool", False, None, "Add a random id claim."),
    _rdk("sasl.oauthbearer.assertion.claim.nbf.seconds", "seconds", 60, range(3601), "Valid from so long before now."),
    _rdk("sasl.oauthbearer.assertion.claim.sub", "text", None, None, "Subject claim."),
    _rdk("sasl.oauthbearer.assertion.file", "file", None, None, "A ready assertion."),
    _rdk("sasl.oauthbearer.assertion.private.key.file", "PEM file", None, None, "Key that signs the assertion, PEM."),
    _rdk("sasl.oauthbearer.assertion.private.key.passphrase", "text", None, None, "Password of that key."),
    _rdk("sasl.oauthbearer.assertion.template.file", "file", None, None, "Template of the assertion.",
         "sasl.oauthbearer.assertion.jwt.template.file"),
    _rdk("sasl.oauthbearer.sub.claim.name", "text", "sub", None, "Claim that holds the principal."),
    _unused("sasl.oauthbearer.scope.claim.name", "text", "scope", _BROKER_SIDE),
    _unused("sasl.oauthbearer.clock.skew.seconds", "seconds", 30, _BROKER_SIDE),
    _unused("sasl.oauthbearer.expected.audience", "list", None, _BROKER_SIDE),
    _unused("sasl.oauthbearer.expected.issuer", "text", None, _BROKER_SIDE),
    _unused("sasl.oauthbearer.jwks.endpoint.url", "text", None, _BROKER_SIDE),
    _unused("sasl.oauthbearer.jwks.endpoint.refresh.ms", "ms", 3_600_000, _BROKER_SIDE),
    _unused("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", "ms", 100, _BROKER_SIDE),
    _unused("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", "ms", 10_000, _BROKER_SIDE),
    _refused("sasl.oauthbearer.header.urlencode", False, "librdkafka does not encode client id and secret"),
    _refused("sasl.oauthbearer.jwt.retriever.class", _JAVA + "security.oauthbearer.DefaultJwtRetriever",
             _JAVA_CLASS + "use sasl.oauthbearer.*"),
    _refused("sasl.oauthbearer.jwt.validator.class", _JAVA + "security.oauthbearer.DefaultJwtValidator",
             _JAVA_CLASS + _BROKER_SIDE),
)  # fmt: skip

OPTIONS: dict[str, Option] = {row.name: row for row in _ROWS}

#: librdkafka's other names for the same settings.
ALIASES = {
    "metadata.broker.list": "bootstrap.servers",
    "request.required.acks": "acks",
    "message.send.max.retries": "retries",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "queue.buffering.max.ms": "linger.ms",
    "message.timeout.ms": "delivery.timeout.ms",
    "message.max.bytes": "max.request.size",
    "compression.codec": "compression.type",
    "topic.metadata.refresh.interval.ms": "metadata.max.age.ms",
    "socket.send.buffer.bytes": "send.buffer.bytes",
    "socket.receive.buffer.bytes": "receive.buffer.bytes",
    "ssl.ca.location": "ssl.truststore.location",
    "ssl.ca.pem": "ssl.truststore.certificates",
    "ssl.key.pem": "ssl.keystore.key",
    "ssl.certificate.pem": "ssl.keystore.certificate.chain",
    "sasl.mechanisms": "sasl.mechanism",
    "sasl.oauthbearer.client.id": "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.secret": "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.jwt.template.file": "sasl.oauthbearer.assertion.template.file",
}

_PARTITIONS = "fastprod chooses the partition: see partitioner and partitioner.sticky.interval.ms"
_LOADS_CODE = "a config must not load code into the process"
_POINTER = "its value is a pointer inside librdkafka"
_EVENTS = "fastprod reads librdkafka's events itself"
# What fastprod's promises rest on, or what a config must not reach; by dotted name, whoever forces it.
_DENIED = {
    "delivery.report.only.error": "fastprod needs every delivery report to settle futures and free memory",
    "queue.buffering.max.messages": "memory is bounded by buffer.memory, in bytes",
    "queue.buffering.max.kbytes": "memory is bounded by buffer.memory, in bytes",
    "queuing.strategy": "records of a partition go out in the order of send()",
    "msg.order.cmp": "records of a partition go out in the order of send()",
    "sticky.partitioning.linger.ms": _PARTITIONS,
    "partitioner": _PARTITIONS,
    "log.queue": _EVENTS,
    "enabled.events": _EVENTS,
    "plugin.library.paths": _LOADS_CODE,
    "ssl.engine.location": _LOADS_CODE,
    "ssl.engine.id": _LOADS_CODE,
    **dict.fromkeys(("interceptors", "opaque", "default.topic.conf", "ssl.key", "ssl.certificate", "ssl.ca"), _POINTER),
    "ssl.engine.callback.data": _POINTER,
}
_DENIED_BEGINNINGS = {
    "test.mock.": "records would go to a mock cluster; use fastprod.testing.MockCluster",
    "ut.": _POINTER,
}

_SECRET_PARTS = (
    "passw", "passphrase", "secret", "jaas", "sasl.username", "oauthbearer.config", "oauthbearer.extensions",
    ".pem", "keystore.key", "certificates", "certificate.chain",
)  # fmt: skip
_client_numbers = itertools.count(1)


def is_sensitive(key: str) -> bool:
    """Whether the value of ``key``, however it is spelt, must never appear in a text."""
    name = _dotted(key.lower())
    return any(part in name for part in _SECRET_PARTS)


def redact(key: str, text: str) -> str:
    """``text`` if ``key`` is harmless, otherwise a placeholder. For values, and for messages that may quote them."""
    return "[hidden]" if is_sensitive(key) else text


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
    allow_plaintext_credentials: bool

    def __init__(self, values: Mapping[str, Any], librdkafka: dict[str, str], given: frozenset[str]) -> None:
        for option in _ROWS:
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
        name = _dotted(key)
        if name.startswith("librdkafka."):
            name = _property(key[len("librdkafka.") :], librdkafka_knows)
            _put(forced, name, _property_text(key, value), key, spelling)
        elif option := OPTIONS.get(ALIASES.get(name, name)):
            if option.owner == "refused":
                if _text(value) not in ("", _text(option.default)):
                    raise ConfigError(f"{key} is not supported: {option.doc}")
            else:
                _put(given, option.name, _parse(option, key, value), key, spelling)
        else:
            name = _property(key, librdkafka_knows)
            _put(passed, name, _property_text(key, value), key, spelling)

    values = {option.name: option.default for option in _ROWS} | given
    notes: list[str] = []
    _check_together(values, given, notes)
    properties = _transport(values, given, passed) | passed | forced
    _check_security(properties, values, notes)
    for note in notes:
        warn(note, stacklevel=2)
    return ProducerConfig(values, properties, frozenset(given))


def _dotted(key: str) -> str:
    return key.replace("_", ".")


def _property(key: str, librdkafka_knows: Callable[[str], bool]) -> str:
    """librdkafka's own spelling of one of its properties, the same for all of its aliases."""
    name = _dotted(key)
    reason = _DENIED.get(name) or next((why for start, why in _DENIED_BEGINNINGS.items() if name.startswith(start)), "")
    if name.endswith(".cb"):
        reason = "callbacks are fastprod's own: use on_delivery, interceptors, metrics() or logging"
    if reason:
        raise ConfigError(f"{key} cannot be set: {reason}")
    if name in ALIASES:
        return OPTIONS[ALIASES[name]].maps_to or "linger.ms"
    if name == "delivery.timeout.ms":
        return "message.timeout.ms"
    if name.isascii() and name.isprintable():  # a NUL would end the name early and hide what follows from our checks
        for spelt in (key, name):
            if librdkafka_knows(spelt):
                return spelt
    import difflib  # only here: it costs a millisecond to import

    near = difflib.get_close_matches(name, [*OPTIONS, *ALIASES], n=1)
    hint = f"did you mean {near[0]}?" if near else "neither fastprod nor this librdkafka knows it"
    raise ConfigError(f"unknown option {key!r}: {hint}")


def _put(store: dict[str, Any], name: str, value: Any, key: str, spelling: dict[str, str]) -> None:
    if name in store and store[name] is not value and store[name] != value:
        both = f"{_show(key, store[name])} and {_show(key, value)}"
        raise ConfigError(f"{name} is given twice, by {spelling[name]} and by {key}, with different values: {both}")
    store[name] = value
    spelling.setdefault(name, key)


def _parse(option: Option, key: str, value: Any) -> Any:
    if value is None and (option.default is None or option.unit in ("partitioner", "interceptors")):
        return option.default
    return _PARSERS[option.unit](option, key, value)


def _show(key: str, value: object) -> str:
    text = repr(value)
    return redact(key, text if len(text) <= 80 else text[:80] + "...")


def _bad(option: Option, key: str, value: object, wanted: str) -> ConfigError:
    if isinstance(option.valid, range):
        wanted += f" from {option.valid.start} to {option.valid.stop - 1}"
    elif option.valid:
        wanted = "one of " + ", ".join(map(repr, option.valid))
    return ConfigError(f"{key}={_show(option.name, value)}: must be {wanted}")


def _whole(option: Option, key: str, value: Any) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and not value.strip().lstrip("+-").isdigit()):
            raise ValueError
        number = int(value) if isinstance(value, str) else operator.index(value)
        if option.valid is not None and number not in option.valid:
            raise ValueError
    except (TypeError, ValueError):
        raise _bad(option, key, value, f"a whole number ({option.unit})") from None
    return number


def _real(option: Option, key: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
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
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise _bad(option, key, value, "true or false")


def _string(option: Option, key: str, value: Any) -> str:
    if not isinstance(value, str) or not _is_clean(value):
        raise _bad(option, key, value, "a str without NUL or lone surrogates")
    text = value.strip() if option.valid else value
    if option.valid and text not in option.valid:
        raise _bad(option, key, value, "")
    if not text and option.default is None:
        raise _bad(option, key, value, "a str that is not empty")
    return text


def _name(option: Option, key: str, value: Any) -> str:
    if isinstance(value, str):
        for allowed in map(str, option.valid or ()):
            if allowed.lower() == value.strip().lower():
                return allowed
    raise _bad(option, key, value, "")


def _acks(option: Option, key: str, value: Any) -> str:
    text = str(value).strip() if isinstance(value, (int, str)) else ""
    if text not in (option.valid or ()):
        raise _bad(option, key, value, "")
    return "all" if text == "-1" else text


def _list(option: Option, key: str, value: Any) -> str:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) and item.isprintable() for item in items):
        raise _bad(option, key, value, "a str, or a list of str")
    return ",".join(item.strip() for item in items)


def _hosts(option: Option, key: str, value: Any) -> str:
    hosts = [host.strip() for host in _list(option, key, value).split(",")]
    if len(hosts) > 1000:
        raise ConfigError(f"{key} names {len(hosts)} hosts; a few are enough, since brokers name the others")
    for entry in hosts:
        shown = repr(entry) if "@" not in entry else "an entry with @"
        if "://" in entry:
            raise ConfigError(f"{key}: {shown} must be host:port without a scheme; security.protocol says how to speak")
        host, _, port = entry.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            good = ":" in host and all(c.isalnum() or c in ":.%" for c in host[1:-1])
        else:
            good = bool(host) and all(c.isalnum() or c in "-._" for c in host)
        if not (good and entry.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
            raise ConfigError(f"{key}: {shown} must be host:port or [IPv6]:port, with a port from 1 to 65535")
    return ",".join(dict.fromkeys(hosts))


def _file(option: Option, key: str, value: Any) -> str:
    if option.maps_to == "ssl.ca.location" and value == "probe":
        return "probe"  # librdkafka then looks where distributions keep their certificates
    path = _string(option, key, os.fspath(value) if isinstance(value, os.PathLike) else value)
    try:
        if os.path.isfile(path):  # a pipe must be left for librdkafka to read
            with open(path, "rb") as file:
                if option.unit == "PEM file" and b"-----BEGIN" not in file.read():
                    raise ConfigError(f"{key}={_show(key, path)}: is not PEM; convert it, or use ssl.keystore.location")
        else:
            os.stat(path)
    except OSError as error:
        raise ConfigError(f"{key}={_show(key, path)}: cannot be read: {error.strerror}") from None
    return path


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
    "list": _list, "hosts": _hosts, "file": _file, "PEM file": _file,
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


def _property_text(key: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{key}={_show(key, value)}: must be a str, int, float or bool")
    if not _is_clean(text := _text(value)):
        raise ConfigError(f"{key}={_show(key, value)}: must not hold NUL or lone surrogates")
    return text


def _is_clean(text: str) -> bool:
    """Whether C can be given it."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


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
    secrets = [name for name in properties if name.startswith("sasl.") and is_sensitive(name)]
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


def _transport(values: Mapping[str, Any], given: Mapping[str, Any], passed: Mapping[str, str]) -> dict[str, str]:
    """Every property whose librdkafka default is not what fastprod needs or Java has, and the user's own."""
    properties = {}
    for option in _ROWS:
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
        "socket.timeout.ms": str(values["request.timeout.ms"]),
        "log.queue": "true",
    }
    # Java's values that librdkafka writes differently.
    for name in ("retry.backoff.ms", "retry.backoff.max.ms"):
        properties[name] = str(max(1, values[name]))
    for name in ("send.buffer.bytes", "receive.buffer.bytes", "connections.max.idle.ms"):
        properties[OPTIONS[name].maps_to] = str(max(0, values[name]))
    if "ssl.endpoint.identification.algorithm" in given:
        properties["ssl.endpoint.identification.algorithm"] = values["ssl.endpoint.identification.algorithm"] or "none"
    if "ssl.cipher.suites" in properties:
        properties["ssl.cipher.suites"] = properties["ssl.cipher.suites"].replace(",", ":")
    if "sasl.oauthbearer.token.endpoint.url" in given:
        properties["sasl.oauthbearer.method"] = "oidc"
    level = f"compression.{values['compression.type']}.level"
    if level in given:
        properties["compression.level"] = str(values[level])
        if passed.get("compression.level", properties["compression.level"]) != properties["compression.level"]:
            raise ConfigError(f"{level} and compression.level are given with different values: leave one out")
    if values["transactional.id"]:  # librdkafka demands that neither outlive the transaction
        for name in ("message.timeout.ms", "socket.timeout.ms"):
            properties[name] = str(min(int(properties[name]), values["transaction.timeout.ms"]))
    return properties
