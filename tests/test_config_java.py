"""The table of options against Kafka's own, read from its jar."""

import warnings

import pytest
import trustme

from fastprod.config import jaas, pem
from fastprod.config import producer_config as config
from fastprod.config.options import ALIASES, OPTIONS, is_sensitive
from fastprod.errors import ConfigError
from tests.kafka.oracle import java_options, java_reads, java_takes

pytestmark = pytest.mark.kafka

# Where fastprod's default is not Java's, on purpose: Java's default -> why.
OTHER_DEFAULTS = {
    "linger.ms": ("5", "Java's default before 4.0"),
    "send.buffer.bytes": ("131072", "the operating system's size adapts"),
    "receive.buffer.bytes": ("32768", "the operating system's size adapts"),
    "ssl.keystore.type": ("JKS", "OpenSSL reads no JKS; PKCS12 stands for itself"),
    "ssl.truststore.type": ("JKS", "OpenSSL reads no JKS; PEM stands for itself"),
}
# What Java demands and fastprod does not: it sends bytes and text as they are.
NOT_REQUIRED = {"key.serializer", "value.serializer"}

# Java's type -> units of the table that read the same values. CLASS and LIST of classes are objects here, or refused.
UNITS = {
    "BOOLEAN": {"bool"},
    "SHORT": {"ms", "seconds"},
    "INT": {"ms", "bytes", "count", "level", "seconds"},
    "LONG": {"ms", "bytes", "ms, fractions allowed"},
    "DOUBLE": {"ratio"},
    "STRING": {"text", "name", "acks", "file", "PEM file"},
    "PASSWORD": {"text", "jaas"},
    "LIST": {"text", "list", "hosts"},
    "CLASS": {"text", "serializer"},
}


@pytest.fixture(scope="module")
def java(kafka_libs):
    options = java_options()
    assert len(options) > 100
    return options


def javas_words(value):
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_option_of_javas_producer_has_its_row(java):
    assert java.keys() - OPTIONS.keys() == set()


def test_none_of_them_is_an_alias(java):
    assert java.keys() & ALIASES.keys() == set()


def test_defaults_are_javas_but_for_those_that_differ_on_purpose(java):
    different = {}
    for name, (kind, default) in java.items():
        option = OPTIONS[name]
        nothing = option.default is None and default in (("",) if kind == "LIST" else ())
        if javas_words(option.default) != default and not nothing and default != "required":
            different[name] = default
    assert different == {name: default for name, (default, _) in OTHER_DEFAULTS.items()}


def test_what_java_requires_is_required_but_for_the_serializers(java):
    required = {name for name, (_, default) in java.items() if default == "required"}
    assert required == {"bootstrap.servers"} | NOT_REQUIRED


def test_values_are_read_as_javas_types(java):
    wrong = {
        name: (kind, OPTIONS[name].unit) for name, (kind, _) in java.items() if OPTIONS[name].unit not in UNITS[kind]
    }
    refused = {name for name in wrong if OPTIONS[name].owner == "refused"}
    assert {name: seen for name, seen in wrong.items() if name not in refused} == {}


def test_what_java_calls_a_password_is_never_shown(java):
    passwords = {name for name, (kind, _) in java.items() if kind == "PASSWORD"}
    assert passwords and all(is_sensitive(name) for name in passwords)


