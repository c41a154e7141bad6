"""TLS and SASL against a real Kafka: what gets in, what does not, and what is said of it, within 5 s."""

import base64
import http.server
import json
import logging
import socket
import threading
import time

import pytest

from fastprod import AuthenticationError, ConfigError, KafkaError, Producer
from fastprod.errors import MetadataTimeoutError
from tests.kafka.fixtures import consume_all
from tests.kafka.security import PASSWORD, SPACED_PASSWORD, SPACED_USER, USER

pytestmark = pytest.mark.kafka

JAAS = "org.apache.kafka.common.security"
PLAIN_JAAS = f'{JAAS}.plain.PlainLoginModule required username="{USER}" password="{PASSWORD}";'
SCRAM_JAAS = f'{JAAS}.scram.ScramLoginModule required username="{USER}" password="{PASSWORD}";'


def tls(server, listener="SSL", **options):
    return {
        "bootstrap.servers": server.address(listener),
        "security.protocol": "SSL",
        "ssl.ca.location": server.ca,
        **options,
    }


def sasl(server, mechanism, **options):
    return tls(
        server,
        "SASL_SSL",
        **{
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            **options,
        },
    )


def bearer(server, provider, **options):
    return tls(
        server,
        "SASL_SSL",
        **{
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.token.provider": provider,
            **options,
        },
    )


def unsigned_token(life_s, subject=USER):
    """(token, expiry): a JWT without a signature, which the test broker takes."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + life_s})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""]), now + life_s


def arrives(server, options):
    """Whether a record sent with these options is acknowledged and in the log, by the broker's open listener."""
    value = f"{time.time_ns()}".encode()
    with Producer(options) as producer:
        producer.wait_ready(20)
        metadata = producer.send("t", value).result(20)
    messages = consume_all(server.bootstrap_servers, "t")
    return [m.value() for m in messages if m.offset() == metadata.offset] == [value]


def refused(options, kind, timeout=5):
    """The error of wait_ready(5), after a look that send() says the same and that neither waits longer than it may."""
    with Producer({"max.block.ms": timeout * 1000, **options}) as producer:
        started = time.monotonic()
        with pytest.raises(kind) as caught:
            producer.wait_ready(timeout)
        took = time.monotonic() - started
        with pytest.raises(kind) as by_send:
            producer.send("t", b"v")
    assert by_send.value.code == caught.value.code
    if kind is AuthenticationError:
        assert took < timeout  # it did not wait for the timeout
    return caught.value


# What gets in


@pytest.mark.parametrize("spelling", ["file", "text", "java"])
def test_tls(secure_kafka, spelling):
    options = tls(secure_kafka)
    if spelling == "text":
        options["ssl.truststore.certificates"] = options.pop("ssl.ca.location").read_text()
    if spelling == "java":
        options |= {"ssl.truststore.location": options.pop("ssl.ca.location"), "ssl.truststore.type": "PEM"}
    assert arrives(secure_kafka, options)


@pytest.mark.parametrize("spelling", ["files", "java", "text"])
def test_mutual_tls(secure_kafka, spelling):
    store = secure_kafka.client
    options = {
        "files": {"ssl.key.location": store, "ssl.certificate.location": store},
        "java": {"ssl.keystore.type": "PEM", "ssl.keystore.location": store},
        "text": {"ssl.keystore.key": store.read_text(), "ssl.keystore.certificate.chain": store.read_text()},
    }[spelling]
    assert arrives(secure_kafka, tls(secure_kafka, "MUTUAL", **options))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_user_and_password(secure_kafka, mechanism):
    assert arrives(secure_kafka, sasl(secure_kafka, mechanism))


@pytest.mark.parametrize(("mechanism", "jaas"), [("PLAIN", PLAIN_JAAS), ("SCRAM-SHA-512", SCRAM_JAAS)])
def test_user_and_password_from_javas_jaas(secure_kafka, mechanism, jaas):
    options = sasl(secure_kafka, mechanism, **{"sasl.jaas.config": jaas})
    del options["sasl.username"], options["sasl.password"]
    assert arrives(secure_kafka, options)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("prefix", ["", "librdkafka."])
