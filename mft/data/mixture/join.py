"""Tasks that are too small to be measured alone are given to others."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mft.data.config import RecipeConfig, join_rule
from mft.data.ids import unique_ids
from mft.data.split import Row, is_held_out

logger = logging.getLogger(__name__)


def join_small_tasks(recipe: RecipeConfig, rows: Sequence[Row]) -> tuple[list[Row], dict[str, Any]]:
    """Give the rows of each task that its `join_below` finds too small to another task.

    This decides for a whole task by what is in the recipe, so a source that is added may end a join: the rows then stand under
    another task, still on the side of the split that they were on.

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
