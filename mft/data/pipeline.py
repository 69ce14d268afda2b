"""From a recipe to a built folder: read, clean, split, mix, write, with the ledger in the manifest.

    OUT/train-00000-of-00002.parquet ...    rows in training order (mft/data/rows.py); also validation-00000-of-00001.parquet
    OUT/recipe.yaml                         the recipe with every default filled in and its paths made absolute
    OUT/contamination.jsonl                 what `decontaminate` found, one hit a line, where the recipe has that step
    OUT/manifest.json                       what went in, what became of every row, which files hold which part, their hashes

While it is built, finished pieces lie in `.OUT.work` beside it (mft/data/engine/work.py); a build that was stopped goes on from there.
"""

import json
import logging
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

import mft
import mft.data.engine.plan as plan
from mft.data.config import RecipeConfig, load_recipe
from mft.data.engine.config import Engine
from mft.data.engine.run import Report, ShardedBuild, build_shards, report_nothing
from mft.data.engine.stamps import Stamp, check_unchanged, input_stamps
from mft.data.engine.work import sweep_work, work_folder
from mft.data.parameters import escaped
from mft.data.rows import StoredRows
from mft.data.source_config import LocalSource
from mft.data.sources import source_inputs
from mft.data.split import Parts
from mft.data.step_inputs import step_inputs, with_absolute_paths, without_paths
from mft.data.walk import STDLIB
from mft.errors import CheckFailed, DataError, OutputError
from mft.files import MANIFEST, atomic_folder, check_manifest, link_file, read_json, write_manifest, write_text
from mft.hashes import sha256_json

logger = logging.getLogger(__name__)

