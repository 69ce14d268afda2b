"""Run the steps of a recipe over its rows, in order, with a ledger for each."""

from collections.abc import Sequence
from typing import Any

from mft.conversation import Conversation
from mft.data.config import RecipeConfig
from mft.data.ledger import BuildLedger, Ledger
from mft.data.step_registry import make_step
from mft.data.verdict import GroupStep, RowStep, Verdict
from mft.errors import DataError


def run_steps(recipe: RecipeConfig, rows: Sequence[Conversation], ledger: BuildLedger) -> list[Conversation]:
    """The rows that every step keeps: the common steps over all tasks together, then each task's own over its rows.

    Raises:
        DataError: a step leaves no row of a task.
    """
    kept = list(rows)
    for config in recipe.steps:
        kept = _run_step(config, kept, ledger)
    for name, task in recipe.tasks.items():
        for config in task.steps:
            own = _run_step(config, [row for row in kept if row.task == name], ledger, only=name)
            kept = [row for row in kept if row.task != name] + own
    return kept


def _run_step(config: Any, rows: Sequence[Conversation], ledger: BuildLedger, only: str | None = None) -> list[Conversation]:
    step = make_step(config)
    counts = ledger.open(config.type, only)
    kept = [after for row, verdict in zip(rows, _verdicts(step, rows), strict=True) if (after := _apply(row, verdict, counts))]
    counts.close()
    counts.report, counts.lists = step.report(), step.lists()
    left = {row.task for row in kept}
    for task in dict.fromkeys(row.task for row in rows):
        if task not in left:
            raise DataError(f"step '{config.type}' leaves no row of task '{task}': {counts.summary()}")
    return kept


def _verdicts(step: RowStep | GroupStep, rows: Sequence[Conversation]) -> Sequence[Verdict]:
    return step.judge_all(rows) if isinstance(step, GroupStep) else [step.judge(row) for row in rows]


def _apply(row: Conversation, verdict: Verdict, counts: Ledger) -> Conversation | None:
    """The row that goes on, or None; counted either way."""
    counts.read += 1
    if not verdict.keep:
        counts.drop(verdict.reason, row.origin or row.id, verdict.detail)
        return None
    counts.kept += 1
    if verdict.note:
        counts.note(verdict.note)
    return verdict.changed or row
