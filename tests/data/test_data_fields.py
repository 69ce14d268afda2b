"""A template for each role: any row becomes a conversation, to the character, or is a counted drop."""

import json

import pytest

from mft.conversation import Message
from mft.data import build, load_recipe
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import ConfigError, DataError

JAVA_TO_CS = {"type": "fields", "user": "Translate to C#:\n{{ java }}\n", "assistant": "{{ cs }}"}


def read(tmp_path, rows, choice):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ledger = Ledger("read")
    out = list(read_conversations(tmp_path / "a.jsonl", choice, ledger))
    ledger.close()
    return out, ledger


def test_what_a_template_gives_is_the_message_and_nothing_is_stripped_or_escaped(tmp_path):
    rows, _ = read(tmp_path, [{"java": " int a < b;\r\n", "cs": "\tint a<b; // {{ java }} \n\n"}], JAVA_TO_CS)
    assert rows[0].messages == (Message("user", "Translate to C#:\n int a < b;\r\n\n"),
                                Message("assistant", "\tint a<b; // {{ java }} \n\n"))


def test_several_rounds_a_system_and_columns_that_are_no_names(tmp_path):
    choice = {"type": "fields", "system": "{{ split }}", "columns": {"split": "query-split", "id": "key"},
              "turns": [{"user": "{{ sentences[0].text }}", "assistant": "{{ sql | first }}"},
                        {"user": "And {{ n + 1 }}?", "assistant": "{{ n }}"}]}
    rows, _ = read(tmp_path, [{"key": "k", "query-split": "test", "sentences": [{"text": "who?"}], "sql": ["SELECT 1", "x"], "n": 4},
                              {"key": "l", "query-split": "", "sentences": [{"text": "who?"}], "sql": ["SELECT 1"], "n": 1.5}], choice)
    assert [(row.id, [message.content for message in row.messages]) for row in rows] == [
        ("k", ["test", "who?", "SELECT 1", "And 5?", "4"]), ("l", ["who?", "SELECT 1", "And 2.5?", "1.5"])]


@pytest.mark.parametrize(("row", "reason"), [
    ({"java": "a"}, "missing_column"),
    ({"java": "a", "cs": None}, "template_failed"),
    ({"java": "a", "cs": ["x"]}, "template_failed"),
    ({"java": "a", "cs": {"x": 1}}, "template_failed"),
    ({"java": "a", "cs": " "}, "empty_message"),
    ({"java": "a", "cs": "\ud800"}, "lone_surrogate"),
])
def test_a_row_that_a_template_does_not_suit_is_a_counted_drop(tmp_path, row, reason):
    rows, ledger = read(tmp_path, [{"java": "a", "cs": "b"}, row], JAVA_TO_CS)
    assert len(rows) == 1
    assert dict(ledger.dropped) == {reason: 1}


@pytest.mark.parametrize("expression", ["n / 0", "n['x']['y']", "text[5]", "n()", "text | int / n.real.zzz", "text + n",
                                        "range(n * 10**6) | list | length", "n.__class__.__name__", "text.__init__.__globals__",
                                        "'%d' % text", "text | nosuch"])
def test_an_expression_that_fails_or_reaches_for_python_is_never_a_traceback(tmp_path, expression):
    choice = {"type": "fields", "user": f"{{{{ {expression} }}}}", "assistant": "a"}
    with pytest.raises(DataError, match=r"dropped: (template_failed|missing_column) 1|not a Jinja template"):
        read(tmp_path, [{"n": 1, "text": "abc"}], choice)


RECIPE = """\
name: r
tasks:
  translate:
    sources:
      - type: jsonl
        path: a.jsonl
        converter:
          type: fields
          user: "Translate:\\n{{ java }}"
          assistant: "{{ cs }}"
split: {validation: 0}
"""


def test_a_recipe_turns_a_translation_set_into_conversations(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"java": "J", "cs": "C"}) + "\n")
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert build(tmp_path / "r.yaml").rows["train"][0].messages == (Message("user", "Translate:\nJ"), Message("assistant", "C"))


@pytest.mark.parametrize(("old", "new", "line", "words"), [
    ("{{ cs }}", "{{ cs }", 10, "converter.assistant: not a Jinja template: line 1 of it: unexpected '}'"),
    ("{{ cs }}", "{{ cs | nosuch }}", 10, "converter.assistant: not a Jinja template: line 1 of it: No filter named 'nosuch'."),
    ('          assistant: "{{ cs }}"\n', "", 7, "converter: needs `user` and `assistant`, or `turns`"),
    ("type: fields", "type: fields\n          turns: [{user: a, assistant: b}]", 7, "not both"),
    ("type: fields", "type: field", 8, "did you mean 'fields'?"),
    ("assistant:", "asistant:", 10, "did you mean 'assistant'?"),
])
def test_a_mistake_in_a_template_is_a_mistake_of_the_recipe_with_its_line(tmp_path, old, new, line, words):
    (tmp_path / "r.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(ConfigError) as error:
        load_recipe(tmp_path / "r.yaml")
    about = [problem for problem in error.value.problems if words in problem]
    assert len(about) == 1, error.value.problems
    assert about[0].startswith(f"{tmp_path}/r.yaml:{line}: ")
