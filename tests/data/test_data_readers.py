"""The same rows from every kind of file and packing; what is damaged is counted, what is of another kind is said."""

import csv
import datetime
import decimal
import gzip
import io
import json
import logging
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mft.conversation import Message
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.data.readers.csv import CsvOptions
from mft.data.readers.files import bare_name, kind_of
from mft.errors import DataError

ROWS = [{"question": f"What is {n}?\nSay \"it\", 请.", "answer": f"  {n}\r\n"} for n in range(3)]


def packed(data, suffix):
    if suffix == ".gz":
        return gzip.compress(data)
    if suffix == ".zst":
        out = pa.BufferOutputStream()
        with pa.CompressedOutputStream(out, "zstd") as stream:
            stream.write(data)
        return out.getvalue().to_pybytes()
    return data


def parquet_bytes(rows, **options):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


def csv_bytes(rows, delimiter=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


MAKE = {
    "a.jsonl": lambda rows: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(),
    "a.json": lambda rows: json.dumps(rows, ensure_ascii=False, indent=1).encode(),
    "a.parquet": parquet_bytes,
    "a.csv": csv_bytes,
    "a.tsv": lambda rows: csv_bytes(rows, "\t"),
}


def read(path, converter="auto", **options):
    ledger = Ledger("read")
    rows = list(read_conversations(path, converter, ledger, **options))
    ledger.close()
    return rows, ledger


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", MAKE)
def test_every_kind_and_packing_gives_the_same_rows(tmp_path, name, suffix):
    path = write(tmp_path / f"{name}{suffix}", packed(MAKE[name](ROWS), suffix))
    rows, ledger = read(path)
    assert [row.messages for row in rows] == [(Message("user", row["question"]), Message("assistant", row["answer"])) for row in ROWS]
    assert (ledger.read, ledger.kept, {row.task for row in rows}) == (3, 3, {"a"})
    assert dict(ledger.noted)["carriage_return"] == 3


@pytest.mark.parametrize(("name", "places"), [
    ("a.jsonl", ["1", "2", "3"]), ("a.json", ["1", "2", "3"]), ("a.parquet", ["1", "2", "3"]), ("a.csv", ["2", "5", "8"])])
def test_ids_name_the_line_or_the_place_in_an_array(tmp_path, name, places):
    rows, _ = read(write(tmp_path / name, MAKE[name](ROWS)))
    assert [row.id for row in rows] == [f"{name}:{place}" for place in places]


@pytest.mark.parametrize(("name", "kind", "bare"), [
    ("a.jsonl", "jsonl", "a"), ("a.b.ndjson.zst", "jsonl", "a.b"), ("a.JSON", "json", "a"), ("a.csv.gz", "csv", "a"), ("a.tsv", "csv", "a"),
    ("a.parquet", "parquet", "a"), ("a.txt.gz", "lines", "a"), ("rows", "jsonl", "rows"), ("a.data", "jsonl", "a.data")])
def test_the_ending_of_a_name_says_its_kind(tmp_path, name, kind, bare):
    assert (kind_of(tmp_path / name), bare_name(tmp_path / name)) == (kind, bare)


@pytest.mark.parametrize(("name", "suffix", "reason"), [
    ("a.jsonl", ".gz", "truncated_gzip"), ("a.json", ".gz", "truncated_gzip"), ("a.csv", ".gz", "truncated_gzip"),
    ("a.jsonl", ".zst", "truncated_zst"), ("a.json", ".zst", "truncated_zst"), ("a.csv", ".zst", "truncated_zst")])
def test_what_stands_before_the_end_of_a_file_cut_short_is_read_and_the_rest_is_one_drop(tmp_path, name, suffix, reason):
    many = [{"question": f"{n ** 9} and {n ** 11}", "answer": f"{n ** 7}"} for n in range(20000)]
    data = packed(MAKE[name](many), suffix)
    rows, ledger = read(write(tmp_path / f"{name}{suffix}", data[:len(data) * 2 // 3]))
    assert 5000 < len(rows) < 20000
    assert [row.messages[1].content for row in rows] == [row["answer"] for row in many[:len(rows)]]
    assert (dict(ledger.dropped), ledger.read) == ({reason: 1}, len(rows) + 1)


def flushed(data, suffix):
    """The packed bytes up to a place where all of `data` can be unpacked, without an end."""
    if suffix == ".gz":
        packer = zlib.compressobj(wbits=31)
        return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)
    out = pa.BufferOutputStream()
    stream = pa.CompressedOutputStream(out, "zstd")
    stream.write(data)
    stream.flush()
    length = out.tell()
    stream.close()
    return out.getvalue().to_pybytes()[:length]


@pytest.mark.parametrize("members", [0, 8])
@pytest.mark.parametrize(("suffix", "reason"), [(".gz", "damaged_gzip"), (".zst", "damaged_zst")])
def test_every_row_before_a_damaged_block_is_read(tmp_path, suffix, reason, members):
    many = [{"question": f"{n ** 9} and {n ** 11}", "answer": f"{n ** 7}"} for n in range(3000)]
    lines = MAKE["a.jsonl"](many)
    before = packed(lines, suffix) * members   # with 8 members of it the fault lies behind what is unpacked at once
    rows, ledger = read(write(tmp_path / f"a.jsonl{suffix}", before + flushed(lines, suffix) + b"\xff" * 300))
    assert len(rows) == 3000 * (members + 1)
    assert rows[-1].messages[1].content == str(2999 ** 7)
    assert (dict(ledger.dropped), ledger.read) == ({reason: 1}, len(rows) + 1)


@pytest.mark.parametrize(("name", "reason"), [
    ("a.jsonl.gz", "damaged_gzip"), ("a.jsonl.zst", "damaged_zst"), ("a.parquet.gz", "damaged_gzip"), ("a.parquet", "damaged_parquet")])
def test_a_file_that_is_not_what_its_name_says_is_one_drop_and_an_error(tmp_path, name, reason):
    with pytest.raises(DataError, match=f"no usable row; dropped: {reason} 1"):
        read(write(tmp_path / name, "neither of these " * 9))


def test_a_damaged_page_of_a_parquet_file_keeps_the_rows_before_it(tmp_path):
    many = [{"question": f"{n ** 9}", "answer": f"{n ** 11}"} for n in range(9000)]
    data = bytearray(parquet_bytes(many, row_group_size=3000, compression="gzip", use_dictionary=False))
    middle = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(2).column(0).data_page_offset
    data[middle + 40:middle + 400] = bytes(360)
    rows, ledger = read(write(tmp_path / "a.parquet", bytes(data)))
    assert [row.messages[0].content for row in rows] == [f"{n ** 9}" for n in range(5120)]   # whole batches of 1024
    assert dict(ledger.dropped) == {"damaged_parquet": 1}


@pytest.mark.parametrize(("name", "data", "words"), [
    ("a.jsonl", parquet_bytes(ROWS), "is a Parquet file; use `type: parquet`"),
    ("a.jsonl", gzip.compress(b"{}"), "is packed with gzip; give its name the ending .gz"),
    ("a.csv", packed(b"a,b\n", ".zst"), "is packed with Zstandard; give its name the ending .zst"),
    ("a.txt", b'{"text": "x"}\n', "holds JSON, not plain text"),
    ("a.jsonl", b"", "the file is empty"), ("a.json", b"", "holds no row"), ("a.json", b"[]", "holds no row"),
    ("a.csv", b"", "the file is empty"), ("a.csv", b"question,answer\n", "the file is empty"),
    ("a.parquet", parquet_bytes(ROWS[:1])[:0], "damaged_parquet"),
    ("a.csv", b"q,a,q\n1,2,3\n", "the column 'q' stands twice"),
])
def test_a_file_of_another_kind_or_without_rows_is_one_clear_error(tmp_path, name, data, words):
    with pytest.raises(DataError, match=words):
        read(write(tmp_path / name, data))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.txt", "a.jsonl.zst"])
def test_a_missing_file_is_one_clear_error(tmp_path, name):
    with pytest.raises(DataError, match=f"{name}: no such file"):
        read(tmp_path / name)


def test_an_array_under_the_name_of_lines_and_lines_under_the_name_of_an_array_are_read(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "mft"):
        rows, ledger = read(write(tmp_path / "a.jsonl", MAKE["a.json"](ROWS)))
        assert (len(rows), ledger.noted["array_in_jsonl"]) == (3, 1)
        rows, ledger = read(write(tmp_path / "a.json", MAKE["a.jsonl"](ROWS)))
        assert (len(rows), ledger.noted["lines_in_json"]) == (3, 1)
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "holds a JSON array, not one object a line; read as an array", "holds no JSON array; read as one object a line"]


def test_lines_that_are_each_an_array_are_lines(tmp_path):
    line = json.dumps([{"question": "q", "answer": "a"}]) + "\n"
    rows, ledger = read(write(tmp_path / "a.jsonl", line * 2 + json.dumps(ROWS[0])))
    assert (len(rows), dict(ledger.dropped)) == (1, {"not_an_object": 2})


@pytest.mark.parametrize(("text", "kept", "dropped"), [
    ('[{R}, 3, {R}]', 2, {"not_an_object": 1}),
    ('[{R}, {R}', 2, {"broken_json": 1}),
    ('[{R}, {"a": ]', 1, {"broken_json": 1}),
    ('[{R}] []', 1, {"broken_json": 1}),
    ('[{R} {R}]', 1, {"broken_json": 1}),
    ('[{R}, ]', 1, {"broken_json": 1}),
    ('[{R}, {"a": 1, "a": 2}, {R}]', 2, {"duplicate_key": 1}),
    ('[{R}, {"question": "\xff", "answer": "a"}, {R}]', 2, {"invalid_utf8": 1}),
    ('[{R}, {"question": NaN, "answer": "a"}, {R}]', 2, {"content_not_text": 1}),
    ("[{R}, " + "[" * 100_000, 1, {"broken_json": 1}),
])
def test_a_fault_in_an_array_is_counted_once_and_the_elements_before_it_are_kept(tmp_path, text, kept, dropped):
    data = text.replace("{R}", json.dumps({"question": "q", "answer": "a"})).encode("latin-1")
    rows, ledger = read(write(tmp_path / "a.json", data))
    assert (len(rows), dict(ledger.dropped), ledger.read) == (kept, dropped, kept + sum(dropped.values()))


HEAD = b"question,answer\n"


@pytest.mark.parametrize(("data", "kept", "dropped"), [
    (HEAD + b"q,a\n\nq,a\n", 2, {"blank_line": 1}),
    (HEAD + b"q,a,b\nq\nq,a\n", 1, {"ragged_row": 2}),
    (HEAD + b"q,\xff\nq,a\n", 1, {"invalid_utf8": 1}),
    (HEAD + b'q,a\nq,"never closed\nq,a\n', 1, {"broken_csv": 1}),
    (HEAD + b'"q"x,a\nq,a\n', 1, {"broken_csv": 1}),
    (HEAD + b"q,a\0b\n", 1, {}),
    (HEAD + b"q,\nq,a\n", 1, {"empty_message": 1}),
    (HEAD + b'q,"' + b"x" * 500_000 + b'"\n', 1, {}),
    (HEAD.replace(b"\n", b"\r\n") + b'q,"a\r\nb"\r\n', 1, {}),
    (b"\xef\xbb\xbf" + HEAD + b"q,a", 1, {}),
])
def test_csv_records_are_read_or_counted(tmp_path, data, kept, dropped):
    rows, ledger = read(write(tmp_path / "a.csv", data))
    assert (len(rows), dict(ledger.dropped)) == (kept, dropped)


def test_csv_cells_keep_their_line_ends_and_a_file_without_names_can_be_given_them(tmp_path):
    path = write(tmp_path / "a.csv", b'q1;"a\r\n1"\nq2;a2\n')
    rows, _ = read(path, csv=CsvOptions(";", ("question", "answer")))
    assert [row.messages[1].content for row in rows] == ["a\r\n1", "a2"]
    with pytest.raises(DataError, match="its keys are q1;"):
        read(path)


def test_plain_text_is_one_text_a_line(tmp_path):
    rows, ledger = read(write(tmp_path / "a.txt", b"one\r\n\n two\xc2\x85 \nbad \xff\nlast"))
    assert [row.messages for row in rows] == [(Message("assistant", text),) for text in ("one", " two\x85 ", "last")]
    assert dict(ledger.dropped) == {"blank_line": 1, "invalid_utf8": 1}


def test_nested_messages_of_parquet_with_nulls_where_a_key_is_not_used(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "q", "weight": None, "untrained": None},
                          {"role": "assistant", "content": "abc", "weight": 1, "untrained": [[0, 1]]}], "system": None},
            {"messages": [{"role": "user", "content": None, "weight": None, "untrained": None}], "system": "s"},
            {"messages": None, "system": None}]
    found, ledger = read(write(tmp_path / "a.parquet", parquet_bytes(rows)))
    assert found[0].messages == (Message("user", "q"), Message("assistant", "abc", untrained=((0, 1),)))
    assert dict(ledger.dropped) == {"content_not_text": 1, "messages_not_a_list": 1}


