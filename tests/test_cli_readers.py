import gzip
import io
import itertools
import json
import os

import pytest

from fastprod.cli import readers, text_formats
from fastprod.cli.readers import Input, InputError, Source


@pytest.fixture
def write(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


def complaint_about(source):
    """The error's message without the folder."""
    with pytest.raises(InputError) as error:
        list(source)
    return str(error.value).removeprefix(os.path.dirname(source.path) + "/")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.csv.gz", "csv"),
        ("a.csv.zst", "csv"),
        ("a.tsv.BZ2", "csv"),
        ("a.ndjson", "ndjson"),
        ("a.jsonl.gz", "ndjson"),
        ("a.txt", "lines"),
        ("a.log.gz", "lines"),
        ("csv", "lines"),
        ("csv.gz", "lines"),
        ("v1.2/csv", "lines"),
        ("-", "lines"),
    ],
)
def test_the_suffix_gives_the_format(name, format):
    assert Source(name).format == format


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "o.xml.zst",
            "cannot infer the format of o.xml.zst from the suffix '.xml': "
            "give --format, one of lines, ndjson, csv, parquet, arrow",
        ),
        (
            "x.JSON",
            "cannot infer the format of x.JSON from the suffix '.JSON': "
            "give --format, which is ndjson for one object per line",
        ),
    ],
)
def test_a_suffix_without_a_format(name, complaint):
    with pytest.raises(ValueError) as error:
        Source(name)
    assert str(error.value) == complaint
    assert Source(name, "lines").format == "lines"


def test_a_given_format_outdoes_the_suffix():
    assert Source("a.csv", "lines").format == "lines"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_lines(write, name):
    path = write(name, b"one\ntwo\r\n\n \xff three \nlast")
    assert list(Source(path)) == [(None, value) for value in (b"one", b"two", b"", b" \xff three ", b"last")]


def test_lines_have_no_fields():
    with pytest.raises(ValueError, match=r"a\.txt has the format lines, so it has no field 'id' for the key"):
        Source("a.txt", key="id")


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"id": 1}\n')))
    assert list(Source("-", "ndjson", "id")) == [(b"1", b'{"id": 1}')]


def test_a_line_is_given_before_the_next_is_there(monkeypatch):
    lines = io.BytesIO(b"one\ntwo\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(lines))
    records = iter(Source("-"))
    assert next(records) == (None, b"one")
    assert lines.tell() == 4


def test_a_line_must_end_some_day(write, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_LINE", 1 << 20)
    path = write("a.txt", b"short\n" + b"x" * (1 << 20))
    assert complaint_about(Source(path)) == "a.txt:2: this line is longer than 1 MiB"


def test_ndjson_values_stand_as_they_are(write):
    path = write("a.ndjson", b'\xef\xbb\xbf{"b": 1.10, "a":"\\u00e9"}\n\n[1]\r\n"x"')
    assert list(Source(path)) == [(None, b'{"b": 1.10, "a":"\\u00e9"}'), (None, b"[1]"), (None, b'"x"')]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('"N14228"', b"N14228"),
        ('"\\u00e9\\n"', "é\n".encode()),
        ('""', b""),
        ("17", b"17"),
        ("-3", b"-3"),
        ("12345678901234567890123", b"12345678901234567890123"),
        ("1.10", b"1.10"),
        ("1E5", b"1E5"),
        ("true", b"true"),
        ("false", b"false"),
        ("null", None),
    ],
)
def test_ndjson_keys(write, text, key):
    line = f'{{"id": {text}, "x": 1.5}}'.encode()
    assert list(Source(write("a.ndjson", line), key="id")) == [(key, line)]


def test_an_absent_field_means_no_key(write):
    path = write("a.ndjson", b'{"x": 1}\n{"id": 2}\n{}')
    assert [key for key, _ in Source(path, key="id")] == [None, b"2", None]


@pytest.mark.parametrize("rows", [1, text_formats.WAITING_ROWS + 5])
def test_a_field_that_no_row_has_is_an_error(write, rows):
    path = write("a.ndjson", b'{"x": 1}\n' * rows)
    assert (
        complaint_about(Source(path, key="id")) == f"a.ndjson:{rows}: no row up to here has the field 'id' for the key"
    )


def test_a_small_file_without_the_field_gives_nothing_before_the_error(write):
    given = []
    with pytest.raises(InputError):
        given.extend(Source(write("a.ndjson", b'{"x": 1}\n' * 9), key="id"))
    assert given == []


def test_many_rows_without_the_field_are_not_kept(write):
    path = write("a.ndjson", b'{"x": 1}\n' * 5000 + b'{"id": 1}\n')
    source = Source(path, key="id")
    records = iter(source)
    next(records)
    assert source.line == text_formats.WAITING_ROWS + 1
    assert sum(1 for _ in records) == 5000


