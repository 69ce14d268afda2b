"""Real and hostile JSON lines: every line is kept or counted (laws 1 and 12)."""

import gzip
import json
import logging

import pytest

from mft.conversation import Message
from mft.data.ids import unique_ids
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError

GOOD = {"chat_rounds": [{"role": "human", "content": "2+2?"}, {"role": "bot", "content": "4"}]}


def rounds(*pairs):
    return {"chat_rounds": [{"role": role, "content": content} for role, content in pairs]}


def write(path, *lines):
    data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path, converter="auto", **options):
    """(rows, ledger), the ledger closed."""
    ledger = Ledger("read")
    rows = list(read_conversations(path, converter, ledger, **options))
    ledger.close()
    return rows, ledger


BAD_LINES = {
    b'{"chat_rounds": [': "broken_json",
    b"": "blank_line",
    b"  \t": "blank_line",
    b'{"chat_rounds": "\xff\xfe"}': "invalid_utf8",
    b"[1, 2]": "not_an_object",
    b"null": "not_an_object",
    b'{"chat_rounds": null}': "messages_not_a_list",
    b'{"chat_rounds": ["hi"]}': "message_not_an_object",
    b'{"chat_rounds": []}': "no_messages",
    b"[" * 100_000: "broken_json",
    b'{"chat_rounds": [], "id": ' + b"9" * 5000 + b"}": "broken_json",
    json.dumps(rounds(("human", "q"), ("tool", "a"))).encode(): "unknown_role",
    json.dumps(rounds((None, "q"), ("bot", "a"))).encode(): "unknown_role",
    json.dumps(rounds((["human"], "q"), ("bot", "a"))).encode(): "unknown_role",
    json.dumps(rounds(("human", "q"), ("bot", None))).encode(): "content_not_text",
    json.dumps(rounds(("human", "q"), ("bot", ["a"]))).encode(): "content_not_text",
    json.dumps(rounds(("human", "q"))).encode(): "no_answer",
    json.dumps(rounds(("human", "q"), ("bot", "a"), ("human", "q"))).encode(): "no_answer",
    json.dumps(rounds(("system", "s"))).encode(): "no_answer",
    json.dumps(rounds(("human", "q"), ("bot", "  \n"))).encode(): "empty_message",
    json.dumps(rounds(("bot", "a"), ("human", "q"), ("bot", "a"))).encode(): "assistant_first",
    json.dumps(rounds(("human", "q"), ("human", "q"), ("bot", "a"))).encode(): "repeated_role",
    json.dumps(rounds(("human", "q"), ("system", "s"), ("bot", "a"))).encode(): "system_not_first",
    b'{"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a", "train": false}]}': "nothing_trained",
    b'{"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a", "train": "no"}]}': "bad_train_flag",
    b'{"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a", "weight": 0.5}]}': "bad_train_flag",
    b'{"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a", "weight": true}]}': "bad_train_flag",
    b'{"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a", "weight": 0, "train": true}]}':
        "bad_train_flag",
    b'{"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "half \\ud83d"}]}': "lone_surrogate",
    b'{"id": "\\udc00", "chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]}': "lone_surrogate",
    b'{"task": 3, "chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]}': "task_not_text",
}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items(), ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_a_bad_line_is_one_counted_drop_and_the_rows_around_it_are_kept(tmp_path, line, reason, suffix):
    rows, ledger = read(write(tmp_path / f"a{suffix}", GOOD, line, GOOD))
    assert [row.id for row in rows] == [f"a{suffix}:1", f"a{suffix}:3"]
    assert (ledger.read, ledger.kept, dict(ledger.dropped)) == (3, 2, {reason: 1})


def test_all_faults_in_one_file_add_up(tmp_path):
    expected = {}
    for reason in BAD_LINES.values():
        expected[reason] = expected.get(reason, 0) + 1
    rows, ledger = read(write(tmp_path / "a.jsonl", *BAD_LINES, GOOD))
    assert len(rows) == 1
    assert ledger.read == len(BAD_LINES) + 1
    assert dict(ledger.dropped) == expected


