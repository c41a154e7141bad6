"""fastprod send's options from files and the environment: secrets need not stand on the command line."""

import os
import subprocess
import sys

import pytest

from fastprod.cli import settings
from fastprod.cli.settings import SettingsError
from fastprod.errors import AuthenticationError, ConfigError
from fastprod.testing import MockCluster
from tests.test_cli_send import FakeProducer, run

CANARY = "c4n4ry-9f3b"


def entries(data):
    return {name: value for name, value, _ in settings.properties("f", data)}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (b"a=b", {"a": "b"}),
        (b"a = b \n", {"a": "b "}),
        (b"a:b\na2 : b\n", {"a": "b", "a2": "b"}),
        (b"a b\na2\tb\na3\fb\n", {"a": "b", "a2": "b", "a3": "b"}),
        (b"  \t a=b\n", {"a": "b"}),
        (b"a\n", {"a": ""}),
        (b"a=\n", {"a": ""}),
        (b"a==b\na2=:b\na3 = = b\n", {"a": "=b", "a2": ":b", "a3": "= b"}),
        (b"a=b=c:d e\n", {"a": "b=c:d e"}),
        (b"a=b  \t\n", {"a": "b  \t"}),
        (b"# a=b\n! a=b\n   # a=b\n\n \t\f\nc=d", {"c": "d"}),
        (b"# no continuation \\\na=b\n", {"a": "b"}),
        (b"a=b # no comment\n", {"a": "b # no comment"}),
        (b"a=one,\\\n   two,\\\r\n\ttwo \\\rthree\n", {"a": "one,two,two three"}),
        (b"a=b\\\n# c\n", {"a": "b# c"}),
        (b"a=b\\\n\nc=d\n", {"a": "b", "c": "d"}),
        (b"a=b\\\\\nc=d\n", {"a": "b\\", "c": "d"}),
        (b"a=b\\\\\\\nc=d\n", {"a": "b\\c=d"}),
        (b"a=b\\", {"a": "b"}),
        (b"lin\\\n  ger=1\n", {"linger": "1"}),
        (b"a=1\ra2=2\r\na3=3", {"a": "1", "a2": "2", "a3": "3"}),
        (b"a=\\t\\n\\r\\f\\b\\'\\\"\\x\\\\\n", {"a": "\t\n\r\fb'\"x\\"}),
        (b"a=\\  b\n", {"a": "  b"}),
        (b"a\\=b\\:c\\ d=e\n", {"a=b:c d": "e"}),
        (b"a=\\u00e9\\u20AC\\ud83d\\ude00\n", {"a": "é€😀"}),
        (b"\\u0061=\\u005c\n", {"a": "\\"}),
        ("a=é\n".encode(), {"a": "é"}),
        (b"a=\xe9\n", {"a": "é"}),  # ISO-8859-1, as in Java
        (b"\xef\xbb\xbfa=b\n", {"a": "b"}),
        (b"a=1\na=2\n", {"a": "2"}),
    ],
)
def test_a_file_is_read_as_java_reads_it(data, expected):
    assert entries(data) == expected


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"a=1\n\nb=\\u12x4\n", r"f:3: four hexadecimal digits must follow \u; a backslash is written \\"),
        (b"a=1\nb=c\\\n\\u12\n", r"f:2: four hexadecimal digits must follow \u; a backslash is written \\"),
        (b"#\n=c4n4ry-9f3b\n", "f:2: the name before the value is missing"),
    ],
)
def test_a_malformed_file(data, complaint):
    with pytest.raises(SettingsError) as error:
        entries(data)
    assert str(error.value) == complaint


@pytest.fixture
def write(tmp_path):
    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


@pytest.fixture
def source(write):
    return write("a.txt", b"1\n")


def test_the_command_line_is_stronger_than_files_and_those_than_the_environment(source, write, monkeypatch):
    for name, value in (("LINGER_MS", "1"), ("ACKS", "1"), ("BATCH_SIZE", "1"), ("RETRIES", "7"), ("CLIENT_ID", "")):
        monkeypatch.setenv(f"FASTPROD_{name}", value)
    first = write("first", b"linger.ms=2\nacks=2\nbatch.size=2\n")
    second = write("second", b"queue.buffering.max.ms=3\nacks=3\n")
    producer = FakeProducer()
    assert run(producer, source, "-F", first, "-F", second, "-X", "linger_ms=4") == 0
    expected = {"retries": "7", "batch.size": "2", "acks": "3", "linger_ms": "4", "bootstrap.servers": "host:1"}
    assert producer.config == expected


