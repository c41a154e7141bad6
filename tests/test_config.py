"""config.py: the table, bad input, Java's rules, secrets, and every property against the real librdkafka."""

import base64
import ctypes
import glob
import importlib.util
import os
import pathlib
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastprod.config import parse
from fastprod.config import producer_config as config
from fastprod.config.options import ALIASES, DENIED, FOREIGN, OPTIONS, PARTITIONERS, is_sensitive, redact
from fastprod.config.producer_config import ProducerConfig
from fastprod.errors import ConfigError

# Kafka 4.4 adds these to the keys of 4.3, whose jar tests/test_config_java.py reads.
KEYS_OF_4_4 = [
    "bootstrap.resolve.timeout.ms",
    "buffer.memory.allocation.strategy",
    "client.rack",
    "metadata.cluster.check.enable",
    "partitioner.rack.aware",
]
OWN_KEYS = [
    "partitioner",
    "partitioner.sticky.interval.ms",
    "interceptors",
    "allow.plaintext.credentials",
    "sasl.oauthbearer.token.provider",
]

# Where librdkafka's default is another, or Java's is what users count on.
DEFAULT_PROPERTIES = {
    "acks": "all",
    "allow.auto.create.topics": "false",
    "batch.num.messages": "1000000",
    "batch.size": "1000000",
    "bootstrap.servers": "h:9092",
    "client.dns.lookup": "use_all_dns_ips",
    "client.id": "me",
    "compression.type": "none",
    "connections.max.idle.ms": "540000",
    "enable.idempotence": "true",
    "enable.metrics.push": "true",
    "linger.ms": "0",
    "max.in.flight.requests.per.connection": "5",
    "message.max.bytes": "1048576",
    "message.timeout.ms": "120000",
    "metadata.recovery.strategy": "none",
    "queue.buffering.max.kbytes": "2147483647",
    "queue.buffering.max.messages": "0",
    "reconnect.backoff.max.ms": "1000",
    "reconnect.backoff.ms": "50",
    "request.timeout.ms": "30000",
    "retries": "2147483647",
    "retry.backoff.max.ms": "1000",
    "retry.backoff.ms": "100",
    "security.protocol": "PLAINTEXT",
    "socket.connection.setup.timeout.ms": "10000",
    "socket.keepalive.enable": "true",
    "socket.receive.buffer.bytes": "0",
    "socket.send.buffer.bytes": "0",
    "socket.timeout.ms": "29750",
    "sticky.partitioning.linger.ms": "0",
    "topic.metadata.refresh.interval.ms": "300000",
    "transaction.timeout.ms": "60000",
}

DEFAULT_ATTRIBUTES = {
    "acks": -1,
    "allow_plaintext_credentials": False,
    "batch_size": 16384,
    "bootstrap_servers": "h:9092",
    "buffer_memory": 33554432,
    "client_id": "me",
    "delivery_timeout_ms": 120000,
    "enable_idempotence": True,
    "given": {"bootstrap.servers", "client.id"},
    "interceptors": (),
    "key_serializer": None,
    "librdkafka": DEFAULT_PROPERTIES,
    "linger_ms": 0,
    "max_block_ms": 60000,
    "max_request_size": 1048576,
    "metadata_max_age_ms": 300000,
    "metadata_max_idle_ms": 300_000,
    "metadata_recovery_strategy": "rebootstrap",
    "partitioner": "uniform_sticky",
    "partitioner_adaptive_partitioning_enable": True,
    "partitioner_availability_timeout_ms": 0,
    "partitioner_ignore_keys": False,
    "partitioner_sticky_interval_ms": 100,
    "request_timeout_ms": 30000,
    "retries": 2147483647,
    "retry_backoff_ms": 100,
    "sasl_oauthbearer_token_provider": None,
    "transactional_id": None,
    "value_serializer": None,
}

NOT_WHOLE = [
    "16k",
    "",
    " ",
    "1.5",
    "1_000",
    "0x10",
    "--1",
    float("nan"),
    float("inf"),
    1.5,
    True,
    [],
    b"1",
    2**63,
]
NOT_WHOLE += [-(2**63), "9" * 5000]


class Librdkafka:
    """Just enough of the real library to ask what it accepts."""

    def __init__(self):
        folder = importlib.util.find_spec("confluent_kafka").submodule_search_locations[0]
        self.library = ctypes.CDLL(glob.glob(os.path.join(folder, "cimpl*.so"))[0])
        self.library.rd_kafka_conf_new.restype = ctypes.c_void_p

    def refuses(self, name, value):
        """Its complaint, or None."""
        conf = ctypes.c_void_p(self.library.rd_kafka_conf_new())
        text = ctypes.create_string_buffer(512)
        result = self.library.rd_kafka_conf_set(conf, name.encode(), value.encode(), text, len(text))
        self.library.rd_kafka_conf_destroy(conf)
        return None if result == 0 else text.value.decode() or str(result)

    def default(self, name):
        conf = ctypes.c_void_p(self.library.rd_kafka_conf_new())
        text, size = ctypes.create_string_buffer(512), ctypes.c_size_t(512)
        result = self.library.rd_kafka_conf_get(conf, name.encode(), text, ctypes.byref(size))
        self.library.rd_kafka_conf_destroy(conf)
        return text.value.decode() if result == 0 else None

    def knows(self, name):
        return "No such configuration property" not in (self.refuses(name, "") or "")


@pytest.fixture(scope="module")
def librdkafka():
    return Librdkafka()


def resolve(mapping=None, **options):
    """A configuration with a broker to start from, and no warning unless ``notes`` is asked for."""
    notes = []
    result = config.resolve(
        {"bootstrap.servers": "h:9092", **(mapping or {})},
        options,
        librdkafka_knows=Librdkafka().knows,
        warn=lambda note, **_: notes.append(note),
    )
    assert not notes
    return result


def noted(mapping):
    notes = []
    result = config.resolve({"bootstrap.servers": "h:9092", **mapping}, {}, warn=lambda note, **_: notes.append(note))
    return result, notes


# The table


def test_every_key_of_kafka_4_4_and_of_our_own_has_its_row():
    assert {*KEYS_OF_4_4, *OWN_KEYS} <= OPTIONS.keys()


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_row(option, librdkafka):
    assert option.owner in ("fastprod", "librdkafka", "refused", "no effect")
    assert option.doc and "\n" not in option.doc
    assert not option.maps_to or librdkafka.knows(option.maps_to)
    if option.owner != "refused" and option.default is not None and option.unit not in ("hosts", "interceptors"):
        assert parse.parse(option, option.name, option.default) == option.default


def test_aliases_are_librdkafkas_names_for_rows(librdkafka):
    assert all(librdkafka.knows(alias) and name in OPTIONS for alias, name in ALIASES.items())
    assert not ALIASES.keys() & OPTIONS.keys()


def test_defaults():
    assert vars(resolve(client_id="me")) == DEFAULT_ATTRIBUTES


def test_what_is_not_set_has_librdkafkas_default_for_its_own(librdkafka):
    """A default that differs and is not set would be librdkafka's, whatever the table says."""
    different, compared = {}, 0
    for option in OPTIONS.values():
        if option.maps_to and option.maps_to not in DEFAULT_PROPERTIES and option.default is not None:
            compared += 1
            of_librdkafka = librdkafka.default(option.maps_to)
            if of_librdkafka != parse.text_of(option.default):
                different[option.name] = of_librdkafka
    assert different == {} and compared > 5


