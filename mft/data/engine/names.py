"""Ids that are unique within a task, given in the order of the recipe wherever the shards were read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mft.data.engine.plan import Shard
from mft.data.ids import unique_ids


@dataclass(slots=True)
class Names:
    """Of the rows of a shard that stay, in order: the id and the place (`file:line`), one object where they are equal."""

    ids: list[str]
    places: list[str]


@dataclass(frozen=True, slots=True)
class _Named:
    id: str
    task: str
    origin: str
    shard: int
    kept: bool


def final_names(shards: Sequence[Shard], files: Sequence[Path]) -> list[Names]:
    """The names of the rows that stay, for each shard, by the names of all rows that were read (`files`).

    A row that a step has dropped keeps its id to itself, so that no step changes what another row is called.
    """
    out = [Names([], []) for _ in shards]
    pairs = list(zip(shards, files, strict=True))
    for _, of_task in groupby(pairs, key=lambda pair: pair[0].task):
        for row in unique_ids(chain.from_iterable(_of_file(list(group)) for _, group in groupby(of_task, key=_file))):
            if row.kept:
                out[row.shard].ids.append(row.id)
                out[row.shard].places.append(row.id if row.id == row.origin else row.origin)
    return out


def _file(pair: tuple[Shard, Path]) -> tuple[Any, ...]:
    shard = pair[0]
    return shard.task, shard.source, shard.piece.label if shard.piece else ""


def _of_file(pieces: Sequence[tuple[Shard, Path]]) -> Iterator[_Named]:
    """The rows of a file, named as if nothing else were read: the pieces of one file are one file."""
    rows = chain.from_iterable(_rows(shard, path) for shard, path in pieces)
    return unique_ids(rows) if len(pieces) > 1 else rows


def _rows(shard: Shard, path: Path) -> Iterator[_Named]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(4096):
            for name, place, kept in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield _Named(name, shard.task, place, shard.number, kept)
