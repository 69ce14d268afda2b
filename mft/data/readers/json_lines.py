"""One JSON object a line. A line is a row, whatever is in it."""

from collections.abc import Iterator

from mft.data.converters.base import RowFault
from mft.data.ledger import Ledger
from mft.data.readers.json_values import JsonValues
from mft.data.readers.open import StreamFault, lines
from mft.data.readers.raw import Place, RawRow, Rows, count_drop


def read_json_lines(pieces: Iterator[bytes], place: Place, ledger: Ledger, first: int = 1) -> Rows:
    """The rows of all lines that are JSON; `first` is the number of the first line.

    What is not is dropped here: `blank_line`, `invalid_utf8`, `broken_json`, `duplicate_key`, and one drop for all that lies behind
    the fault of a packed file."""
    values, number, windows = JsonValues(), first - 1, False
    try:
        for number, line in enumerate(lines(pieces), start=first):
            windows = windows or line.endswith(b"\r\n")
            try:
                value, notes = _parse(line, values)
            except RowFault as fault:
                count_drop(ledger, fault.reason, "" if fault.reason == "blank_line" else place.at(number), str(fault))
                continue
            ledger.read += 1
            yield RawRow(number, value, notes)
    except StreamFault as fault:
        count_drop(ledger, fault.reason, place.at(number + 1), f"{fault}; {number} lines could be read")
    if windows:
        ledger.note("crlf_line_ends")


def _parse(line: bytes, values: JsonValues) -> tuple[object, tuple[str, ...]]:
    if not line.strip():
        raise RowFault("blank_line")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowFault("invalid_utf8", f"byte {error.start + 1} of the line") from error
    parsed = values.parse(text)
    return parsed.checked(), parsed.notes
