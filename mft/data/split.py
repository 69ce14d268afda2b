"""Which rows are held out: a stable hash of a key, the same on every machine and for ever.

The key is the path of the row's file, or the id that the row was read with, and nothing else: not the task, not the seed, not
the other rows. So no row moves between training and validation when sources, steps, tasks or a mixture are added or changed.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from mft.conversation import Conversation
from mft.data.ids import own_id
from mft.data.outline import Outline
from mft.data.split_config import SplitConfig

STEPS = 1_000_000
"""Resolution of the split: a fraction is honoured to one in a million."""

Parts = Mapping[str, Sequence[Conversation]]
"""`train` and `validation`."""

Row = TypeVar("Row", Conversation, Outline)
"""A row with its text or without it; what is decided by names and sizes is decided for both in one way."""


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone: its sha256 as a whole number, modulo one million, over one million.

    >>> hash_fraction("argparse.py")
    0.000903
    """
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), "big") % STEPS / STEPS


def is_validation(key: str, fraction: float) -> bool:
    """True when the rows of this split key (relative posix path, or row id) belong to the held-out part."""
    return hash_fraction(key) < fraction


def split_key_of(row: Conversation | Outline, split: SplitConfig) -> str:
    """What decides about the row: the path of its file, or the id that it was read with (two rows with one id stay together)."""
    return row.split_key if split.by == "file" else own_id(row)


def is_held_out(row: Conversation | Outline, split: SplitConfig) -> bool:
    """True when the row's key belongs to the validation part."""
    return is_validation(split_key_of(row, split), split.validation)


def split_rows(rows: Iterable[Row], split: SplitConfig) -> dict[str, list[Row]]:
    """`{"train": rows, "validation": rows}`; each row carries the key that decided as its `split_key`."""
    parts: dict[str, list[Row]] = {"train": [], "validation": []}
    for row in rows:
        keyed = row if split.by == "file" else replace(row, split_key=own_id(row))
        parts["validation" if is_held_out(row, split) else "train"].append(keyed)
    return parts


def rows_per_task(parts: Mapping[str, Sequence[Conversation | Outline]]) -> dict[str, dict[str, int]]:
    """`{task: {"train": n, "validation": n}}`, tasks by name."""
    counts = {part: Counter(row.task for row in rows) for part, rows in parts.items()}
    return {task: {part: counts[part][task] for part in parts} for task in sorted(set().union(*counts.values()))}
