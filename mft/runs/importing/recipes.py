"""The recipe of an imported config: one task for each data set of the other tool."""

import os
import re
from pathlib import Path
from typing import Any

from mft.config.yaml import KeyPath
from mft.data.parameters import escaped
from mft.runs.importing.draft import Draft

FILE_TYPES = {".json": "json", ".jsonl": "jsonl", ".parquet": "parquet", ".csv": "csv", ".txt": "lines"}
"""Ending of a file's name -> source type."""


def task_name(recipe: dict[str, Any], wanted: str) -> str:
    """`wanted` without signs that a command line would trip over, and unlike the names that are taken."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", wanted).strip("-") or "task"
    taken = recipe.get("tasks", {})
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    return name


def add_task(draft: Draft, wanted: str, source: dict[str, Any], steps: list[dict[str, Any]] | None = None) -> str:
    """Put a task with one source into the recipe; returns its name."""
    name = task_name(draft.recipe, wanted)
    draft.recipe.setdefault("tasks", {})[name] = {"sources": [source], **({"steps": steps} if steps else {})}
    return name


def source_key(name: str, key: str) -> str:
    """How a report names a key of a task's source."""
    return f"recipe:tasks.{name}.sources.0.{key}"


def file_type(path: str) -> str | None:
    """The source type of a file's name, packed or not."""
    plain = re.sub(r"\.(gz|zst)$", "", path.lower())
    return next((kind for ending, kind in FILE_TYPES.items() if plain.endswith(ending)), None)


def set_split(draft: Draft, key: KeyPath | str, share: float) -> float:
    """Hold out a share of the rows; returns it."""
    draft.recipe["split"] = {"validation": share, "by": "id"}
    draft.map(key, "recipe:split.validation", share, write=False)
    return share


def map_validation(draft: Draft, key: str) -> float:
    """`val_size` and its like: a share below 1; a number of rows, which a recipe cannot say, becomes the default share."""
    held = draft.source.number(key)
    if held is not None and 0 <= held < 1:
        return set_split(draft, key, held)
    if held is None:
        draft.recipe["split"] = {"validation": 0, "by": "id"}
        draft.assume("recipe:split.validation", 0, f"default of {draft.tool}", write=False)
        return 0
    draft.drop(key, f"a recipe holds out a share: 0.05 is written; divide {held:g} by the number of rows, and set split.validation")
    draft.recipe["split"] = {"validation": 0.05, "by": "id"}
    return 0.05


def local_path(draft: Draft, path: str) -> str:
    """A path of the other tool's as the recipe writes it: found files relative to the recipe, others as they stand, braces doubled."""
    if Path(path).is_absolute() or "$" in path:
        return escaped(path)
    found = draft.source.find(path)
    if found is not None:
        return escaped(Path(os.path.relpath(found.resolve(), draft.folder.resolve())).as_posix())
    draft.note(f"Relative paths in the recipe are relative to it; {draft.tool} took them from the folder in which it was started, and not "
               "all of them were found from here.")
    return escaped(path.removeprefix("./"))
