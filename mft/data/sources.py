"""The sources of a recipe: their conversations, and the hashes of the files that they read."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mft.conversation import Conversation
from mft.data.config import JsonlSource, PythonCodeSource, RecipeConfig, Source
from mft.data.harvest import harvest
from mft.data.jsonl import read_conversations, unique_ids
from mft.data.ledger import BuildLedger, Ledger
from mft.data.python_functions import Function, UnreadableFile, read_tree
from mft.data.walk import named_files, source_files, tree_folder
from mft.errors import DataError
from mft.files import hash_file, sha256_json

Tree = tuple[Path, tuple[str, ...]]


def read_sources(recipe: RecipeConfig, ledger: BuildLedger) -> list[Conversation]:
    """The rows of all tasks, in the order of the recipe; one `read` ledger a task.

    Raises:
        DataError: a source cannot be read or gives no row.
    """
    trees: dict[Tree, list[Function | UnreadableFile]] = {}   # a tree is parsed once, however many tasks use it
    rows: list[Conversation] = []
    for name, task in recipe.tasks.items():
        read = ledger.open("read", name)
        found = list(unique_ids(chain.from_iterable(_read_source(source, name, read, trees) for source in task.sources)))
        read.close()
        rows += found
    return rows


def source_inputs(recipe: RecipeConfig) -> list[dict[str, Any]]:
    """`{task, type, files, bytes, sha256}` of each source; the hash is over the labels and contents of its files.

    Raises:
        DataError: a source names nothing.
    """
    known: dict[str, dict[str, Any]] = {}   # four tasks over one tree hash it once
    out = []
    for name, task in recipe.tasks.items():
        for source in task.sources:
            key = f"{source.path}\n{source.exclude if isinstance(source, PythonCodeSource) else None}"
            if key not in known:
                known[key] = _hash_files(source_paths(source))
            out.append({"task": name, "type": source.type, "path": source.path, **known[key]})
    return out


def _hash_files(paths: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    files = [(label, hash_file(path)) for label, path in paths]
    return {"files": len(files), "bytes": sum(entry["bytes"] for _, entry in files),
            "sha256": sha256_json([(label, entry["sha256"]) for label, entry in files])}


def source_paths(source: Source) -> Iterable[tuple[str, Path]]:
    """(label, path) of the files of a source.

    Raises:
        DataError: there is none.
    """
    if isinstance(source, JsonlSource):
        return named_files(source.folder, source.path)
    root = tree_folder(source.folder, source.path)
    files = list(source_files(root, ".py", source.exclude))
    if not files:
        raise DataError(f"{root}: holds no Python file that is not excluded")
    return files


def _read_source(source: Source, task: str, ledger: Ledger, trees: dict[Tree, list[Function | UnreadableFile]]) -> Iterator[Conversation]:
    if isinstance(source, PythonCodeSource):
        yield from _read_tree(source, task, ledger, trees)
        return
    for label, path in named_files(source.folder, source.path):
        yield from read_conversations(path, source.converter, ledger, task=task, label=label)


def _read_tree(source: PythonCodeSource, task: str, ledger: Ledger,
               trees: dict[Tree, list[Function | UnreadableFile]]) -> Iterator[Conversation]:
    tree = (tree_folder(source.folder, source.path), source.exclude)
    if tree not in trees:
        trees[tree] = list(read_tree(*tree))
    before = ledger.kept
    yield from harvest(trees[tree], source.make, task, ledger)
    if ledger.kept == before:
        raise DataError(f"{tree[0]}: gives no row for task '{task}' ({source.make}): {ledger.summary()}")
