"""Public schemas, each with its columns renamed where a recipe says so."""

import json

import pytest

from mft.conversation import Message, shape_of
from mft.data.converters.base import RowFault
from mft.data.converters.registry import CONVERTERS, find_converter
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError

EXPECTED = (Message("system", "be brief"), Message("user", "q"), Message("assistant", "a"))

ROWS = {
    "chat_rounds": {"chat_rounds": [{"role": "system", "content": "be brief"}, {"role": "human", "content": "q"},
                                    {"role": "bot", "content": "a"}]},
    "messages": {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"},
                              {"role": "assistant", "content": "a"}]},
    "sharegpt": {"system": "be brief", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "alpaca": {"system": "be brief", "instruction": "q", "output": "a"},
    "pairs": {"system": "be brief", "question": "q", "answer": "a"},
    "moss": {"meta_instruction": "be brief", "chat": {"turn_1": {
        "Human": "<|Human|>: q<eoh>\n", "Commands": "<|Commands|>: None<eoc>\n", "MOSS": "<|MOSS|>: a<eom>\n"}}},
}


def one(tmp_path, row, converter="auto"):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return list(read_conversations(path, converter))


@pytest.mark.parametrize("name", ROWS)
def test_each_schema_gives_the_same_messages_named_or_detected(tmp_path, name):
    assert one(tmp_path, ROWS[name], name)[0].messages == EXPECTED
    assert one(tmp_path, ROWS[name])[0].messages == EXPECTED


@pytest.mark.parametrize("system", [None, ""])
def test_an_empty_sharegpt_system_is_none(system):
    assert CONVERTERS["sharegpt"].convert({**ROWS["sharegpt"], "system": system}, set()) == EXPECTED[1:]


def test_a_sharegpt_system_that_is_not_text_is_a_reason():
    with pytest.raises(RowFault) as fault:
        CONVERTERS["sharegpt"].convert({**ROWS["sharegpt"], "system": ["x"]}, set())
    assert fault.value.reason == "content_not_text"


def test_a_named_converter_reads_a_row_that_fits_several_and_counts_one_without_its_key(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, [{**ROWS["chat_rounds"], **ROWS["messages"]}, ROWS["sharegpt"]])))
    ledger = Ledger("read")
    assert [row.messages for row in read_conversations(path, "messages", ledger)] == [EXPECTED]
    assert dict(ledger.dropped) == {"missing_key": 1}
    ledger.close()


def test_an_unknown_converter_is_an_error_with_the_likely_spelling(tmp_path):
    with pytest.raises(DataError, match=r"converter 'sharegtp' is not known; expected auto, .*did you mean 'sharegpt'"):
        one(tmp_path, ROWS["messages"], "sharegtp")


def reason_of(name, row):
    """Why the converter of this name refuses a row."""
    converter = find_converter(name)
    with pytest.raises(RowFault) as fault:
        converter.convert(converter.view(row), set())
    return fault.value.reason


def messages_of(choice, row):
    converter = find_converter(choice)
    return converter.convert(converter.view(row), set())


@pytest.mark.parametrize(("row", "user"), [
    ({"input": "x = 1"}, Message("user", "Explain.\nx = 1", input_start=9)),
    ({"input": ""}, Message("user", "Explain.")),
    ({"input": None}, Message("user", "Explain.")),
    ({"input": " \n"}, Message("user", "Explain.")),
    ({}, Message("user", "Explain.")),
    ({"instruction": "", "input": "x = 1"}, Message("user", "x = 1")),
])
def test_alpaca_keeps_instruction_and_input_and_says_where_the_input_begins(row, user):
    messages = messages_of("alpaca", {"instruction": "Explain.", "output": " one\n", **row})
    assert messages == (user, Message("assistant", " one\n"))
    if user.input_start is not None:
        assert user.content[user.input_start:] == "x = 1"


def test_alpaca_history_stands_before_the_instruction():
    row = {"instruction": "q3", "output": "a3", "history": [["q1", "a1"], ["q2", "a2"]]}
    assert [message.content for message in messages_of("alpaca", row)] == ["q1", "a1", "q2", "a2", "q3", "a3"]
    assert [message.content for message in messages_of("alpaca", {**row, "history": ""})] == ["q3", "a3"]


@pytest.mark.parametrize(("history", "reason"), [
    ("q", "bad_history"), ([["q"]], "bad_history"), (["qa"], "bad_history"), ([["q", 1]], "content_not_text"), ({"q": "a"}, "bad_history")])
def test_a_history_of_another_form_is_a_reason(history, reason):
    assert reason_of("alpaca", {"instruction": "q", "output": "a", "history": history}) == reason


@pytest.mark.parametrize(("question", "answer"), [
    ("prompt", "answer"), ("prompt", "response"), ("input", "output"), ("instruction", "output"), ("instruction", "response"),
    ("question", "response"), ("question", "answer"), ("query", "answer")])
def test_the_eight_pairs_are_read(question, answer):
    assert messages_of("pairs", {question: "q", answer: "a"}) == EXPECTED[1:]


def test_a_row_with_two_pairs_is_refused_and_declared_columns_decide(tmp_path):
    row = {"prompt": "q", "answer": "a", "response": "b"}
    with pytest.raises(DataError, match=r"a\.jsonl:1: the row has prompt/answer and prompt/response; name one: "
                                        r"'converter: \{type: pairs, columns: \{prompt: prompt, answer: answer\}\}'"):
        one(tmp_path, row, "pairs")
    choice = {"type": "pairs", "columns": {"prompt": "prompt", "answer": "response"}}
    assert one(tmp_path, row, choice)[0].messages == (Message("user", "q"), Message("assistant", "b"))


