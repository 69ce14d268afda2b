"""What the readers of all kinds of file give: a row with its place, or a counted fault."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mft.data.ledger import Ledger

Kind = Literal["jsonl", "json", "parquet", "csv", "lines"]


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was read. `number` counts from 1: the line of a text file, the row of an array, a table or a stream."""

    number: int
    value: Any
    notes: tuple[str, ...] = ()
    """What is odd about it: counted if the row is kept."""


Rows = Iterator[RawRow]


@dataclass(frozen=True, slots=True)
class Place:
    """A file (or data set) that is being read, and how its rows are named in messages."""

    path: Path | str
    by_line: bool = True

    def at(self, number: int) -> str:
        """`a.jsonl:3` for a line, `a.parquet: row 3` for a row."""
        return f"{self.path}:{number}" if self.by_line else f"{self.path}: row {number}"


def count_drop(ledger: Ledger, reason: str, where: str = "", detail: str = "") -> None:
    """Count a row that could be read no further: read and dropped at once."""
    ledger.read += 1
    ledger.drop(reason, where, detail)