def test_white_space_at_the_ends_of_user_and_password(secure_kafka, mechanism, prefix, caplog):
    options = sasl(secure_kafka, mechanism)
    del options["sasl.username"], options["sasl.password"]
    caplog.set_level(logging.DEBUG, "fastprod")
    options |= {prefix + "sasl.username": SPACED_USER, prefix + "sasl.password": SPACED_PASSWORD}
    assert arrives(secure_kafka, options)
    assert "bootstrap.servers" not in caplog.text  # librdkafka says that it has none, until the login is set


def test_white_space_in_javas_jaas(secure_kafka):
    module = f'{JAAS}.plain.PlainLoginModule required username="{SPACED_USER}"'
    options = sasl(secure_kafka, "PLAIN")
    del options["sasl.username"], options["sasl.password"]
    password = SPACED_PASSWORD.replace("\t", "\\t")
    assert arrives(secure_kafka, {**options, "sasl.jaas.config": f'{module} password="{password}";'})


def test_a_wrong_password_with_white_space(secure_kafka):
    error = refused(sasl(secure_kafka, "SCRAM-SHA-256", **{"sasl.password": " " + PASSWORD}), AuthenticationError)
    assert "sasl.mechanism and the credentials" in str(error) and PASSWORD not in str(error)


@pytest.mark.parametrize("line_end", [" ", "\\n", "\r\n"])
def test_mutual_tls_with_pem_on_one_line(secure_kafka, line_end):
    ca, store = (line_end.join(file.read_text().splitlines()) for file in (secure_kafka.ca, secure_kafka.client))
    options = tls(secure_kafka, "MUTUAL", **{"ssl.keystore.key": store, "ssl.keystore.certificate.chain": store})
    del options["ssl.ca.location"]
    assert arrives(secure_kafka, {**options, "ssl.truststore.certificates": ca})


def test_bootstrap_servers_with_a_scheme(secure_kafka):
    options = tls(secure_kafka)
    assert arrives(secure_kafka, {**options, "bootstrap.servers": f"ssl://{options['bootstrap.servers']}\n"})


def test_credentials_over_plaintext_need_leave(secure_kafka):
    options = sasl(secure_kafka, "PLAIN")
    options |= {"security.protocol": "SASL_PLAINTEXT", "bootstrap.servers": secure_kafka.address("SASL_PLAINTEXT")}
    del options["ssl.ca.location"]
    with pytest.raises(ConfigError, match=r"allow\.plaintext\.credentials=true"):
        Producer(options)
    with pytest.warns(UserWarning, match="unencrypted"):
        assert arrives(secure_kafka, {**options, "allow.plaintext.credentials": True})


def test_a_name_that_does_not_match_may_be_allowed(secure_kafka):
    options = tls(secure_kafka, "MISNAMED", **{"ssl.endpoint.identification.algorithm": ""})
    with pytest.warns(UserWarning, match="impersonate the broker"):
        assert arrives(secure_kafka, options)


def test_verification_may_be_switched_off(secure_kafka):
    options = tls(
        secure_kafka,
        "MISNAMED",
        **{"enable.ssl.certificate.verification": False, "ssl.ca.location": secure_kafka.other_ca},
    )
    with pytest.warns(UserWarning, match="impersonate the broker"):
        assert arrives(secure_kafka, options)


# OAUTHBEARER


def test_a_token_provider(secure_kafka):
    asked = []

    def provider(config):
        asked.append(config)
        return unsigned_token(300)

    assert arrives(secure_kafka, bearer(secure_kafka, provider, **{"sasl.oauthbearer.config": "what=ever"}))
    assert asked == ["what=ever"]


def test_librdkafkas_own_tokens(secure_kafka):
    options = bearer(secure_kafka, None, **{"enable.sasl.oauthbearer.unsecure.jwt": True})
    assert arrives(secure_kafka, {**options, "sasl.oauthbearer.config": f"principal={USER}"})


