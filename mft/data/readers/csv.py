"""Comma-separated text: the first line names the columns, every cell is text."""

import codecs
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mft.data.converters.base import shown
from mft.data.ledger import Ledger
from mft.data.readers.json_values import NOT_UTF8
from mft.data.readers.open import StreamFault, lines
from mft.data.readers.raw import Place, RawRow, Rows, count_drop
from mft.errors import DataError


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """The sign between cells, and the names of the columns where the file has no line of them."""

    delimiter: str = ","
    names: tuple[str, ...] = ()


def read_csv(pieces: Iterator[bytes], place: Place, ledger: Ledger, options: CsvOptions) -> Rows:
    """The records after the line of names, each numbered by the line it begins in (a quoted cell may span several).

    Dropped here: `blank_line`, `broken_csv` (a quote that is not closed), `ragged_row` (more or fewer cells than names),
    `invalid_utf8`, and one drop for what lies behind the fault of a packed file.

    Raises:
        DataError: a column stands twice.
    """
    csv.field_size_limit(sys.maxsize)   # a setting of the whole process; 131,072 characters, the default, is less than real answers have
    reader = csv.reader(_text(pieces), delimiter=options.delimiter, strict=True)
    names: Sequence[str] = options.names
    _check_names(names, place)
    number = 1
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            count_drop(ledger, "broken_csv", place.at(number), str(error))
            continue
        except StreamFault as fault:
            count_drop(ledger, fault.reason, place.at(number), f"{fault}; {number - 1} lines could be read")
            return
        if not names:
            names = cells
            _check_names(names, place)
            continue
        if fault_of := _fault(cells, names):
            count_drop(ledger, fault_of[0], place.at(number) if cells else "", fault_of[1])
            continue
        ledger.read += 1
        yield RawRow(number, dict(zip(names, cells, strict=True)))


def _fault(cells: Sequence[str], names: Sequence[str]) -> tuple[str, str] | None:
    """(reason, detail) for a record that is no row."""
    if not cells:
        return "blank_line", ""
    if len(cells) != len(names):
        return "ragged_row", f"{len(cells)} cells for {len(names)} columns"
    if any(NOT_UTF8.search(cell) for cell in cells):
        return "invalid_utf8", "a cell has bytes that are no UTF-8"
    return None


def _check_names(names: Sequence[str], place: Place) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise DataError(f"{place.at(1)}: the column {shown(twice)} stands twice; if the first line is a row, give the columns' `names`")


def _text(pieces: Iterator[bytes]) -> Iterator[str]:
    """Lines as text; a byte that is no UTF-8 is marked, so that its row alone is lost."""
    for line in lines(pieces):
        yield codecs.decode(line, "utf-8", "surrogateescape")
