"""The sources of a recipe: their conversations, and the hashes of what decides them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mft.conversation import Conversation
from mft.data.config import RecipeConfig
from mft.data.harvest import harvest
from mft.data.ledger import Ledger
from mft.data.python_functions import Function, UnreadableFile, read_tree
from mft.data.readers.conversations import Reading, conversations_of, read_conversations
from mft.data.readers.csv import CsvOptions
from mft.data.readers.modelscope import fetch_files
from mft.data.readers.raw import Place
from mft.data.source_config import CsvSource, FileSource, HubSource, LocalSource, ModelscopeSource, PythonCodeSource, Source
from mft.data.walk import named_files, source_files, tree_folder
from mft.errors import DataError
from mft.files import hash_file, sha256_json

Tree = tuple[Path, tuple[str, ...]]
Trees = dict[Tree, list[Function | UnreadableFile]]


def read_source(source: Source, task: str, ledger: Ledger, trees: Trees) -> Iterator[Conversation]:
    """The rows of a whole source, counted in `ledger`; their ids may repeat. `trees` holds what was parsed for other tasks.

    Raises:
        DataError: the source cannot be read or gives no row.
    """
    yield from _read_source(source, task, ledger, trees)


def read_file_of(source: FileSource | ModelscopeSource, label: str, path: Path, task: str, ledger: Ledger) -> Iterator[Conversation]:
    """The rows of one file of a source; their ids differ.

    Raises:
        DataError: the file cannot be read or gives no row.
    """
    kind = source.type if isinstance(source, FileSource) else None
    options = CsvOptions(source.delimiter, source.names) if isinstance(source, CsvSource) else None
    yield from read_conversations(path, source.converter, ledger, task=task, label=label, kind=kind, csv=options, train=source.train)


def source_inputs(recipe: RecipeConfig) -> list[dict[str, Any]]:
    """`{task, type, path or name, license?, origin?, sha256, ...}` of each source: what decides its rows.

    Of files (`files`, `bytes`) the hash is over their labels and contents; of a data set of the hub over its name, configuration,
    split, columns and `commit`, to which a branch is resolved here.

    Raises:
        DataError: a source names nothing, or a branch of a hub that cannot be reached.
    """
    known: dict[str, dict[str, Any]] = {}   # four tasks over one tree hash it once
    out = []
    for name, task in recipe.tasks.items():
        for source in task.sources:
            place = source.model_dump_json(exclude={"make", "join_below", "converter", "train", "license", "origin"})
            if place not in known:
                known[place] = _decided_by(source)
            elif isinstance(source, HubSource):
                source.pin(known[place]["commit"])   # what is hashed once is read at that commit everywhere
            terms = {key: text for key, text in (("license", source.license), ("origin", source.origin)) if text}
            where = {"path": source.path} if isinstance(source, LocalSource) else {"name": source.name}
            out.append({"task": name, "type": source.type, **where, **terms, **known[place]})
    return out


def _decided_by(source: Source) -> dict[str, Any]:
    if not isinstance(source, HubSource):
        return _hash_files(source_paths(source))
    from mft.data.readers.hub import resolve_commit

    facts = {"config": source.config, "split": source.split, "columns": list(source.columns), "commit": resolve_commit(source)}
    return {**facts, "revision": source.revision, "sha256": sha256_json([source.name, facts])}


def _hash_files(paths: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    files = [(label, hash_file(path)) for label, path in paths]
    return {"files": len(files), "bytes": sum(entry["bytes"] for _, entry in files),
            "sha256": sha256_json([(label, entry["sha256"]) for label, entry in files])}


def source_paths(source: FileSource | ModelscopeSource | PythonCodeSource) -> list[tuple[str, Path]]:
    """(label, path) of the files of a source.

    Raises:
        DataError: there is none. DependencyError: `modelscope` is needed and not installed.
    """
    if isinstance(source, FileSource):
        return named_files(source.folder, source.path)
    if isinstance(source, ModelscopeSource):
        return fetch_files(source)
    root = tree_folder(source.folder, source.path)
    files = list(source_files(root, ".py", source.exclude))
    if not files:
        raise DataError(f"{root}: holds no Python file that is not excluded")
    return files


def _read_source(source: Source, task: str, ledger: Ledger, trees: dict[Tree, list[Function | UnreadableFile]]) -> Iterator[Conversation]:
    if isinstance(source, PythonCodeSource):
        yield from _read_tree(source, task, ledger, trees)
    elif isinstance(source, HubSource):
        from mft.data.readers.hub import read_hub

        label = "/".join(part for part in (source.name, source.config, source.split) if part)
        reading = Reading(source.converter, label, task, train=source.train)
        yield from conversations_of(read_hub(source, ledger), Place(f"hub:{label}", by_line=False), reading, ledger)
    else:
        for label, path in source_paths(source):
            yield from read_file_of(source, label, path, task, ledger)


def _read_tree(source: PythonCodeSource, task: str, ledger: Ledger,
               trees: dict[Tree, list[Function | UnreadableFile]]) -> Iterator[Conversation]:
    tree = (tree_folder(source.folder, source.path), source.exclude)
    if tree not in trees:
        trees[tree] = list(read_tree(*tree))
    before = ledger.kept
    yield from harvest(trees[tree], source.make, task, ledger)
    if ledger.kept == before:
        raise DataError(f"{tree[0]}: gives no row for task '{task}' ({source.make}): {ledger.summary()}")