def test_attributes_are_declared():
    assert ProducerConfig.__annotations__.keys() == DEFAULT_ATTRIBUTES.keys()


def test_client_id_is_like_javas():
    first, second = resolve().client_id, resolve().client_id
    assert first.startswith("producer-") and second.startswith("producer-") and first != second
    assert resolve(transactional_id="orders").client_id == "producer-orders"


# Names


def test_dotted_and_underscored_names_are_merged():
    result = resolve({"linger.ms": 5, "batch_size": 1000}, buffer_memory=5000, **{"max.block.ms": 7})
    assert (result.linger_ms, result.batch_size, result.buffer_memory, result.max_block_ms) == (5, 1000, 5000, 7)


def test_no_config_but_keywords():
    assert config.resolve(None, {"bootstrap_servers": "h:1"}).bootstrap_servers == "h:1"


@pytest.mark.parametrize("bad", [5, "bootstrap.servers=h:1", ["bootstrap.servers"], [("acks", 1)]])
def test_config_must_be_a_mapping(bad):
    with pytest.raises(TypeError, match="mapping"):
        config.resolve(bad, {})


@pytest.mark.parametrize("key", [5, None, b"acks", ("acks",)])
def test_names_must_be_str(key):
    with pytest.raises(TypeError, match="str"):
        resolve({key: 1})


@pytest.mark.parametrize("key", FOREIGN)
def test_a_name_of_another_client_says_what_to_do(key, librdkafka):
    for spelt in (key, key.replace(".", "_"), key.upper()):
        with pytest.raises(ConfigError) as caught:
            resolve({spelt: "x"})
        assert str(caught.value) == f"unknown option {spelt!r}: {FOREIGN[key]}"
    for wanted in re.findall(r"[a-z0-9]+(?:\.[a-z0-9]+)+", FOREIGN[key]):
        assert wanted in OPTIONS or librdkafka.knows(wanted)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("batchsize", "batch.size"),
        ("lingerms", "linger.ms"),
        ("bootstrap.server", "bootstrap.servers"),
        ("enable.idempotance", "enable.idempotence"),
        ("compression", "compression.type"),
        ("delivery_timeout", "delivery.timeout.ms"),
        ("LINGER_MS", "linger.ms"),
        ("Bootstrap.Server", "bootstrap.servers"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(key, nearest):
    with pytest.raises(ConfigError, match=rf"did you mean {nearest}\?"):
        resolve({key: 1})


@pytest.mark.parametrize("key", ["configs", "socket_option", "api_versions", "topic", "timeout_ms"])
def test_an_unknown_name_like_no_other_suggests_none(key):
    with pytest.raises(ConfigError, match="neither fastprod nor this librdkafka knows it"):
        resolve({key: 1})


@pytest.mark.parametrize("option", [o for o in OPTIONS.values() if o.owner == "refused"], ids=lambda o: o.name)
def test_what_is_refused_is_not_suggested(option):
    with pytest.raises(ConfigError, match="unknown option") as caught:
        resolve({option.name + "x": 1})
    assert f"did you mean {option.name}?" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        "ünknown",
        "no.such.thing.at.all",
        "acks\n",
        "librdkafka.",
        "librdkafka.nope",
        "acks\0x",
        "dr_cb\0",
        "\ud800",
        "Linger.MS",
    ],
)
def test_an_unknown_name_is_refused(key):
    with pytest.raises(ConfigError, match="unknown option"):
        resolve({key: 1})


@pytest.mark.parametrize(
    ("mapping", "options"),
    [
        ({"linger.ms": 5}, {"linger_ms": 6}),
        ({"linger.ms": 5, "linger_ms": 6}, {}),
        ({"linger.ms": 5, "queue.buffering.max.ms": 6}, {}),
        ({"acks": "all", "request.required.acks": 1}, {}),
        ({"compression.type": "lz4"}, {"compression_codec": "zstd"}),
        ({"metadata.broker.list": "other:9092"}, {}),
        ({"message.timeout.ms": 60_000}, {"delivery_timeout_ms": 70_000}),
        ({"compression.type": "zstd", "compression.zstd.level": 3, "compression.level": 4}, {}),
        ({"socket.timeout.ms": 3000}, {"socket_timeout_ms": 4000}),
        ({"librdkafka.linger.ms": 1, "librdkafka.queue.buffering.max.ms": 2}, {}),
    ],
)
def test_one_setting_given_twice_must_agree(mapping, options):
    with pytest.raises(ConfigError, match="given (twice|with different values)"):
        resolve(mapping, **options)


@pytest.mark.parametrize(
    ("mapping", "options"),
    [
        ({"linger.ms": 5}, {"linger_ms": 5.0}),
        ({"linger.ms": "5"}, {"queue_buffering_max_ms": 5}),
        ({"acks": "all"}, {"request_required_acks": -1}),
        ({"enable.idempotence": True}, {"enable_idempotence": "TRUE"}),
    ],
)
def test_one_setting_given_twice_may_agree(mapping, options):
    resolve(mapping, **options)


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_its_java_name(alias):
    option = OPTIONS[ALIASES[alias]]
    value = {"bootstrap.servers": "h:9092", "acks": "all", "compression.type": "lz4", "sasl.mechanism": "PLAIN"}.get(
        option.name, option.default
    )
    if value is not None:
        assert option.name in resolve({alias: value}).given


# Pass-through, raw names, and what is out of reach


def test_a_name_only_librdkafka_knows_passes_through():
    result = resolve({"socket.max.fails": 5, "socket.nagle.disable": False}, log_level=3)
    assert result.librdkafka["socket.max.fails"] == "5"
    assert result.librdkafka["socket.nagle.disable"] == "false"
    assert result.librdkafka["log_level"] == "3"


def test_a_passed_property_replaces_the_derived_one():
    assert resolve({"socket.timeout.ms": 5000}).librdkafka["socket.timeout.ms"] == "5000"


def test_where_both_know_a_name_javas_meaning_holds():
    properties = resolve({"metadata.max.age.ms": 60_000, "batch.size": 5000, "linger.ms": 50}).librdkafka
    assert properties["topic.metadata.refresh.interval.ms"] == "60000"
    assert "metadata.max.age.ms" not in properties
    assert (properties["batch.size"], properties["linger.ms"]) == ("1000000", "1")


def test_the_prefix_forces_the_raw_property():
    result = resolve({"batch.size": 5000, "librdkafka.batch.size": 70_000, "librdkafka.metadata.max.age.ms": 9000})
    assert resolve({"librdkafka.log_level": 3, "log_level": 4}).librdkafka["log_level"] == "3"
    assert result.batch_size == 5000
    assert result.librdkafka["batch.size"] == "70000"
    assert result.librdkafka["metadata.max.age.ms"] == "9000"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("queue.buffering.max.ms", "linger.ms"),
        ("delivery.timeout.ms", "message.timeout.ms"),
        ("request.required.acks", "acks"),
        ("max.in.flight", "max.in.flight.requests.per.connection"),
    ],
)
def test_a_forced_alias_is_not_set_beside_the_property_itself(alias, name):
    properties = resolve({f"librdkafka.{alias}": 1}).librdkafka
    assert properties[name] == "1"
    assert alias not in properties


