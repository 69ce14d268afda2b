"""What a verb hands back: a JSON object, and how a person sees it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a header; numbers are aligned right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`result` is printed by --json; `parts` (lines of text, tables, other rich renderables) otherwise."""

    result: dict[str, Any]
    parts: Sequence[Any] = field(default_factory=list)

    def show(self) -> None:
        """Print the parts on stdout."""
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        for part in self.parts:
            if isinstance(part, Table):
                console.print(_rich_table(part))
            elif isinstance(part, str):
                console.print(part, markup=False)
            else:
                console.print(part)


def counts(dropped: dict[str, int]) -> str:
    """`3 too_short, 1 no_answer`, or `nothing`."""
    return ", ".join(f"{number} {reason}" for reason, number in sorted(dropped.items())) or "nothing"


def _rich_table(table: Table) -> Any:
    from rich import box
    from rich.table import Table as RichTable

    out = RichTable(title=table.title or None, box=box.SIMPLE, title_justify="left", title_style="bold")
    for index, name in enumerate(table.header):
        out.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows:
        out.add_row(*row)
    return out
