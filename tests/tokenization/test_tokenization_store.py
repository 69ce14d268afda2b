"""Encoded sets: ledgers add up, nothing is cut, and what was written is read back."""

import json

import pytest

from mft.conversation import Conversation, Message
from mft.errors import CheckFailed, DataError, OutputError
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import encode_rows
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.store import encode_conversations, read_tokens, statistics, write_jsonl, write_tokens

TASKS = ("chat", "repair")


@pytest.fixture(scope="module")
def llama2(llama2_tokenizer_folder) -> TextTokenizer:
    return load_tokenizer(llama2_tokenizer_folder)


def conversation(name: str, task: str, *contents: str) -> Conversation:
    return Conversation(name, task, tuple(Message("assistant" if index % 2 else "user", text) for index, text in enumerate(contents)))


ROWS = [
    conversation("plain", "chat", "2+2?", "4"),                         # 34 + 2 tokens, 2 trained
    conversation("two", "repair", "a", "= b", "c", "d"),                # a row for each turn
    conversation("tag", "chat", "<|role_start|>bot<|role_end|>", "x"),
    conversation("silent", "chat", "a", ""),
    conversation("asked", "repair", "a"),
    conversation("half", "chat", "a", "\ud800"),
    conversation("mark", "chat", "a", "\u2581"),
    conversation("long", "chat", "a", "b " * 100),
]
DROPPED = {"role_tag_in_text": 1, "empty_message": 1, "no_answer": 1, "half_surrogate": 1, "space_mark": 1, "over_context": 1}


def test_every_conversation_is_kept_or_dropped_with_a_reason(llama2):
    encoded = encode_conversations(iter(ROWS), format_for("codefuse", llama2), llama2, 80, TASKS)
    assert encoded.dropped == DROPPED
    assert (encoded.read, encoded.kept, [sample.id for sample in encoded.samples]) == (8, 2, ["plain", "two#1", "two#2"])
    assert [sample.task_id for sample in encoded.samples] == [0, 1, 1]


def test_samples_are_those_of_encode_rows_whatever_the_batch(llama2):
    codefuse = format_for("codefuse", llama2)
    rows = [conversation(f"{index}", "chat", f"question {index % 7}", f"{'=' * (index % 2)} {index}", "more", "x") for index in range(600)]
    encoded = encode_conversations(rows, codefuse, llama2, 1000, TASKS)
    assert list(encoded.samples) == [sample for row in rows for sample in encode_rows(row, codefuse, llama2)]
    assert len(encoded.samples) == 300 + 2 * 300


def test_a_row_of_exactly_the_context_is_kept_and_one_longer_is_dropped_whole(llama2):
    codefuse = format_for("codefuse", llama2)
    kept = encode_conversations(ROWS[:1], codefuse, llama2, 36, TASKS)
    assert (kept.kept, len(kept.samples[0].input_ids)) == (1, 36)
    assert encode_conversations(ROWS[:1], codefuse, llama2, 35, TASKS).dropped == {"over_context": 1}
    first, second = encode_rows(ROWS[1], codefuse, llama2)
    partly = encode_conversations(ROWS[1:2], codefuse, llama2, len(second.input_ids) - 1, TASKS)
    assert len(first.input_ids) < len(second.input_ids) - 1
    assert (len(partly.samples), partly.dropped) == (0, {"over_context": 1})


def test_statistics_have_the_contracted_keys_and_add_up(llama2):
    encoded = encode_conversations(ROWS, format_for("codefuse", llama2), llama2, 80, TASKS)
    first, second = (len(sample.input_ids) for sample in encoded.samples[1:])
    assert (first, second) == (34, 66)
    assert statistics(encoded) == {
        "read": 8, "kept": 2, "emitted": 3,
        "dropped": DROPPED,
        "samples": 3, "tokens": 136, "trained_tokens": 7, "rows": 2, "fill": 136 / 160,
        "per_task": {"chat": {"samples": 1, "tokens": 36, "trained_tokens": 2},
                     "repair": {"samples": 2, "tokens": 100, "trained_tokens": 5}},
    }
    assert statistics(encode_conversations([], format_for("codefuse", llama2), llama2, 80, TASKS))["fill"] == 0.0


