"""Run steps over rows: row steps one row at a time, group steps over the keys of all rows; each counted in a ledger of its own."""

from collections.abc import Iterable, Sequence
from typing import Any

from mft.conversation import Conversation
from mft.data.ledger import Ledger, ShardLedger
from mft.data.step_registry import make_step
from mft.data.verdict import GroupStep, RowName, RowStep
from mft.errors import DataError


class RowSteps:
    """A run of row steps over the rows of one shard."""

    def __init__(self, configs: Iterable[Any]) -> None:
        self._steps: list[tuple[RowStep, ShardLedger]] = []
        for config in configs:
            step = make_step(config)
            assert isinstance(step, RowStep)
            self._steps.append((step, ShardLedger(config.type)))

    def through(self, row: Conversation) -> Conversation | None:
        """The row as the last step leaves it, or None; counted in each step that sees it."""
        for step, counts in self._steps:
            verdict = step.judge(row)
            counts.read += 1
            if not verdict.keep:
                counts.drop(verdict.reason, row.origin or row.id, verdict.detail)
                return None
            counts.kept += 1
            if verdict.note:
                counts.note(verdict.note)
            row = verdict.changed or row
        return row

    def close(self) -> list[dict[str, Any]]:
        """The counts, report and lists of each step, for `Ledger.absorb`."""
        for step, counts in self._steps:
            counts.report, counts.lists = step.report(), step.lists()
        return [counts.to_counts() for _, counts in self._steps]


def judge_group(config: Any, keys: Sequence[bytes], names: Sequence[RowName], counts: Ledger) -> list[bool]:
    """Does each row stay, by the keys of all of them."""
    step = make_step(config)
    assert isinstance(step, GroupStep)
    stays = []
    for name, verdict in zip(names, step.judge_keys(keys, names), strict=True):
        counts.read += 1
        stays.append(verdict.keep)
        if not verdict.keep:
            counts.drop(verdict.reason, name.id, verdict.detail)
            continue
        counts.kept += 1
        if verdict.note:
            counts.note(verdict.note)
    counts.report, counts.lists = step.report(), step.lists()
    return stays


def check_tasks_stay(step: str, counts: Ledger, read: Iterable[str], kept: Iterable[str]) -> None:
    """Every task that a step has seen must have a row left.

    Raises:
        DataError: one has not.
    """
    left = set(kept)
    for task in dict.fromkeys(read):
        if task not in left:
            raise DataError(f"step '{step}' leaves no row of task '{task}': {counts.summary()}")