@pytest.mark.parametrize("prefix", ["", "librdkafka."])
@pytest.mark.parametrize(
    "name",
    [
        "delivery.report.only.error",
        "queue.buffering.max.messages",
        "queue.buffering.max.kbytes",
        "queuing.strategy",
        "msg_order_cmp",
        "sticky.partitioning.linger.ms",
        "statistics.interval.ms",
        "log.queue",
        "enabled_events",
        "opaque",
        "default_topic_conf",
        "plugin.library.paths",
        "ssl.engine.location",
        "ssl.providers",
        "ssl_key",
        "ssl_engine_callback_data",
        "test.mock.num.brokers",
        "test.mock.broker.rtt",
        "ut_handle_ProduceResponse",
        "dr_cb",
        "oauth_cb",
        "dr_msg_cb",
        "error_cb",
        "stats_cb",
        "partitioner_cb",
        "oauthbearer_token_refresh_cb",
        "ssl.certificate.verify_cb",
    ],
)
def test_what_fastprod_owns_is_out_of_reach(prefix, name):
    with pytest.raises(ConfigError, match="cannot be set: "):
        resolve({prefix + name: "1"})


@pytest.mark.parametrize("name", ["librdkafka.partitioner", "librdkafka_interceptors"])
def test_librdkafkas_partitioner_and_interceptors_are_out_of_reach(name):
    with pytest.raises(ConfigError, match="cannot be set: "):
        resolve({name: "random"})


def test_no_callback_or_pointer_of_librdkafka_is_reachable(librdkafka):
    """Whatever librdkafka says must be set by a function of its own is refused by name."""
    names = [*DENIED, *OPTIONS, "background_event_cb", "socket_cb", "open_cb", "resolve_cb", "rebalance_cb"]
    special = [n for n in names if "dedicated" in (librdkafka.refuses(n, "x") or "")]
    assert len(special) >= 5
    for name in special:
        with pytest.raises(ConfigError):
            resolve({f"librdkafka.{name}": "x"})


@pytest.mark.parametrize("value", [[], {}, b"1", object(), float("nan"), float("inf"), "a\0b", "\ud800"])
def test_a_passed_value_must_be_plain(value):
    with pytest.raises(ConfigError, match=r"socket\.max\.fails="):
        resolve({"socket.max.fails": value})


# Bad values, by the catalogue


@pytest.mark.parametrize(
    "value",
    ["", ",", " ", "host", "host:0", "host:65536", "host:-1", "host:x", "host:", ":9092", "[::1", "[::1]", "::1:9092"]
    + ["h:9092,", ",h:9092", "h:9092,,i:9092", "h:9092\0", "h\0:9092", "h:9092\ni:9092", "a b:9092", "hö:9092", "h:٣"]
    + [
        "h:" + "9" * 5000,
        "PLAINTEXT//h:9092",
        "SSL://",
        "a b://h:1",
        "SSL://h:1/x",
        "x://SSL://h:1",
        "h:9092:9092",
        "[]:9092",
        "[1.2]:9092",
        ["h:9092", ""],
        ["h"],
        [],
    ]
    + [5, None, True, b"h:9092", {"h": 9092}, ["h:9092", 5], ",".join(f"h{i}:9092" for i in range(10_000))],
)
def test_bad_bootstrap_servers(value):
    with pytest.raises(ConfigError, match=r"bootstrap\.servers"):
        resolve({"bootstrap.servers": value})


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("h:9092", "h:9092"),
        (" h1:9092 , h2:9093 ", "h1:9092,h2:9093"),
        (["h1:9092", "h2:9093"], "h1:9092,h2:9093"),
        ("h:9092,h:9092", "h:9092"),
        ("[::1]:9092,[fe80::1%eth0]:1", "[::1]:9092,[fe80::1%eth0]:1"),
        ("kafka_1.my-domain.example:65535", "kafka_1.my-domain.example:65535"),
        ("h:09092", "h:09092"),
    ],
)
def test_good_bootstrap_servers(value, stored):
    result = resolve({"bootstrap.servers": value})
    assert result.bootstrap_servers == result.librdkafka["bootstrap.servers"] == stored


@pytest.mark.parametrize("value", ["h:1\n", "\r\n h:1", "h:1\x1f", ["h:1\n"], "h:1 \n,\th:1"])
def test_white_space_around_bootstrap_servers_is_dropped_as_in_java(value):
    assert resolve({"bootstrap.servers": value}).librdkafka["bootstrap.servers"] == "h:1"


@pytest.mark.parametrize("scheme", ["PLAINTEXT", "plaintext", "INTERNAL", "my_own", "x-1.y%", ""])
def test_schemes_of_bootstrap_servers_are_dropped_as_in_java(scheme):
    result = resolve({"bootstrap.servers": f"{scheme}://h1:9092, {scheme}://[::1]:9093\n"})
    assert result.bootstrap_servers == result.librdkafka["bootstrap.servers"] == "h1:9092,[::1]:9093"


@pytest.mark.parametrize(
    ("servers", "protocol", "said"),
    [
        ("SSL://h:9093", "PLAINTEXT", "names SSL, .* security.protocol=PLAINTEXT holds"),
        ("sasl_ssl://h:9093,PLAINTEXT://h:9092", "ssl", "names PLAINTEXT, SASL_SSL, .* security.protocol=SSL holds"),
        ("SASL_SSL://h:9093", "sasl_ssl", None),
        ("EXTERNAL://h:9093", "SSL", None),
    ],
)
def test_a_scheme_that_contradicts_security_protocol_is_refused(servers, protocol, said):
    result, notes = noted({"bootstrap.servers": servers, "security.protocol": protocol})
    assert "://" not in result.bootstrap_servers
    assert len(notes) == (said is not None) and all(re.search(said, note) for note in notes)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("bootstrap.servers", "h:1,", "an entry is empty"),
        ("bootstrap.servers", "h:1\ni:2", "'h:1.ni:2' must be host:port .* comma"),
        ("bootstrap.servers", "h:70000", "'h:70000' must have a port from 1 to 65535"),
        ("bootstrap.servers", b"h:1", "must be a str or a list of str, not bytes"),
        ("bootstrap.servers", ["h:1", 5], "must be a str or a list of str, not of int"),
        ("bootstrap.servers", "h\0:1", "must not hold NUL"),
        ("client.id", 5, "must be a str, not int"),
        ("client.id", "a\0", "must not hold NUL"),
        ("client.rack", "\ud800", "must not hold NUL or lone surrogates"),
        ("sasl.password", b"x", "must be a str, not bytes"),
        ("ssl.cipher.suites", "a\0", "must not hold NUL"),
        ("linger.ms", b"5", "must be a number"),
        ("linger.ms", "1_0", "must be a number"),
        ("transactional.id", " ", "a str that is not empty"),
    ],
)
def test_an_error_gives_the_true_reason(name, value, said):
    with pytest.raises(ConfigError, match=said):
        resolve({name: value})


@pytest.mark.parametrize("name", ["client.id", "client.rack", "transactional.id"])
def test_texts_are_trimmed_as_in_java(name):
    assert resolve({name: " \t a b\r\n"}).librdkafka[name] == "a b"
    assert resolve({name: "\u00a0a"}).librdkafka[name] == "\u00a0a"


@pytest.mark.parametrize("name", ["sasl.username", "sasl.password", "ssl.key.password", "ssl.keystore.password"])
def test_secrets_are_not_trimmed(name):
    assert resolve({"security.protocol": "SASL_SSL", name: " a \n"}).librdkafka[name] == " a \n"


