"""The shards of a recipe: files, and pieces of files that can be read from the middle.

The cut depends on the files alone, never on the number of workers, so that every build of a recipe has the same shards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mft.data.config import RecipeConfig
from mft.data.readers.files import MAGIC, PEEK, is_array, kind_of
from mft.data.readers.open import BOM, CHUNK, is_utf16, packing_of
from mft.data.readers.raw import Kind
from mft.data.source_config import FileSource, ModelscopeSource
from mft.data.sources import source_paths

PIECE_BYTES = 8 << 20
"""JSON lines of at least twice this size are cut behind the first line that ends after so many bytes."""

PIECE_ROWS = 20_000
"""Parquet files of more rows are cut between row groups, at the first end of a group after so many rows."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or what stands in it from `start` up to, not including, `stop`: bytes of JSON lines, row groups of Parquet.

    `first` is the number of the first row there, as its origin names it.
    """

    label: str
    path: Path
    kind: Kind
    start: int = 0
    stop: int | None = None
    first: int = 1

    @property
    def whole(self) -> bool:
        """True for a file that is not cut."""
        return self.stop is None


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows that are read and cleaned by one process: a piece of a source of files, or all of another source (`piece` is None)."""

    number: int
    task: str
    source: int
    piece: Piece | None


def plan_shards(recipe: RecipeConfig) -> list[Shard]:
    """The shards in the order of the recipe.

    Raises:
        DataError: a source names nothing.
    """
    found = [(name, number, piece) for name, task in recipe.tasks.items() for number, source in enumerate(task.sources)
             for piece in (_pieces(source) if isinstance(source, FileSource | ModelscopeSource) else [None])]
    return [Shard(number, *which) for number, which in enumerate(found)]


def _pieces(source: FileSource | ModelscopeSource) -> Iterator[Piece]:
    for label, path in source_paths(source):
        kind: Kind = source.type if isinstance(source, FileSource) else kind_of(path)
        cuts = [] if packing_of(path) else _line_cuts(path) if kind == "jsonl" else _group_cuts(path) if kind == "parquet" else []
        if len(cuts) < 3:
            yield Piece(label, path, kind)
            continue
        for (start, first), (stop, _) in pairwise(cuts):
            yield Piece(label, path, kind, start, stop, first)


def _line_cuts(path: Path) -> list[tuple[int, int]]:
    """(byte, number of the line that starts there) of each cut, the start and the end of the file included; [] for one piece."""
    if not path.is_file() or path.stat().st_size < 2 * PIECE_BYTES:
        return []
    cuts, offset, lines = [(0, 1)], 0, 1
    with path.open("rb") as stream:
        start = stream.read(PEEK)
        if any(map(start.startswith, MAGIC)) or is_utf16(start) or is_array(start.removeprefix(BOM), "jsonl"):
            return []
        stream.seek(0)
        while chunk := stream.read(CHUNK):
            wanted = max(0, cuts[-1][0] + PIECE_BYTES - offset)
            if wanted < len(chunk) and (end := chunk.find(b"\n", wanted) + 1):
                cuts.append((offset + end, lines + chunk.count(b"\n", 0, end)))
            lines += chunk.count(b"\n")
            offset += len(chunk)
    return [*cuts, (offset, lines)] if offset > cuts[-1][0] else cuts


def _group_cuts(path: Path) -> list[tuple[int, int]]:
    """(row group, number of its first row) of each cut, the start and the end included; [] for one piece or a file to refuse."""
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return []   # the reader says what is wrong with it
    cuts, rows = [(0, 1)], 0
    for group in range(metadata.num_row_groups):
        if rows >= cuts[-1][1] - 1 + PIECE_ROWS:
            cuts.append((group, rows + 1))
        rows += metadata.row_group(group).num_rows
    return [*cuts, (metadata.num_row_groups, rows + 1)]