def test_an_unknown_task_is_an_error(llama2):
    with pytest.raises(DataError, match="row: task 'other' is not one of chat, repair"):
        encode_conversations([conversation("row", "other", "a", "b")], format_for("ziya", llama2), llama2, 80, TASKS)


def test_a_set_is_read_back_as_it_was_written(llama2, tmp_path):
    encoded = encode_conversations(ROWS, format_for("codefuse", llama2), llama2, 80, TASKS)
    manifest = write_tokens(tmp_path / "set", encoded, {"format": "codefuse", "tokenizer": llama2.sha256})
    assert (manifest["format"], manifest["context"], manifest["tasks"]) == ("codefuse", 80, ["chat", "repair"])
    assert manifest["statistics"]["tokens"] == 136
    again = read_tokens(tmp_path / "set")
    assert list(again.samples) == list(encoded.samples)
    assert (again.read, again.kept, again.dropped, again.tasks) == (8, 2, DROPPED, TASKS)
    assert statistics(again) == statistics(encoded)


def test_another_context_needs_no_encoding(llama2, tmp_path):
    codefuse = format_for("codefuse", llama2)
    write_tokens(tmp_path / "set", encode_conversations(ROWS, codefuse, llama2, 80, TASKS), {})
    for context in (35, 36, 65, 66, 1000):
        fresh = encode_conversations(ROWS, codefuse, llama2, context, TASKS)
        opened = read_tokens(tmp_path / "set", context)
        assert list(opened.samples) == list(fresh.samples)
        assert (opened.kept, opened.dropped) == (fresh.kept, fresh.dropped)
    assert read_tokens(tmp_path / "set", 1000).kept == 3


def test_a_set_is_never_written_over_another_and_a_changed_one_is_refused(llama2, tmp_path):
    encoded = encode_conversations(ROWS, format_for("codefuse", llama2), llama2, 80, TASKS)
    write_tokens(tmp_path / "set", encoded, {})
    with pytest.raises(OutputError, match="not empty"):
        write_tokens(tmp_path / "set", encoded, {})
    write_tokens(tmp_path / "set", encoded, {}, replace=True)
    file = tmp_path / "set" / "ids.bin"
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(CheckFailed, match=r"ids.bin: changed"):
        read_tokens(tmp_path / "set", verify=True)
    file.write_bytes(whole[:-1])
    with pytest.raises(CheckFailed, match=r"ids.bin: has 537 bytes; the manifest says 538"):
        read_tokens(tmp_path / "set")
    file.unlink()
    with pytest.raises(CheckFailed, match=r"ids.bin: is missing; the manifest says 538"):
        read_tokens(tmp_path / "set")
    (tmp_path / "set" / "manifest.json").unlink()
    with pytest.raises(CheckFailed, match=r"has no manifest"):
        read_tokens(tmp_path / "set")


def test_jsonl_lines_hold_the_rendered_row(llama2, tmp_path):
    encoded = write_jsonl(tmp_path / "rows.jsonl", ROWS, format_for("codefuse", llama2), llama2, 80, TASKS)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    human, bot = "<|role_start|>human<|role_end|>", "<|role_start|>bot<|role_end|>"
    assert [(line["id"], line["task"], line["text"]) for line in lines] == [
        ("plain", "chat", f"{human}2+2?{bot}4</s>"), ("two#1", "repair", f"{human}a{bot}= b</s>"),
        ("two#2", "repair", f"{human}a{bot}= b</s>{human}c{bot}d</s>")]
    for line, sample in zip(lines, encoded.samples, strict=True):
        assert list(line) == ["id", "task", "text", "input_ids", "labels"]
        assert (tuple(line["input_ids"]), tuple(line["labels"])) == (sample.input_ids, sample.labels)


def test_jsonl_text_of_the_2023_encoding_is_the_rendered_text_not_its_pieces(llama2, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS[:1], format_for("codefuse_2023", llama2), llama2, 80, TASKS)
    line = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8"))
    assert line["text"] == "<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>"


def test_jsonl_leaves_nothing_behind_when_the_input_breaks(llama2, tmp_path):
    def broken():
        yield ROWS[0]
        raise DataError("line 2 is broken")

    with pytest.raises(DataError, match="line 2"):
        write_jsonl(tmp_path / "rows.jsonl", broken(), format_for("codefuse", llama2), llama2, 80, TASKS)
    assert list(tmp_path.iterdir()) == []