def test_paths_in_str_are_trimmed_and_others_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (" ca.pem", "ca.pem"):
        (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----\n")
    assert resolve({"ssl.ca.location": " ca.pem\n"}).librdkafka["ssl.ca.location"] == "ca.pem"
    kept = resolve({"ssl.ca.location": pathlib.Path(" ca.pem")}).librdkafka["ssl.ca.location"]
    assert os.path.samefile(kept, tmp_path / " ca.pem") and not kept[0].isspace()


def test_what_java_writes_in_another_way_is_taken():
    resolve({"transaction.two.phase.commit.enable": " False", "ssl.enabled.protocols": "TLSv1.2, TLSv1.3 "})
    properties = resolve({"ssl.endpoint.identification.algorithm": "HTTPS"}).librdkafka
    assert properties["ssl.endpoint.identification.algorithm"] == "https"


def test_10_000_hosts_are_refused():
    with pytest.raises(ConfigError, match="names 10000 hosts"):
        resolve({"bootstrap.servers": [f"h{i}:9092" for i in range(10_000)]})


def test_bootstrap_servers_are_required():
    with pytest.raises(ConfigError, match=r"bootstrap\.servers is required"):
        config.resolve({}, {})


@pytest.mark.parametrize("name", [o.name for o in OPTIONS.values() if isinstance(o.valid, range)])
def test_numbers_keep_to_their_range(name):
    option = OPTIONS[name]
    for value in (option.valid.start - 1, option.valid.stop, str(option.valid.stop)):
        with pytest.raises(ConfigError) as caught:
            resolve({name: value})
        for part in (name, str(value), f"from {option.valid.start} to {option.valid.stop - 1}"):
            assert part in str(caught.value)


@pytest.mark.parametrize("value", NOT_WHOLE, ids=lambda v: repr(v)[:12])
@pytest.mark.parametrize(
    "name", [o.name for o in OPTIONS.values() if parse._PARSERS[o.unit] is parse._whole and o.valid]
)
def test_not_a_whole_number(name, value):
    with pytest.raises(ConfigError, match=name):
        resolve({name: value})


@pytest.mark.parametrize("value", [-1, float("nan"), "nan", float("inf"), 900_001, "x", "", True, [], 10**400])
def test_bad_linger(value):
    with pytest.raises(ConfigError, match=r"linger\.ms=.*from 0 to 900000"):
        resolve({"linger.ms": value})


@pytest.mark.parametrize(("value", "read"), [(0, 0), (5, 5), ("5", 5), (0.5, 0.5), ("0.5", 0.5), (80_000, 80_000)])
def test_good_linger(value, read):
    assert resolve(linger_ms=value).linger_ms == read


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("acks", [2, -2, "2", "alll", "", True, False, 1.0, [], "ALL"]),
        ("compression.type", ["GZIP", "brotli", "", 1, True]),
        ("compression.gzip.level", [0, -2, 10]),
        ("compression.lz4.level", [0, 13, 17]),
        ("compression.zstd.level", [0, -1, 13, 22]),
        ("security.protocol", ["TLS", "", 1]),
        ("enable.idempotence", [1, 0, "yes", "", 1.0]),
        ("sasl.mechanism", ["plain", "DIGEST-MD5", ""]),
        ("transactional.id", ["", 5, True, "a\0b", "\udc80"]),
        ("client.id", [5, "a\0b"]),
        ("ssl.endpoint.identification.algorithm", ["HTTP", 1]),
        ("ssl.keystore.type", ["JKS", "pem"]),
        ("ssl.truststore.type", ["JKS"]),
        ("key.serializer", ["org.apache.kafka.common.serialization.StringSerializer", 5, object()]),
        ("interceptors", ["x", object(), [object()], [5]]),
        ("partitioner", ["murmur2_random", "", 5, b"sticky", object(), print]),
    ],
)
def test_bad_choice(name, values):
    for value in values:
        with pytest.raises(ConfigError, match=name):
            resolve({name: value})


@pytest.mark.parametrize(
    ("value", "acks"), [("all", -1), (-1, -1), ("-1", -1), (1, 1), ("1", 1), (0, 0), ("0", 0), (" all ", -1)]
)
def test_acks(value, acks):
    assert resolve({"acks": value}).acks == acks


@pytest.mark.parametrize("value", ["100", 100, " 100 ", "+100"])
def test_numeric_strings_are_read(value):
    assert resolve(max_block_ms=value).max_block_ms == 100


def test_batch_size_0_means_no_batching():
    assert resolve(batch_size=0).batch_size == 1


@pytest.mark.parametrize("value", ["true", "True", " TRUE ", True])
def test_booleans_are_read(value):
    assert resolve({"allow.auto.create.topics": value}).librdkafka["allow.auto.create.topics"] == "true"


@pytest.mark.parametrize("option", [o for o in OPTIONS.values() if o.owner == "refused"], ids=lambda o: o.name)
def test_refused_options_say_why_unless_they_ask_for_nothing(option):
    for value in (option.default, None, ""):
        assert option.name not in resolve({option.name: value}).given
    with pytest.raises(ConfigError) as caught:
        resolve({option.name: "something.Else"})
    assert str(caught.value) == f"{option.name} is not supported: {option.doc}"


@pytest.mark.parametrize("option", [o for o in OPTIONS.values() if o.owner == "no effect"], ids=lambda o: o.name)
def test_options_without_effect_change_nothing_and_say_so_unless_they_ask_for_nothing(option):
    assert resolve({option.name: option.default}, client_id="me").librdkafka == DEFAULT_PROPERTIES
    other = {"ms": 7, "count": 7, "seconds": 7, "ratio": 0.7, "bool": False}.get(option.unit, "other")
    result, notes = noted({option.name: other, "client.id": "me"})
    assert result.librdkafka == DEFAULT_PROPERTIES
    assert notes == [f"{option.name} has no effect: {option.doc}"]


# Objects


class Upper:
    def serialize(self, topic, value):
        return value.upper()


class First:
    def partition(self, topic, key, key_bytes, value, value_bytes, cluster):
        return 0


class Counter:
    def on_send(self, record):
        return record


def test_objects_are_kept_as_they_are():
    upper, first, counter = Upper(), First(), Counter()
    result = resolve(key_serializer=str.encode, value_serializer=upper, partitioner=first, interceptors=[counter])
    assert (result.key_serializer, result.value_serializer) == (str.encode, upper)
    assert (result.partitioner, result.interceptors) == (first, (counter,))


@pytest.mark.parametrize(
    ("name", "value"), [("value_serializer", Upper), ("partitioner", First), ("interceptors", [Counter])]
)
def test_a_class_instead_of_an_object_is_refused(name, value):
    with pytest.raises(ConfigError, match="not (a class|classes)"):
        resolve({name: value})


@pytest.mark.parametrize("key", [*OPTIONS, *ALIASES, "socket.timeout.ms", "librdkafka.linger.ms"])
def test_none_is_not_given(key):
    if OPTIONS.get(ALIASES.get(key, key)) is OPTIONS["bootstrap.servers"]:
        with pytest.raises(ConfigError, match="required"):
            config.resolve({key: None}, {key.replace(".", "_"): None})
    else:
        assert vars(resolve({key: None, "client_id": "me"})) == DEFAULT_ATTRIBUTES
        assert vars(resolve({"client.id": "me"}, **{key.replace(".", "_"): None})) == DEFAULT_ATTRIBUTES


