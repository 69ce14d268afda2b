"""HTML built from calls that escape: whatever is not already `Html` is text, and text can never become markup."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any


class Html(str):
    """Text that is markup already. Only `tag`, `joined` and literals in this package make it."""

    __slots__ = ()


# A page cannot hold these as they are: the HTML parser replaces NUL, shows nothing for the rest, and UTF-8 has no lone surrogates.
_SHOWN = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n\r"}
_SHOWN[0x7F] = "\u2421"
_SHOWN |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def escape(text: str) -> Html:
    """`text` as HTML that shows it character by character; control characters become their pictures (U+2400 and up).

    >>> escape("a < b\\x00")
    'a &lt; b␀'
    """
    # The parser turns a raw carriage return into a newline; as a reference it survives.
    return Html(html.escape(text, quote=True).translate(_SHOWN).replace("\r", "&#13;"))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """One element. Children that are not `Html` are escaped; attributes that are None are left out.

    `class_` stands for `class`; other underscores become hyphens, so `text_anchor` is `text-anchor`.
    """
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
                      for key, value in attributes.items() if value is not None)
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[object]) -> Html:
    """The children one after another, escaped where they are text; None adds nothing."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children if child is not None))


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a table column. Numeric columns are aligned right; neighbours of one `group` stand under its name."""

    label: object
    numeric: bool = True
    group: str = ""


def table(columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, foot: Sequence[Any] | None = None, class_: str = "") -> Html:
    """A table that scrolls sideways by itself when the window is narrow. `foot` is a last row set apart.

    A cell is text, `Html`, or a whole `<td>` made with `tag`; the first cell of each row is its header.
    """
    head = tag("tr", *(tag("th", column.label, class_=_align(column), scope="col") for column in columns))
    if any(column.group for column in columns):
        head = joined([_groups(columns), head])
    body = joined(_row(columns, row) for row in rows)
    parts = [tag("thead", head), tag("tbody", body)]
    if foot is not None:
        parts.append(tag("tfoot", _row(columns, foot)))
    return tag("div", tag("table", *parts, class_=class_ or None), class_="scroll", tabindex="0")


def _groups(columns: Sequence[Column]) -> Html:
    runs = [(group, len(list(same))) for group, same in groupby(columns, key=lambda column: column.group)]
    return tag("tr", *(tag("th", group, colspan=width, class_="group", scope="colgroup") if group else tag("td", colspan=width)
                       for group, width in runs), class_="groups")


def _row(columns: Sequence[Column], row: Sequence[Any]) -> Html:
    cells = []
    for index, (column, cell) in enumerate(zip(columns, row, strict=True)):
        if isinstance(cell, Html) and cell.startswith("<td"):
            cells.append(cell)
        elif index == 0:
            cells.append(tag("th", cell, class_=_align(column), scope="row"))
        else:
            cells.append(tag("td", cell, class_=_align(column)))
    return tag("tr", *cells)


def _align(column: Column) -> str | None:
    return "number" if column.numeric else None


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """A list of names and values, laid out in columns; a pair whose value is None is left out."""
    items = (tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value is not None)
    return tag("dl", *items, class_="facts")


def notice(kind: str, title: str, *children: object) -> Html:
    """A boxed message; `kind` is `good`, `bad` or `plain`, and the title says the same in words."""
    return tag("div", tag("strong", title), *children, class_=f"notice {kind}", role="note")


def section(anchor: str, title: str, lead: object, *children: object) -> Html:
    """A section of the page with its heading and one introductory sentence."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead"), *children, id=anchor)
