"""`auto` says what it chose, and refuses to guess."""

import json
import logging

import pytest

from mft.data import build
from mft.data.converters.detect import Detector, candidates
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("keys", "names"), [
    ("chat_rounds id", ["chat_rounds"]),
    ("messages prompt prompt_id", ["messages"]),
    ("conversations tools", ["sharegpt"]),
    ("chat meta_instruction num_turns", ["moss"]),
    ("instruction output", ["alpaca"]),
    ("instruction input output history", ["alpaca"]),
    ("input output", ["pairs (input, output)"]),
    ("instruction response", ["pairs (instruction, response)"]),
    ("question answer system", ["pairs (question, answer)"]),
    ("prefix suffix middle", ["infill"]),
    ("text url timestamp", ["text"]),
    ("messages text", ["messages"]),
    # refused: the other text would be lost
    ("instruction input response output", ["alpaca", "pairs (instruction, response)"]),
    ("instruction input response", ["pairs (instruction, response)", "alpaca"]),
    ("prompt answer chat_rounds", ["chat_rounds", "pairs (prompt, answer)"]),
    ("prompt answer response", ["pairs (prompt, answer)", "pairs (prompt, response)"]),
    ("messages conversations", ["messages", "sharegpt"]),
    # no guess: a problem statement is no text to learn
    ("text code test_list", []),
    ("prompt canonical_solution", []),
    ("question query db_id", []),
    ("", []),
])
def test_the_keys_of_a_row_say_which_converters_could_read_it(keys, names):
    assert [candidate.name for candidate in candidates(dict.fromkeys(keys.split(), "x"))] == names


def test_an_ambiguous_row_is_refused_with_the_line_to_write(tmp_path):
    path = write(tmp_path / "a.jsonl", {"instruction": "i", "input": "x", "response": "r", "output": "r"})
    with pytest.raises(DataError) as error:
        list(read_conversations(path))
    assert str(error.value) == (
        f"{path}:1: the row fits alpaca and pairs (instruction, response); name one: 'converter: alpaca' reads instruction, input, output; "
        "or 'converter: {type: pairs, columns: {prompt: instruction, answer: response}}' reads instruction, response")


def test_an_instruction_with_input_and_response_is_not_read_without_its_input(tmp_path):
    path = write(tmp_path / "a.jsonl", {"instruction": "i", "input": "x", "response": "r"})
    with pytest.raises(DataError, match=r"'converter: \{type: alpaca, columns: \{output: response\}\}' reads instruction, input, response"):
        list(read_conversations(path))
    row = next(read_conversations(path, {"type": "alpaca", "columns": {"output": "response"}}))
    assert [message.content for message in row.messages] == ["i\nx", "r"]


def test_a_column_of_nulls_does_not_make_a_row_ambiguous():
    detector = Detector()
    chosen = detector.choose({"messages": None, "conversations": []}, "a:1")
    assert chosen is not None
    assert chosen.name == "sharegpt"
    with pytest.raises(DataError):
        detector.choose({"messages": [], "conversations": []}, "a:2")


def test_a_row_that_fits_none_is_a_counted_drop_and_the_choice_is_in_the_log_and_the_ledger(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": "a"}, {"q": "x"}, {"instruction": "q", "output": "a"},
                 {"question": "q", "answer": "b"})
    ledger = Ledger("read")
    with caplog.at_level(logging.INFO, "mft"):
        assert len(list(read_conversations(path, "auto", ledger))) == 3
    assert dict(ledger.dropped) == {"no_converter": 1}
    assert ledger.report == {"converters": {"a.jsonl": {"alpaca": 1, "pairs (question, answer)": 2}}}
    assert f"{path}: auto chose pairs (question, answer) for 2 rows, alpaca for 1 rows" in caplog.messages
    assert f"{path}:2: dropped: no_converter (its keys are q)" in caplog.messages


def test_a_file_of_which_no_row_fits_is_an_error_with_its_keys(tmp_path):
    path = write(tmp_path / "a.jsonl", {"task_id": 1, "prompt": "p", "canonical_solution": "s"}, {"x": 1})
    with pytest.raises(DataError) as error:
        list(read_conversations(path))
    assert str(error.value).startswith(f"{path}:1: no converter fits this row; its keys are task_id, prompt, canonical_solution (dropped: "
                                       "no_converter 2); known: chat_rounds, messages, ")
    assert "converter: {type: fields, user: '...', assistant: '...'}" in str(error.value)


def test_the_manifest_says_what_auto_chose_for_each_file(tmp_path):
    for number, row in enumerate([{"question": "q", "answer": "a"}, {"instruction": "q", "output": "a"}]):
        write(tmp_path / f"{number}.jsonl", *({**row, "id": n} for n in range(5)))
    (tmp_path / "r.yaml").write_text("name: r\ntasks: {t: {sources: [{type: jsonl, path: '*.jsonl'}]}}\nsplit: {validation: 0}\n")
    facts = build(tmp_path / "r.yaml").facts
    assert facts["steps"][0]["report"] == {"converters": {"0.jsonl": {"pairs (question, answer)": 5}, "1.jsonl": {"alpaca": 5}}}