def test_none_contradicts_no_other_spelling():
    for mapping, options in (({"linger.ms": None}, {"linger_ms": 5}), ({"linger.ms": 5}, {"linger_ms": None})):
        assert resolve(mapping, **options).linger_ms == 5
    with pytest.raises(ConfigError, match=r"given twice, by linger\.ms and by queue_buffering_max_ms"):
        resolve({"linger.ms": 5, "linger_ms": None}, queue_buffering_max_ms=6)


@pytest.mark.parametrize("key", ["lingerms", "librdkafka.nope", "ssl_cafile", "stats_cb"])
def test_a_name_that_cannot_be_set_is_refused_though_it_is_none(key):
    with pytest.raises(ConfigError, match="unknown option|cannot be set"):
        resolve({key: None})


@pytest.mark.parametrize("name", PARTITIONERS)
def test_partitioner_names(name):
    assert resolve(partitioner=name).partitioner == name


JAAS = "org.apache.kafka.common.security."
PLAIN_MODULE = JAAS + "plain.PlainLoginModule"
SCRAM_MODULE = JAAS + "scram.ScramLoginModule"
OAUTH_MODULE = JAAS + "oauthbearer.OAuthBearerLoginModule"


def of_jaas(text, mechanism):
    properties = resolve({"security.protocol": "SASL_SSL", "sasl.mechanism": mechanism, "sasl.jaas.config": text})
    return {name: value for name, value in properties.librdkafka.items() if is_sensitive(name) or "oauth" in name}


@pytest.mark.parametrize(
    ("text", "mechanism", "read"),
    [
        (f'{PLAIN_MODULE} required username="a" password="b c";', "PLAIN", ("a", "b c")),
        (f'  {PLAIN_MODULE}\n  required\n username = "a"\n password = "b" ;\n', "PLAIN", ("a", "b")),
        (f'{PLAIN_MODULE} Required password="b" username=a;', "PLAIN", ("a", "b")),
        (f'{SCRAM_MODULE} required username="a" password=";=\\"\\\\";', "SCRAM-SHA-512", ("a", ';="\\')),
        (f'{SCRAM_MODULE} required username="a" password="";', "SCRAM-SHA-256", ("a", "")),
        (f"{PLAIN_MODULE} required username='a' password='b\"c';", "PLAIN", ("a", 'b"c')),
        (
            rf'{PLAIN_MODULE} required username="\141" password="\n\t\r\f\b\v\a\x\400";',
            "PLAIN",
            ("a", "\n\t\r\f\b\v\ax 0"),
        ),
        (f'/* a */ {PLAIN_MODULE} required // b\n username="a" password=" b ";', "PLAIN", ("a", " b ")),
        (f"{PLAIN_MODULE} required username=ü€ password='/*b*/';", "PLAIN", ("ü€", "/*b*/")),
    ],
)
def test_jaas_user_and_password(text, mechanism, read):
    found = of_jaas(text, mechanism)
    assert (found["sasl.username"], found.get("sasl.password", "")) == read


def test_jaas_client_of_oauthbearer():
    text = f'{OAUTH_MODULE} required clientId="me" clientSecret="b" scope="kafka";'
    assert of_jaas(text, "OAUTHBEARER") == {
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.client.secret": "b",
        "sasl.oauthbearer.scope": "kafka",
    }
    assert of_jaas(f"{OAUTH_MODULE} required;", "OAUTHBEARER") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not empty"),
        (" ", "login module"),
        ("com.sun.security.auth.module.Krb5LoginModule required;", "sasl.kerberos"),
        (f'{JAAS}Other required username="canary";', "login module must be one of"),
        (f'{PLAIN_MODULE} username="canary" password="canary";', "flag"),
        (f'{PLAIN_MODULE} required username="canary" password="canary"', "semicolon"),
        (f'{PLAIN_MODULE} required username="canary" password="canary";;', "name="),
        (f'{PLAIN_MODULE} required username="canary" password="canary;', "double quotes"),
        (f'{PLAIN_MODULE} required username="canary" password="canary\n";', "double quotes"),
        (f'{PLAIN_MODULE} required username="canary" password="canary\\0";', "NUL"),
        (f'{PLAIN_MODULE} required username="canary" password=;;', "name="),
        (f'{PLAIN_MODULE} required username="canary" password= = ;', "name="),
        (f"{PLAIN_MODULE} required username=canary password=can/ary;", "semicolon"),
        (f'{PLAIN_MODULE} required username="canary";', "both username and password"),
        (f'{PLAIN_MODULE} required username "canary" password "canary";', "name="),
        (
            f'{SCRAM_MODULE} required username="canary" password="canary" tokenauth="true";',
            "supports only these options of the module",
        ),
        (
            f'{OAUTH_MODULE} required unsecuredLoginStringClaim_sub="canary";',
            "supports only these options of the module",
        ),
    ],
)
def test_bad_jaas(text, said):
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"):
        with pytest.raises(ConfigError, match=said) as caught:
            of_jaas(text, mechanism)
        assert "canary" not in str(caught.value) and "sasl.jaas.config" in str(caught.value)
        assert caught.value.__cause__ is None


def test_jaas_must_fit_the_mechanism_and_what_else_is_given():
    text = f'{PLAIN_MODULE} required username="a" password="canary";'
    with pytest.raises(ConfigError, match="is for sasl.mechanism=PLAIN, not GSSAPI"):
        resolve({"security.protocol": "SASL_SSL", "sasl.jaas.config": text})
    with pytest.raises(ConfigError, match="given twice, by sasl.password and by sasl.jaas.config") as caught:
        resolve({"sasl.jaas.config": text, "sasl.password": "other", "sasl.mechanism": "PLAIN"})
    assert "canary" not in str(caught.value) and "other" not in str(caught.value)
    with pytest.raises(ConfigError, match="unencrypted"):
        resolve({"sasl.jaas.config": text, "sasl.mechanism": "PLAIN", "security.protocol": "SASL_PLAINTEXT"})


