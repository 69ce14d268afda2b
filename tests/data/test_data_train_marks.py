"""Which turns and characters train, as several tools write it."""

import json

import pytest

from mft.conversation import Message
from mft.data import build
from mft.data.converters.base import RowFault
from mft.data.converters.registry import CONVERTERS
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError


def convert(**marks):
    """The last answer of a row whose first answer has these marks, and that first answer."""
    row = {"messages": [{"role": "user", "content": "q", "train": False}, {"role": "assistant", "content": "0123456789", **marks},
                        {"role": "user", "content": "q", "loss_weight": 0.0}, {"role": "assistant", "content": "b"}]}
    messages = CONVERTERS["messages"].convert(row, set())
    assert [message.train for message in messages[::2]] == [True, True]
    assert messages[3] == Message("assistant", "b")
    return messages[1]


@pytest.mark.parametrize(("marks", "trained"), [
    ({}, True), ({"train": True}, True), ({"train": False}, False), ({"training": False}, False), ({"training": True}, True),
    ({"weight": 1}, True), ({"weight": 0}, False), ({"weight": 0.0}, False), ({"loss_weight": 0.0}, False), ({"loss_weight": 1.0}, True),
    ({"weight": 0, "train": False, "training": False, "loss_weight": 0}, False), ({"train": None, "weight": 0}, False),
    ({"train": None, "weight": None, "untrained": None, "train_detail": None}, True)])
def test_every_tools_mark_leaves_an_answer_untrained(marks, trained):
    assert convert(**marks) == Message("assistant", "0123456789", train=trained)


@pytest.mark.parametrize("marks", [
    {"weight": 0.5}, {"loss_weight": 2}, {"weight": True}, {"train": 0}, {"train": "no"}, {"training": 1}, {"weight": "0"},
    {"weight": 0, "train": True}, {"training": False, "train": True}, {"loss_weight": 1.0, "weight": 0}, {"train": []},
    {"weight": float("nan")}])
def test_shares_of_the_loss_and_marks_that_disagree_are_a_reason(marks):
    with pytest.raises(RowFault) as fault:
        convert(**marks)
    assert fault.value.reason == "bad_train_flag"


@pytest.mark.parametrize(("marks", "spans"), [
    ({"untrained": []}, ()),
    ({"untrained": [[0, 2]]}, ((0, 2),)),
    ({"untrained": [[6, 8], [0, 2], [1, 4]]}, ((0, 4), (6, 8))),
    ({"untrained": [[0, 10]]}, ((0, 10),)),
    ({"train_detail": [{"begin_offset": 0, "end_offset": 8, "train": False}]}, ((0, 9),)),
    ({"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}, {"begin_offset": 4, "end_offset": 6, "train": True},
                       {"begin_offset": 7, "end_offset": 9, "train": False}]}, ((0, 4), (7, 10))),
    ({"untrained": [[0, 1]], "train_detail": [{"begin_offset": 1, "end_offset": 1, "train": False}]}, ((0, 2),)),
])
def test_spans_are_left_out_in_our_spelling_and_in_axolotls(marks, spans):
    assert convert(**marks) == Message("assistant", "0123456789", untrained=spans)


@pytest.mark.parametrize("marks", [
    {"untrained": [[0, 11]]}, {"untrained": [[3, 3]]}, {"untrained": [[4, 2]]}, {"untrained": [[-1, 2]]}, {"untrained": [[0, 1.5]]},
    {"untrained": [[0]]}, {"untrained": ["ab"]}, {"untrained": "ab"}, {"untrained": {"0": 1}}, {"untrained": [[False, True]]},
    {"train_detail": [{"begin_offset": 0, "end_offset": 10, "train": False}]}, {"train_detail": [{"begin_offset": 0, "train": False}]},
    {"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": "no"}]}, {"train_detail": ["x"]}, {"train_detail": 5},
    {"untrained": [[0, 4]], "train_detail": [{"begin_offset": 3, "end_offset": 5, "train": True}]}])
def test_a_span_that_is_no_part_of_the_text_is_a_reason(marks):
    with pytest.raises(RowFault) as fault:
        convert(**marks)
    assert fault.value.reason == "bad_train_span"


def chat(*answers):
    messages = [part for answer in answers for part in ({"role": "user", "content": "q"}, {"role": "assistant", **answer})]
    return json.dumps({"messages": messages})


def test_a_source_may_train_the_last_answer_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([chat({"content": "a"}, {"content": "b", "untrained": [[0, 1]]}),
                               chat({"content": "a"}, {"content": "b", "train": False}), chat({"content": "a"})]))
    assert [[message.train for message in row.messages[1::2]] for row in read_conversations(path)] == [[True, True], [True, False], [True]]
    rows = list(read_conversations(path, train="last"))
    assert [[message.train for message in row.messages[1::2]] for row in rows] == [[False, True], [True]]
    assert rows[0].messages[3].untrained == ((0, 1),)


def test_train_last_in_a_recipe_reaches_the_rows_and_a_row_without_a_trained_answer_is_dropped(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join([chat({"content": "a"}, {"content": "b"}),
                                                 chat({"content": "a"}, {"content": "b", "weight": 0})]))
    recipe = "name: r\ntasks: {t: {sources: [{type: jsonl, path: a.jsonl, train: last}]}}\nsplit: {validation: 0}\n"
    (tmp_path / "r.yaml").write_text(recipe)
    built = build(tmp_path / "r.yaml")
    assert [message.train for message in built.rows["train"][0].messages[1::2]] == [False, True]
    assert built.facts["dropped"] == {"nothing_trained": 1}


def test_an_answer_that_trains_in_no_turn_of_a_file_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text(chat({"content": "a", "training": False}))
    with pytest.raises(DataError, match="no usable row; dropped: nothing_trained 1"):
        list(read_conversations(tmp_path / "a.jsonl"))
