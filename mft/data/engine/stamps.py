"""Are the files that a build reads still those that were hashed at its start?

A build reads its sources long after it has hashed them. One that is written to meanwhile would give rows of no state that it ever had,
under the hash of another one.
"""

from dataclasses import dataclass
from pathlib import Path

from mft.data.config import RecipeConfig
from mft.data.decontamination.config import DecontaminateStep, problem_files
from mft.data.source_config import CodeSource, FileSource, PythonCodeSource
from mft.data.sources import source_paths, tree_paths
from mft.errors import DataError


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as the file system tells it: bytes, and when it was last written to, in nanoseconds."""

    path: Path
    size: int
    modified_ns: int


def input_stamps(recipe: RecipeConfig) -> list[Stamp]:
    """The files that the recipe reads, in its order; a data set of a hub is held by its revision, not by stamps."""
    paths: list[Path] = []
    for task in recipe.tasks.values():
        for source in task.sources:
            if isinstance(source, CodeSource):
                paths += [path for _, path in tree_paths(source)]
            elif isinstance(source, FileSource | PythonCodeSource):
                paths += [path for _, path in source_paths(source)]
    for step in (*recipe.steps, *(step for task in recipe.tasks.values() for step in task.steps)):
        if isinstance(step, DecontaminateStep):
            paths += [file.path for file in problem_files(step.folder, step.problems)]
    return [_stamp(path) for path in dict.fromkeys(paths)]


def check_unchanged(before: list[Stamp], recipe: RecipeConfig) -> None:
    """Compare the files with the stamps taken before they were hashed.

    Raises:
        DataError: one was written to, came or went; the message names the first.
    """
    now = input_stamps(recipe)
    if now == before:
        return
    path = next((stamp.path for stamp in [*before, *now] if stamp not in before or stamp not in now), before[0].path)
    raise DataError(f"{path}: changed while the build read it; nothing is written: build again when the sources are at rest")


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return Stamp(path, found.st_size, found.st_mtime_ns)