def test_a_token_provider_is_for_oauthbearer_alone_and_needs_encryption():
    def provider(config):
        return "token", 0

    mapping = {"sasl.oauthbearer.token.provider": provider, "security.protocol": "SASL_SSL"}
    bearer = {**mapping, "sasl.mechanism": "OAUTHBEARER"}
    assert resolve(bearer).sasl_oauthbearer_token_provider is provider
    with pytest.raises(ConfigError, match="needs sasl.mechanism=OAUTHBEARER, not GSSAPI"):
        resolve(mapping)
    with pytest.raises(ConfigError, match="give one of them"):
        resolve({**bearer, "sasl.oauthbearer.token.endpoint.url": "https://example.org/token"})
    with pytest.raises(ConfigError, match="unencrypted"):
        resolve({**bearer, "security.protocol": "SASL_PLAINTEXT"})
    for bad in (5, "token", ("token", 0)):
        with pytest.raises(ConfigError, match="a callable") as caught:
            resolve({**bearer, "sasl.oauthbearer.token.provider": bad})
        assert "token'" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["canary", "principal=", "who=canary", "principal=a  b", "lifeSeconds=x", "principal=a,b=c d"]
)
def test_a_bad_config_of_unsecured_tokens_is_not_left_to_librdkafka_which_would_quote_it(text):
    mapping = {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.config": text}
    with pytest.raises(ConfigError, match="must be name=value") as caught:
        resolve({**mapping, "enable.sasl.oauthbearer.unsecure.jwt": True})
    assert "canary" not in str(caught.value)
    assert resolve(mapping).librdkafka["sasl.oauthbearer.config"] == text
    good = "principal=admin scope=a,b lifeSeconds=60 extension_traceId=1"
    resolve({**mapping, "enable.sasl.oauthbearer.unsecure.jwt": True, "sasl.oauthbearer.config": good})


def test_a_pem_key_store_is_key_and_certificate(tmp_path):
    store = tmp_path / "store.pem"
    store.write_text("-----BEGIN PRIVATE KEY-----")
    mapping = {"security.protocol": "SSL", "ssl.keystore.type": "PEM", "ssl.keystore.location": store}
    properties = resolve(mapping).librdkafka
    assert properties["ssl.key.location"] == properties["ssl.certificate.location"] == str(store)
    assert "ssl.keystore.location" not in properties


# Values together


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"enable.idempotence": True, "acks": 1}, "acks=1"),
        ({"enable.idempotence": True, "acks": 0}, "acks=0"),
        ({"enable.idempotence": "true", "retries": 0}, "retries=0"),
        ({"enable.idempotence": True, "max.in.flight": 6}, "at most 5"),
        ({"max.in.flight.requests.per.connection": 6}, "at most 5"),
        ({"max.in.flight.requests.per.connection": 6, "acks": 1}, "at most 5"),
        ({"transactional.id": "t", "enable.idempotence": False}, r"transactional\.id"),
        ({"transactional.id": "t", "acks": 1}, r"transactional\.id"),
        ({"transactional.id": "t", "retries": 0}, r"transactional\.id"),
        ({"batch.size": 2000, "buffer.memory": 1999}, r"buffer\.memory"),
        ({"buffer.memory": 16_383}, r"batch\.size x partitions x 2"),
        ({"batch.size": 1_048_577}, r"max\.request\.size"),
        ({"delivery.timeout.ms": 29_999}, "at least 30000"),
        ({"delivery.timeout.ms": 30_000, "linger.ms": 0.5}, "at least 30001"),
        ({"delivery.timeout.ms": 0}, "at least 30000"),
    ],
)
def test_conflicts(mapping, said):
    with pytest.raises(ConfigError, match=said):
        resolve(mapping)


@pytest.mark.parametrize("mapping", [{"acks": 1}, {"acks": "0"}, {"retries": 0}])
def test_idempotence_gives_way_when_not_asked_for(mapping):
    result = resolve(mapping)
    assert result.enable_idempotence is False
    assert result.librdkafka["enable.idempotence"] == "false"
    assert result.librdkafka["max.in.flight.requests.per.connection"] == "5"


def test_more_in_flight_without_idempotence():
    properties = resolve({"enable.idempotence": False, "max.in.flight.requests.per.connection": 6}).librdkafka
    assert properties["max.in.flight.requests.per.connection"] == "6"


def test_a_small_max_request_size_does_not_quarrel_with_the_default_batch_size():
    assert resolve(max_request_size=1000).librdkafka["batch.size"] == "1000"


def test_a_default_delivery_timeout_is_raised_with_a_warning():
    result, notes = noted({"linger.ms": 100_000})
    assert result.delivery_timeout_ms == 130_000
    assert result.librdkafka["message.timeout.ms"] == "130000"
    assert len(notes) == 1 and "raised to 130000" in notes[0]


def test_warnings_are_real_warnings():
    with pytest.warns(UserWarning, match="raised to 130000"):
        config.resolve({"bootstrap.servers": "h:1", "linger.ms": 100_000}, {})


@pytest.mark.parametrize("kind", ["retry", "reconnect"])
def test_backoffs_stay_in_order(kind):
    first, longest = f"{kind}.backoff.ms", f"{kind}.backoff.max.ms"

    def both(mapping):
        result, notes = noted(mapping)
        return result.librdkafka[first], result.librdkafka[longest], len(notes)

    assert both({first: 2000}) == ("2000", "2000", 0)
    assert both({longest: 20}) == ("20", "20", 0)
    assert both({first: 2000, longest: 500}) == ("500", "500", 1)


def test_a_transaction_bounds_the_transports_timeouts():
    result = resolve({"transactional.id": "t", "transaction.timeout.ms": 10_000})
    assert result.delivery_timeout_ms == 120_000
    assert result.librdkafka["message.timeout.ms"] == result.librdkafka["socket.timeout.ms"] == "10000"


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"retry.backoff.ms": 0}, {"retry.backoff.ms": "1"}),
        ({"connections.max.idle.ms": -1}, {"connections.max.idle.ms": "0"}),
        ({"send.buffer.bytes": 131_072}, {"socket.send.buffer.bytes": "131072"}),
        ({"request.timeout.ms": 5000}, {"request.timeout.ms": "5000", "socket.timeout.ms": "4750"}),
        ({"request.timeout.ms": 800}, {"request.timeout.ms": "800", "socket.timeout.ms": "600"}),
        ({"request.timeout.ms": 10}, {"request.timeout.ms": "10", "socket.timeout.ms": "10"}),
        ({"max.request.size": 5_000_000}, {"message.max.bytes": "5000000", "batch.size": "1000000"}),
        ({"max.request.size": 5_000_000, "batch.size": 2_000_000}, {"batch.size": "2000000"}),
        ({"compression.type": "zstd", "compression.zstd.level": 7}, {"compression.level": "7"}),
        ({"compression.type": "gzip", "compression.gzip.level": "-1"}, {"compression.level": "-1"}),
        ({"compression.type": "lz4", "compression.level": 6}, {"compression.level": "6"}),
        ({"compression.type": "lz4", "compression.zstd.level": 7}, {"compression.type": "lz4"}),
        ({"ssl.cipher.suites": ["A", "B"]}, {"ssl.cipher.suites": "A:B"}),
        ({"ssl.cipher.suites": "A,B"}, {"ssl.cipher.suites": "A:B"}),
        ({"ssl.endpoint.identification.algorithm": ""}, {"ssl.endpoint.identification.algorithm": "none"}),
        ({"metadata.recovery.strategy": "REBOOTSTRAP"}, {"metadata.recovery.strategy": "none"}),  # fastprod does it
        (
            {"librdkafka.metadata.recovery.strategy": "rebootstrap"},
            {"metadata.recovery.strategy": "rebootstrap"},
        ),
        ({"sasl.mechanism": "PLAIN"}, {"sasl.mechanism": "PLAIN"}),
    ],
)
def test_javas_values_in_librdkafkas_words(mapping, expected):
    properties = resolve(mapping).librdkafka
    assert expected.items() <= properties.items()
    if "compression.zstd.level" in mapping and mapping["compression.type"] != "zstd":
        assert "compression.level" not in properties


# TLS, SASL and secrets

PLAIN = {"sasl.mechanism": "PLAIN", "sasl.username": "user", "sasl.password": "s3cret-canary"}


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT", "sasl_plaintext"])
def test_credentials_need_encryption(protocol):
    mapping = {**PLAIN, "security.protocol": protocol}
    with pytest.raises(ConfigError, match=r"allow\.plaintext\.credentials"):
        resolve(mapping)
    _, notes = noted({**mapping, "allow.plaintext.credentials": True})
    assert len(notes) == 1 and "unencrypted" in notes[0] and "canary" not in notes[0]


def test_credentials_need_encryption_by_any_name():
    with pytest.raises(ConfigError, match="unencrypted"):
        resolve({"librdkafka.sasl.password": "x", "security.protocol": "SASL_PLAINTEXT"})
    with pytest.raises(ConfigError, match="unencrypted"):
        resolve({**PLAIN, "security.protocol": "SASL_SSL", "librdkafka.security.protocol": "sasl_plaintext"})


