"""Parquet: columns of any type, nested ones too, as Python's own values."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mft.data.ledger import Ledger
from mft.data.readers.open import chunks, packing_of, read_whole
from mft.data.readers.raw import Place, RawRow, Rows, count_drop
from mft.errors import DataError

ROWS_PER_BATCH = 1024
UNREADABLE = (ValueError, OverflowError, pa.ArrowException)
"""What turning a cell into a Python value can raise: text that is no UTF-8, a date outside Python's calendar."""


def read_parquet(path: Path, place: Place, ledger: Ledger, groups: range | None = None, first: int = 1) -> Rows:
    """The rows of a file, or of some of its row groups, where `first` is the number of the first row.

    A file packed again with gzip or Zstandard is unpacked in memory.

    Dropped here: `unreadable_value`; `damaged_parquet` (or the fault of the packing) once for a file that is no Parquet, and for
    all that lies behind a damaged page.

    Raises:
        DataError: the file cannot be opened, or a column stands twice.
    """
    source: Any = path
    if packing_of(path):
        data, cut = read_whole(chunks(path))
        if cut:
            count_drop(ledger, cut.reason, str(path), f"{cut}; a Parquet file is read from its end, so no row of it can be")
            return
        source = pa.BufferReader(data)
    number = first - 1
    try:
        with pq.ParquetFile(source) as file:
            _check_names(file.schema_arrow.names, path)
            for batch in file.iter_batches(ROWS_PER_BATCH, row_groups=None if groups is None else list(groups)):
                for value in _values(batch):
                    number += 1
                    if isinstance(value, Exception):
                        count_drop(ledger, "unreadable_value", place.at(number), str(value))
                        continue
                    ledger.read += 1
                    yield RawRow(number, value)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (OSError, pa.ArrowException) as error:
        count_drop(ledger, "damaged_parquet", place.at(number + 1), f"{error}; {number} rows could be read")


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Exception]:
    """The rows of a batch; one with a value that Python cannot hold as what went wrong."""
    try:
        yield from batch.to_pylist()
    except UNREADABLE:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UNREADABLE as error:
                yield error


def _check_names(names: list[str], path: Path) -> None:
    if len(set(names)) < len(names):
        raise DataError(f"{path}: the column '{next(name for name in names if names.count(name) > 1)}' stands twice")
