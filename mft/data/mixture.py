"""From clean rows to the two parts of a data set: join small tasks, split by stable hash, emit by weight, shuffle."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from mft.conversation import Conversation
from mft.data.config import RecipeConfig, SplitConfig, copies_of, join_rule
from mft.data.jsonl import unique_ids
from mft.data.ledger import BuildLedger
from mft.data.split import hash_fraction, is_validation
from mft.errors import DataError

logger = logging.getLogger(__name__)

Parts = dict[str, list[Conversation]]
"""`train` and `validation`."""


def join_small_tasks(recipe: RecipeConfig, rows: Sequence[Conversation]) -> tuple[list[Conversation], dict[str, Any]]:
    """Give the rows of each task that its `join_below` finds too small to another task.

    Returns the rows and `{task: {into, rows, validation_rows, validation_files}}` of what was joined.
    """
    joined: dict[str, Any] = {}
    for name, task in recipe.tasks.items():
        own = [row for row in rows if row.task == name]
        held_out = [row for row in own if is_held_out(row, recipe.split)]
        files = len({row.split_key for row in held_out})
        rule = join_rule(task)
        if rule is None or (len(held_out) >= rule.rows and files >= rule.files):
            continue
        joined[name] = {"into": rule.task, "rows": len(own), "validation_rows": len(held_out), "validation_files": files}
        logger.info("task '%s' has %d validation rows from %d files, less than %d from %d (join_below): its %d rows join '%s'",
                    name, len(held_out), files, rule.rows, rule.files, len(own), rule.task)
    moved = (replace(row, task=joined[row.task]["into"]) if row.task in joined else row for row in rows)
    return list(unique_ids(moved)), joined


def is_held_out(row: Conversation, split: SplitConfig) -> bool:
    """True when the row's key belongs to the validation part."""
    return is_validation(row.split_key if split.by == "file" else row.id, split.validation)


def split_rows(rows: Iterable[Conversation], split: SplitConfig) -> Parts:
    """`{"train": rows, "validation": rows}`; each row carries the key that decided as its `split_key`."""
    parts: Parts = {"train": [], "validation": []}
    for row in rows:
        keyed = row if split.by == "file" else replace(row, split_key=row.id)
        parts["validation" if is_held_out(row, split) else "train"].append(keyed)
    return parts


def emit_rows(recipe: RecipeConfig, parts: Parts, ledger: BuildLedger) -> Parts:
    """The parts as they are written, in the order of `shuffle_key`.

    Training rows appear `weight` times, copies as `id~2`, `id~3`; what a weight below 1 leaves out is `sampled_out`.
    Validation rows appear once.

    Raises:
        DataError: a task is left without a training row.
    """
    counts = ledger.open("mixture")
    counts.read = sum(map(len, parts.values()))
    counts.kept = len(parts["validation"])
    train: list[Conversation] = []
    own_ids = {(row.task, row.id) for part in parts.values() for row in part}
    for row in parts["train"]:
        copies = number_of_copies(row, recipe.tasks[row.task].weight, recipe.seed)
        if copies:
            counts.kept += 1
            train += _copies(row, copies, own_ids)
        else:
            counts.drop("sampled_out")
    counts.close()
    emitted = {"train": train, "validation": parts["validation"]}
    _check_tasks(recipe, sorted({task for task, _ in own_ids}), emitted)
    return {part: sorted(rows, key=lambda row: shuffle_key(row, recipe.seed)) for part, rows in emitted.items()}


def number_of_copies(row: Conversation, weight: float, seed: int) -> int:
    """How often a training row is emitted: the whole part of the weight, and once more for a share of the rows."""
    whole, share = copies_of(weight)
    return whole + (hash_fraction(f"weight:{seed}:{row.task}:{row.id}") < share)


def shuffle_key(row: Conversation, seed: int) -> bytes:
    """What rows are sorted by: the same order on every machine. The task is part of it, as ids may repeat between tasks."""
    return hashlib.sha256(f"{seed}:{row.task}:{row.id}".encode()).digest()


def rows_per_task(parts: Parts) -> dict[str, dict[str, int]]:
    """`{task: {"train": n, "validation": n}}`, tasks by name."""
    counts = {part: Counter(row.task for row in rows) for part, rows in parts.items()}
    return {task: {part: counts[part][task] for part in parts} for task in sorted(set().union(*counts.values()))}


def _copies(row: Conversation, copies: int, own_ids: set[tuple[str, str]]) -> Iterator[Conversation]:
    yield row
    number = 1
    for _ in range(copies - 1):
        number += 1
        while (row.task, f"{row.id}~{number}") in own_ids:   # a row's own id may look like that of a copy
            number += 1
        yield replace(row, id=f"{row.id}~{number}")


def _check_tasks(recipe: RecipeConfig, tasks: Sequence[str], parts: Parts) -> None:
    """Refuse a task without training rows; warn about one without validation rows."""
    split, per_task = recipe.split, rows_per_task(parts)
    for task in tasks:
        counts = per_task.get(task, {"train": 0, "validation": 0})
        if not counts["train"]:
            other = "id" if split.by == "file" else "file"
            raise DataError(f"task '{task}' has no training row: {counts['validation']} rows are held out by {split.by}, the weight is "
                            f"{recipe.tasks[task].weight:g}; set split.by: {other}, another split.validation or a greater weight")
        if not counts["validation"] and split.validation:
            logger.warning("task '%s' has no validation row: none of its keys falls into the held-out %g%% (split.by: %s)",
                           task, 100 * split.validation, split.by)
