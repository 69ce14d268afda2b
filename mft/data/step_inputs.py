"""The files that steps read beside the rows: they decide the build as the sources do."""

from dataclasses import asdict
from typing import Any

from mft.data.config import RecipeConfig
from mft.data.decontamination.config import DecontaminateStep, absolute_problems, path_of, problem_files
from mft.hashes import hash_file, sha256_json


def step_inputs(recipe: RecipeConfig) -> list[dict[str, Any]]:
    """`{task?, step, path, files, bytes, sha256}` of each step that reads files; the hash is over names, contents and declared keys.

    Raises:
        DataError, DependencyError: a step names a file or a package that is not there.
    """
    steps: list[tuple[str | None, Any]] = [(None, step) for step in recipe.steps]
    steps += [(name, step) for name, task in recipe.tasks.items() for step in task.steps]
    return [({"task": task} if task else {}) | {"step": step.type, "path": [path_of(entry) for entry in step.problems]}
            | problem_hashes(step)
            for task, step in steps if isinstance(step, DecontaminateStep)]


def problem_hashes(step: DecontaminateStep) -> dict[str, Any]:
    """`{files, bytes, sha256}` of the problem files of one step.

    Raises:
        DataError, DependencyError: it names a file or a package that is not there.
    """
    files = [(file, hash_file(file.path)) for file in problem_files(step.folder, step.problems)]
    # Which key is what decides the problems as the contents do.
    return {"files": len(files), "bytes": sum(entry["bytes"] for _, entry in files),
            "sha256": sha256_json([(file.path.name, entry["sha256"], *([asdict(file.columns)] if file.columns else []))
                                   for file, entry in files])}


def without_paths(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Written steps without the paths of their files, which `step_inputs` hashes: a moved file is the same file."""
    return [{key: value for key, value in step.items() if key != "problems"} for step in steps]


def with_absolute_paths(steps: list[dict[str, Any]], configs: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Written steps with the paths of their files made absolute."""
    return [{**written, "problems": absolute_problems(step)} if isinstance(step, DecontaminateStep) else written
            for written, step in zip(steps, configs, strict=True)]
