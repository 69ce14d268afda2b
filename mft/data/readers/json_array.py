"""One JSON array of objects a file, read into memory whole and taken apart element by element."""

import re
from collections.abc import Iterator

from mft.data.converters.base import RowFault
from mft.data.ledger import Ledger
from mft.data.readers.json_values import NOT_UTF8, JsonValues, Parsed
from mft.data.readers.open import read_whole
from mft.data.readers.raw import Place, RawRow, Rows, count_drop

SPACE = re.compile(r"[ \t\r\n]*")


def read_json_array(pieces: Iterator[bytes], place: Place, ledger: Ledger) -> Rows:
    """The elements of an array.

    A fault of the syntax is one `broken_json` (or the fault of a packed file) for it and all that lies behind it; an element with
    bytes that are no UTF-8, or with a key twice, is a drop by itself.
    """
    data, cut = read_whole(pieces)
    text, values = data.decode("utf-8", "surrogateescape"), JsonValues()
    del data
    number, end, fault = 0, _skip(text, text.find("[") + 1), ""
    more = text[end:end + 1] != "]"
    while more:
        number += 1
        try:
            parsed = values.parse_at(text, end)
        except RowFault as error:
            fault = str(error)
            break
        yield from _whole(parsed, text[end:parsed.end], number, place, ledger)
        end = _skip(text, parsed.end)
        if text[end:end + 1] not in (",", "]"):
            fault = "no comma and no ] behind the element: the file is cut short, or no array"
            break
        more = text[end] == ","
        end = _skip(text, end + 1) if more else end
    if not fault and text[end + 1:].strip():
        fault = "more text behind the array"
    if cut:
        count_drop(ledger, cut.reason, place.at(number + 1), f"{cut}; {number} elements could be read")
    elif fault:
        count_drop(ledger, "broken_json", place.at(number), f"{fault}; what lies behind it is not read")


def _whole(parsed: Parsed, written: str, number: int, place: Place, ledger: Ledger) -> Rows:
    """The element as a row, unless it has a fault of its own."""
    try:
        if NOT_UTF8.search(written):
            raise RowFault("invalid_utf8", "the element has bytes that are no UTF-8")
        row = RawRow(number, parsed.checked(), parsed.notes)
    except RowFault as fault:
        count_drop(ledger, fault.reason, place.at(number), str(fault))
        return
    ledger.read += 1
    yield row


def _skip(text: str, start: int) -> int:
    found = SPACE.match(text, start)
    return found.end() if found else start
