"""Handle: how a librdkafka producer is configured. No value is changed unnoticed."""

import pytest

from fastprod import ConfigError, Producer
from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from fastprod.internals.handle import knows
from fastprod.internals.transport import Transport

LOGIN = {"sasl.mechanism": "PLAIN", "sasl.username": "user", "sasl.password": "password"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("librdkafka.client.id", " me", "' me': librdkafka drops white space at the beginning"),
        ("ssl.key.password", " canary", r"\[hidden\]: librdkafka drops white space"),
        ("ssl.keystore.password", "\ncanary", r"\[hidden\]: librdkafka drops white space"),
        ("librdkafka.sasl.password", " canary", r"\[hidden\]: librdkafka drops white space"),  # without a user
        ("sasl.oauthbearer.client.secret", "\tcanary", r"\[hidden\]: librdkafka drops white space"),
        ("sasl.oauthbearer.config", " canary", r"\[hidden\]: librdkafka drops white space"),
        ("ssl.crl.location", " canary", "librdkafka drops white space"),
        ("socket.max.fails", "5x", "'5x': librdkafka would read 5"),
        ("socket.max.fails", 1.5, "'1.5': librdkafka would read 1"),
        ("socket.max.fails", "010", "librdkafka would read 8"),
        ("socket.max.fails", 2**32 + 1, "librdkafka would read 1"),
        ("librdkafka.linger.ms", "0.5s", "linger.ms=.0.5s.: must be a number"),
    ],
)
def test_what_librdkafka_would_change_is_refused(name, value, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Producer({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SASL_SSL", name: value})
    assert "[hidden]" not in said or "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("librdkafka.client.rack", " r "),
        ("client.id", " me "),
        ("librdkafka.client.id", "me "),
        ("ssl.key.password", "secret \n"),
        ("socket.max.fails", "5 "),
        ("socket.max.fails", "+5"),
        ("socket.max.fails", 5.0),
        ("socket.nagle.disable", "T"),
        ("librdkafka.acks", "ALL"),
        ("librdkafka.acks", -1),
        ("librdkafka.linger.ms", 0.123456789),
        ("broker.address.family", "V4"),
        ("librdkafka.compression.codec", "LZ4"),
        ("debug", "topic, msg"),
    ],
)
def test_what_librdkafka_does_not_change_is_taken(name, value):
    Producer({"bootstrap.servers": "127.0.0.1:1", name: value}).close(0)


def test_canonical_names_and_a_password_that_bypasses_the_configuration_do_not_go_together():
    options = {**LOGIN, "security.protocol": "SASL_SSL", "sasl.password": " canary", "bootstrap.servers": "127.0.0.1:1"}
    with pytest.raises(ConfigError, match=r"begins with white space: .* client\.dns\.lookup") as caught:
        Producer(options, client_dns_lookup="resolve_canonical_bootstrap_servers_only")
    assert "canary" not in str(caught.value)


def transport(properties, **options):
    return Transport({"log_level": "0", **properties}, Callbacks(BufferPool(1 << 20, 1 << 14)), **options)


def test_knows_every_property_of_librdkafka_and_no_other():
    assert knows("linger.ms") and knows("queue.buffering.max.ms") and knows("dr_cb")
    assert not knows("linger") and not knows("") and not knows("fastprod")


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"no.such.property": "1"}, "no.such.property: No such configuration property"),
        ({"acks": "5000"}, "acks: .*5000 is outside"),
        ({"security.protocol": "none"}, "security.protocol: Invalid value"),
        ({"ssl.key.pem": "canary", "security.protocol": "SSL"}, "librdkafka refuses this configuration: "),
        ({"enable.idempotence": "true", "acks": "1"}, "librdkafka refuses this configuration: .*acks"),
    ],
    ids=["unknown", "out of range", "another value", "no key", "at odds"],
)
def test_what_librdkafka_refuses_is_a_config_error(properties, said):
    with pytest.raises(ConfigError, match=said) as caught:
        transport(properties)
    assert "canary" not in str(caught.value)


def test_user_and_password_may_begin_with_white_space():
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "bootstrap.servers": "127.0.0.1:1"}
    made = transport({**login, "sasl.username": " user", "sasl.password": "\tpassword"})
    made.close()


def test_a_handle_that_was_refused_leaves_the_next_alone():
    for _ in range(3):
        with pytest.raises(ConfigError):
            transport({"enable.idempotence": "true", "acks": "1"})
    transport({"enable.idempotence": "true", "acks": "all"}).close()