PARTS = ("train", "validation")
FACTS = ("read", "kept", "emitted", "dropped", "per_task", "sha256", "steps", "joined", "mixture")
BUILDER = 4
"""Raised when the same recipe over the same files gives other rows or another folder, so that an old build is not taken for the new one."""


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
    """With `out` the rows are read from the folder when they are asked for."""
    lists: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """What steps list beside the rows: file name -> lines; empty for a build that was found finished in `out`."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """What it took: `mft.data.engine.run.Usage`; empty for a build that was found finished."""


def build(recipe: Path | str | RecipeConfig, out: Path | str | None = None, *, overwrite: bool = False, engine: Engine | None = None,
          report: Report = report_nothing) -> BuildResult:
    """Build a recipe; into the folder `out`, or in memory alone.

    A folder that holds the finished build of the same recipe over the same files is returned as it is; a build that was stopped
    goes on. `engine` says where it runs (one process of its own is the default) and changes no row; `report` is told how far it is.
    With more than one worker, a script must call this under `if __name__ == "__main__":`.

    Raises:
        ConfigError: mistakes in the recipe. DataError: a source that cannot be used or was written to meanwhile, or no row left.
        OutputError: `out` holds something else and `overwrite` is False, or what no build has written; the disk is full.
    """
    config = recipe if isinstance(recipe, RecipeConfig) else load_recipe(Path(recipe), must_exist=True)
    engine = engine or Engine()
    if out is None:
        return _build_in_memory(config, engine, report)
    folder = Path(os.path.abspath(out))   # `.` has no name, beside which the working folder could be made
    stamps = input_stamps(config)
    inputs = recipe_inputs(config)
    job = job_hash(config, inputs)
    if overwrite:
        _check_replaceable(folder)
    elif finished := _finished(folder, job):
        sweep_work(folder)
        logger.info("%s: holds the finished build of '%s'; nothing to do", folder, config.name)
        return finished
    with work_folder(folder, _work_hash(job, stamps)) as work:
        if not overwrite and (finished := _finished(folder, job)):   # by another process, for which this one has waited
            return finished
        built = build_shards(config, work, engine, report)
        check_unchanged(stamps, config)
        with atomic_folder(folder, replace=overwrite) as partial:
            for file, path in built.files:
                link_file(path, partial / file.name)   # a second name, so that it is still there if this is stopped
            write_text(partial / "recipe.yaml", resolved_yaml(config))
            for name, lines in built.lists.items():
                write_text(partial / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            write_manifest(partial, {"kind": "data", "name": config.name, "job": job, "mft": mft.__version__,
                                     "python": platform.python_version(), **built.facts, "parts": _parts_of(built), "inputs": inputs})
    return BuildResult(built.facts, read_built(folder), folder, built.lists, asdict(built.usage))


def read_built(folder: Path) -> Parts:
    """`{"train": rows, "validation": rows}` of a folder that `build` wrote; rows are read when they are asked for, none is kept.

    Raises:
        DataError: it is none, or a file is missing or has another size than when it was written.
    """
    manifest = _manifest_of(folder)
    parts = manifest.get("parts")
    if not isinstance(parts, dict) or set(parts) != set(PARTS):
        raise DataError(f"{folder}: is not a folder made by `mft data build` (it needs a {MANIFEST} that names the files of "
                        f"{' and '.join(PARTS)})")
    names = {part: [entry["file"] for entry in parts[part]] for part in PARTS}
    faults = [fault for part in PARTS for name in names[part] if (fault := _size_fault(folder / name, manifest.get("files", {}).get(name)))]
    if faults:
        raise DataError(f"{folder}: is not a folder made by `mft data build` as it was written: {', '.join(faults)}")
    return {part: StoredRows([folder / name for name in names[part]]) for part in PARTS}


def _size_fault(path: Path, written: Mapping[str, Any] | None) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    return f"{path.name} has {size} bytes; the manifest says {written['bytes']}" if written and size != written["bytes"] else None


def recipe_inputs(recipe: RecipeConfig) -> list[dict[str, Any]]:
    """What the recipe reads, with hashes: its sources, then the files of its steps.

    Raises:
        DataError, DependencyError: a source or a step names nothing.
    """
    return source_inputs(recipe) + step_inputs(recipe)


def job_hash(recipe: RecipeConfig, inputs: list[dict[str, Any]]) -> str:
    """Hash of all that decides the rows: the recipe without its paths, and the contents of the files behind them."""
    written = recipe.model_dump(mode="json", exclude={"parameters"})
    for task in written["tasks"].values():
        for source in task["sources"]:
            source.pop("path", None)
        task["steps"] = without_paths(task["steps"])
    written["steps"] = without_paths(written["steps"])
    contents = [{key: value for key, value in entry.items() if key != "path"} for entry in inputs]
    return sha256_json({"builder": BUILDER, "recipe": written, "inputs": contents})


def _work_hash(job: str, stamps: Sequence[Stamp]) -> str:
    """Hash of all that decides the pieces of a build that was stopped: the job, the program, how files are cut, and when they changed."""
    program = [mft.__version__, platform.python_version(), plan.PIECE_BYTES, plan.PIECE_ROWS]
    return sha256_json([job, program, [(stamp.size, stamp.modified_ns) for stamp in stamps]])


def resolved_yaml(recipe: RecipeConfig) -> str:
    """The recipe with every default filled in; its paths are absolute, so that it can be built from any folder."""
    written = recipe.model_dump(mode="json", exclude={"parameters"})
    for name, task in recipe.tasks.items():
        for source, entry in zip(task.sources, written["tasks"][name]["sources"], strict=True):
            if isinstance(source, LocalSource) and entry["path"] != STDLIB:
                entry["path"] = escaped((source.folder.absolute() / source.path).as_posix())
        written["tasks"][name]["steps"] = with_absolute_paths(written["tasks"][name]["steps"], task.steps)
    written["steps"] = with_absolute_paths(written["steps"], recipe.steps)
    text: str = yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=120)
    return text


def _build_in_memory(recipe: RecipeConfig, engine: Engine, report: Report) -> BuildResult:
    with tempfile.TemporaryDirectory(prefix="mft-build-") as work:
        built = build_shards(recipe, Path(work), engine, report)
        rows = {part: list(StoredRows([path for file, path in built.files if file.part == part])) for part in PARTS}
    return BuildResult(built.facts, rows, lists=built.lists, usage=asdict(built.usage))


def _parts_of(built: ShardedBuild) -> dict[str, list[dict[str, Any]]]:
    """`{part: [{"file", "rows"}]}`; a part without rows has no file."""
    return {part: [{"file": file.name, "rows": file.rows} for file, _ in built.files if file.part == part] for part in PARTS}


def _check_replaceable(folder: Path) -> None:
    """Only what a build has written is ever replaced.

    Raises:
        OutputError: the folder holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and _manifest_of(folder).get("kind") != "data":
        raise OutputError(f"{folder}: holds files that no `mft data build` has written, which --overwrite does not remove; "
                          "give another output folder, or remove them")


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
