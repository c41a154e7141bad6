"""fastprod send looks at the first bytes of what it reads: nothing but records is ever sent."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import ipc, orc, parquet

from fastprod.cli import content, main
from fastprod.cli.readers import Input, InputError, Source
from tests.test_cli_columnar import write_stream
from tests.test_cli_send import FakeProducer, run

LINES = b"one\ntwo\n" * 5000
RECORDS = [(None, b"one"), (None, b"two")] * 5000
TABLE = pa.table({"value": [b"a", b"b"]})


def lzma_alone(data):
    return lzma.compress(data, format=lzma.FORMAT_ALONE)


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "lzma": lzma_alone}


@pytest.fixture
def write(tmp_path):
    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


@pytest.fixture
def from_pipe(monkeypatch):
    """Makes data standard input; it comes in pieces of 1 byte, then in larger ones."""
    threads = []

    def give(data):
        reader, writer = os.pipe()

        def fill():
            with open(writer, "wb", buffering=0) as out, contextlib.suppress(BrokenPipeError):
                for i in range(min(40, len(data))):
                    out.write(data[i : i + 1])
                out.write(data[40:])

        threads.append(threading.Thread(target=fill))
        threads[-1].start()
        monkeypatch.setattr("sys.stdin", open(reader, encoding="utf-8"))  # noqa: SIM115
        return "-"

    yield give
    sys.stdin.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["a", "a.txt", "a.log.{}", "A.TXT.{}", "{}"])
def test_packed_lines_are_unpacked_whatever_their_name(write, packer, name):
    name = name.format(packer.upper() if name.isupper() else packer)
    records = Input([write(name, PACKERS[packer](LINES))])
    assert list(records) == RECORDS
    assert records.position == records.total == os.path.getsize(records._sources[0].path)


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_lines_from_standard_input_are_unpacked(from_pipe, packer):
    assert list(Input([from_pipe(PACKERS[packer](LINES))])) == RECORDS


@pytest.mark.parametrize("padding", [b"", b"\0" * 1000])
@pytest.mark.parametrize("packer", ["gz", "bz2", "xz"])
def test_every_member_is_unpacked(write, from_pipe, packer, padding):
    data = padding.join(PACKERS[packer](part) for part in (LINES[:5], b"", LINES[5:])) + padding
    assert list(Input([write("a", data)])) == RECORDS
    assert list(Input([from_pipe(data)])) == RECORDS


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz"])
def test_lines_come_before_the_packed_data_ends(packer):
    """Each has what it needs, though a pipe stays open."""
    reader, writer = os.pipe()
    with open(writer, "wb", buffering=0) as out:
        out.write(PACKERS[packer](b"one\n") + PACKERS[packer](b"two\n"))
        records = iter(Source(f"/dev/fd/{reader}"))
        assert [next(records), next(records)] == [(None, b"one"), (None, b"two")]
    assert list(records) == []
    os.close(reader)


def test_a_line_from_a_pipe_comes_before_the_next_is_there():
    reader, writer = os.pipe()
    with open(writer, "wb", buffering=0) as out:
        out.write(b"1\n")
        records = iter(Source(f"/dev/fd/{reader}"))
        assert next(records) == (None, b"1")
        out.write(b"2\n")
        assert next(records) == (None, b"2")
    assert list(records) == []
    os.close(reader)


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_other_formats_are_unpacked_too(write, format):
    data = b'{"a":"1"}\n' if format == "ndjson" else b"a\n1\n"
    assert list(Input([write("a", bz2.compress(data))], format)) == [(None, b'{"a":"1"}')]


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_packed_data_stops_it(write, packer, damage):
    data = bytearray(PACKERS[packer](os.urandom(300_000).replace(b"\0", b"") + LINES))
    if damage == "cut":
        del data[-100:]
    else:
        data[250_000] ^= 0xFF
    name = {"gz": "gzip", "bz2": "bzip2"}.get(packer, "xz")
    with pytest.raises(InputError, match=rf"a(:\d+)?: the {name} data is damaged: "):
        list(Input([write("a", bytes(data))], "lines"))


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst", "lz4"])
def test_a_name_of_packed_data_with_other_content_is_refused(write, suffix):
    with pytest.raises(InputError, match=r"the \w+ data is damaged: Not a \w+ file"):
        Input([write(f"a.txt.{suffix}", b"plain\n")])


def test_bytes_after_the_packed_data_are_no_records(write):
    records = iter(Input([write("a", gzip.compress(b"one\n") + b"more\n")]))
    assert next(records) == (None, b"one")
    with pytest.raises(InputError, match="a:2: the gzip data is damaged"):
        next(records)


ZSTD = bytes.fromhex("28b52ffd24047900006f6e650a9b7fd2e4")


@pytest.mark.parametrize(
    ("name", "packing", "package", "data"),
    [("o.csv.zst", "zstd", "backports.zstd", ZSTD), ("o.csv.lz4", "lz4", "lz4", b"\x04\x22\x4d\x18" + b"x" * 30)],
)
def test_what_python_cannot_unpack_is_refused_with_two_ways_out(
    write, from_pipe, monkeypatch, name, packing, package, data
):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(content, "importlib", SimpleNamespace(import_module=missing))
    path = write(name, data)
    start = f"this is {packing} data, for which Python needs a package: pip install {package}; or unpack it"
    for format in (None, "csv"):
        with pytest.raises(InputError) as error:
            Input([path], format)
        way = f": {packing} -dc {path} | fastprod send - --format csv ..."
        assert str(error.value) == f"{path}: {start}{way}"
    with pytest.raises(InputError, match="<stdin>: " + start):
        list(Input([from_pipe(data)]))


class Module:
    """Like compression.zstd, backports.zstd and lz4.frame; what it unpacks is bzip2's, after a mark of four bytes."""

    class ZstdDecompressor:
        def __init__(self):
            self.inner = bz2.BZ2Decompressor()
            self.marked = True

        def decompress(self, data, max_length=-1):
            if self.marked:
                data, self.marked = data[4:], False
            return self.inner.decompress(data, max_length)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    class LZ4FrameDecompressor(ZstdDecompressor):
        @property
        def unused_data(self):
            return self.inner.unused_data or None


