"""Plain text, one text a line: each becomes a row `{"text": line}`."""

from collections.abc import Iterator

from mft.data.ledger import Ledger
from mft.data.readers.open import StreamFault, lines
from mft.data.readers.raw import Place, RawRow, Rows, count_drop


def read_text_lines(pieces: Iterator[bytes], place: Place, ledger: Ledger) -> Rows:
    """The lines without their ends. Dropped here: `blank_line`, `invalid_utf8`, and one drop for what lies behind the fault of a
    packed file."""
    number = 0
    try:
        for number, line in enumerate(lines(pieces), start=1):
            if not line.strip():
                count_drop(ledger, "blank_line")
                continue
            try:
                text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
            except UnicodeDecodeError as error:
                count_drop(ledger, "invalid_utf8", place.at(number), f"byte {error.start + 1} of the line")
                continue
            ledger.read += 1
            yield RawRow(number, {"text": text})
    except StreamFault as fault:
        count_drop(ledger, fault.reason, place.at(number + 1), f"{fault}; {number} lines could be read")