# Values alone and together, on either side of each of Java's rules.
TOGETHER = [
    {"acks": "0"},
    {"acks": "1"},
    {"acks": "-1"},
    {"acks": "2"},
    {"acks": "1", "enable.idempotence": "true"},
    {"acks": "0", "enable.idempotence": "true"},
    {"acks": "1", "enable.idempotence": "false"},
    {"acks": "all", "enable.idempotence": "true"},
    {"retries": "0"},
    {"retries": "0", "enable.idempotence": "true"},
    {"retries": "-1"},
    {"max.in.flight.requests.per.connection": "5"},
    {"max.in.flight.requests.per.connection": "6"},
    {"max.in.flight.requests.per.connection": "6", "enable.idempotence": "true"},
    {"max.in.flight.requests.per.connection": "6", "enable.idempotence": "false"},
    {"max.in.flight.requests.per.connection": "6", "acks": "1"},
    {"max.in.flight.requests.per.connection": "0", "enable.idempotence": "false"},
    {"transactional.id": "t", "enable.idempotence": "false"},
    {"transactional.id": "t", "acks": "1"},
    {"transactional.id": "t", "retries": "0"},
    {"transactional.id": ""},
    {"delivery.timeout.ms": "30000", "linger.ms": "0"},
    {"delivery.timeout.ms": "29999", "linger.ms": "0"},
    {"delivery.timeout.ms": "30009", "linger.ms": "10"},
    {"delivery.timeout.ms": "30010", "linger.ms": "10"},
    {"delivery.timeout.ms": "5000", "request.timeout.ms": "5000", "linger.ms": "0"},
    {"linger.ms": "100000"},
    {"linger.ms": "-1"},
    {"batch.size": "0"},
    {"batch.size": "-1"},
    {"buffer.memory": "-1"},
    {"max.block.ms": "-1"},
    {"max.block.ms": "0"},
    {"request.timeout.ms": "-1"},
    {"retry.backoff.ms": "2000", "retry.backoff.max.ms": "1000"},
    {"reconnect.backoff.ms": "-1"},
    {"compression.type": "brotli"},
    {"compression.type": "zstd", "compression.zstd.level": "12"},
    {"compression.gzip.level": "10"},
    {"compression.lz4.level": "0"},
    {"security.protocol": "TLS"},
    {"security.protocol": "plaintext"},
    {"client.dns.lookup": "default"},
    {"metadata.recovery.strategy": "other"},
    {"enable.idempotence": "yes"},
    {"send.buffer.bytes": "-1"},
    {"send.buffer.bytes": "-2"},
]


def taken(mapping):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config.resolve({"bootstrap.servers": "127.0.0.1:1", **mapping}, {})
        except ConfigError:
            return False
    return True


def test_what_java_takes_and_refuses_is_taken_and_refused(kafka_libs):
    by_java = java_takes(TOGETHER)
    assert any(by_java) and not all(by_java)
    assert [mapping for mapping, java in zip(TOGETHER, by_java, strict=True) if taken(mapping) != java] == []


PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
TEXTS = ["a", " a\n", "\t a b \r\n", "\u00a0a", "\x1fa\x01"]
HOSTS = [
    "h:1",
    "h:1\n",
    "PLAINTEXT://h:1",
    "ssl://h:1",
    "my_own://h:1",
    "x-1.y%://h:1",
    "://h:1",
    " SASL_SSL://[::1]:1 ",
]
HOSTS += ["h", "h:", "a b://h:1", "x://SSL://h:1", "SSL://h:1/x", "h:1/", "h h:1", "u@h:1", "hö:1", "ü://h:1", "h:+1"]
LOGINS = [
    f"{PLAIN} {rest}"
    for rest in (
        'required username="a" password=" b c ";',
        "required username='a' password='b\"c';",
        r"""required username="\\141" password="\\n\\t\\r\\f\\b\\v\\a\\x\\400\\'\\"";""".replace("\\\\", "\\"),
        "/* x */ required // y\n username=a password=b;",
        "REQUIRED password=b username='a' ;\n",
        "required username=a password=b; x",
        "required username=a password=b",
        "required username=a password=b/c;",
        "required username=a password=;",
        "required username=ü€ password='\\\n';",
    )
]
BREAKS = ["\n", " ", "\r\n", "\t", "\n\n", "\n   "]


def test_values_are_read_as_java_reads_them(kafka_libs):
    certificate = trustme.CA().cert_pem.bytes().decode().splitlines()
    pems = [line_end.join(certificate) for line_end in BREAKS]
    pems += [
        "\n".join(certificate * 2),
        "a b\n" + "\n".join(certificate) + "\nc d\n",
        " ".join(certificate[:-1]),
        "canary",
        "",
    ]

    def here(kind, value):
        try:
            if kind == "text":
                return config.resolve({"bootstrap.servers": "h:1", "client.id": value}, {}).client_id
            if kind == "host":
                return (
                    config.resolve({"bootstrap.servers": value}, {}).bootstrap_servers.replace("[", "").replace("]", "")
                )
            if kind == "jaas":
                read = jaas.parse(value).options
                return f"[{read['sasl.password']}, {read['sasl.username']}]"
            return str(pem.normalize(value, pem.CERTIFICATE).count("BEGIN"))
        except ValueError:
            return None

    kinds = {"text": TEXTS, "host": HOSTS, "jaas": LOGINS, "certificates": pems}
    values = [(kind, value) for kind, some in kinds.items() for value in some]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = [here(kind, value) for kind, value in values]
    java = java_reads(values)
    assert java.count(None) > 10
    assert [row for row in zip(values, ours, java, strict=True) if row[1] != row[2]] == []
