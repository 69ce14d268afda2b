"""A sample on a terminal: trained text stands out, nothing invisible stays so, no line is wider than the screen.

    ▌ is_even(n):⏎            a row with the mark holds trained text; so it can be read without colours too
    ▌↪ more of a long line    a line that goes on, where lines are wrapped
      text that is cu… +120   120 more characters, where lines are cut
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal

from rich.cells import cell_len
from rich.text import Text

from mft.tokenization.show import Piece

TRAINED_STYLE: Final = "bold green"
CONTEXT_STYLE: Final = "dim"
CONTROL_STYLE: Final = "reverse"
"""Added to the others: a control token, which is an id and not text."""
MARK_STYLE: Final = "yellow"
"""What stands for something that cannot be seen."""

TRAINED_MARK, CONTINUED_MARK, CUT_MARK = "▌", "↪", "…"
GUTTER: Final = 3
"""Cells before the text: the mark of a trained row, that of a continued line, a space."""
NARROWEST: Final = 20

Long = Literal["wrap", "cut"]
"""What becomes of a line that is wider than the terminal."""

VISIBLE: Final = {"\t": "→   ", "\r": "␍", "\u007f": "␡", "\u00a0": "⍽"}
BLANKS: Final = ("⏎", *VISIBLE.values())
INVISIBLE_CATEGORIES: Final = ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")


@dataclass(slots=True)
class _Cell:
    """One character as it is drawn, with what stands on it (accents take no cell of their own)."""

    text: str
    style: str
    trained: bool
    width: int
    characters: int = 1
    control: bool = False


@dataclass(slots=True)
class _Line:
    cells: list[_Cell] = field(default_factory=list)
    trained_end: bool = False
    """The line feed that ends the line is trained."""


def render_terminal(pieces: Sequence[Piece], width: int, long: Long = "wrap") -> Text:
    """The sample as rows of at most `width` cells, wide characters counted as two; `plain` ends without a line feed.

    Trailing white space is shown as `·`, a tab as `→` and three spaces, control characters by their pictures (`␀`), what is invisible
    otherwise by its number (`<U+200B>`), and a trained line feed as `⏎`.
    """
    room = max(NARROWEST, width) - GUTTER
    out: list[Text] = []
    for line in _lines(pieces):
        _show_trailing_space(line.cells)
        rows = list(_wrapped(line.cells, room)) if long == "wrap" else [_cut(line.cells, room)]
        for index, row in enumerate(rows):
            trained = any(cell.trained for cell in row) or (line.trained_end and index == len(rows) - 1)
            out.append(_row(row, trained=trained, continued=index > 0))
    return Text("\n").join(out)


def visible(character: str) -> str:
    """How a character is drawn: itself, or what stands for it.

    >>> visible("a"), visible(chr(0)), visible(chr(0x200B))
    ('a', '␀', '<U+200B>')
    """
    if character in VISIBLE:
        return VISIBLE[character]
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    return f"<U+{ord(character):04X}>" if unicodedata.category(character) in INVISIBLE_CATEGORIES else character


def _lines(pieces: Iterable[Piece]) -> Iterator[_Line]:
    line = _Line()
    for piece in pieces:
        style = TRAINED_STYLE if piece.trained else CONTEXT_STYLE
        for character in piece.text:
            if character == "\n" and not piece.control:
                line.trained_end = piece.trained
                if piece.trained:
                    line.cells.append(_Cell("⏎", MARK_STYLE, True, 1, 0))
                yield line
                line = _Line()
            else:
                _add(line.cells, character, f"{style} {CONTROL_STYLE}" if piece.control else style, piece)
    yield line


def _add(cells: list[_Cell], character: str, style: str, piece: Piece) -> None:
    drawn = visible(character)
    width = cell_len(drawn)
    if drawn != character:
        cells.append(_Cell(drawn, MARK_STYLE, piece.trained, width))
    elif width == 0 and cells and cells[-1].style == style:
        cells[-1].text += drawn
        cells[-1].characters += 1
    else:
        cells.append(_Cell(drawn, style, piece.trained, width, control=piece.control))


def _show_trailing_space(cells: list[_Cell]) -> None:
    """Spaces become dots where the text ends: before the end of the line, its `⏎`, or a control token."""
    at_end = True
    for cell in reversed(cells):
        if at_end and cell.text == " ":
            cell.text, cell.style = "·", MARK_STYLE
        elif cell.control or (cell.style == MARK_STYLE and cell.text in BLANKS):
            at_end = True
        else:
            at_end = False


def _wrapped(cells: Sequence[_Cell], room: int) -> Iterator[list[_Cell]]:
    row: list[_Cell] = []
    used = 0
    for cell in cells:
        if row and used + cell.width > room:
            yield row
            row, used = [], 0
        row.append(cell)
        used += cell.width
    yield row


def _cut(cells: Sequence[_Cell], room: int) -> list[_Cell]:
    """What fits into `room`, with the number of characters that do not."""
    if sum(cell.width for cell in cells) <= room:
        return list(cells)
    kept, used = 0, 0
    longest_mark = len(f"{CUT_MARK} +{len(cells)}")
    while used + cells[kept].width <= room - longest_mark:
        used += cells[kept].width
        kept += 1
    hidden = cells[kept:]
    mark = f"{CUT_MARK} +{sum(cell.characters for cell in hidden)}"
    return [*cells[:kept], _Cell(mark, MARK_STYLE, any(cell.trained for cell in hidden), cell_len(mark), 0)]


def _row(cells: Sequence[_Cell], *, trained: bool, continued: bool) -> Text:
    row = Text()
    row.append(TRAINED_MARK if trained else " ", style=TRAINED_STYLE if trained else "")
    row.append(CONTINUED_MARK if continued else " ", style=MARK_STYLE if continued else "")
    row.append(" ")
    for style, run in groupby(cells, key=lambda cell: cell.style):
        row.append("".join(cell.text for cell in run), style=style)
    return row
