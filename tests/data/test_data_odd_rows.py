"""What becomes of odd rows: the table in data_recipes/README.md, line by line."""

import datetime
import gzip
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError

README = Path(__file__).resolve().parents[2] / "data_recipes" / "README.md"
GOOD = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
BIG = "x" * 200_000


@dataclass
class Odd:
    """A file with odd input, what of it is kept, and what is counted; `error`: words of the message that stops the build."""

    data: bytes
    kept: int = 2
    dropped: dict = field(default_factory=dict)
    noted: dict = field(default_factory=dict)
    name: str = "a.jsonl"
    error: str = ""
    answer: str | None = None
    """The last row's last message, where it matters."""


def lines(*rows, **expected):
    """The rows between two good ones: both of those and `expected` are kept."""
    body = b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
    return Odd(GOOD + body + GOOD, **expected)


def chat(user="q", answer="a", role="user", **marks):
    return {"messages": [{"role": role, "content": user}, {"role": "assistant", "content": answer, **marks}]}


def talk(*roles):
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


def kept(answer, **noted):
    """One row more, with this answer."""
    return {"kept": 3, "noted": noted, "answer": answer}


def drop(reason, number=1):
    return {"dropped": {reason: number}}


def utf8(answer, **expected):
    """A row between two good ones, and the same row last, so that its answer is looked at."""
    row = json.dumps(chat(answer=answer), ensure_ascii=False).encode() + b"\n"
    return Odd(GOOD * 2 + row, **kept(answer, **expected))


def parquet(table):
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=1, compression="gzip", use_dictionary=False)
    return out.getvalue()


def zst(data):
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


def answers(values):
    return parquet(pa.table({"question": ["q"] * len(values), "answer": values}))


def broken_last_page():
    data = bytearray(answers(["a" * 90, "b" * 90, "c" * 90]))
    start = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(2).column(1).data_page_offset
    data[start:start + 20] = bytes(20)
    return bytes(data)


NESTED = pa.array([[{"role": "user", "content": "q", "weight": None}, {"role": "assistant", "content": "a", "weight": 1}]] * 2)

