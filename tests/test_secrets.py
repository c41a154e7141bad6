"""25 places where a secret may be given, each with a canary in it: no text that fastprod makes may hold one."""

import base64
import copy
import functools
import logging
import pickle
import traceback
import warnings

import pytest

from fastprod import Producer

CANARY = "c4n4ry-9f3b"
JAAS = "org.apache.kafka.common.security"
SASL = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
BEARER = {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}
OIDC = {
    **BEARER,
    "sasl.oauthbearer.token.endpoint.url": "https://127.0.0.1:1/token",
    "sasl.oauthbearer.client.credentials.client.id": "me",
}
UNSECURED = {**BEARER, "enable.sasl.oauthbearer.unsecure.jwt": True}
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n"
PLAIN_MODULE = f"{JAAS}.plain.PlainLoginModule required"
TOKEN = base64.urlsafe_b64encode(CANARY.encode()).decode()

# Good, bad, misplaced, misspelt, next to another mistake, or refused: a secret is one wherever it stands.
PLACES = {
    "username": {**SASL, "sasl.username": CANARY, "sasl.password": "p"},
    "password": {**SASL, "sasl.username": "u", "sasl.password": CANARY},
    "password with underscores": {**SASL, "sasl_username": "u", "sasl_password": CANARY},
    "forced password": {**SASL, "sasl.username": "u", "librdkafka.sasl.password": CANARY},
    "password that is not text": {**SASL, "sasl.username": "u", "sasl.password": CANARY.encode()},
    "password with a NUL": {**SASL, "sasl.username": "u", "sasl.password": CANARY + "\0"},
    "password given twice": {**SASL, "sasl.username": "u", "sasl.password": CANARY, "sasl_password": CANARY + "2"},
    "password without encryption": {"sasl.username": "u", "sasl.password": CANARY, "sasl.mechanism": "PLAIN"},
    "password under a misspelt name": {**SASL, "sasl.username": "u", "sasl.pasword": CANARY},
    "password beside a bad value": {**SASL, "sasl.username": "u", "sasl.password": CANARY, "batch.size": -1},
    "password in an address": {"bootstrap.servers": f"user:{CANARY}@127.0.0.1:9092"},
    "jaas": {**SASL, "sasl.jaas.config": f'{PLAIN_MODULE} username="u" password="{CANARY}";'},
    "bad jaas": {**SASL, "sasl.jaas.config": f"{PLAIN_MODULE} username='u' password='{CANARY}'"},
    "oauthbearer config": {**UNSECURED, "sasl.oauthbearer.config": f"principal={CANARY}"},
    "bad oauthbearer config": {**UNSECURED, "sasl.oauthbearer.config": f"{CANARY}={CANARY} x"},
    "client secret": {**OIDC, "sasl.oauthbearer.client.credentials.client.secret": CANARY},
    "librdkafka's client secret": {**OIDC, "sasl.oauthbearer.client.secret": CANARY},
    "passphrase": {**OIDC, "sasl.oauthbearer.assertion.private.key.passphrase": CANARY},
    "token provider": {**BEARER, "sasl.oauthbearer.token.provider": functools.partial(max, CANARY)},
    "token": {**BEARER, "sasl.oauthbearer.token.provider": lambda config: (TOKEN, CANARY)},
    "key": {"security.protocol": "SSL", "ssl.keystore.key": PEM, "ssl.keystore.certificate.chain": PEM},
    "key without certificate": {"security.protocol": "SSL", "ssl.key.pem": PEM},
    "key password": {"security.protocol": "SSL", "ssl.key.password": CANARY},
    "key store password": {"security.protocol": "SSL", "ssl.keystore.password": CANARY},
    "trust store password": {"security.protocol": "SSL", "ssl.truststore.password": CANARY},
}


def everything_said_of(producer):
    """What a log, a debugger or a crash report would show of a producer."""
    yield repr(producer)
    yield str(producer)
    yield repr(producer.config)
    yield str(producer.config)
    yield repr(
        {name: value for name, value in vars(producer.config).items() if name != "sasl_oauthbearer_token_provider"}
    )
    yield repr(producer.metrics())
    for call in (
        lambda: pickle.dumps(producer),
        lambda: pickle.dumps(producer.config),
        lambda: copy.copy(producer.config),
        lambda: producer.wait_ready(0.1),
        lambda: producer.send("t", b"v"),
    ):
        try:
            yield repr(call())
        except Exception as error:
            yield "".join(traceback.format_exception(error))


def test_there_are_25_places():
    assert len(PLACES) == 25


@pytest.mark.parametrize("place", PLACES)
def test_no_text_holds_the_secret(place, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    warnings.simplefilter("always")
    options = {"bootstrap.servers": "127.0.0.1:1", "debug": "all", "max.block.ms": 100, **PLACES[place]}
    texts = []
    try:
        producer = Producer(options)
    except Exception as error:
        texts += ["".join(traceback.format_exception(error)), repr(error), repr(error.args), repr(vars(error))]
    else:
        with producer:
            texts += everything_said_of(producer)
        assert len(caplog.messages) > 10  # of debug=all, so that there is something to look through
    texts += caplog.messages
    texts += [str(warning.message) for warning in recwarn]
    texts += capfd.readouterr()
    assert [text for text in texts if CANARY in text or TOKEN in text] == []


def test_the_canary_would_be_seen(caplog):
    """The same, with a harmless option: its value does show, so the search above looks in the right places."""
    caplog.set_level(logging.DEBUG)
    with Producer(
        {"bootstrap.servers": "127.0.0.1:1", "debug": "all", "client.id": CANARY, "max.block.ms": 100}
    ) as producer:
        texts = [*everything_said_of(producer), *caplog.messages]
    assert sum(CANARY in text for text in texts) > 3