@pytest.mark.parametrize("data", [b"", b"\n \n"])
@pytest.mark.parametrize("key", [None, "id"])
def test_empty_ndjson_has_no_records(write, data, key):
    assert list(Source(write("a.ndjson", data), key=key)) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"id": 1', "not JSON: Expecting ',' delimiter at character 9"),
        (b'{"id": 1} {}', "not JSON: Extra data at character 11"),
        (b'{"id": NaN}', "not JSON: NaN is not a JSON value"),
        (b'{"id": "\xff"}', "not UTF-8: byte 0xff at byte 9"),
        (b"[" * 100_000, "not JSON: "),
        (b'{"id": "\\ud800"}', "the key '\\ud800' has half a surrogate pair, which UTF-8 cannot hold"),
        (b'{"id": {"a": 1}}', "the field 'id' holds an object or array; a key is a string or a number"),
        (b'{"id": [1]}', "the field 'id' holds an object or array; a key is a string or a number"),
        (b"[1]", "the row is not an object, so it has no field 'id' for the key"),
    ],
)
def test_malformed_ndjson(write, line, complaint):
    path = write("a.ndjson", b'{"id": 0}\n\n' + line + b"\n")
    assert complaint_about(Source(path, key="id")).startswith(f"a.ndjson:3: {complaint}")


def test_csv_rows_become_objects_of_strings(write):
    data = 'id,"the ""name""",50%\n1,"a, ""b""\nc",é\n\n,x\ty,\n'
    path = write("a.csv", b"\xef\xbb\xbf" + data.encode())
    keys, values = zip(*Source(path, key="id"), strict=True)
    assert keys == (b"1", None)
    assert [json.loads(value) for value in values] == [
        {"id": "1", 'the "name"': 'a, "b"\nc', "50%": "é"},
        {"id": "", 'the "name"': "x\ty", "50%": ""},
    ]
    assert b" \xc3" not in values[0] and values[0].endswith('"50%":"é"}'.encode())


def test_csv_without_a_key(write):
    assert list(Source(write("a.csv.gz", b"a\n1\n"))) == [(None, b'{"a":"1"}')]


def test_csv_of_a_header_only_has_no_records(write):
    assert list(Source(write("a.csv", b"a,b\n"), key="a")) == []


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "a.csv: the file is empty; its first line must name the columns"),
        (b"a,b,a\n", "a.csv:1: a column is named twice: a, b, a"),
        (b"a,b\n1,2\n", "a.csv:1: no column is named 'id'; the columns are a, b"),
        (b'id,b\n"1\n2",3\n4\n', "a.csv:4: the row has 1 fields, but the header names 2"),
        (b"id,b\n1,2,3\n", "a.csv:2: the row has 3 fields, but the header names 2"),
        (b'id,b\n1,"2\n', "a.csv:2: not CSV: unexpected end of data"),
        (b'id,b\n1,"2"x\n', "a.csv:2: not CSV: ',' expected after '\"'"),
        (b"id,b\n1,2\n1,\xe9\n", "a.csv:3: not UTF-8: byte 0xe9 at byte 3"),
    ],
)
def test_malformed_csv(write, data, complaint):
    assert complaint_about(Source(write("a.csv", data), key="id")) == complaint


def test_long_csv_fields(write):
    assert len(list(Source(write("a.csv", b"a\n" + b"x" * 300_000)))[0][1]) == 300_000 + len('{"a":""}')


@pytest.mark.parametrize(("cut", "said"), [(slice(0, -9), "ended"), (slice(3, None), "Not a gzipped file")])
def test_damaged_gzip(tmp_path, cut, said):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"line\n" * 9, mtime=0)[cut])
    complaint = complaint_about(Source(str(path)))
    assert complaint.startswith("a.txt.gz:") and "the gzip data is damaged" in complaint and said in complaint


def test_endless_input_is_read_as_it_comes(monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            line = b'{"id": 1}\n'
            buffer[:] = (line * (len(buffer) // len(line) + 1))[: len(buffer)]
            return len(buffer)

    endless = io.BufferedReader(Endless(), buffer_size=1000)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(endless))
    assert sum(1 for _ in itertools.islice(Source("-", "ndjson", "id"), 10_000)) == 10_000


def test_input_reads_one_file_after_the_other(write):
    paths = [write("a.txt", b"1\n2\n"), write("b.csv", b"x\n3\n")]
    records = Input(paths)
    assert records.total == 8
    assert [value for _, value in records] == [b"1", b"2", b'{"x":"3"}']
    assert records.position == 8
    assert records.place == f"{paths[1]}:2"


def test_the_total_of_a_pipe_is_not_known(write):
    assert Input([write("a.txt", b"1\n"), "-"]).total is None


def test_input_looks_at_all_files_first(write, tmp_path):
    good = write("a.txt", b"1\n")
    with pytest.raises(FileNotFoundError, match="none"):
        Input([good, str(tmp_path / "none")])
    with pytest.raises(IsADirectoryError, match="is a directory"):
        Input([good, str(tmp_path)])
