"""The steps of a recipe: each looks at rows in order and keeps a row or names a reason to drop it."""

import unicodedata
from collections.abc import Callable, Sequence

from mft.conversation import Conversation
from mft.data.config import ExactDedupStep, LengthStep, RecipeConfig, Step
from mft.data.ledger import BuildLedger
from mft.errors import DataError
from mft.files import sha256_json

Judge = Callable[[Conversation], str | None]
"""Why a row is dropped, or None."""


def run_steps(recipe: RecipeConfig, rows: Sequence[Conversation], ledger: BuildLedger) -> list[Conversation]:
    """The rows that every step keeps: the common steps over all tasks together, then each task's own over its rows.

    Raises:
        DataError: a step leaves no row of a task.
    """
    kept = list(rows)
    for step in recipe.steps:
        kept = _run_step(step, kept, ledger)
    for name, task in recipe.tasks.items():
        for step in task.steps:
            kept = _run_step(step, kept, ledger, only=name)
    return kept


def length_judge(step: LengthStep) -> Judge:
    """`too_short` and `too_long`, by the characters of user and assistant messages together."""
    def judge(conversation: Conversation) -> str | None:
        characters = sum(len(message.content) for message in conversation.messages if message.role != "system")
        if characters < step.min_characters:
            return "too_short"
        return "too_long" if step.max_characters is not None and characters > step.max_characters else None
    return judge


def dedup_judge() -> Judge:
    """`duplicate`: a row before had the same roles and, but for white space and NFC, the same texts."""
    seen: set[str] = set()

    def judge(conversation: Conversation) -> str | None:
        key = text_key(conversation)
        if key in seen:
            return "duplicate"
        seen.add(key)
        return None
    return judge


def text_key(conversation: Conversation) -> str:
    """Hash of the roles and the NFC, whitespace-collapsed texts of all messages; the task and the id have no part in it."""
    return sha256_json([(message.role, " ".join(unicodedata.normalize("NFC", message.content).split()))
                        for message in conversation.messages])


def _run_step(step: Step, rows: Sequence[Conversation], ledger: BuildLedger, only: str | None = None) -> list[Conversation]:
    judge = dedup_judge() if isinstance(step, ExactDedupStep) else length_judge(step)
    counts = ledger.open(step.type, only)
    kept = []
    for row in rows:
        if only is not None and row.task != only:
            kept.append(row)
            continue
        counts.read += 1
        reason = judge(row)
        if reason:
            counts.drop(reason)
        else:
            counts.kept += 1
            kept.append(row)
    counts.close()
    left = {row.task for row in kept}
    for task in dict.fromkeys(row.task for row in rows):
        if task not in left:
            raise DataError(f"step '{step.type}' leaves no row of task '{task}': {counts.summary()}")
    return kept