@pytest.mark.parametrize(
    ("packing", "module", "mark"),
    [
        ("zstd", "compression.zstd", b"\x28\xb5\x2f\xfd"),
        ("zstd", "backports.zstd", b"\x28\xb5\x2f\xfd"),
        ("lz4", "lz4.frame", b"\x04\x22\x4d\x18"),
    ],
)
def test_zstd_and_lz4_are_unpacked_where_a_package_can(write, monkeypatch, packing, module, mark):
    def imported(name):
        if name == module:
            return Module
        raise ImportError(name)

    monkeypatch.setattr(content, "importlib", SimpleNamespace(import_module=imported))
    data = mark + bz2.compress(LINES[:4]) + mark + bz2.compress(LINES[4:])
    assert list(Input([write("a", data)])) == RECORDS
    with pytest.raises(InputError, match=f"the {packing} data is damaged: it ended"):
        list(Input([write("a", data[:-5])]))


def zip_of(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.csv", data)
    return out.getvalue()


def tar_of(data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("a.csv")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def written(write):
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def arrow_file(out):
    with ipc.new_file(out, TABLE.schema) as writer:
        writer.write_table(TABLE)


CONVERT = "convert it to Parquet or to one JSON object per line"
OTHERS = {
    "parquet": (written(lambda out: parquet.write_table(TABLE, out)), "a Parquet file", "give --format parquet"),
    "empty parquet": (
        written(lambda out: parquet.write_table(TABLE.slice(0, 0), out)), "a Parquet file", "give --format parquet",
    ),
    "arrow": (written(arrow_file), "an Arrow file", "give --format arrow"),
    "arrow stream": (written(lambda out: write_stream(out, TABLE)), "an Arrow stream", "give --format arrow"),
    "orc": (written(lambda out: orc.write_table(TABLE, out)), "an ORC file", CONVERT),
    "orc, zlib": (written(lambda out: orc.write_table(TABLE, out, compression="zlib")), "an ORC file", CONVERT),
    "avro": (b"Obj\x01\x04\x14avro.codec\x08null\x00", "an Avro file", CONVERT),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    "utf-16, big end first": (b"\xfe\xff" + "a,b\n".encode("utf-16-be"), "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    "utf-32": ("a,b\n1,2\n".encode("utf-32"), "UTF-32", "iconv -f UTF-32 -t UTF-8"),
    "zip": (zip_of(b"a\n1\n"), "a zip archive", "or save the sheet as CSV"),
    "tar": (tar_of(b"a\n1\n"), "a tar archive", "unpack it, and give the files that were in it"),
    "tar.gz": (gzip.compress(tar_of(b"a\n1\n")), "a tar archive", "unpack it, and give the files that were in it"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 512, "an old file of Excel", "save the sheet as CSV"),
    "compress": (b"\x1f\x9d\x90a\x0a", "data of compress", "gzip -dc"),
    "zlib": (zlib.compress(LINES), "zlib data", "unpack it first"),
    "sqlite": (b"SQLite format 3\0\x10\0", "an SQLite database", "as CSV"),
    "pdf": (b"%PDF-1.7\n1 0 obj\n", "a PDF document", "no records"),
    "gzip twice": (gzip.compress(gzip.compress(LINES)), "gzip data in gzip data", "unpack it first"),
    "parquet.gz": (
        gzip.compress(written(lambda out: parquet.write_table(TABLE, out))), "a Parquet file",
        "unpack it first, by gzip -dc; give --format parquet",
    ),
}  # fmt: skip


@pytest.mark.parametrize("format", [None, "lines", "ndjson", "csv"])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_text_is_refused_and_nothing_is_sent(write, capsys, kind, format):
    data, what, advice = OTHERS[kind]
    path = write("a.txt", data)
    producer = FakeProducer()
    good = write("good.txt", b"1\n")  # the first bytes of all files are looked at before a record is sent
    arguments = [] if format is None else ["--format", format]
    assert run(producer, *([] if format else [good]), path, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and not producer.records and err.count("\n") == 1
    assert err.startswith(f"fastprod send: {path}: this is {what}") and err.endswith(f"{advice}\n")


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_text_is_refused_from_standard_input(from_pipe, capsys, kind):
    data, what, advice = OTHERS[kind]
    producer = FakeProducer()
    assert run(producer, from_pipe(data)) == 2
    err = capsys.readouterr().err
    assert not producer.records and err.startswith(f"fastprod send: <stdin>: this is {what}")
    if kind in ("parquet", "empty parquet", "arrow"):
        advice = "so it cannot come from standard input; give a file's name"
    assert "parquet.gz" in kind or err.endswith(f"{advice}\n")


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_text_is_refused_though_it_comes_byte_by_byte(monkeypatch, capsys, kind):
    data, what, _ = OTHERS[kind]
    pieces = iter([data[i : i + 1] for i in range(len(data))])
    buffer = SimpleNamespace(readline=lambda _: next(pieces, b""))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=buffer, closed=False, fileno=io.BytesIO().fileno))
    assert run(FakeProducer(), "-") == 2
    assert capsys.readouterr().err.startswith(f"fastprod send: <stdin>: this is {what}")


@pytest.mark.parametrize("format", [None, "ndjson", "csv"])
def test_bytes_that_no_text_has_are_refused(write, format):
    with pytest.raises(
        InputError, match=r"a\.txt: this is not UTF-8 text: byte 2 is 0, which text cannot have; UTF-16 "
    ):
        Input([write("a.txt", "a,b\n".encode("utf-16-le"))], format)


def test_bytes_that_no_text_has_are_sent_when_lines_are_asked_for(write):
    assert list(Input([write("a.bin", b"\0\xff\n\x80\n")], "lines")) == [(None, b"\0\xff"), (None, b"\x80")]


def test_zero_bytes_further_on_are_no_csv(write):
    with pytest.raises(InputError, match=r"a\.csv:2: not text: byte 2 is 0"):
        list(Input([write("a.csv", b"a" * 70_000 + b"\n1\0\n")]))


@pytest.mark.parametrize(
    "start", [b"PAR1", b"ORC", b"BZh9", b"ARROW1", b"LZIP", b"Obj", b"SEQ", b"Rar!", b"PK", b"%PDF"]
)
def test_text_that_begins_like_another_kind_is_text(write, start):
    data = start + b"\n" + start + b", and more text than would be looked at\n"
    assert [value for _, value in Input([write("a.txt", data)])] == data.splitlines()
    assert [value for _, value in Input([write("a.txt", start)])] == [start]


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_packed_columns_are_refused(write, format, suffix):
    data, _, _ = OTHERS[format]
    with pytest.raises(ValueError, match="unpack"):
        Input([write("a" + suffix, gzip.compress(data))], format)


def test_columns_under_any_name_are_read_when_asked_for(write):
    for format in ("parquet", "arrow"):
        data, _, _ = OTHERS[format]
        assert [row.batch.num_rows for row in Input([write("a.txt", data)], format)] == [2]
    data, _, _ = OTHERS["arrow stream"]
    assert [row.batch.num_rows for row in Input([write("a.txt", data)], "arrow")] == [2]


@pytest.mark.parametrize("kind", [("parquet", "arrow", "a Parquet file"), ("orc", "parquet", "an ORC file")])
def test_columns_of_another_kind_are_refused(write, kind):
    data, format, what = OTHERS[kind[0]][0], kind[1], kind[2]
    with pytest.raises(InputError, match=f"a: this is {what}, not {format}: "):
        Input([write("a", data)], format)


@pytest.mark.parametrize(
    ("name", "data", "format", "first"),
    [
        ("a.txt", b"one\n", None, b"one"),
        ("a.csv", b"id\n1\n", None, b'{"id":"1"}'),
        ("a.csv", b'"id"\n1\n', None, b'{"id":"1"}'),
        ("a.ndjson", b'{"id": 1}\n', None, b'{"id": 1}'),
        ("a.gz", gzip.compress(b"\xef\xbb\xbfone\n", mtime=0), None, b"one"),
    ],
)
def test_the_mark_of_utf_8_is_no_part_of_a_record(write, name, data, format, first):
    data = data if name.endswith("gz") else b"\xef\xbb\xbf" + data
    key = "id" if name[2] in "cn" else None
    assert list(Input([write(name, data)], format, key))[0] == (b"1" if key else None, first)


def test_a_file_of_nothing_but_the_mark_has_no_records(write):
    assert list(Input([write("a.txt", b"\xef\xbb\xbf")])) == []


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.tar.gz", "it is an archive; unpack it, and give the files that were in it"),
        ("a.tgz", "it is an archive; unpack it, and give the files that were in it"),
        ("a.xls", "it is a workbook; save the sheet as CSV"),
        ("a.XLSX", "it is a workbook; save the sheet as CSV"),
        ("a.avro", f"it cannot be read; {CONVERT}"),
        ("a.orc", f"it cannot be read; {CONVERT}"),
        ("a.csv.br", "it is compressed; unpack it first, then give --format"),
        ("a.csv.Z", "it is compressed; unpack it first, then give --format"),
        ("a.json.zst", "give --format, which is ndjson for one object per line"),
        ("a.dat.bz2", "give --format, one of lines, ndjson, csv, parquet, arrow"),
    ],
)
def test_the_advice_for_a_suffix_without_a_format(name, advice):
    with pytest.raises(ValueError) as error:
        Source(name)
    suffix = os.path.splitext(content.without_packing(name))[1]
    assert str(error.value) == f"cannot infer the format of {name} from the suffix {suffix!r}: {advice}"


