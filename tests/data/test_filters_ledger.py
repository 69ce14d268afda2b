"""Every cleaning step at once: the ledger adds up, order has no part in it, and no text brings a step down."""

import json
import random

import pytest
from filter_rows import step, verdicts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mft.conversation import Conversation, Message, turn_fault
from mft.data import build
from mft.data.step_registry import STEPS

OURS = [
    {"type": "normalise", "apply": ["newlines", "nul", "nbsp", "zero_width", "bidi", "nfc", "trailing_space"]},
    {"type": "language", "keep": ["en", "zh"]},
    {"type": "syntax", "answers": None},
    {"type": "repetition", "min_words": 20},
    {"type": "secrets", "action": "mask"},
    {"type": "near_dedup", "threshold": 0.7},
    {"type": "held_out_dedup", "threshold": 0.7},
    {"type": "sample", "fraction": 0.9},
    {"type": "cap", "by": "task", "rows": 50},
]


def test_the_list_here_is_the_list_of_cleaning_steps():
    assert {one["type"] for one in OURS} == STEPS.keys() - {"length", "exact_dedup", "decontaminate"}


def lines():
    """300 rows, each fault some times."""
    base = "write a function of the kind number {n} that does the thing with all of its items and gives it back"
    answers = ["```python\nx = {n}\n```", "```python\nx = \n```", "```python\nopen", "say it again and " * 40,
               "token glpat-qWeRtYuIoPaSdFgHjKl{n} is", "one\r\ntwo {n} three\u00a0four five six"]
    for n in range(300):
        question = "отсортируй список" if n % 17 == 0 else base.format(n=n // 3) if n % 3 else base.format(n=n) * 2
        yield {"id": n, "messages": [{"role": "user", "content": question},
                                     {"role": "assistant", "content": answers[n % len(answers)].replace("{n}", f"{n:03}")}]}


def built(folder, rows):
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    recipe = {"name": "r", "tasks": {"t": {"sources": [{"type": "jsonl", "path": "rows.jsonl", "converter": "messages"}]}}, "steps": OURS,
              "split": {"validation": 0.1, "by": "id"}}
    (folder / "r.yaml").write_text(json.dumps(recipe))
    return build(folder / "r.yaml")


def test_the_ledger_adds_up_step_by_step_and_the_order_of_the_rows_has_no_part_in_it(tmp_path):
    rows = list(lines())
    result = built(tmp_path / "a", rows)
    steps = {one["step"]: one for one in result.facts["steps"] if one["step"] in STEPS}
    assert steps.keys() == {one["type"] for one in OURS}
    for one in steps.values():
        assert one["read"] == one["kept"] + sum(one["dropped"].values()), one
    dropped = {reason: count for one in steps.values() for reason, count in one["dropped"].items()}
    assert dropped.keys() == {"other_language", "syntax_error", "unclosed_fence", "repetitive", "near_duplicate", "not_sampled", "over_cap"}
    assert steps["normalise"]["noted"] == {"normalised": 150}   # CR LF, and spaces before a line's end in two more of the six answers
    assert steps["secrets"]["noted"]["secret_masked"] == steps["secrets"]["report"]["GITLAB_TOKEN"] > 40
    other = built(tmp_path / "b", random.Random(1).sample(rows, len(rows)))
    for part in ("train", "validation"):
        assert {row.id for row in result.rows[part]} == {row.id for row in other.rows[part]}
    assert [one["dropped"] for one in result.facts["steps"]] == [one["dropped"] for one in other.facts["steps"]]
    assert not any("glpat-" in message.content for row in result.rows["train"] for message in row.messages)


PIECES = st.sampled_from(["```python\n", "```", "\n", "\r", "\0", " ", "x = 1", "用", "ab", "\u200b", "\u00a0", "e\u0301",
                          "'", '"', "{", "\ud83d", "~~~", "//", ">>> "])
TEXT = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30)


@st.composite
def conversations(draw):
    messages = []
    for role in ("user", "assistant") * draw(st.integers(1, 2)):
        content = draw(TEXT)
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, len(content)))
        messages.append(Message(role, content, draw(st.booleans()), ((start, end),) if role == "assistant" and start < end else (),
                                start if role == "user" and draw(st.booleans()) else None))
    return Conversation(draw(st.text(max_size=3)), "t", tuple(messages))


@pytest.mark.parametrize("keys", [
    *OURS, {"type": "syntax", "answers": "python", "joined": True}, {"type": "normalise", "apply": ["full_width"], "fenced_code": False},
    {"type": "secrets", "action": "drop"}, {"type": "cap", "by": "id_prefix", "rows": 1},
], ids=lambda keys: "-".join(map(str, list(keys.values())[:2]))[:30])
# The first text of a process loads the tables of Unicode, which takes a second or two.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(conversations(), max_size=5))
def test_any_text_gets_one_verdict_and_what_stays_is_a_conversation(keys, rows):
    found = verdicts(step(**keys), rows)
    assert len(found) == len(rows)
    for row, verdict in zip(rows, found, strict=True):
        after = verdict.changed or row
        assert verdict.keep != bool(verdict.reason)
        assert (after.id, after.task) == (row.id, row.task)
        assert [message.role for message in after.messages] == [message.role for message in row.messages]
        if verdict.keep and turn_fault(row.messages) is None:
            assert turn_fault(after.messages) is None