def test_credentials_over_tls():
    properties = resolve({**PLAIN, "security.protocol": "sasl_ssl"}).librdkafka
    assert {**PLAIN, "security.protocol": "SASL_SSL"}.items() <= properties.items()


@pytest.mark.parametrize(
    ("name", "value"),
    [("enable.ssl.certificate.verification", False), ("ssl.endpoint.identification.algorithm", "none")],
)
def test_verification_off_is_warned_of(name, value):
    _, notes = noted({"security.protocol": "SSL", name: value})
    assert len(notes) == 1 and name in notes[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ssl.ca.location", None),
        ("ssl.ca.location", b"not a certificate"),
        ("ssl.truststore.location", b"\xfe\xed\xfe\xed a JKS store"),
        ("ssl.keystore.location", None),
        ("ssl.key.location", b""),
        ("ssl.key.location", "a directory"),
        ("ssl.keystore.location", "a directory"),
    ],
)
def test_bad_files(tmp_path, name, content):
    path = tmp_path / "file"
    if content == "a directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        resolve({name: str(path)})


def test_good_files(tmp_path):
    pem, store = tmp_path / "ca.pem", tmp_path / "store.p12"
    pem.write_text("subject=x\n-----BEGIN CERTIFICATE-----\n")
    store.write_bytes(b"\x30\x82")
    properties = resolve({"ssl.ca.location": pem, "ssl.keystore.location": str(store)}).librdkafka
    assert properties["ssl.ca.location"] == str(pem)
    assert resolve({"ssl.truststore.location": tmp_path}).librdkafka["ssl.ca.location"] == str(tmp_path)
    assert resolve({"ssl.ca.location": "probe"}).librdkafka["ssl.ca.location"] == "probe"


@pytest.mark.parametrize("name", ["ssl.key.pem", "ssl.certificate.pem", "ssl.keystore.key"])
def test_key_and_certificate_need_each_other(name):
    with pytest.raises(ConfigError, match="without its"):
        resolve({name: "-----BEGIN x"})


# PEM

DATA = base64.b64encode(bytes(range(200))).decode()
LINES = [DATA[i : i + 64] for i in range(0, len(DATA), 64)]
ENCRYPTED = ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-256-CBC,0123456789ABCDEF0123456789ABCDEF", ""]


def pem_lines(label, header=()):
    return [f"-----BEGIN {label}-----", *header, *LINES, f"-----END {label}-----"]


SPELLINGS = {
    "lines": "\n".join,
    "spaces": " ".join,
    "literal \\n": "\\n".join,
    "literal \\r\\n": "\\r\\n".join,
    "CR and LF": "\r\n".join,
    "CR": "\r".join,
    "tabs": "\t".join,
    "blank lines": lambda lines: "\n\n".join(lines),
    "indented": lambda lines: "\n   ".join(lines) + "\n",
    "in quotes": lambda lines: f'"{" ".join(lines)}"',
    "text around": lambda lines: "Bag Attributes: a-b\n" + "\n".join(lines) + "\nsubject=x",
}


def of_pem(**texts):
    """The properties that hold PEM, for options whose names end so."""
    known = {
        "ca": "ssl.truststore.certificates",
        "key": "ssl.keystore.key",
        "chain": "ssl.keystore.certificate.chain",
    }
    properties = resolve({known[name]: text for name, text in texts.items()}).librdkafka
    return {name.split(".")[1]: text for name, text in properties.items() if name.endswith(".pem")}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_pem_is_taken_however_its_lines_are_broken(spelling):
    write = SPELLINGS[spelling]
    certificate, key = pem_lines("CERTIFICATE"), pem_lines("PRIVATE KEY")
    wanted = {"ca": certificate * 2, "certificate": certificate * 3, "key": key}
    found = of_pem(ca=write(certificate * 2), chain=write(certificate * 3), key=write(key))
    assert found == {name: "\n".join(lines) + "\n" for name, lines in wanted.items()}


@pytest.mark.parametrize("alias", ["ssl.ca.pem", "ssl_ca_pem", "librdkafka.ssl.ca.pem", "https.ca.pem"])
def test_pem_is_taken_by_librdkafkas_names_too(alias):
    text = "\n".join(pem_lines("CERTIFICATE")) + "\n"
    properties = resolve({alias: text.replace("\n", " ")}).librdkafka
    assert text in properties.values()


@pytest.mark.parametrize("label", ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_keys_of_every_kind_keep_their_label_and_how_they_are_encrypted(label, spelling):
    chain = "\n".join(pem_lines("CERTIFICATE")) + "\n"
    header = ENCRYPTED if label in ("RSA PRIVATE KEY", "EC PRIVATE KEY") else ()
    text = SPELLINGS[spelling](pem_lines(label, header))
    assert of_pem(key=text, chain=chain)["key"] == "\n".join(pem_lines(label, header)) + "\n"


def test_of_pem_with_keys_and_certificates_each_option_takes_its_own():
    store = " ".join(pem_lines("EC PARAMETERS") + pem_lines("PRIVATE KEY") + pem_lines("CERTIFICATE"))
    found = of_pem(key=store, chain=store)
    assert [found["key"].count("BEGIN"), found["certificate"].count("BEGIN")] == [1, 1]
    assert "PRIVATE KEY" in found["key"] and "PRIVATE KEY" not in found["certificate"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ssl.truststore.certificates", "canary", "is not PEM: it has no -----BEGIN CERTIFICATE-----"),
        ("ssl.ca.pem", "/etc/canary.pem", "is not PEM"),
        ("ssl_ca_pem", " ".join(pem_lines("PRIVATE KEY")), "holds no CERTIFICATE, but PRIVATE KEY"),
        ("ssl.truststore.certificates", " ".join(pem_lines("CERTIFICATE")[:-1]), "is cut off"),
        (
            "ssl.truststore.certificates",
            "-----BEGIN CERTIFICATE-----canary!-----END CERTIFICATE-----",
            "has no valid base64",
        ),
        ("ssl.truststore.certificates", "-----BEGIN CERTIFICATE----- -----END CERTIFICATE-----", "has no valid base64"),
        ("ssl.keystore.key", "canary", "is not PEM: it has no -----BEGIN PRIVATE KEY-----"),
        ("ssl.keystore.key", " ".join(pem_lines("PRIVATE KEY") * 2), "holds 2 private keys"),
        ("ssl.key.pem", " ".join(pem_lines("OPENSSH PRIVATE KEY")), "ssh-keygen"),
    ],
)
def test_what_is_no_pem_is_refused_with_the_reason_and_without_the_secret(name, text, said):
    certificate = {} if "ca" in name or "trust" in name else {"ssl.certificate.pem": " ".join(pem_lines("CERTIFICATE"))}
    with pytest.raises(ConfigError) as caught:
        resolve({name: text, **certificate})
    assert str(caught.value).startswith(f"{name}: ") and said in str(caught.value)
    assert "canary" not in str(caught.value) and LINES[0][:20] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_files_with_pem_on_one_line_are_taken_too(tmp_path):
    ca, store, plain = tmp_path / "ca.pem", tmp_path / "store.pem", tmp_path / "plain.pem"
    ca.write_text(" ".join(pem_lines("CERTIFICATE")))
    store.write_text(" ".join(pem_lines("PRIVATE KEY") + pem_lines("CERTIFICATE")))
    plain.write_text("\n".join(["subject=x", *pem_lines("CERTIFICATE")]))
    found = resolve({"ssl.ca.location": ca, "ssl.keystore.type": "PEM", "ssl.keystore.location": store}).librdkafka
    assert not [name for name in found if name.endswith(".location")]
    assert found["ssl.ca.pem"] == found["ssl.certificate.pem"] == "\n".join(pem_lines("CERTIFICATE")) + "\n"
    assert found["ssl.key.pem"] == "\n".join(pem_lines("PRIVATE KEY")) + "\n"
    assert resolve({"ssl.ca.location": plain}).librdkafka["ssl.ca.location"] == str(plain)
    ca.write_text(" ".join(pem_lines("CERTIFICATE")[:-1]))
    with pytest.raises(ConfigError, match=r"ssl\.ca\.location='.*: is cut off"):
        resolve({"ssl.ca.location": ca})


