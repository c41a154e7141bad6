"""The table of all options: name, unit, default, range, and whether fastprod or librdkafka acts on it.

``config.resolve()`` reads options by the table ``OPTIONS``, and docs/options.md is generated from the same table.
Names, meanings and defaults are those of Kafka's Java producer 4.x, with three exceptions: ``linger.ms`` is 0, Java's
default before 4.0; ``allow.auto.create.topics`` is false; the operating system chooses the socket buffers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_INT = range(2**31)
_INT_FROM_1 = range(1, 2**31)
_HOUR_MS = range(3_600_001)
PARTITIONERS = ("uniform_sticky", "sticky", "timed_sticky", "round_robin", "random")


class Option(NamedTuple):
    """One row of the table."""

    name: str
    unit: str  # also says how a value is read: see parse.py
    default: Any
    valid: range | tuple[Any, ...] | None  # numbers from..to, or the values allowed; None: see the parser
    owner: str  # who acts on it: "fastprod" or "librdkafka"; "refused", "no effect": another value raises, or warns
    maps_to: str  # the property of librdkafka that gets the value, or ""
    doc: str  # one line; for "refused" and "no effect" the reason, and what to use instead


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
_KEYTOOL = "Convert JKS stores: keytool -importkeystore -deststoretype pkcs12, then openssl pkcs12 for PEM."
_PARTITIONER_DOC = "Name, or an object of Java's interface: " + ", ".join(PARTITIONERS) + "; the last two ignore keys."

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
    _own("max.block.ms", "ms", 60_000, _INT, "Longest wait of send(), for metadata and memory together."),
    _own("buffer.memory", "bytes", 33_554_432, range(1, 2**63),
         "Memory of records not acknowledged yet, and of callbacks that have not run."),
    _unused("buffer.memory.allocation.strategy", "text", "full", "fastprod's pool has one strategy of its own"),
    _own("batch.size", "bytes", 16_384, _INT, "A batch of a partition is sent when it is this full; 0: no batching."),
    _own("linger.ms", "ms, fractions allowed", 0, range(900_001),
         "How long a batch waits for more; 5 to 100 for high volume."),
    _own("max.request.size", "bytes", 1_048_576, range(1000, 1_000_000_001), "Largest record.", "message.max.bytes"),
    _rdk("compression.type", "text", "none", ("none", "gzip", "snappy", "lz4", "zstd"), "Compression of batches."),
    _rdk("compression.gzip.level", "level", -1, (-1, *range(1, 10)), "Used with gzip; -1: zlib's default.", ""),
    _rdk("compression.lz4.level", "level", 9, range(1, 13), "Used with lz4; Java goes up to 17.", ""),
    _rdk("compression.zstd.level", "level", 3, range(1, 13), "Used with zstd; Java goes from -131072 to 22.", ""),
    # Delivery.
    _own("acks", "acks", "all", ("all", "-1", "0", "1"),
         "Which replicas must have a record: all, 1 (the leader), 0 (none).", "acks"),
    _own("enable.idempotence", "bool", True, None, "No duplicates, no reordering by retries.", "enable.idempotence"),
    _own("retries", "count", 2**31 - 1, _INT, "Retries within delivery.timeout.ms.", "retries"),
    _own("retry.backoff.ms", "ms", 100, range(300_001), "First pause before a retry.", "retry.backoff.ms"),
    _rdk("retry.backoff.max.ms", "ms", 1000, range(300_001), "Longest pause before a retry."),
    _rdk("max.in.flight.requests.per.connection", "count", 5, range(1, 1_000_001),
         "At most 5 with idempotence; 1 keeps the order without it."),
    _own("delivery.timeout.ms", "ms", 120_000, _INT, "Longest time from send() to success or failure.",
         "message.timeout.ms"),
    _own("request.timeout.ms", "ms", 30_000, range(10, 300_001), "Wait for one response.", "request.timeout.ms"),
    _own("transactional.id", "text", None, None, "Name of this producer across restarts.", "transactional.id"),
    _rdk("transaction.timeout.ms", "ms", 60_000, range(1000, 2**31),
         "The broker aborts a transaction that is open longer."),
    _refused("transaction.two.phase.commit.enable", False, "librdkafka has no two-phase commit"),
    # Cluster and connections.
    _own("bootstrap.servers", "hosts", None, None, "host:port, comma-separated.", "bootstrap.servers"),
    _unused("bootstrap.resolve.timeout.ms", "ms", 0, "librdkafka resolves names in the background and keeps trying"),
    _rdk("client.dns.lookup", "text", "use_all_dns_ips",
         ("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"), "How host names are resolved."),
    _own("client.id", "text", "", None, "Name in the broker's logs and quotas; default producer-N.", "client.id"),
    _rdk("client.rack", "text", "", None, "Rack of this client, sent to the broker."),
    _own("metadata.max.age.ms", "ms", 300_000, range(1, 3_600_001), "Metadata older than this is refreshed.",
         "topic.metadata.refresh.interval.ms"),
    _own("metadata.max.idle.ms", "ms", 300_000, range(5000, 2**31), "A topic not used for this long is forgotten."),
    _own("metadata.recovery.strategy", "name", "rebootstrap", ("none", "rebootstrap"),
         "Ask bootstrap.servers again when no known broker answers."),
    _unused("metadata.recovery.rebootstrap.trigger.ms", "ms", 300_000,
            "fastprod asks bootstrap.servers as soon as one request for metadata fails"),
    _unused("metadata.cluster.check.enable", "bool", True, "librdkafka does not compare cluster ids"),
    _rdk("send.buffer.bytes", "bytes", -1, range(-1, 100_000_001),
         "SO_SNDBUF; -1: the system's, which adapts (Java: 131072).", "socket.send.buffer.bytes"),
    _rdk("receive.buffer.bytes", "bytes", -1, range(-1, 100_000_001),
         "SO_RCVBUF; -1: the system's, which adapts (Java: 32768).", "socket.receive.buffer.bytes"),
    _rdk("connections.max.idle.ms", "ms", 540_000, range(-1, 2**31),
         "Connections idle for this long are closed; set it below your load balancer's limit; < 1: never."),
    _rdk("reconnect.backoff.ms", "ms", 50, _HOUR_MS, "First pause before connecting again."),
    _rdk("reconnect.backoff.max.ms", "ms", 1000, _HOUR_MS, "Longest pause before connecting again."),
    _rdk("socket.connection.setup.timeout.ms", "ms", 10_000, range(1000, 2**31), "For TCP, TLS and SASL together."),
    _unused("socket.connection.setup.timeout.max.ms", "ms", 30_000, "librdkafka's setup timeout does not grow"),
    _rdk("allow.auto.create.topics", "bool", False, None, "Let the broker create topics that do not exist."),
    # Metrics and plug-ins.
    _rdk("enable.metrics.push", "bool", True, None, "Let brokers subscribe to client metrics (KIP-714)."),
    _unused("metrics.sample.window.ms", "ms", 30_000, "metrics() are counters, not samples"),
    _unused("metrics.num.samples", "count", 2, "metrics() are counters, not samples"),
    _unused("metrics.recording.level", "text", "INFO", "fastprod always records all metrics"),
    _refused("metric.reporters", _JAVA + "metrics.JmxReporter", _JAVA_CLASS + "read producer.metrics()"),
    _refused("config.providers", None, "values are taken literally; read secrets before making the producer"),
    _refused("security.providers", None, _JVM),
    # TLS.
    _rdk("security.protocol", "name", "PLAINTEXT", ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
         "SSL and SASL_SSL encrypt; SASL_* authenticate by sasl.mechanism."),
    _own("allow.plaintext.credentials", "bool", False, None, "Permit SASL credentials on an unencrypted connection."),
    _rdk("ssl.truststore.location", "PEM file", None, None, "CA certificates, " + _PEM_DOC, "ssl.ca.location"),
    _rdk("ssl.truststore.certificates", "text", None, None, "CA certificates themselves, PEM.", "ssl.ca.pem"),
    _rdk("ssl.truststore.type", "text", None, ("PEM",), "Trust stores are always PEM. " + _KEYTOOL, ""),
    _refused("ssl.truststore.password", None, "a PEM trust store has no password; convert a JKS store to PEM"),
    _rdk("ssl.keystore.location", "file", None, None, "Client certificate and key; see ssl.keystore.type."),
    _rdk("ssl.keystore.password", "text", None, None, "Password of the file ssl.keystore.location."),
    _rdk("ssl.keystore.type", "text", None, ("PKCS12", "PEM"),
         "PEM: key and certificates in one file. " + _KEYTOOL, ""),
    _rdk("ssl.keystore.key", "text", None, None, "Client key itself, PEM.", "ssl.key.pem"),
    _rdk("ssl.keystore.certificate.chain", "text", None, None, "Client certificate, PEM.", "ssl.certificate.pem"),
    _rdk("ssl.key.location", "PEM file", None, None, "Client key, " + _PEM_DOC),
    _rdk("ssl.certificate.location", "PEM file", None, None, "Client certificate, " + _PEM_DOC),
    _rdk("ssl.key.password", "text", None, None, "Password of the client key."),
    _rdk("ssl.cipher.suites", "list", None, None, "Cipher suites, by OpenSSL's names."),
    _rdk("ssl.endpoint.identification.algorithm", "name", "https", ("https", "none", ""), "none: host name unchecked."),
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
    _rdk("sasl.jaas.config", "jaas", None, None, "Java's way to give user and password, or OAUTHBEARER's client.", ""),
    _refused("sasl.login.class", None, _JAVA_CLASS + "use the sasl.* options"),
    _refused("sasl.login.callback.handler.class", None, _JAVA_CLASS + "use sasl.oauthbearer.token.provider"),
    _refused("sasl.client.callback.handler.class", None, _JAVA_CLASS + "use the sasl.* options"),
    _rdk("sasl.kerberos.service.name", "text", None, None, "Service part of the brokers' principal; default kafka."),
    _refused("sasl.kerberos.kinit.cmd", "/usr/bin/kinit", "Java takes a path, librdkafka a command line: give the "
             "command line as librdkafka.sasl.kerberos.kinit.cmd"),
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
    _own("sasl.oauthbearer.token.provider", "callable", None, None,
         "Function like confluent-kafka's oauth_cb: called with sasl.oauthbearer.config, gives (token, expiry in s)."),
    _rdk("sasl.oauthbearer.token.endpoint.url", "text", None, None, "URL that gives tokens; implies the oidc method."),
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
    _rdk("sasl.oauthbearer.assertion.claim.nbf.seconds", "seconds", 60, range(3601),
         "The assertion is valid from this long before now."),
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
             _JAVA_CLASS + "use sasl.oauthbearer.token.provider"),
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

_NETWORK = "leave it out: librdkafka has connections and threads of its own"
_NO_PROXY = "librdkafka connects through no proxy: name brokers that are reached without one"
#: What kafka-python, aiokafka and confluent-kafka call a setting -> what to do here.
FOREIGN = {
    "ssl.cafile": "use ssl.ca.location",
    "ssl.certfile": "use ssl.certificate.location",
    "ssl.keyfile": "use ssl.key.location",
    "ssl.password": "use ssl.key.password",
    "ssl.crlfile": "use ssl.crl.location",
    "ssl.ciphers": "use ssl.cipher.suites",
    "ssl.check.hostname": "use ssl.endpoint.identification.algorithm, https or none",
    "ssl.context": "use ssl.ca.location and the other ssl.* options",
    "sasl.plain.username": "use sasl.username",
    "sasl.plain.password": "use sasl.password",
    "sasl.oauth.token.provider": "use sasl.oauthbearer.token.provider",
    "sasl.kerberos.name": "use sasl.kerberos.service.name",
    "sasl.kerberos.domain.name": "leave it out: librdkafka uses the broker's host name",
    "max.batch.size": "use batch.size",
    "buffer.timeout": "use linger.ms",
    "bootstrap.timeout.ms": "use max.block.ms, or give wait_ready() a timeout",
    "socket.options": "use socket.nagle.disable, socket.keepalive.enable, send.buffer.bytes and receive.buffer.bytes",
    "api.version": "leave it out: librdkafka asks each broker what it speaks",
    "api.version.auto.timeout.ms": "use api.version.request.timeout.ms",
    "on.delivery": "give on_delivery to send()",
    "logger": "configure the logger 'fastprod'",
    "default.topic.config": "give what is in it as options of their own",
    "schema.registry.url": "give a value.serializer that asks the registry",
    "metric.group.prefix": "leave it out: metrics() has plain names",
    "metrics.enabled": "leave it out: metrics() is always there",
    "loop": "leave it out: what send() returns can be awaited in any event loop",
    "executor": "leave it out: send() needs none",
    "max.workers": "leave it out: send() needs none",
    "kafka.client": _NETWORK,
    "selector": _NETWORK,
    "sock.chunk.bytes": _NETWORK,
    "sock.chunk.buffer.count": _NETWORK,
    "proxy.url": _NO_PROXY,
    "socks5.proxy": _NO_PROXY,
}

_PARTITIONS = "fastprod chooses the partition: see partitioner and partitioner.sticky.interval.ms"
_LOADS_CODE = "a config must not load code into the process"
_POINTER = "its value is a pointer inside librdkafka"
_EVENTS = "fastprod reads librdkafka's events itself"
# Properties of librdkafka that a configuration must not set, by dotted name: fastprod's guarantees depend on them, or
# they are unsafe.
DENIED = {
    "delivery.report.only.error": "fastprod needs every delivery report to settle futures and free memory",
    "queue.buffering.max.messages": "memory is bounded by buffer.memory, in bytes",
    "queue.buffering.max.kbytes": "memory is bounded by buffer.memory, in bytes",
    "queuing.strategy": "records of a partition go out in the order of send()",
    "msg.order.cmp": "records of a partition go out in the order of send()",
    "sticky.partitioning.linger.ms": _PARTITIONS,
    "partitioner": _PARTITIONS,
    "statistics.interval.ms": "nothing reads librdkafka's statistics: use metrics()",
    "log.queue": _EVENTS,
    "enabled.events": _EVENTS,
    "plugin.library.paths": _LOADS_CODE,
    "ssl.engine.location": _LOADS_CODE,
    "ssl.engine.id": _LOADS_CODE,
    "ssl.providers": _LOADS_CODE,  # OpenSSL also takes a path for a provider's name
    **dict.fromkeys(("interceptors", "opaque", "default.topic.conf", "ssl.key", "ssl.certificate", "ssl.ca"), _POINTER),
    "ssl.engine.callback.data": _POINTER,
}
_DENIED_BEGINNINGS = {
    "test.mock.": "records would go to a mock cluster; use fastprod.testing.MockCluster",
    "ut.": _POINTER,
}

_SECRET_PARTS = (
    "passw", "passphrase", "secret", "jaas", "sasl.username", "oauthbearer.config", "oauthbearer.extensions",
    "token.provider", ".pem", "keystore.key", "certificates", "certificate.chain",
)  # fmt: skip


def dotted(key: str) -> str:
    """A name as the table has it: ``linger.ms`` for ``linger_ms``."""
    return key.replace("_", ".")


def denied(name: str) -> str:
    """The reason why a property of librdkafka cannot be set, with or without a prefix; "" if it can be set."""
    if name.endswith(".cb"):
        if name.startswith("oauth"):
            return "give sasl.oauthbearer.token.provider instead"
        return "callbacks are fastprod's own: use on_delivery, interceptors, metrics() or logging"
    beginnings = (reason for start, reason in _DENIED_BEGINNINGS.items() if name.startswith(start))
    return DENIED.get(name) or next(beginnings, "")


def is_sensitive(key: str) -> bool:
    """Whether ``key`` names a secret, which no text may show. Upper case, dots and underscores do not matter."""
    name = dotted(key.lower())
    return any(part in name for part in _SECRET_PARTS)


def redact(key: str, text: str) -> str:
    """``text`` if ``key`` is harmless, otherwise a placeholder. For values, and for messages that may quote them."""
    return "[hidden]" if is_sensitive(key) else text
