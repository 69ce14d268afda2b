"""The rows of one file, whatever its kind and packing, with its kind checked against what it holds."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mft.data.ledger import Ledger
from mft.data.readers.csv import CsvOptions, read_csv
from mft.data.readers.json_array import read_json_array
from mft.data.readers.json_lines import read_json_lines
from mft.data.readers.open import BOM, StreamFault, chunks, is_utf16, packing_of
from mft.data.readers.parquet import read_parquet
from mft.data.readers.raw import Kind, Place, Rows, count_drop
from mft.data.readers.text_lines import read_text_lines
from mft.errors import DataError

logger = logging.getLogger(__name__)

KINDS: Final[dict[str, Kind]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv",
                                 ".tsv": "csv", ".txt": "lines"}
"""Ending of a name, after that of its packing -> kind. Any other is read as JSON lines."""

PEEK = 4096
ARRAY_START = re.compile(rb"\s*\[\s*\{")
MAGIC: Final = {
    b"PAR1": "is a Parquet file; use `type: parquet`, or the ending .parquet",
    b"\x1f\x8b": "is packed with gzip; give its name the ending .gz",
    b"\x28\xb5\x2f\xfd": "is packed with Zstandard; give its name the ending .zst",
}


def kind_of(path: Path) -> Kind:
    """What a file holds, by the ending of its name: `a.csv.gz` is `csv`."""
    bare = path.with_suffix("") if packing_of(path) else path
    return KINDS.get(bare.suffix.lower(), "jsonl")


def bare_name(path: Path) -> str:
    """The name of a file without the endings for its kind and packing: `a.jsonl.gz` is `a`."""
    bare = path.with_suffix("") if packing_of(path) else path
    return (bare.with_suffix("") if bare.suffix.lower() in KINDS else bare).name or path.name


def place_of(path: Path, kind: Kind) -> Place:
    """How rows of a file are named: by line, or by row where lines say nothing."""
    return Place(path, by_line=kind in ("jsonl", "csv", "lines"))


def read_file(path: Path, kind: Kind, ledger: Ledger, options: CsvOptions) -> Rows:
    """The rows of a file, counted in `ledger` as read; what cannot be parsed is counted as dropped too.

    An array under the name of JSON lines is read as an array, and lines under the name of an array as lines; both are logged and
    noted. A byte order mark at the start is taken off and noted.

    Raises:
        DataError: the file cannot be opened, or is of another kind.
    """
    if kind == "parquet":
        yield from read_parquet(path, place_of(path, kind), ledger)
        return
    start, pieces = _peeked(chunks(path))
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            raise DataError(f"{path}: {what}")
    if is_utf16(start):
        count_drop(ledger, "utf16", str(path), f"not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 {path.name}")
        return
    if start.startswith(BOM):
        ledger.note("byte_order_mark")
        pieces = _without_mark(pieces)
    if kind == "csv":
        yield from read_csv(pieces, place_of(path, kind), ledger, options)
        return
    if kind == "lines" and start.startswith(b'{"'):
        raise DataError(f"{path}: holds JSON, not plain text; use `type: jsonl`, or the ending .jsonl")
    if kind == "lines":
        yield from read_text_lines(pieces, place_of(path, kind), ledger)
        return
    start = start.removeprefix(BOM)
    if is_array(start, kind):
        if kind != "json":
            logger.warning("%s: holds a JSON array, not one object a line; read as an array", path)
            ledger.note("array_in_jsonl")
        yield from read_json_array(pieces, place_of(path, "json"), ledger)
        return
    if kind == "json" and start.strip():
        logger.warning("%s: holds no JSON array; read as one object a line", path)
        ledger.note("lines_in_json")
    yield from read_json_lines(pieces, place_of(path, "jsonl"), ledger)


def is_array(start: bytes, named: Kind) -> bool:
    """True for what begins like an array of objects. Several lines that are each an array are lines."""
    if named == "json":
        return start.lstrip().startswith(b"[")
    first, _, rest = start.lstrip().partition(b"\n")
    return ARRAY_START.match(start) is not None and not (first.rstrip().endswith(b"]") and rest.strip())


def _peeked(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all pieces from the start; a fault stays where it is."""
    held: list[bytes] = []
    faults: list[StreamFault] = []
    try:
        for piece in pieces:
            held.append(piece)
            if sum(map(len, held)) >= PEEK:
                break
    except StreamFault as fault:
        faults.append(fault)

    def again() -> Iterator[bytes]:
        yield from held
        if faults:
            raise faults[0]
        yield from pieces

    return b"".join(held)[:PEEK], again()


def _without_mark(pieces: Iterator[bytes]) -> Iterator[bytes]:
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= len(BOM):
            break
    yield first.removeprefix(BOM)
    yield from pieces