@pytest.mark.parametrize("value", [b"bytes", decimal.Decimal("1.50"), datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2), 3, 2.5,
                                   True, None, ["a"], {"b": 1}, datetime.timedelta(days=1), datetime.time(1, 2)])
def test_a_parquet_cell_that_is_no_text_is_a_counted_drop(tmp_path, value):
    table = pa.table({"question": ["q", "q"], "answer": pa.array([value, value])})
    pq.write_table(table, tmp_path / "a.parquet")
    good = pa.table({"question": ["q"], "answer": ["a"]})
    pq.write_table(good, tmp_path / "b.parquet")
    ledger = Ledger("read")
    with pytest.raises(DataError, match="no usable row; dropped: content_not_text 2"):
        list(read_conversations(tmp_path / "a.parquet", "pairs", ledger))
    assert dict(ledger.dropped) == {"content_not_text": 2}
    template = {"type": "fields", "user": "{{ question }}", "assistant": "{{ answer }}"}
    if isinstance(value, decimal.Decimal):
        assert read(tmp_path / "a.parquet", template)[0][0].messages[1].content == "1.50"


def test_a_parquet_value_that_python_cannot_hold_loses_its_row_alone(tmp_path):
    far = pa.array([0, 10 ** 13, 0], pa.int64()).cast(pa.timestamp("s"))
    bad_text = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb"))
    pq.write_table(pa.table({"question": ["q"] * 3, "answer": ["a"] * 3, "when": far}), tmp_path / "a.parquet")
    rows, ledger = read(tmp_path / "a.parquet")
    assert (len(rows), dict(ledger.dropped)) == (2, {"unreadable_value": 1})
    pq.write_table(pa.table({"question": ["q"] * 3, "answer": bad_text}), tmp_path / "b.parquet")
    rows, ledger = read(tmp_path / "b.parquet")
    assert ([row.messages[1].content for row in rows], dict(ledger.dropped)) == (["a", "b"], {"unreadable_value": 1})