def objects(source):
    return [json.loads(value) for _, value in source]


@pytest.mark.parametrize("delimiter", ",;\t|")
@pytest.mark.parametrize("by_pipe", [False, True])
def test_the_header_line_gives_the_delimiter(write, from_pipe, delimiter, by_pipe):
    data = 'id,name,x\n1,a,\n2,"b,;\t|",3\n'.replace(",", delimiter, 4).encode()
    data = f'id{delimiter}name{delimiter}x\n1{delimiter}a{delimiter}\n2{delimiter}"b,;\t|"{delimiter}3\n'.encode()
    path = from_pipe(data) if by_pipe else write("a.csv", data)
    assert objects(Input([path], "csv")) == [
        {"id": "1", "name": "a", "x": ""}, {"id": "2", "name": "b,;\t|", "x": "3"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("id\n1;2\n3|4\n", {"id": "1;2"}),  # one column
        ('"a;b"\n1\n', {"a;b": "1"}),
        ('"a,b";c\n1;2\n', {"a,b": "1", "c": "2"}),
        ('"a\n,,,b";c\n1;2\n', {"a\n,,,b": "1", "c": "2"}),
        ("id;name;price,EUR\n1;a;3,50\n", {"id": "1", "name": "a", "price,EUR": "3,50"}),
        ("id;address (street, no, city)\n1;there\n", {"id": "1", "address (street, no, city)": "there"}),
        ("last, first;age\nDoe;5\n", {"last, first": "Doe", "age": "5"}),
        ("id,a|b\n1,2\n", {"id": "1", "a|b": "2"}),
        ("id,a;b\n1,2;3\n", {"id": "1", "a;b": "2;3"}),  # both would do
        ('\n\nid;b\n1;"2\n3"\n', {"id": "1", "b": "2\n3"}),
        ("sep=;\nid;b,c,d,e\n1;2\n", {"id": "1", "b,c,d,e": "2"}),
        ("sep=\t\r\nid\tb\r\n1\t2\r\n", {"id": "1", "b": "2"}),
        ("a;b", None),
        ('a;b;5"\n1;2;3\n', {"a": "1", "b": "2", '5"': "3"}),
    ],
)
def test_the_delimiter_of_difficult_headers(write, data, expected):
    assert (objects(Input([write("a.csv", data.encode())])) or [None])[0] == expected