def test_a_drop_is_logged_with_file_and_line(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", GOOD, b"{oops}", rounds(("human", "q"), ("tool", "a")))
    with caplog.at_level(logging.WARNING, "mft"):
        read(path)
    assert caplog.messages == [
        f"{path}:2: dropped: broken_json (column 2: Expecting property name enclosed in double quotes)",
        f"{path}:3: dropped: unknown_role (message 2 has role 'tool'; expected one of system, user, human, assistant, bot, gpt)",
    ]


def test_a_truncated_gzip_keeps_the_rows_before_the_fault_and_counts_it_once(tmp_path, caplog):
    lines = [rounds(("human", f"question {number} {number ** 5}"), ("bot", f"answer {number ** 7}")) for number in range(2000)]
    path = write(tmp_path / "a.jsonl.gz", *lines)
    path.write_bytes(path.read_bytes()[:-2000])
    with caplog.at_level(logging.WARNING, "mft"):
        rows, ledger = read(path)
    assert 1000 < len(rows) < 2000
    assert [row.messages[0].content for row in rows] == [line["chat_rounds"][0]["content"] for line in lines[:len(rows)]]
    assert dict(ledger.dropped) == {"truncated_gzip": 1}
    assert ledger.read == len(rows) + 1
    assert caplog.messages == [
        f"{path}:{len(rows) + 1}: dropped: truncated_gzip (the file ends too early; {len(rows)} lines could be read)"]


def test_a_gzip_with_a_wrong_checksum_is_counted(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", GOOD)
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(data)
    rows, ledger = read(path)
    assert len(rows) == 1
    assert dict(ledger.dropped) == {"damaged_gzip": 1}


def test_a_file_that_is_no_gzip_is_one_clear_error(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_text(json.dumps(GOOD) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: no usable row; dropped: damaged_gzip 1"):
        read(path)


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode())
    rows, ledger = read(path)
    assert len(rows) == 2
    assert not ledger.dropped


def test_only_a_newline_ends_a_line(tmp_path):
    text = "a\u2028b\u0085c"
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(rounds(("human", text), ("bot", text)), ensure_ascii=False) + "\n", encoding="utf-8")
    rows, _ = read(path)
    assert rows[0].messages[1].content == text


def test_text_is_never_changed(tmp_path):
    text = "  <|role_start|>human<|role_end|></s>\r\n\tx\u00a0= 1 \n\n"
    rows, _ = read(write(tmp_path / "a.jsonl", rounds(("system", ""), ("human", text), ("bot", text))))
    assert rows[0].messages == (Message("system", ""), Message("user", text), Message("assistant", text))


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(tmp_path, data):
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.jsonl"):
        read(path)


def test_a_file_without_one_usable_row_is_an_error_that_counts_why(tmp_path):
    path = write(tmp_path / "a.jsonl", rounds(("human", "q")), b"{", b"{")
    with pytest.raises(DataError, match="no usable row; dropped: no_answer 1, broken_json 2"):
        read(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"nope\.jsonl: no such file"):
        read(tmp_path / "nope.jsonl")


def test_ids_are_the_rows_own_or_their_place_and_never_stand_twice(tmp_path):
    path = write(tmp_path / "a.jsonl", {**GOOD, "id": "x"}, {**GOOD, "id": 7}, GOOD, {**GOOD, "id": "x"}, {**GOOD, "id": True},
                 {**GOOD, "id": ""}, {**GOOD, "id": "x", "data_name": "other"}, {**GOOD, "id": "7"})
    rows, ledger = read(path)
    assert [(row.task, row.id) for row in rows] == [
        ("a", "x"), ("a", "7"), ("a", "a.jsonl:3"), ("a", "x@a.jsonl:4"), ("a", "a.jsonl:5"), ("a", "a.jsonl:6"),
        ("other", "x"), ("a", "7@a.jsonl:8")]
    assert not ledger.dropped


def test_ids_stay_unique_when_two_files_have_the_same_label(tmp_path):
    (tmp_path / "b").mkdir()
    paths = [write(tmp_path / "a.jsonl", {**GOOD, "id": 1}), write(tmp_path / "b" / "a.jsonl", {**GOOD, "id": 1}),
             write(tmp_path / "b" / "c.jsonl", {**GOOD, "id": 1})]
    rows = [row for path in paths for row in read(path, task="t", label="a.jsonl")[0]]
    assert [row.id for row in unique_ids(rows)] == ["1", "1@a.jsonl:1", "1@a.jsonl:1#2"]


def test_the_task_is_the_given_one_or_the_rows_or_the_files_name(tmp_path):
    path = write(tmp_path / "repair.jsonl.gz", {**GOOD, "data_name": "d"}, {**GOOD, "task": "t", "data_name": "d"}, GOOD)
    assert [row.task for row in read(path)[0]] == ["d", "t", "repair"]
    assert [row.task for row in read(path, task="given")[0]] == ["given", "given", "given"]


def test_origin_and_split_key_name_the_place(tmp_path):
    rows, _ = read(write(tmp_path / "a.jsonl", {**GOOD, "id": "x"}), label="chat/a.jsonl")
    assert (rows[0].origin, rows[0].split_key) == ("chat/a.jsonl:1", "chat/a.jsonl")


def test_keys_that_are_not_read_are_named_once(tmp_path, caplog):
    row = {"tools": [], "messages": [{"role": "user", "content": "q", "name": "x"}, {"role": "assistant", "content": "a"}]}
    path = write(tmp_path / "a.jsonl", row, row)
    with caplog.at_level(logging.INFO, "mft"):
        read(path)
    assert caplog.messages[0] == f"{path}: keys that are not used: messages[].name, tools"
    assert sum("not used" in message for message in caplog.messages) == 1
