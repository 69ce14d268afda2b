"""Formats that a user writes in YAML."""

import json

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.errors import ConfigError, FormatError
from mft.formats.base import joined

HOUSE = """
name: house-style
bos: true
system: {before: "### System\\n", after: "\\n"}
user: {before: "### User\\n", after: "\\n"}
assistant: {before: "### Assistant\\n", tail: "\\n", end: "<|end|>", then: "\\n"}
control: ["<|end|>"]
tags: ["### User", "### Assistant"]
stop_strings: ["### User"]
"""
MESSAGES = (Message("system", "Be brief."), Message("user", "2+2?"), Message("assistant", "4"))


@pytest.fixture
def house(tmp_path):
    path = tmp_path / "house.yaml"
    path.write_text(HOUSE)
    return path


def test_a_format_of_ones_own_renders_what_its_table_says(house):
    own = formats.get(str(house))
    segments = own.render(Conversation("row", "task", MESSAGES))
    assert joined(segments) == "<s>### System\nBe brief.\n### User\n2+2?\n### Assistant\n4\n<|end|>\n"
    assert [segment.text for segment in segments if segment.trainable] == ["4\n", "<|end|>"]
    assert [segment.text for segment in segments if segment.control] == ["<s>", "<|end|>"]
    assert (own.name, own.end_token, own.stop_tokens, own.stop_strings) == ("house-style", "<|end|>", ("<|end|>", "</s>"), ("### User",))
    assert own.required_tokens == ("<s>", "<|end|>")
    assert own.fault((Message("user", "### User"), MESSAGES[2])) == "role_tag_in_text"


def test_its_template_gives_the_same_bytes(house):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    own = formats.get(str(house))
    values = [{"role": message.role, "content": message.content} for message in MESSAGES]
    for part, generate in ((3, False), (2, True)):
        text = tokenizer.apply_chat_template(values[:part], chat_template=own.chat_template(), tokenize=False,
                                             add_generation_prompt=generate)
        assert text == joined(own.render_messages(MESSAGES[:part], generate=generate))


def test_what_is_kept_beside_a_model_makes_the_same_format(house):
    own = formats.get(str(house))
    kept = json.loads(json.dumps(own.reference))
    again = formats.get(kept)
    assert again.reference == kept == formats.get_reference(str(house))
    assert again.chat_template() == own.chat_template()
    assert formats.get("ziya").reference == "ziya"


def test_two_named_formats_have_settings(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("extends: alpaca\nnewline: true\n")
    assert joined(formats.get(str(path)).render_prompt(MESSAGES[1:2])).endswith("2+2?\n\n### Response:\n")
    path.write_text("extends: codellama70b\ndestination_in_history: true\n")
    one_row = formats.get(str(path))
    assert not one_row.row_per_turn
    assert joined(one_row.render(Conversation("row", "task", MESSAGES[1:] + MESSAGES[1:]))).count("Destination: user\n\n 4 <step>") == 2
    path.write_text("extends: codellama70b\nempty_system: false\n")
    assert joined(formats.get(str(path)).render_prompt(MESSAGES[1:2])).startswith("<s>Source: user\n\n 2+2?")


def test_a_system_message_is_refused_where_there_is_no_place_for_one(house):
    house.write_text(HOUSE.replace('system: {before: "### System\\n", after: "\\n"}', "system_place: none"))
    own = formats.get(str(house))
    assert own.fault(MESSAGES) == "no_system_slot"
    with pytest.raises(FormatError, match="no place for one"):
        own.render(Conversation("row", "task", MESSAGES))
    assert joined(own.render(Conversation("row", "task", MESSAGES[1:]))).startswith("<s>### User")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("user:", "human:", r"house\.yaml:5: human: not a known key"),
    ('end: "<|end|>"', 'end: "<|stop|>"', r"assistant\.end is '<\|stop\|>'; expected '\{eos\}' or one of control"),
    ("bos: true", "bos: maybe", r"house\.yaml:3: bos: "),
    ("name: house-style", "extends: ziya", r"house\.yaml: extends is 'ziya'; only codellama70b and alpaca have settings"),
])
def test_a_mistake_is_named_with_its_place(house, old, new, message):
    house.write_text(HOUSE.replace(old, new))
    with pytest.raises((ConfigError, FormatError), match=message):
        formats.get(str(house))


def test_a_missing_file_is_one_message():
    with pytest.raises(FormatError, match=r"nowhere\.yaml: cannot be read as the YAML of a prompt format"):
        formats.get("nowhere.yaml")