@pytest.mark.parametrize(("given", "delimiter"), [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), (":", ":")])
def test_a_delimiter_may_be_given(write, given, delimiter):
    producer = FakeProducer()
    path = write("a.csv", f"a,b{delimiter}c|d|e\n1,2{delimiter}3\n".encode())
    assert run(producer, path, "--delimiter", given, "--key", "a,b") == 0
    assert producer.records == [(b"1,2", b'{"a,b":"1,2","c|d|e":"3"}')]


@pytest.mark.parametrize("given", ["", "ab", '"', "\n", "space"])
def test_a_delimiter_is_one_character(capsys, given):
    with pytest.raises(SystemExit) as ended:
        main(["send", "a.csv", "--topic", "t", "--embedded", "--delimiter", given])
    assert ended.value.code == 2 and "is not one character, or tab" in capsys.readouterr().err


def test_a_delimiter_is_for_csv(write, capsys):
    path = write("a.ndjson", b"{}\n")
    assert run(FakeProducer(), path, "--delimiter", ";") == 2
    assert capsys.readouterr().err == f"fastprod send: {path} has the format ndjson, so --delimiter does not apply\n"


def test_tsv_is_csv_with_tabs(write):
    assert objects(Input([write("a.tsv.gz", gzip.compress(b"a\tb,c,d\n1\t2\n"))])) == [{"a": "1", "b,c,d": "2"}]


def test_errors_after_the_header_keep_their_lines(write):
    with pytest.raises(InputError, match=r"a\.csv:3: the row has 1 fields, but the header names 2"):
        list(Input([write("a.csv", b"a;b,c\n1;2\n3\n")]))
    with pytest.raises(InputError, match=r"a\.csv:1: a column is named twice: a, a"):
        list(Input([write("a.csv", b"a;a\n1;2\n3\n")]))
    with pytest.raises(InputError, match=r"a\.csv:1: no column is named 'x'"):
        list(Input([write("a.csv", b"a;b,c\n1;2\n3\n")], key="x"))


@pytest.mark.mock
def test_packed_lines_by_a_pipe_into_the_process(tmp_path):
    command = [sys.executable, "-m", "fastprod", "send", "-", "--topic", "t", "--embedded"]
    done = subprocess.run(command, input=gzip.compress(b"one\n") * 3, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"read back: 3 of 3 records\n" in done.stdout and b"b'one'..." in done.stdout