ODD = {
    "a role in another case, or with blanks around it": Odd(GOOD * 2 + json.dumps(chat(role=" User")).encode(), **kept("a", role_case=1)),
    "an unknown role (`tool`, `observation`)": lines(talk("user", "tool", "assistant"), talk("observation"), **drop("unknown_role", 2)),
    "two turns of one role": lines(talk("user", "user", "assistant"), talk("user", "assistant", "assistant"), **drop("repeated_role", 2)),
    "the assistant first": lines(talk("assistant", "user", "assistant"), **drop("assistant_first")),
    "a user turn last": lines(talk("user"), talk("user", "assistant", "user"), **drop("no_answer", 2)),
    "empty content, or white space alone": Odd(
        GOOD + b"".join(json.dumps(row).encode() + b"\n" for row in (
            chat(answer=""), chat(user=" \n"), {"messages": [{"role": "system", "content": ""}, *chat(answer="end")["messages"]]})),
        dropped={"empty_message": 2}, answer="end"),
    "null as content": lines(chat(answer=None), **drop("content_not_text")),
    "a number as content": lines(chat(answer=42), chat(user=0.5), **drop("content_not_text", 2)),
    "an image or another part that is no text": lines(
        chat(user=[{"type": "image_url", "image_url": {"url": "x"}}]), **drop("part_not_text")),
    "a call of a tool beside the content": lines(chat(tool_calls=[{"id": "1"}]), **drop("tool_call")),
    "a share of the loss as weight": lines(chat(weight=0.5), chat(loss_weight=1.5), **drop("bad_train_flag", 2)),
    "a span outside the text": lines(chat(untrained=[[0, 9]]), **drop("bad_train_span")),
    "a lone surrogate": lines(b'{"messages": [{"role": "user", "content": "\\ud83d"}, {"role": "assistant", "content": "a"}]}\n',
                              **drop("lone_surrogate")),
    "NUL in a text": Odd(GOOD * 2 + json.dumps(chat(answer="a\0b")).encode(), **kept("a\0b", nul=1)),
    "CR in a text": Odd(GOOD * 2 + json.dumps(chat(answer="a\rb\r\n")).encode(), **kept("a\rb\r\n", carriage_return=1)),
    "lines that end in CRLF": Odd((GOOD * 3).replace(b"\n", b"\r\n"), **kept("a", crlf_line_ends=1)),
    "a byte order mark at the start": Odd(b"\xef\xbb\xbf" + GOOD * 3, **kept("a", byte_order_mark=1)),
    "a byte order mark inside a text": utf8("\ufeffa\ufeff"),
    "NaN, Infinity": Odd(GOOD * 2 + b'{"score": NaN, "low": [-Infinity, Infinity], ' + GOOD[1:], **kept("a", nan_as_null=1)),
    "a key twice in one object": lines(GOOD[:-2] + b', "messages": []}\n', **drop("duplicate_key")),
    "brackets nested by the thousand": lines(b"[" * 100_000 + b"\n", b'{"messages": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001 + b"\n",
                                             **drop("broken_json", 2)),
    "a number of thousands of digits": lines(b'{"id": ' + b"9" * 5000 + b"}\n", **drop("broken_json")),
    "a line cut in the middle": lines(GOOD[:40] + b"\n", **drop("broken_json")),
    "JSON that is no object": lines(b"[1]\n", b"null\n", b'"text"\n', b"3\n", **drop("not_an_object", 4)),
    "bytes that are no UTF-8": lines(GOOD.replace(b'"a"', b'"\xff"'), b"\x80\n", **drop("invalid_utf8", 2)),
    "UTF-16": Odd((GOOD * 3).decode().encode("utf-16"), 0, {"utf16": 1}, error="no usable row; dropped: utf16 1"),
    "U+2028, U+0085 inside a string": utf8("a\u2028b\u0085c\u2029"),
    "a word of 200,000 characters": utf8(BIG),
    "a blank line": lines(b"\n", b" \t\r\n", **drop("blank_line", 2), noted={"crlf_line_ends": 1}),
    "an empty file": Odd(b"", 0, error="the file is empty"),
    "a JSON array under a .jsonl name": Odd(b"[\n" + GOOD + b"," + GOOD + b"]", noted={"array_in_jsonl": 1}),
    "JSON lines under a .json name": Odd(GOOD * 2, noted={"lines_in_json": 1}, name="a.json"),
    "gzip cut short": Odd(gzip.compress(GOOD * 2) + gzip.compress(GOOD)[:12], 2, {"truncated_gzip": 1}, name="a.jsonl.gz"),
    "gzip damaged": Odd(gzip.compress(GOOD * 2)[:-8] + b"\1" * 8, 2, {"damaged_gzip": 1}, name="a.jsonl.gz"),
    "zst cut short": Odd(zst(GOOD * 2) + zst(GOOD)[:12], 2, {"truncated_zst": 1}, name="a.jsonl.zst"),
    "zst damaged (without a checksum of its own a changed text may pass)": Odd(
        zst(GOOD * 2) + b"and more", 2, {"damaged_zst": 1}, name="a.jsonl.zst"),
    "CSV with a cell too many or too few": Odd(b"question,answer\nq,a\nq\nq,a,b\nq,a\n", 2, {"ragged_row": 2}, name="a.csv"),
    "CSV with a quote that is not closed": Odd(b'question,answer\nq,a\nq,a\nq,"a\nq,a\n', 2, {"broken_csv": 1}, name="a.csv"),
    "CSV without a line of names": Odd(b"What?,That.\nq,a\n", 0, {"no_converter": 1}, name="a.csv", error="its keys are What?, That."),
    "CSV with NUL": Odd(b"question,answer\nq,a\nq,a\0b\n", 2, noted={"nul": 1}, name="a.csv", answer="a\0b"),
    "CSV with a cell of a million characters": Odd(b"question,answer\nq,a\nq," + b"y" * 10 ** 6, 2, name="a.csv", answer="y" * 10 ** 6),
    "Parquet with nested messages and null cells": Odd(parquet(pa.table({"messages": NESTED, "system": [None, None]})), name="a.parquet"),
    "Parquet with bytes, decimals or dates as content": Odd(
        answers(pa.array([b"a", b"b"])), 0, {"content_not_text": 2}, name="a.parquet", error="dropped: content_not_text 2"),
    "Parquet with a value that Python cannot hold": Odd(parquet(pa.table({
        "question": ["q"] * 3, "answer": ["a"] * 3, "when": pa.array([0, 10 ** 13, 0]).cast(pa.timestamp("s"))})),
        2, {"unreadable_value": 1}, name="a.parquet"),
    "Parquet damaged": Odd(broken_last_page(), 0, {"damaged_parquet": 1}, name="a.parquet", error="dropped: damaged_parquet 1"),
}


