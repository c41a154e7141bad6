"""fastprod send for Parquet and Arrow files."""

import io
import sys

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from fastprod import BulkMetadata, Producer
from fastprod.cli import columnar, readers, send
from fastprod.cli.readers import Input, InputError
from fastprod.errors import BufferExhaustedError, BulkDeliveryError, DeliveryError, RecordTooLargeError
from tests.test_cli_send import FakeFuture, FakeProducer, parse, run

KEYS = [b"a", None, b"b", b"c", b"a"]
VALUES = [b"1", b"", None, b"\xff\x00", b"5"]
TABLE = pa.table({"id": pa.array(KEYS, pa.binary()), "value": pa.array(VALUES, pa.binary()), "other": range(5)})
PARTITIONS = 3


def write_parquet(path, table):
    parquet.write_table(table, path, row_group_size=2)


def write_arrow(path, table):
    with ipc.new_file(path, table.schema) as out:
        out.write_table(table, max_chunksize=2)


def write_stream(path, table):
    with ipc.new_stream(path, table.schema) as out:
        out.write_table(table, max_chunksize=2)


WRITERS = {"t.parquet": write_parquet, "t.arrow": write_arrow, "t.arrows": write_stream, "t.feather": write_arrow}


@pytest.fixture(params=WRITERS)
def path(tmp_path, request):
    WRITERS[request.param](tmp_path / request.param, TABLE)
    return str(tmp_path / request.param)


def rows(source):
    return [record for part in source for record in part.records()]


def test_each_row_is_a_record(path):
    source = Input([path], key="id")
    assert rows(source) == list(zip(KEYS, VALUES, strict=True))
    assert source.place == f"{path}:5"
    assert source.position == source.total


def test_without_a_key_and_with_another_value(path):
    assert rows(Input([path], value="id")) == [(None, value) for value in KEYS]


def test_text_and_dictionaries(tmp_path):
    text = pa.array(["é", None, "x", "é"])
    path = str(tmp_path / "t.arrow")
    write_arrow(path, pa.table({"value": text.dictionary_encode(), "key": text}))
    encoded = ["é".encode(), None, b"x", "é".encode()]
    assert rows(Input([path], key="key")) == list(zip(encoded, encoded, strict=True))


def test_chunks_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(columnar, "MAX_BYTES", 10_000)
    path = str(tmp_path / "t.parquet")
    parquet.write_table(pa.table({"value": [b"v" * 1000] * 100}), path)
    parts = list(Input([path]))
    assert sum(part.batch.num_rows for part in parts) == 100
    assert max(part.batch.num_rows for part in parts) <= 10
    assert [part.first for part in parts][:2] == [1, parts[0].batch.num_rows + 1]


def test_an_empty_table_has_no_records(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name, TABLE.slice(0, 0))
        assert rows(Input([str(tmp_path / name)])) == []


def test_a_stream_from_standard_input(monkeypatch):
    out = io.BytesIO()
    write_stream(out, TABLE)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(out.getvalue())))
    assert rows(Input(["-"], "arrow")) == [(None, value) for value in VALUES]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--value", "payload"], "no column is named 'payload', to take the value from: the columns are id, value, "),
        (["--key", "customer"], "no column is named 'customer', to take the key from"),
        (
            ["--value", "other"],
            "the column 'other' is of int64, but a value is bytes or text: cast it to string or binary\n",
        ),
        (
            ["--key", "other"],
            "the column 'other' is of int64, but a key is bytes or text: cast it to string or binary\n",
        ),
    ],
)
def test_columns_that_cannot_be_sent(path, arguments, complaint, capsys):
    producer = ColumnProducer()
    assert run(producer, path, *arguments) == 2
    out, err = capsys.readouterr()
    assert f"fastprod send: {path}: {complaint}" in err
    assert not producer.records and out == ""


def test_a_column_twice(tmp_path):
    path = str(tmp_path / "t.arrow")
    write_arrow(path, pa.Table.from_arrays([pa.array([b"1"])] * 2, ["value", "value"]))
    with pytest.raises(InputError, match="several columns are named 'value'"):
        rows(Input([path]))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"nonsense", lambda data: b""])