def test_a_token_endpoint_implies_oidc():
    mapping = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": "https://example.org/token",
        "sasl.oauthbearer.client.credentials.client.id": "me",
        "sasl.oauthbearer.client.credentials.client.secret": "s3cret-canary",
    }
    properties = resolve(mapping).librdkafka
    assert properties["sasl.oauthbearer.method"] == "oidc"
    assert properties["sasl.oauthbearer.client.secret"] == "s3cret-canary"
    assert resolve({**mapping, "sasl.oauthbearer.method": "default"}).librdkafka["sasl.oauthbearer.method"] == "default"


SECRET_NAMES = [
    "sasl.password",
    "sasl.username",
    "sasl.jaas.config",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.key",
    "ssl.keystore.password",
    "ssl.truststore.password",
    "ssl.truststore.certificates",
    "ssl.ca.pem",
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_secrets_by_any_spelling(name):
    for spelt in (name, name.replace(".", "_"), f"librdkafka.{name}", name.upper()):
        assert is_sensitive(spelt)
        assert "canary" not in redact(spelt, 'Invalid value "canary"')


@pytest.mark.parametrize("name", ["bootstrap.servers", "allow.plaintext.credentials", "ssl.key.location", "client.id"])
def test_harmless_values_may_be_shown(name):
    assert redact(name, "text") == "text"


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize("wrap", [str, lambda v: v + "\0", lambda v: [v], lambda v: v.encode(), lambda v: {v: v}])
@pytest.mark.parametrize("prefix", ["", "librdkafka."])
def test_no_secret_in_any_error_or_repr(name, wrap, prefix):
    canary = "s3cret-canary"
    for mapping in (
        {prefix + name: wrap(canary)},
        {prefix + name: wrap(canary), "security.protocol": "SASL_SSL"},
        {prefix + name: wrap(canary), (prefix + name).replace(".", "_"): "another-canary"},
        {prefix + name + "x": wrap(canary)},
    ):
        try:
            text = repr(resolve(mapping))
        except ConfigError as error:
            text = str(error)
        assert "canary" not in text


def test_no_secret_from_an_address():
    with pytest.raises(ConfigError) as caught:
        resolve({"bootstrap.servers": "user:s3cret-canary@h:9092"})
    assert "canary" not in str(caught.value)


def test_repr_shows_the_rest():
    text = repr(resolve({**PLAIN, "security.protocol": "SASL_SSL"}))
    assert "canary" not in text
    assert "'sasl.password': '[hidden]'" in text
    assert "batch_size=16384" in text and "'acks': 'all'" in text


def test_a_configuration_is_not_pickled():
    with pytest.raises(TypeError, match="secrets"):
        pickle.dumps(resolve())


# Against the real librdkafka

ACCEPTED = [
    {},
    {"acks": 1},
    {"acks": 0, "compression.type": "lz4", "compression.lz4.level": 12},
    {"compression.type": "zstd", "compression.zstd.level": 12, "linger.ms": 1000},
    {"compression.type": "gzip", "compression.gzip.level": 9},
    {"transactional.id": "t"},
    {"transactional.id": "t", "transaction.timeout.ms": 1000},
    {"max.request.size": 1000},
    {"max.request.size": 1_000_000_000, "buffer.memory": 2**40, "batch.size": 999_999_999},
    {"request.timeout.ms": 10, "delivery.timeout.ms": 10},
    {"request.timeout.ms": 300_000, "delivery.timeout.ms": 2**31 - 1},
    {"retry.backoff.ms": 0, "retry.backoff.max.ms": 0, "reconnect.backoff.ms": 0, "reconnect.backoff.max.ms": 0},
    {"retry.backoff.ms": 300_000, "reconnect.backoff.ms": 3_600_000},
    {"enable.idempotence": False, "max.in.flight": 1_000_000, "retries": 0},
    {"metadata.max.age.ms": 1, "metadata.recovery.strategy": "none"},
    {"metadata.max.age.ms": 3_600_000, "connections.max.idle.ms": 2**31 - 1, "client.rack": "r1"},
    {"send.buffer.bytes": 100_000_000, "receive.buffer.bytes": 32_768, "allow.auto.create.topics": True},
    {"client.dns.lookup": "resolve_canonical_bootstrap_servers_only", "enable.metrics.push": False},
    {"security.protocol": "SSL", "ssl.cipher.suites": "ECDHE-RSA-AES256-GCM-SHA384,TLS_AES_128_GCM_SHA256"},
    {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "p"},
    {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": "https://example.org/token",
        "sasl.oauthbearer.client.credentials.client.id": "me",
        "sasl.oauthbearer.client.credentials.client.secret": "x",
        "sasl.oauthbearer.scope": "kafka",
        "sasl.oauthbearer.sub.claim.name": "sub",
    },
]


@pytest.mark.parametrize("mapping", ACCEPTED, ids=lambda m: ",".join(f"{k}={v}" for k, v in m.items())[:60])
def test_librdkafka_accepts_every_property(mapping, librdkafka):
    for name, value in resolve(mapping).librdkafka.items():
        assert librdkafka.refuses(name, value) is None


@pytest.mark.parametrize("mapping", ACCEPTED, ids=lambda m: ",".join(f"{k}={v}" for k, v in m.items())[:60])
def test_librdkafka_starts_with_them_together(mapping):
    import confluent_kafka

    confluent_kafka.Producer({**resolve(mapping).librdkafka, "bootstrap.servers": "127.0.0.1:1", "log_level": 0})


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS.values() if isinstance(o.valid, (range, tuple))], ids=lambda o: o.name
)
def test_librdkafka_accepts_the_ends_of_every_range(option, librdkafka):
    ends = (option.valid[0], option.valid[-1])
    for value in ends:
        mapping = {"buffer.memory": 2**40, "max.request.size": 10**9, "enable.idempotence": False, option.name: value}
        if option.name.startswith("compression.") and option.unit == "level":
            mapping["compression.type"] = option.name.split(".")[1]
        try:
            properties = noted(mapping)[0].librdkafka
        except ConfigError:  # at odds with another option, which other tests are about
            continue
        for name, text in properties.items():
            assert librdkafka.refuses(name, text) is None


# Whatever comes

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.just([]),
    st.just({}),
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*OPTIONS, *ALIASES]), ANYTHING, max_size=4))
def test_nothing_but_a_config_error(mapping):
    try:
        noted(mapping)
    except ConfigError as error:
        assert str(error)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30), ANYTHING)
def test_any_name_and_value(name, value):
    try:
        noted({name: value})
    except ConfigError as error:
        assert str(error)