def test_tokens_of_an_endpoint(secure_kafka):
    """librdkafka fetches them itself, by HTTP with the client's id and secret."""
    asked = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.headers["Authorization"])
            token, _ = unsigned_token(300)
            answer = json.dumps({"access_token": token, "token_type": "bearer", "expires_in": 300}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            client = f'{JAAS}.oauthbearer.OAuthBearerLoginModule required clientId="me" clientSecret="s3cret";'
            options = bearer(secure_kafka, None, **{"sasl.jaas.config": client})
            options["sasl.oauthbearer.token.endpoint.url"] = f"http://127.0.0.1:{server.server_port}/token"
            assert arrives(secure_kafka, options)
        finally:
            server.shutdown()
    assert asked == ["Basic " + base64.b64encode(b"me:s3cret").decode()]


def test_tokens_are_renewed_before_they_expire_and_nothing_is_lost(secure_kafka):
    """The broker ends a connection whose token has expired; here that would be every 3 s."""
    renewed = threading.Semaphore(0)

    def provider(config):
        renewed.release()
        return *unsigned_token(3), USER, {"purpose": "test"}

    futures, errors = [], []
    with Producer(bearer(secure_kafka, provider)) as producer:
        producer.wait_ready(20)
        for _ in range(4):
            assert renewed.acquire(timeout=30)
            futures += [producer.send("t", b"v", on_delivery=lambda _, e: errors.append(e)) for _ in range(100)]
        producer.flush(30)
    assert len({future.result(0).offset for future in futures}) == 400
    assert errors == [None] * 400


def test_a_slow_callback_does_not_keep_a_token_from_being_renewed(secure_kafka):
    asked, release = threading.Semaphore(0), threading.Event()

    def provider(config):
        asked.release()
        return unsigned_token(2)

    with Producer(bearer(secure_kafka, provider)) as producer:
        producer.send("t", b"v", on_delivery=lambda *_: release.wait(60))
        try:
            assert all(asked.acquire(timeout=30) for _ in range(3))
        finally:
            release.set()


def test_the_error_of_a_provider_is_reported(secure_kafka):
    def provider(config):
        raise LookupError("no such account")

    error = refused(bearer(secure_kafka, provider), AuthenticationError)
    assert "sasl.oauthbearer.token.provider: LookupError: no such account" in str(error)


def test_a_token_that_librdkafka_refuses(secure_kafka):
    error = refused(bearer(secure_kafka, lambda config: ("token-canary", time.time() - 60)), AuthenticationError)
    assert "the token has expired" in str(error) and "canary" not in str(error)


@pytest.mark.parametrize("factor", [10**3, 10**6, 10**9])
def test_an_expiry_in_another_unit_is_refused_at_once(secure_kafka, factor):
    def provider(config):
        token, expiry = unsigned_token(300)
        return token, expiry * factor

    error = refused(bearer(secure_kafka, provider), AuthenticationError)
    assert "seconds, not ms" in str(error) and "sasl.oauthbearer.token.provider" in str(error)


def test_a_life_instead_of_an_expiry_is_refused_at_once(secure_kafka):
    error = refused(bearer(secure_kafka, lambda config: (unsigned_token(300)[0], 300)), AuthenticationError)
    assert "the token has expired: its expiry is 300" in str(error) and "seconds since the epoch" in str(error)


def test_a_token_that_the_broker_refuses(secure_kafka):
    error = refused(bearer(secure_kafka, lambda config: ("no.jwt.at-all", time.time() + 60)), AuthenticationError)
    assert "no.jwt" not in str(error)


# What does not


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_wrong_password(secure_kafka, mechanism):
    error = refused(sasl(secure_kafka, mechanism, **{"sasl.password": "wrong-canary"}), AuthenticationError)
    assert error.code == -169 and "sasl.mechanism and the credentials" in str(error)
    assert "canary" not in str(error) and PASSWORD not in str(error)


def test_a_wrong_authority(secure_kafka):
    error = refused(tls(secure_kafka, **{"ssl.ca.location": secure_kafka.other_ca}), AuthenticationError)
    assert "no authority in ssl.ca.location has signed the broker's certificate" in str(error)


def test_a_wrong_host_name(secure_kafka):
    error = refused(tls(secure_kafka, "MISNAMED"), AuthenticationError)
    assert "does not name the host" in str(error)


def test_no_certificate_where_one_is_asked_for(secure_kafka):
    error = refused(tls(secure_kafka, "MUTUAL"), AuthenticationError)
    assert "certificate" in str(error) and "ssl.*" in str(error)


def test_sasl_to_a_port_without_it(secure_kafka):
    options = sasl(secure_kafka, "PLAIN", **{"security.protocol": "SASL_PLAINTEXT"})
    del options["ssl.ca.location"]
    options |= {"bootstrap.servers": secure_kafka.bootstrap_servers, "allow.plaintext.credentials": True}
    with pytest.warns(UserWarning, match="unencrypted"):
        error = refused(options, AuthenticationError)
    assert "check security.protocol" in str(error)


def test_tls_to_a_plaintext_port(secure_kafka):
    options = tls(secure_kafka, **{"bootstrap.servers": secure_kafka.bootstrap_servers})
    error = refused(options, MetadataTimeoutError, timeout=2)
    assert "PLAINTEXT broker listener?" in str(error) and "security.protocol" in str(error)


@pytest.mark.parametrize("listener", ["SSL", "SASL_SSL", "SASL_PLAINTEXT"])
def test_plaintext_to_another_port(secure_kafka, listener):
    error = refused({"bootstrap.servers": secure_kafka.address(listener)}, MetadataTimeoutError, timeout=2)
    assert "check security.protocol" in str(error)


def test_tls_to_a_port_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        error = refused({"bootstrap.servers": address, "security.protocol": "SSL"}, MetadataTimeoutError, timeout=2)
    assert "no broker answered" in str(error) and "security.protocol" in str(error)


def test_a_host_without_an_address():
    options = {"bootstrap.servers": "no-such-host.invalid:9092"}
    error = refused(options, MetadataTimeoutError, timeout=2)
    assert isinstance(error, KafkaError) and error.code == -193
    assert "Failed to resolve 'no-such-host.invalid:9092'" in str(error)


def test_a_wrong_certificate_among_addresses_that_answer_does_no_harm(secure_kafka):
    """An error of one address is not the producer's: the broker answered at another."""
    options = sasl(secure_kafka, "PLAIN")
    options["bootstrap.servers"] = f"{secure_kafka.address('MISNAMED')},{options['bootstrap.servers']}"
    with Producer(options) as producer:
        producer.wait_ready(30)
        assert producer.send("t", b"v").result(20).offset >= 0


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"])
def test_debug_all_shows_no_secret_of_a_real_handshake(secure_kafka, mechanism, caplog):
    caplog.set_level(logging.DEBUG, "fastprod")
    token, expiry = unsigned_token(300)
    if mechanism == "OAUTHBEARER":
        options = bearer(secure_kafka, lambda config: (token, expiry))
    else:
        options = sasl(secure_kafka, mechanism)
    assert arrives(secure_kafka, {**options, "debug": "all"})
    assert "AUTH" in caplog.text and len(caplog.messages) > 50
    encoded = base64.b64encode(PASSWORD.encode()).decode()
    assert not [line for line in caplog.messages if PASSWORD in line or token in line or encoded in line]


def test_log_lines_of_a_refused_connection_are_few(secure_kafka, caplog):
    caplog.set_level(logging.DEBUG, "fastprod")
    with Producer(sasl(secure_kafka, "PLAIN", **{"sasl.password": "wrong-canary"})) as producer:
        started = time.monotonic()
        for _ in range(2):  # each takes a second
            with pytest.raises(AuthenticationError):
                producer.wait_ready(5)
        lasted = time.monotonic() - started
    lines = [message for message in caplog.messages if message.startswith("FAIL: ") and "left out" not in message[:40]]
    assert 1 <= len(lines) <= lasted + 1
    assert "canary" not in caplog.text
