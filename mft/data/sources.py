"""The sources of a recipe: their conversations, and the hashes of what decides them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mft.conversation import Conversation
from mft.data.code.files import SourceTree, walk_tree
from mft.data.code.functions import CodeFunction
from mft.data.code.tree import read_code_tree
from mft.data.config import RecipeConfig
from mft.data.harvest import Found, harvest
from mft.data.ledger import Ledger, added
from mft.data.python_functions import read_tree
from mft.data.readers.conversations import Reading, conversations_of, read_conversations
from mft.data.readers.csv import CsvOptions
from mft.data.readers.modelscope import fetch_files
from mft.data.readers.raw import Place
from mft.data.source_config import CodeSource, CsvSource, FileSource, HubSource, LocalSource, ModelscopeSource, PythonCodeSource, Source
from mft.data.walk import end_of_path, named_files, source_files, tree_folder
from mft.errors import DataError
from mft.hashes import hash_file, sha256_json

Tree = tuple[Path, tuple[str, ...]] | tuple[Path, tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""A tree that was parsed: its folder, what is left out of it, and where it has several languages, which of them and what is kept."""


@dataclass(frozen=True, slots=True)
class ParsedTree:
    """What a tree holds; `licenses`: path of a licence file -> its name, of a tree of several languages."""

    found: list[Found]
    licenses: Mapping[str, str] = field(default_factory=dict)


Trees = dict[Tree, ParsedTree]


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
    yield from read_conversations(path, source.converter, ledger, task=task, label=label, kind=kind, csv=options, train=source.train,
                                  split_key=source.split_key, may_be_empty=may_be_empty(source))


def source_names(sources: Sequence[Source]) -> list[str]:
    """What the ledger calls the sources of a task, each otherwise: the type and the end of the path (from the first wildcard on).

    >>> source_names([HubSource(type="hub", name="a/b"), HubSource(type="hub", name="a/b")])
    ['hub a/b train', 'hub a/b train, source 2']
    """
    names: list[str] = []
    for number, source in enumerate(sources, 1):
        if isinstance(source, HubSource):
            where = " ".join(part for part in (source.name, source.config, source.split) if part)
        elif isinstance(source, ModelscopeSource):
            where = f"{source.name} {source.files}"
        else:
            where = end_of_path(source.path)
        name = f"{source.type} {where}"
        names.append(f"{name}, source {number}" if name in names else name)
    return names


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
            place = source.model_dump_json(exclude={"make", "join_below", "converter", "train", "split_key", "license", "origin"})
            if place not in known:
                known[place] = _decided_by(source)
            elif isinstance(source, HubSource):
                source.pin(known[place]["commit"])   # what is hashed once is read at that commit everywhere
            terms = {key: text for key, text in (("license", source.license), ("origin", source.origin)) if text}
            where = {"path": source.path} if isinstance(source, LocalSource) else {"name": source.name}
            out.append({"task": name, "type": source.type, **where, **terms, **known[place]})
    return out


def _decided_by(source: Source) -> dict[str, Any]:
    if isinstance(source, CodeSource):
        tree = _code_tree(source)
        left_out = dict(sorted(Counter(file.reason for file in tree.left_out).items()))
        return {**_hash_files((file.path, file.file) for file in tree.files), "left_out": left_out, "license_files": tree.licenses}
    if not isinstance(source, HubSource):
        return _hash_files(source_paths(source))
    from mft.data.readers.hub import resolve_commit

    facts = {"config": source.config, "split": source.split, "columns": list(source.columns), "commit": resolve_commit(source)}
    return {**facts, "revision": source.revision, "sha256": sha256_json([source.name, facts])}


