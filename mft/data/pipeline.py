"""From a recipe to a built folder: read, clean, split, mix, write, with the ledger in the manifest.

    OUT/train.parquet validation.parquet    rows in training order (mft/data/rows.py)
    OUT/recipe.yaml                         the recipe with every default filled in and its paths made absolute
    OUT/contamination.jsonl                 what `decontaminate` found, one hit a line, where the recipe has that step
    OUT/manifest.json                       what went in, what became of every row, hashes of the files
"""

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import mft
from mft.conversation import Conversation
from mft.data.config import RecipeConfig, load_recipe
from mft.data.ledger import BuildLedger
from mft.data.mixture.emit import emit_rows, repeats_rows
from mft.data.mixture.join import join_small_tasks
from mft.data.rows import content_hash, read_rows, write_rows
from mft.data.source_config import LocalSource
from mft.data.sources import read_sources, source_inputs
from mft.data.split import Parts, rows_per_task, split_rows
from mft.data.step_inputs import step_inputs, with_absolute_paths, without_paths
from mft.data.steps import run_steps
from mft.data.walk import STDLIB
from mft.errors import CheckFailed, DataError, OutputError
from mft.files import MANIFEST, atomic_folder, check_manifest, read_json, sha256_json, write_manifest, write_text

logger = logging.getLogger(__name__)

PARTS = ("train", "validation")
FACTS = ("read", "kept", "emitted", "dropped", "per_task", "sha256", "steps", "joined", "mixture")
BUILDER = 2
"""Raised when the same recipe over the same files gives other rows, so that an old build is not taken for the new one."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build.

    `facts`: `read`, `kept`, `emitted`, `dropped` {reason: n}, `per_task` {task: {train, validation}}, `sha256` (of the rows),
    `steps` [{step, read, kept, dropped}], `joined` {task: {into, rows, ...}}, `mixture` (what was asked for and what came out:
    `mft.data.mixture.emit.mixture_facts`). `rows`: `train` and `validation`.
    """

    facts: dict[str, Any]
    rows: Parts
    out: Path | None = None
    lists: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """What steps list beside the rows: file name -> lines; empty for a build that was found finished in `out`."""


def build(recipe: Path | str | RecipeConfig, out: Path | str | None = None, *, overwrite: bool = False) -> BuildResult:
    """Build a recipe; into the folder `out`, or in memory alone.

    A folder that holds the finished build of the same recipe over the same files is returned as it is.

    Raises:
        ConfigError: mistakes in the recipe. DataError: a source that cannot be used, or no row left.
        OutputError: `out` holds something else and `overwrite` is False.
    """
    config = recipe if isinstance(recipe, RecipeConfig) else load_recipe(Path(recipe), must_exist=True)
    if out is None:
        return _build_rows(config)
    folder = Path(out)
    inputs = recipe_inputs(config)
    job = job_hash(config, inputs)
    if not overwrite and (finished := _finished(folder, job)):
        logger.info("%s: holds the finished build of '%s'; nothing to do", folder, config.name)
        return finished
    built = _build_rows(config)
    with atomic_folder(folder, replace=overwrite) as partial:
        for part in PARTS:
            write_rows(partial / f"{part}.parquet", built.rows[part])
        write_text(partial / "recipe.yaml", resolved_yaml(config))
        for name, lines in built.lists.items():
            write_text(partial / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        write_manifest(partial, {"kind": "data", "name": config.name, "job": job, "mft": mft.__version__,
                                 "python": platform.python_version(), **built.facts, "inputs": inputs})
    return BuildResult(built.facts, built.rows, folder, built.lists)


def read_built(folder: Path) -> Parts:
    """`{"train": rows, "validation": rows}` of a folder that `build` wrote.

    Raises:
        DataError: it is none.
    """
    if not (folder / MANIFEST).is_file() or not all((folder / f"{part}.parquet").is_file() for part in PARTS):
        raise DataError(f"{folder}: is not a folder made by `mft data build` "
                        f"(it needs {MANIFEST}, {', '.join(f'{part}.parquet' for part in PARTS)})")
    return {part: list(read_rows(folder / f"{part}.parquet")) for part in PARTS}


def recipe_inputs(recipe: RecipeConfig) -> list[dict[str, Any]]:
    """What the recipe reads, with hashes: its sources, then the files of its steps.

    Raises:
        DataError, DependencyError: a source or a step names nothing.
    """
    return source_inputs(recipe) + step_inputs(recipe)


def job_hash(recipe: RecipeConfig, inputs: list[dict[str, Any]]) -> str:
    """Hash of all that decides the rows: the recipe without its paths, and the contents of the files behind them."""
    written = recipe.model_dump(mode="json")
    for task in written["tasks"].values():
        for source in task["sources"]:
            source.pop("path", None)
        task["steps"] = without_paths(task["steps"])
    written["steps"] = without_paths(written["steps"])
    contents = [{key: value for key, value in entry.items() if key != "path"} for entry in inputs]
    return sha256_json({"builder": BUILDER, "recipe": written, "inputs": contents})


def resolved_yaml(recipe: RecipeConfig) -> str:
    """The recipe with every default filled in; its paths are absolute, so that it can be built from any folder."""
    written = recipe.model_dump(mode="json")
    for name, task in recipe.tasks.items():
        for source, entry in zip(task.sources, written["tasks"][name]["sources"], strict=True):
            if isinstance(source, LocalSource) and entry["path"] != STDLIB:
                entry["path"] = (source.folder.absolute() / source.path).as_posix()
        written["tasks"][name]["steps"] = with_absolute_paths(written["tasks"][name]["steps"], task.steps)
    written["steps"] = with_absolute_paths(written["steps"], recipe.steps)
    text: str = yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=120)
    return text


def _build_rows(recipe: RecipeConfig) -> BuildResult:
    ledger = BuildLedger()
    rows: list[Conversation] = run_steps(recipe, read_sources(recipe, ledger), ledger)
    rows, joined = join_small_tasks(recipe, rows)
    emitted = emit_rows(recipe, split_rows(rows, recipe.split), ledger)
    parts = emitted.parts
    facts = ledger.close(emitted=sum(map(len, parts.values())), weighted=repeats_rows(recipe))
    return BuildResult({**facts, "per_task": rows_per_task(parts), "sha256": content_hash(parts), "joined": joined,
                        "mixture": emitted.facts}, parts, lists=ledger.lists)


def _finished(folder: Path, job: str) -> BuildResult | None:
    """The finished build of this job that `folder` holds, or None when the folder is free.

    Raises:
        OutputError: it holds something else, or a build whose files have changed.
    """
    advice = "give another output folder, or --overwrite to start anew"
    if folder.is_file():
        raise OutputError(f"{folder}: is a file, not a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    manifest = _manifest_of(folder)
    if manifest.get("job") != job:
        what = f"another build ('{manifest['name']}')" if manifest.get("kind") == "data" else "files that are not of this build"
        raise OutputError(f"{folder}: holds {what}; {advice}")
    try:
        check_manifest(folder)
    except CheckFailed as error:
        raise OutputError(f"{error}\n{folder}: holds this build, but not as it was written; {advice}") from error
    return BuildResult({key: manifest[key] for key in FACTS}, read_built(folder), folder)


def _manifest_of(folder: Path) -> dict[str, Any]:
    """The folder's manifest, or {} where there is none that could be mft's."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
