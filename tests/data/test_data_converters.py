"""Three public schemas, and the refusal to guess."""

import json

import pytest

from mft.conversation import Message
from mft.data.converters.base import RowFault
from mft.data.converters.registry import CONVERTERS
from mft.data.jsonl import read_conversations
from mft.data.ledger import Ledger
from mft.errors import DataError

EXPECTED = (Message("system", "be brief"), Message("user", "q"), Message("assistant", "a"))

ROWS = {
    "chat_rounds": {"chat_rounds": [{"role": "system", "content": "be brief"}, {"role": "human", "content": "q"},
                                    {"role": "bot", "content": "a"}]},
    "messages": {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"},
                              {"role": "assistant", "content": "a"}]},
    "sharegpt": {"system": "be brief", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
}


def one(tmp_path, row, converter="auto"):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return list(read_conversations(path, converter))


@pytest.mark.parametrize("name", CONVERTERS)
def test_each_schema_gives_the_same_messages_named_or_detected(tmp_path, name):
    assert one(tmp_path, ROWS[name], name)[0].messages == EXPECTED
    assert one(tmp_path, ROWS[name])[0].messages == EXPECTED


@pytest.mark.parametrize("system", [None, ""])
def test_an_empty_sharegpt_system_is_none(system):
    assert CONVERTERS["sharegpt"].convert({**ROWS["sharegpt"], "system": system}) == EXPECTED[1:]


def test_a_sharegpt_system_that_is_not_text_is_a_reason():
    with pytest.raises(RowFault) as fault:
        CONVERTERS["sharegpt"].convert({**ROWS["sharegpt"], "system": ["x"]})
    assert fault.value.reason == "content_not_text"


@pytest.mark.parametrize(("flag", "trained"), [({}, True), ({"train": True}, True), ({"train": False}, False), ({"weight": 1}, True),
                                               ({"weight": 0}, False), ({"weight": 0.0}, False), ({"weight": 0, "train": False}, False)])
def test_train_and_weight_mark_an_answer(flag, trained):
    row = {"messages": [{"role": "user", "content": "q", "train": False}, {"role": "assistant", "content": "a", **flag},
                        {"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}
    messages = CONVERTERS["messages"].convert(row)
    assert [message.train for message in messages] == [True, trained, True, True]


def test_auto_refuses_a_row_that_fits_no_converter_with_its_place_and_the_candidates(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROWS["messages"]) + '\n{"prompt": "q", "answer": "a"}\n')
    with pytest.raises(DataError) as error:
        list(read_conversations(path))
    assert str(error.value) == (
        f"{path}:2: no converter fits this row; its keys are prompt, answer; known: chat_rounds (key 'chat_rounds'), "
        "messages (key 'messages'), sharegpt (key 'conversations')")


def test_auto_refuses_a_row_that_fits_several(tmp_path):
    with pytest.raises(DataError, match=r"a\.jsonl:1: the row fits chat_rounds \(key 'chat_rounds'\) and messages \(key 'messages'\)"):
        one(tmp_path, {**ROWS["chat_rounds"], **ROWS["messages"]})


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
