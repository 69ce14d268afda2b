"""Rows and verdicts for the tests of steps."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from mft.conversation import Conversation, Message
from mft.data.step_registry import Step, make_step
from mft.data.verdict import GroupStep, RowStep, Verdict


def row(user: str = "question", answer: str = "answer", id: str = "1", task: str = "t", origin: str = "") -> Conversation:
    """A row of one question and one answer."""
    return Conversation(id, task, (Message("user", user), Message("assistant", answer)), origin)


def step(**keys: Any) -> RowStep | GroupStep:
    """The step that a recipe with these keys makes."""
    return make_step(TypeAdapter(Step).validate_python(keys))


def verdicts(made: RowStep | GroupStep, rows: Sequence[Conversation]) -> Sequence[Verdict]:
    """The verdict on each row."""
    return made.judge_all(rows) if isinstance(made, GroupStep) else [made.judge(one) for one in rows]


def reason(answer: str, user: str = "question", **keys: Any) -> str:
    """Why a row of this answer is dropped; empty where it is kept."""
    return verdicts(step(**keys), [row(user, answer)])[0].reason
