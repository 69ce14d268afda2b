"""How a person sees what `mft data diff` found."""

import json
from collections.abc import Mapping
from typing import Any

from mft.cli.outcome import Table

Facts = Mapping[str, Any]
LONGEST_VALUE = 80
"""Characters of a value that a line shows."""


def diff_parts(facts: Facts) -> list[Any]:
    """Counts per task, some rows of each kind, and the keys of the recipe and the counts of the ledger that differ."""
    kinds = [kind for kind in facts["examples"] if any(task[kind] for task in facts["tasks"].values())]
    parts: list[Any] = [f"{facts['same']:,} rows are the same; A has {facts['rows']['a']:,} rows, B has {facts['rows']['b']:,}"]
    if kinds:
        rows = [[name, *(f"{task[kind]:,}" for kind in kinds)] for name, task in facts["tasks"].items()]
        parts.append(Table("", ["task", *(kind.replace("_", " ") for kind in kinds)], rows))
    for kind in kinds:
        parts += [f"{kind.replace('_', ' ')}: {_example(row)}" for row in facts["examples"][kind]]
    parts += [f"recipe: {entry['key']}: {_value(entry['a'])} -> {_value(entry['b'])}" for entry in facts["recipe"]]
    ledger = {name: count for name, count in facts["ledger"].items() if name != "dropped"} | {
        f"dropped {reason}": count for reason, count in facts["ledger"].get("dropped", {}).items()}
    if ledger:
        parts.append(Table("ledger", ["count", "A", "B"], [[name, f"{count['a']:,}", f"{count['b']:,}"] for name, count in ledger.items()]))
    return parts


def _example(row: Facts) -> str:
    was = row.get("was", {})
    before = ", ".join(f"{name} {_value(value)}" for name, value in was.items())
    times = f", {row['times']} times" if row["times"] > 1 else ""
    return f"{row['task']}/{row['id']} ({row['part']}{times}) {_value(row['text'])}" + (f"; was: {before}" if before else "")


def _value(value: Any) -> str:
    """A value on one line, cut where it is long; nothing is written as a dash."""
    text = "-" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE - 1]}…"
