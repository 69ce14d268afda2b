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


def encoded_parts(facts: dict[str, Any]) -> list[Any]:
    """How a person sees the counts of encoded data: shares by tokens and by samples differ, so both are shown."""
    total, trained = max(1, facts["samples"]), max(1, facts["trained_tokens"])
    rows = [[task, f"{part['samples']:,}", f"{part['samples'] / total:.1%}", f"{part['tokens']:,}", f"{part['trained_tokens']:,}",
             f"{part['trained_tokens'] / trained:.1%}"] for task, part in facts["per_task"].items()]
    lines = [f"{facts['samples']:,} samples, {facts['tokens']:,} tokens, {facts['trained_tokens']:,} trained; "
             f"{facts['rows']:,} packed rows, {facts['fill']:.2%} full",
             f"read {facts['read']:,}, kept {facts['kept']:,}; dropped: {counts(facts['dropped'])}"]
    return [Table("", ["task", "samples", "share", "tokens", "trained", "share"], rows), *lines]


def _rich_table(table: Table) -> Any:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    out = RichTable(title=Text(table.title) if table.title else None, box=box.SIMPLE, title_justify="left", title_style="bold")
    for index, name in enumerate(table.header):
        out.add_column(Text(name), justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows:
        out.add_row(*map(Text, row))   # a task's name is no markup
    return out