def test_the_brokers_may_come_from_a_file_or_the_environment(source, write, monkeypatch):
    from tests.test_cli_send import parse, send

    file = write("f", b"bootstrap.servers=file:1\n")
    for arguments, expected in (((), "env:1"), (("-F", file), "file:1"), (("-F", file, "-X", "acks=1"), "file:1")):
        monkeypatch.setenv("FASTPROD_BOOTSTRAP_SERVERS", "env:1")
        producer = FakeProducer()
        assert send.run(parse(source, *arguments), producer_factory=producer) == 0
        assert producer.config["bootstrap.servers"] == expected
    producer = FakeProducer()
    assert run(producer, source, "-F", file) == 0
    assert producer.config["bootstrap.servers"] == "host:1"


def test_variables_that_are_no_options_are_left_alone(source, monkeypatch, capsys):
    for name in ("SEED", "NO_SKIPS", "JOBS", "LIBRDKAFKA", "DEBUG", "ROUNDS", "KAFKA_HOME"):
        monkeypatch.setenv(f"FASTPROD_{name}", "1")
    monkeypatch.setenv("FASTPROD_LIBRDKAFKA_DEBUG", "broker")
    monkeypatch.setenv("FASTPROD_SASL_MECHANISMS", "PLAIN")
    producer = FakeProducer()
    assert run(producer, source) == 0
    expected = {"librdkafka.debug": "broker", "sasl.mechanisms": "PLAIN", "bootstrap.servers": "host:1"}
    assert producer.config == expected
    assert capsys.readouterr().err == ""


def test_a_misspelt_variable_is_a_usage_error(source, monkeypatch, capsys):
    monkeypatch.setenv("FASTPROD_SASL_PASWORD", CANARY)
    assert run(FakeProducer(), source) == 2
    said = "fastprod send: FASTPROD_SASL_PASWORD is not an option: did you mean FASTPROD_SASL_PASSWORD?\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b" secret \n\n", " secret \n"),
        (b"a\nb\n", "a\nb"),
        (b"", ""),
        ("sécret\n".encode(), "sécret"),
    ],
)
def test_a_value_may_be_a_files_content(source, write, data, expected, capsys):
    producer = FakeProducer()
    assert run(producer, source, "-X", f"sasl.password=@{write('f', data)}") == 0
    assert producer.config["sasl.password"] == expected
    assert capsys.readouterr().err == ""


def test_a_value_that_begins_with_an_at_sign(source):
    producer = FakeProducer()
    assert run(producer, source, "-X", "client.id=@@home", "-X", "client.rack=a@b") == 0
    assert (producer.config["client.id"], producer.config["client.rack"]) == ("@home", "a@b")


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("sasl.password=@none", "-X sasl.password=@none: No such file or directory; write a value that begins with @ "),
        ("sasl.password=@", "-X sasl.password=@ names no file; write a value that begins with @ as @@...\n"),
        ("sasl.password=@.", "-X sasl.password=@.: Is a directory; write a value"),
        ("sasl.password=@latin", "-X sasl.password=@latin: the file is not UTF-8, at byte 1\n"),
        (f"sasl.password:{CANARY}", "-X [hidden] is not KEY=VALUE\n"),
    ],
)
def test_values_that_cannot_be_read(source, write, capsys, monkeypatch, tmp_path, argument, complaint):
    monkeypatch.chdir(tmp_path)
    write("latin", b"\xe9" + CANARY.encode())
    assert run(FakeProducer(), source, "-X", argument) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"fastprod send: {complaint}") and CANARY not in err


