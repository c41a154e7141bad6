"""ReadBack: `fastprod send --embedded` reads its topic back and compares it with what it sent."""

from types import SimpleNamespace

import pytest

from fastprod.cli import main, send
from fastprod.cli.read_back import ReadBack
from fastprod.cli.tally import Tally
from fastprod.errors import BufferExhaustedError
from fastprod.records import RecordMetadata
from tests.test_cli_send import parse


@pytest.mark.mock
def test_embedded_reads_everything_back(write, capsys):
    rows = "".join(f'{{"id": {number % 7}, "text": "é{number}"}}\n' for number in range(3000)) + '{"id": null}\n'
    code = main(["send", write("a.ndjson", rows), "--topic", "t", "--key", "id", "--embedded", "--partitions", "5"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert "t: 3,001 records acknowledged, 0 failed\n" in out
    assert "  partitions: 5; records in each: " in out
    assert "read back: 3,001 of 3,001 records\n" in out
    assert out.count(", offset ") == 3
    assert "  7 keys, 0 of them in several partitions\n" in out
    assert out.endswith("  every record is unchanged, and the records of each key are in order\n")


@pytest.mark.mock
def test_embedded_keeps_up_with_more_than_a_mock_partition_holds(write, capsys):
    path = write("a.txt", ("x" * 999 + "\n") * 12_000)  # 12 MB
    assert main(["send", path, "--topic", "t", "--embedded", "--partitions", "1"]) == 0
    out = capsys.readouterr().out
    assert "read back: 12,000 of 12,000 records\n" in out and "dropped" not in out


@pytest.mark.parametrize("value, intact", [(b"v", True), (b"w", False)])
def test_a_record_may_be_read_back_before_it_is_expected(value, intact):
    message = SimpleNamespace(key=lambda: b"k", value=lambda: value, partition=lambda: 0, offset=lambda: 0)
    tally = Tally()
    tally.acknowledge(RecordMetadata("t", 0, 0, 0, 1, 1))
    with ReadBack("127.0.0.1:1", "t", 1) as read_back:
        read_back._note(message)
        read_back.expect(b"k", b"v")
        assert read_back.finish(tally)[0] == intact


@pytest.mark.mock
@pytest.mark.parametrize("change", ["order", "value", "partition"])
def test_embedded_notices_what_is_wrong(write, capsys, monkeypatch, change):
    """A producer that mixes something up."""
    from fastprod import Producer

    class Wrong:
        def __init__(self, config):
            self.inner = Producer(config)
            self.count = 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def send(self, topic, value, key):
            self.count += 1
            if change == "partition":
                return self.inner.send(topic, value, key, partition=self.count % 2)
            wrong = {"order": {b'{"id":1,"n":0}': b'{"id":1,"n":2}', b'{"id":1,"n":2}': b'{"id":1,"n":0}'}}
            wrong["value"] = {b'{"id":1,"n":0}': b'{"id":1,"n":7}'}
            return self.inner.send(topic, wrong[change].get(value, value), key)

    rows = "".join(f'{{"id":{number % 2},"n":{number // 2}}}\n' for number in range(20))
    if change == "partition":
        rows = '{"id":1}\n' * 20
    arguments = parse(write("a.ndjson", rows), "--key", "id", "--embedded")
    assert send.run(arguments, producer_factory=Wrong) == 1
    out = capsys.readouterr().out
    said = "  1 keys, 1 of them in several partitions" if change == "partition" else "  PROBLEM: records are changed"
    assert "read back: 20 of 20 records\n" in out and said in out


@pytest.mark.mock
@pytest.mark.parametrize("key", [(), ("--key", "id")])
@pytest.mark.parametrize("count", [0, 19])
@pytest.mark.parametrize("error_class", [BufferExhaustedError, KeyboardInterrupt])
def test_embedded_does_not_expect_what_was_not_taken(write, capsys, key, count, error_class):
    from fastprod import Producer

    class Refusing:
        def __init__(self, config):
            self.inner = Producer(config)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def send(self, topic, value, key):
            if value == rows[count].encode():
                raise error_class("no room")
            return self.inner.send(topic, value, key)

    rows = [f'{{"id":{number % 3},"n":{number}}}' for number in range(20)]
    arguments = parse(write("a.ndjson", "\n".join(rows)), *key, "--embedded")
    assert send.run(arguments, producer_factory=Refusing) == (130 if error_class is KeyboardInterrupt else 1)
    out = capsys.readouterr().out
    assert f"read back: {count} of {count} records\n" in out
    assert "  every record is unchanged" in out and "PROBLEM" not in out