def read(odd, folder):
    path = folder / odd.name
    path.write_bytes(odd.data)
    ledger = Ledger("read")
    rows = []
    if odd.error:
        with pytest.raises(DataError, match=odd.error.replace("?", r"\?")):
            rows.extend(read_conversations(path, "auto", ledger))
    else:
        rows.extend(read_conversations(path, "auto", ledger))
    ledger.close()
    return rows, ledger


@pytest.mark.parametrize("what", ODD)
def test_an_odd_row_is_kept_or_counted_as_the_table_says(tmp_path, what):
    odd = ODD[what]
    rows, ledger = read(odd, tmp_path)
    assert (len(rows), dict(ledger.dropped), dict(ledger.noted)) == (odd.kept, odd.dropped, odd.noted)
    assert ledger.read == odd.kept + sum(odd.dropped.values())
    if odd.answer is not None:
        assert rows[-1].messages[-1].content == odd.answer


def table():
    """`{input: (what becomes of it, reason or note)}` of the README."""
    section = README.read_text(encoding="utf-8").split("## Odd rows")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in section.splitlines() if line.startswith("| ")][1:]
    return {row[0]: (row[1], row[2] if len(row) > 2 else "") for row in rows}


def test_every_line_of_the_readmes_table_has_a_test_and_names_what_is_counted():
    found = table()
    assert list(found) == list(ODD)
    for what, odd in ODD.items():
        counted = {*odd.dropped, *odd.noted} - ({"crlf_line_ends"} if what == "a blank line" else set())
        named = found[what][1].replace("note ", "").replace(", once a file", "").replace("`", "")
        assert counted - {"no_converter"} == set(named.split()), what


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_utf16_is_known_with_and_without_its_mark_in_every_text_file(tmp_path, name, encoding):
    odd = Odd((GOOD * 3).decode().encode(encoding), 0, {"utf16": 1}, name=name, error="no usable row; dropped: utf16 1")
    assert dict(read(odd, tmp_path)[1].dropped) == {"utf16": 1}


def test_decimals_and_dates_of_parquet_are_written_out_by_fields(tmp_path):
    table_of = pa.table({"q": ["x"], "when": [datetime.date(2024, 2, 3)]})
    pq.write_table(table_of, tmp_path / "a.parquet")
    row = next(read_conversations(tmp_path / "a.parquet", {"type": "fields", "user": "{{ q }}", "assistant": "{{ when }}"}))
    assert row.messages[1].content == "2024-02-03"


def test_nested_deep_but_readable_json_in_any_place_is_never_a_traceback(tmp_path):
    deep = "[" * 900 + "]" * 900
    texts = [f'{{"messages": {deep}}}', f'{{"id": {deep}, ' + GOOD.decode()[1:].strip(), f'{{"messages": [{{"role": {deep}}}]}}', deep]
    (tmp_path / "a.jsonl").write_bytes(GOOD + "\n".join(texts).encode())
    ledger = Ledger("read")
    assert len(list(read_conversations(tmp_path / "a.jsonl", "messages", ledger))) == 2
    ledger.close()
    assert dict(ledger.dropped) == {"message_not_an_object": 1, "unknown_role": 1, "not_an_object": 1}