def test_columns_rename_what_a_schema_reads_and_the_id(tmp_path):
    row = {"task_id": "t7", "user": "q", "assistant": "a", "sys": "be brief", "system": "not this"}
    choice = {"type": "pairs", "columns": {"prompt": "user", "answer": "assistant", "system": "sys", "id": "task_id"}}
    read = one(tmp_path, row, choice)[0]
    assert (read.id, read.messages) == ("t7", EXPECTED)
    talk = {"talk": ROWS["messages"]["messages"]}
    assert one(tmp_path, talk, {"type": "messages", "columns": {"messages": "talk"}})[0].messages == EXPECTED


def test_two_columns_may_change_places():
    choice = {"type": "pairs", "columns": {"prompt": "answer", "answer": "prompt"}}
    assert [message.content for message in messages_of(choice, {"prompt": "code", "answer": "text"})] == ["text", "code"]


def test_a_declared_column_that_no_row_has_is_an_error_even_where_the_schema_can_do_without(tmp_path):
    with pytest.raises(DataError, match="no row has the column 'sytem', which the recipe declares as 'system'; columns: answer, question"):
        one(tmp_path, {"question": "q", "answer": "a"}, {"type": "pairs", "columns": {"system": "sytem"}})


@pytest.mark.parametrize(("choice", "words"), [
    ({"type": "pair"}, "found 'pair'; did you mean 'pairs'"),
    ({"type": "pairs", "columns": {"q": "x"}}, "'q' is no key of the schema"),
    ({"type": "fields", "user": "{{ q }", "assistant": "a"}, "not a Jinja template"), ("fields", "needs its templates")])
def test_a_mapping_that_is_no_converter_is_an_error(choice, words):
    with pytest.raises(DataError, match=words):
        find_converter(choice)


def test_text_and_infill_have_shapes_of_their_own(tmp_path):
    text = one(tmp_path, {"text": "import os\n"}, "text")[0]
    assert text.messages == (Message("assistant", "import os\n"),)
    infill = one(tmp_path, {"prefix": "a = ", "suffix": "", "middle": "1"}, "infill")[0]
    assert infill.messages == (Message("user", "a = "), Message("user", ""), Message("assistant", "1"))
    assert (shape_of(text.messages), shape_of(infill.messages)) == ("text", "infill")


@pytest.mark.parametrize(("name", "row"), [("text", {"text": " \n"}), ("infill", {"prefix": "a", "suffix": "b", "middle": ""}),
                                           ("infill", {"prefix": "", "suffix": "", "middle": "b"})])
def test_a_text_or_infill_without_anything_to_learn_is_dropped(tmp_path, name, row):
    with pytest.raises(DataError, match="dropped: empty_message 1"):
        one(tmp_path, row, name)


def test_a_chat_row_of_one_answer_is_no_text_and_two_users_are_no_infill(tmp_path):
    for roles in (["assistant"], ["user", "user", "assistant"]):
        with pytest.raises(DataError, match=r"dropped: (assistant_first|repeated_role) 1"):
            one(tmp_path, {"messages": [{"role": role, "content": "x"} for role in roles]}, "messages")


@pytest.mark.parametrize("key", ["text", "value"])
def test_text_parts_are_laid_end_to_end(key):
    row = {"messages": [{"role": "user", "content": [{"type": "text", key: "a "}, {"type": "text", key: "b\n"}]},
                        {"role": "assistant", "content": "c"}]}
    assert messages_of("messages", row)[0] == Message("user", "a b\n")


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {}}, "text", {"type": "text"}, {"type": "text", "text": 3}, None,
                                  {"type": "tool_call", "value": "x"}])
def test_a_part_that_is_no_text_is_a_reason(part):
    row = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}, {"role": "assistant", "content": "c"}]}
    assert reason_of("messages", row) == "part_not_text"


@pytest.mark.parametrize("call", [{"tool_calls": [{"id": 1}]}, {"function_call": {"name": "f"}}])
def test_a_call_of_a_tool_is_a_reason_even_beside_text(call):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "let me see", **call}]}
    assert reason_of("messages", row) == "tool_call"
    assert messages_of("messages", {"messages": [row["messages"][0], {"role": "assistant", "content": "a", "tool_calls": None}]})


def test_moss_turns_are_ordered_by_number_and_lose_their_marks():
    turns = {f"turn_{n}": {"Human": f"<|Human|>: q{n} <eoh>\n", "MOSS": f"<|MOSS|>:  a{n}\n<eom>\n"} for n in (10, 2, 1)}
    assert [message.content for message in messages_of("moss", {"chat": turns})] == ["q1 ", " a1\n", "q2 ", " a2\n", "q10 ", " a10\n"]


@pytest.mark.parametrize(("turn", "reason"), [
    ({"Human": "q", "MOSS": "<|MOSS|>: a<eom>\n"}, "no_marks"),
    ({"Human": "<|Human|>: q<eoh>", "MOSS": "<|MOSS|>: a<eom>", "Commands": "<|Commands|>: Search(x)<eoc>"}, "tool_call"),
    ({"Human": "<|Human|>: q<eoh>"}, "missing_key"), ("x", "message_not_an_object")])
def test_a_moss_turn_of_another_form_is_a_reason(turn, reason):
    assert reason_of("moss", {"chat": {"turn_1": turn}}) == reason


def test_moss_without_turns_or_with_another_name_is_a_reason():
    assert reason_of("moss", {"chat": []}) == "messages_not_a_list"
    assert reason_of("moss", {"chat": {"first": {}}}) == "unknown_role"
    assert reason_of("moss", {}) == "missing_key"
