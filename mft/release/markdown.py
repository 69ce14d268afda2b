"""Markdown out of plain values."""

from collections.abc import Sequence
from typing import Any

UNKNOWN = "not recorded"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A pipe table; the first column left, the others right.

    >>> print(table(["a", "b"], [["x|y", 1.5]]))
    | a | b |
    |:--|--:|
    | x\\|y | 1.5 |
    """
    lines = [_row(header), "|" + "|".join([":--", *["--:"] * (len(header) - 1)]) + "|", *map(_row, rows)]
    return "\n".join(lines)


def facts_table(facts: Sequence[tuple[str, Any]]) -> str:
    """A table of two columns without a header line's text."""
    return "\n".join(["| | |", "|:--|:--|", *(_row([name, value]) for name, value in facts)])


def fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of back quotes in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def number(value: Any, digits: int = 4) -> str:
    """A number for a person: whole ones with thousands, others with `digits` significant digits or decimals; None: not recorded.

    >>> number(1234567), number(0.0163290), number(None), number(True)
    ('1,234,567', '0.01633', 'not recorded', 'yes')
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def words(value: Any) -> str:
    """A setting for a person: a list by commas, a mapping as `key value` pairs."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(each)}" for key, each in value.items() if each is not None) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value)) or "none"
    return number(value)


def plain(value: Any) -> str:
    """As `words`, with whole numbers as a config writes them: a seed is 1234."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(each)}" for key, each in value.items() if each is not None) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else number(value, 8)


def _row(cells: Sequence[Any]) -> str:
    texts = (words(cell) if not isinstance(cell, str) else cell for cell in cells)
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"
