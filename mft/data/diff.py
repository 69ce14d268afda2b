"""What is different between two built folders: rows, recipe, ledger.

Rows are matched by their text (roles, contents, what is trained) and then by their ids, each row once, in this order:

    same task and text, same id       the same row
    same task and text, another id    the same row under another id (`renamed`: its place has changed, or a source came before)
    same text, another task           `moved_task`
    same task and id, another text    `changed`
    the rest                          `removed` from A, `added` in B

A matched row that is on the other side of the split is also `to_validation` or `to_train`, and `repeated` where it appears
another number of times. A copy (`id~2`) counts as its row. Rows of one text are paired by id, in order.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mft.config.yaml import read_yaml
from mft.conversation import Conversation
from mft.data.pipeline import read_built
from mft.data.split import Parts
from mft.files import MANIFEST, read_json
from mft.hashes import sha256_json

KINDS = ("added", "removed", "changed", "renamed", "moved_task", "to_validation", "to_train", "repeated")
LONGEST_EXAMPLE = 200
"""Characters of the first message that an example shows."""


@dataclass(frozen=True, slots=True)
class BuiltRow:
    """A row of one build with all its copies."""

    task: str
    id: str
    part: str
    text_hash: str
    times: int
    row: Conversation


Pairs = list[tuple[BuiltRow, BuiltRow]]


def diff_builds(a: Path, b: Path, examples: int = 3) -> dict[str, Any]:
    """Compare two folders of `mft data build`:

        {"same": rows that are equal in task, id, text, part and number,
         "rows": {"a", "b"}, "tasks": {t: {kind: rows}} over KINDS, "examples": {kind: [{task, id, part, ...}]},
         "recipe": [{key, a, b}], "ledger": {"read": {"a", "b"}, ..., "dropped": {reason: {"a", "b"}}}, "sha256": {"a", "b"}}

    A `moved_task` row counts under its task of B. Examples are the first by task and id. Of the recipe and the ledger only what
    differs is listed.

    Raises:
        DataError: one of them is no such folder.
    """
    before, after = _rows(read_built(a)), _rows(read_built(b))
    pairs, found = _matched(before, after)
    found |= {"to_validation": [pair for pair in pairs if (pair[0].part, pair[1].part) == ("train", "validation")],
              "to_train": [pair for pair in pairs if (pair[0].part, pair[1].part) == ("validation", "train")],
              "repeated": [pair for pair in pairs if pair[0].part == pair[1].part and pair[0].times != pair[1].times]}
    different = {id(pair[1]) for kind in KINDS[2:] for pair in found[kind]}
    tasks = sorted({row.task for row in [*before, *after]})
    counts = {kind: Counter(pair[1].task for pair in found[kind]) for kind in KINDS}
    manifests = read_json(a / MANIFEST), read_json(b / MANIFEST)
    return {
        "same": sum(id(pair[1]) not in different for pair in pairs), "rows": {"a": len(before), "b": len(after)},
        "tasks": {task: {kind: counts[kind][task] for kind in KINDS} for task in tasks},
        "examples": {kind: [_example(pair) for pair in sorted(found[kind], key=lambda pair: (pair[1].task, pair[1].id))[:examples]]
                     for kind in KINDS},
        "recipe": _differences(_flat(_recipe(a)), _flat(_recipe(b))), "ledger": _ledger(*manifests),
        "sha256": {"a": manifests[0]["sha256"], "b": manifests[1]["sha256"]}}


def _rows(parts: Parts) -> list[BuiltRow]:
    """Each row once, with how often it appears, by task and id. A copy says the same as the row whose id begins its own."""
    parts = {part: list(rows) for part, rows in parts.items()}   # held, as rows are told apart by what they are, not by what they say
    groups: dict[tuple[str, str, str], list[Conversation]] = {}
    hashes = {id(row): _text_hash(row) for rows in parts.values() for row in rows}
    originals = {(part, row.task, row.id, hashes[id(row)]) for part, rows in parts.items() for row in rows}
    for part, rows in parts.items():
        for row in rows:
            base, mark, number = row.id.rpartition("~")
            copied = mark and number.isdecimal() and (part, row.task, base, hashes[id(row)]) in originals
            groups.setdefault((part, row.task, base if copied else row.id), []).append(row)
    return [BuiltRow(task, name, part, hashes[id(rows[0])], len(rows), rows[0])
            for (part, task, name), rows in sorted(groups.items(), key=lambda group: (group[0][1:], group[0][0]))]


def _text_hash(row: Conversation) -> str:
    return sha256_json([[message.role, message.content, message.train, message.untrained] for message in row.messages])


def _matched(before: list[BuiltRow], after: list[BuiltRow]) -> tuple[Pairs, dict[str, Pairs]]:
    """The pairs of all rounds, and those of the rounds that are a kind of difference; a row without another is paired with itself."""
    rounds: list[tuple[str | None, Callable[[BuiltRow], tuple[str, ...]]]] = [
        (None, lambda row: (row.task, row.text_hash, row.id)), ("renamed", lambda row: (row.task, row.text_hash)),
        ("moved_task", lambda row: (row.text_hash,)), ("changed", lambda row: (row.task, row.id))]
    pairs: Pairs = []
    found: dict[str, Pairs] = {}
    for kind, key in rounds:
        matched = _pair_up(before, after, key)
        taken = {id(row) for pair in matched for row in pair}
        before, after = ([row for row in rows if id(row) not in taken] for rows in (before, after))
        pairs += matched
        if kind:
            found[kind] = matched
    return pairs, found | {"removed": [(row, row) for row in before], "added": [(row, row) for row in after]}


def _pair_up(before: Iterable[BuiltRow], after: Iterable[BuiltRow], key: Callable[[BuiltRow], tuple[str, ...]]) -> Pairs:
    waiting: defaultdict[tuple[str, ...], list[BuiltRow]] = defaultdict(list)
    for row in before:
        waiting[key(row)].append(row)
    for rows in waiting.values():
        rows.reverse()
    return [(waiting[key(row)].pop(), row) for row in after if waiting.get(key(row))]


def _example(pair: tuple[BuiltRow, BuiltRow]) -> dict[str, Any]:
    """A row as it is in B (in A where it is removed), with what was otherwise in A under `was`."""
    old, new = pair
    was = {name: getattr(old, name) for name in ("task", "id", "part", "times") if getattr(old, name) != getattr(new, name)}
    if old.text_hash != new.text_hash:
        at = next((index for index, (one, other) in enumerate(zip(old.row.messages, new.row.messages, strict=False)) if one != other), -1)
        was["text"] = old.row.messages[at].content[:LONGEST_EXAMPLE]
    else:
        at = 0
    return {"task": new.task, "id": new.id, "part": new.part, "times": new.times, "origin": new.row.origin,
            "text": new.row.messages[at].content[:LONGEST_EXAMPLE], **({"was": was} if was else {})}


def _recipe(folder: Path) -> Any:
    """The recipe that the folder was built from; nothing where it has been taken away."""
    path = folder / "recipe.yaml"
    return read_yaml(path).data if path.is_file() else {}


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """`{"split.by": "file", "steps.0.type": "length"}`."""
    if isinstance(value, Mapping):
        entries: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    else:
        return {key: value}
    return {name: leaf for inner, entry in entries for name, leaf in _flat(entry, f"{key}.{inner}" if key else str(inner)).items()}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "a": a.get(key), "b": b.get(key)} for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]


def _ledger(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """What the two ledgers say differently: `{read: {a, b}, dropped: {reason: {a, b}}}`."""
    totals = {name: {"a": a[name], "b": b[name]} for name in ("read", "kept", "emitted") if a[name] != b[name]}
    reasons = [reason for reason in sorted({*a["dropped"], *b["dropped"]}) if a["dropped"].get(reason, 0) != b["dropped"].get(reason, 0)]
    dropped = {reason: {"a": a["dropped"].get(reason, 0), "b": b["dropped"].get(reason, 0)} for reason in reasons}
    return {**totals, **({"dropped": dropped} if dropped else {})}