def _hash_files(paths: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    files = [(label, _hashed(path)) for label, path in paths]
    return {"files": len(files), "bytes": sum(entry["bytes"] for _, entry in files),
            "sha256": sha256_json([(label, entry["sha256"]) for label, entry in files])}


def _hashed(path: Path) -> dict[str, Any]:
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def tree_paths(source: CodeSource) -> list[tuple[str, Path]]:
    """(label, path) of the files of a tree in several languages.

    Raises:
        DataError: there is none.
    """
    return [(file.path, file.file) for file in _code_tree(source).files]


def source_paths(source: FileSource | ModelscopeSource | PythonCodeSource) -> list[tuple[str, Path]]:
    """(label, path) of the files of a source.

    Raises:
        DataError: there is none (unless the source may be empty). DependencyError: `modelscope` is needed and not installed.
    """
    if isinstance(source, FileSource):
        return named_files(source.folder, source.path)
    if isinstance(source, ModelscopeSource):
        return fetch_files(source)
    root = tree_folder(source.folder, source.path)
    files = list(source_files(root, ".py", source.exclude))
    if not files and not may_be_empty(source):
        raise DataError(f"{root}: holds no Python file that is not excluded")
    return files


def _read_source(source: Source, task: str, ledger: Ledger, trees: Trees) -> Iterator[Conversation]:
    if isinstance(source, PythonCodeSource | CodeSource):
        yield from _read_tree(source, task, ledger, trees)
    elif isinstance(source, HubSource):
        from mft.data.readers.hub import read_hub

        label = "/".join(part for part in (source.name, source.config, source.split) if part)
        reading = Reading(source.converter, label, task, train=source.train, split_key=source.split_key)
        yield from conversations_of(read_hub(source, ledger), Place(f"hub:{label}", by_line=False), reading, ledger)
    else:
        for label, path in source_paths(source):
            yield from read_file_of(source, label, path, task, ledger)


def may_be_empty(source: Source) -> bool:
    """True of a source whose task joins another one when it has too few rows: none at all is the smallest number."""
    return isinstance(source, LocalSource) and source.join_below is not None


def _code_tree(source: CodeSource) -> SourceTree:
    """What a tree in several languages holds.

    Raises:
        DataError: no file of the languages that is not left out.
    """
    root = tree_folder(source.folder, source.path)
    tree = walk_tree(root, source.languages, source.exclude, source.keep)
    if not tree.files:
        reasons = Counter(file.reason for file in tree.left_out)
        why = f"; left out: {', '.join(f'{reason} {count}' for reason, count in sorted(reasons.items()))}" if reasons else ""
        raise DataError(f"{root}: holds no file of {', '.join(source.languages)} that can be used{why}")
    return tree


def _parse_code_tree(source: CodeSource) -> ParsedTree:
    tree = _code_tree(source)
    return ParsedTree(list(read_code_tree(tree)), tree.licenses)


def _reported(rows: Iterable[Conversation], tree: ParsedTree, ledger: Ledger) -> Iterator[Conversation]:
    """The rows; the ledger's report gets the rows of each language and the licences found, each with the number of its files."""
    language_of = {found.path: found.language if isinstance(found, CodeFunction) else "python" for found in tree.found}
    languages: Counter[str] = Counter()
    for row in rows:
        languages[language_of[row.split_key]] += 1
        yield row
    counts = {"languages": dict(sorted(languages.items())), "licenses": dict(sorted(Counter(tree.licenses.values()).items()))}
    ledger.report = added(ledger.report, counts)


def _read_tree(source: PythonCodeSource | CodeSource, task: str, ledger: Ledger, trees: Trees) -> Iterator[Conversation]:
    root = tree_folder(source.folder, source.path)
    key: Tree = (root, source.exclude)
    if isinstance(source, CodeSource):
        key = (root, source.exclude, source.languages, source.keep)
    if key not in trees:
        trees[key] = _parse_code_tree(source) if isinstance(source, CodeSource) else ParsedTree(list(read_tree(root, source.exclude)))
    before = ledger.kept
    rows = harvest(trees[key].found, source.make, task, ledger)
    yield from _reported(rows, trees[key], ledger) if isinstance(source, CodeSource) else rows
    if ledger.kept == before and not may_be_empty(source):
        raise DataError(f"{root}: gives no row for task '{task}' ({source.make}): {ledger.summary()}")