@pytest.mark.parametrize(("name", "said"), [("none", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(source, capsys, name, said):
    assert run(FakeProducer(), source, "-F", name) == 2
    assert capsys.readouterr().err == f"fastprod send: -F {name}: {said}\n"


def test_a_secret_in_clear_is_noted(source, capsys):
    secrets = ["sasl.password=s", "ssl.key.pem=s", "sasl_oauthbearer_client_secret=s"]
    others = ["sasl.username=u", "ssl.ca.pem=c", "ssl.certificate.pem=c", "ssl.key.password=@@s", "linger.ms=5"]
    arguments = [part for text in secrets + others for part in ("-X", text)]
    assert run(FakeProducer(), source, *arguments) == 0
    assert capsys.readouterr().err == (
        "fastprod send: note: every user of this machine can read sasl.password, ssl.key.pem, "
        "sasl_oauthbearer_client_secret, ssl.key.password in the list of processes; "
        "give -F FILE, -X sasl.password=@FILE or FASTPROD_SASL_PASSWORD instead\n"
    )


def test_an_error_says_where_the_option_came_from(source, write, monkeypatch, capsys):
    file = write("f", b"# first\nlinger.ms=never\n")
    monkeypatch.setenv("FASTPROD_ACKS", "some")

    class Refusing(FakeProducer):
        def __call__(self, config):
            raise ConfigError("linger.ms=never and acks=some: nonsense")

    assert run(Refusing(), source, "-F", file, "-X", "retries=1") == 2
    said = f"linger.ms=never and acks=some: nonsense (acks is from FASTPROD_ACKS; linger.ms is from {file}:2)"
    assert capsys.readouterr().err == f"fastprod send: {said}\n"


def test_wrong_credentials_are_reported_with_their_source_and_without_themselves(source, write, monkeypatch, capsys):
    file = write("f", f"sasl.username=me\nsasl.password={CANARY}\nsecurity.protocol=SASL_SSL\n".encode())
    monkeypatch.setenv("FASTPROD_SSL_KEY_PASSWORD", CANARY)
    producer = FakeProducer(ready=AuthenticationError("not accepted"))
    assert run(producer, source, "-F", file) == 2
    err = capsys.readouterr().err
    assert err == (
        "fastprod send: not accepted (ssl.key.password is from FASTPROD_SSL_KEY_PASSWORD; "
        f"sasl.username is from {file}:1; sasl.password is from {file}:2)\n"
    )


@pytest.mark.parametrize("way", ["environment", "file"])
def test_a_transactional_id_is_refused_wherever_it_stands(source, write, monkeypatch, capsys, way):
    file = write("f", b"transactional.id=a\n")
    if way == "environment":
        monkeypatch.setenv("FASTPROD_TRANSACTIONAL_ID", "a")
    assert run(FakeProducer(), source, *(["-F", file] if way == "file" else [])) == 2
    origin = f"{file}:1" if way == "file" else "FASTPROD_TRANSACTIONAL_ID"
    assert f"transactional.id from {origin}: this command does not use transactions" in capsys.readouterr().err


@pytest.mark.mock
def test_a_process_with_all_of_it(tmp_path, write):
    """The real options: what is wrong is said with its place, and no secret is shown."""
    with MockCluster(topics={"t": 1}, process=True) as cluster:
        servers = cluster.bootstrap_servers
        file = write("client.properties", f"bootstrap.servers = {servers}\nlinger.ms : 1\n".encode())
        bad = write("bad.properties", b"security.protocol=PLAINTEXT\nsasl.mechanism=PLAIN\n\nlinger.ms = soon\n")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FASTPROD_SASL_PASSWORD": CANARY}
        command = [sys.executable, "-m", "fastprod", "send", write("a.txt", b"1\n"), "--topic", "t", "-F", file]

        def result(*arguments, env=environment):
            return subprocess.run([*command, *arguments], capture_output=True, text=True, env=env, timeout=60)

        done = result("-F", bad)
        assert done.returncode == 2 and CANARY not in done.stderr
        assert done.stderr.startswith("fastprod send: linger.ms='soon'")
        assert done.stderr.endswith(f" (linger.ms is from {bad}:4)\n")
        done = result("-X", "sasl.mechanism=PLAIN", "-X", "sasl.username=u")
        assert done.returncode == 2 and CANARY not in done.stderr
        assert "sasl.password is from FASTPROD_SASL_PASSWORD" in done.stderr
        del environment["FASTPROD_SASL_PASSWORD"]
        done = result()
        assert (done.returncode, done.stderr) == (0, "") and "t: 1 records acknowledged, 0 failed\n" in done.stdout