def test_damaged_files(tmp_path, name, damage):
    path = tmp_path / name
    WRITERS[name](path, TABLE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{name}(:[1-9])?: not (Parquet|Arrow), or damaged: "):
        rows(Input([str(path)]))


def test_usage(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet.gz"
    path.touch()
    with pytest.raises(ValueError, match="t.parquet.gz is not unpacked: parquet files are compressed inside"):
        Input([str(path)])
    with pytest.raises(ValueError, match="standard input cannot be Parquet"):
        Input(["-"], "parquet")
    with pytest.raises(ValueError, match="has the format lines, so it has no column 'v' for the value"):
        Input([__file__], "lines", value="v")
    monkeypatch.setattr(readers.columnar.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'fastprod\[arrow\]'"):
        Input([str(tmp_path / "t.arrow")])


class ColumnProducer(FakeProducer):
    """Refuses a value that is in `script` as too large, as send_arrow() does: what was before is sent."""

    def send_arrow(self, topic, data, *, value, key):
        for i, one in enumerate(data.column(value).to_pylist()):
            if one in self.script:
                error = RecordTooLargeError("this one")
                error.index, error.sent = i, FakeFuture(self.metadata(topic, i), i)
                raise error
            self.records.append((None, one))
        return FakeFuture(self.metadata(topic, data.num_rows), data.num_rows)

    def metadata(self, topic, count):
        return BulkMetadata(topic, count, 10 * count, {1: (count, 0, count - 1)})


def test_a_record_that_is_too_large_is_reported_and_the_others_are_sent(tmp_path, capsys):
    path = str(tmp_path / "t.parquet")
    write_parquet(path, pa.table({"value": [b"0", b"1", b"2", b"3", b"4", b"5"]}))
    producer = ColumnProducer({b"0": RecordTooLargeError, b"3": RecordTooLargeError})
    assert run(producer, path) == 1
    out, _ = capsys.readouterr()
    assert [value for _, value in producer.records] == [b"1", b"2", b"4", b"5"]
    assert "t: 4 records acknowledged, 2 failed" in out
    assert "  40 bytes in" in out
    assert f"2 failed, RecordTooLargeError: {path}:1: this one" in out


def test_records_that_fail_are_reported_one_by_one_and_those_beside_them_count(tmp_path, capsys):
    class FailingProducer(ColumnProducer):
        def send_arrow(self, topic, data, *, value, key):
            failures = [(1, DeliveryError("lost", code=7)), (2, DeliveryError("lost", code=7))]
            return FakeFuture(BulkDeliveryError("some failed", failures=failures), data.num_rows)

    path = str(tmp_path / "t.parquet")
    parquet.write_table(pa.table({"value": [b"0", b"1", b"2", b"3", b"4"]}), path)
    assert run(FailingProducer(), path) == 1
    out, _ = capsys.readouterr()
    assert "t: 3 records acknowledged, 2 failed" in out
    assert "3 acknowledged records are not in these counts, because records of the same call failed" in out
    assert "2 failed, DeliveryError: lost" in out


@pytest.mark.mock
@pytest.mark.parametrize("key", [(), ("--key", "id")])
@pytest.mark.parametrize("taken", [0, 3])
@pytest.mark.parametrize("error_class", [BufferExhaustedError, KeyboardInterrupt])
def test_embedded_does_not_expect_what_was_not_taken(tmp_path, capsys, key, taken, error_class):
    class Refusing:
        """Takes some of the second chunk."""

        def __init__(self, config):
            self.inner = Producer(config)
            self.chunks = 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def send_arrow(self, topic, data, **columns):
            self.chunks += 1
            if self.chunks == 1:
                return self.inner.send_arrow(topic, data, **columns)
            error = error_class("no room")
            error.index, error.sent = taken, self.inner.send_arrow(topic, data.slice(0, taken), **columns)
            raise error

    path = str(tmp_path / "t.arrow")
    with ipc.new_file(path, TABLE.schema) as out:
        for _ in range(2):
            out.write_table(TABLE)
    code = send.run(parse("--embedded", path, *key), producer_factory=Refusing)
    assert code == (130 if error_class is KeyboardInterrupt else 1)
    out, _ = capsys.readouterr()
    assert f"read back: {5 + taken} of {5 + taken} records" in out
    assert "every record is unchanged" in out and "PROBLEM" not in out


@pytest.mark.mock
def test_embedded_reads_everything_back(path, capsys):
    assert send.run(parse("--embedded", "--partitions", str(PARTITIONS), "--key", "id", path)) == 0
    out, _ = capsys.readouterr()
    assert "t: 5 records acknowledged, 0 failed" in out
    assert "read back: 5 of 5 records" in out
    assert "every record is unchanged" in out


@pytest.mark.mock
def test_embedded_keeps_up_with_more_than_a_mock_partition_holds(tmp_path, capsys):
    path = str(tmp_path / "large.parquet")
    parquet.write_table(pa.table({"value": [b"%06d" % i * 100 for i in range(30_000)]}), path)  # 18 MB
    assert send.run(parse("--embedded", "--partitions", "1", path)) == 0
    out, _ = capsys.readouterr()
    assert "read back: 30,000 of 30,000 records" in out and "dropped" not in out
