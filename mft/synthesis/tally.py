"""What became of every row in one step: `read + made == kept + replaced + sum(dropped by reason)` (law 1, where rows are made)."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mft.synthesis.row import Row

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that went, and why: one word in snake case."""

    row: Row
    step: str
    reason: str


class Tally:
    """The counts of one step and the rows that leave it. A row is known by its id in all that is logged, never by its text."""

    def __init__(self, step: str, rows: Sequence[Row]) -> None:
        self.step = step
        self.read = len(rows)
        self.made = 0
        """Rows that were tried to be made of others: each of them is kept or dropped as well."""
        self.replaced = 0
        """Rows that went since what was made of them stands in their place."""
        self.kept: list[Row] = []
        self.dropped: list[Dropped] = []
        self.noted: Counter[str] = Counter()
        self.report: dict[str, Any] = {}
        """What a step says of itself beside its counts."""

    def keep(self, row: Row, note: str = "") -> None:
        """The row goes on; with a note it is counted by it."""
        self.kept.append(row)
        if note:
            self.noted[note] += 1

    def drop(self, row: Row, reason: str) -> None:
        """The row ends here."""
        self.dropped.append(Dropped(row, self.step, reason))

    @property
    def reasons(self) -> dict[str, int]:
        """Rows dropped by reason."""
        return dict(sorted(Counter(each.reason for each in self.dropped).items()))

    def close(self) -> None:
        """Check that the counts add up, and log them.

        Raises:
            AssertionError: a row was lost or counted twice, which is a bug of ours.
        """
        gone = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        made = f", {self.made} made" if self.made else ""
        summary = f"{self.read} rows in{made}, {len(self.kept)} kept, {len(self.dropped)} dropped" + (f" ({gone})" if gone else "")
        if self.read + self.made != len(self.kept) + self.replaced + len(self.dropped):
            raise AssertionError(f"step '{self.step}' does not add up: {summary}, {self.replaced} replaced")
        logger.info("%s: %s", self.step, summary)

    def to_json(self) -> dict[str, Any]:
        """`{step, read, made, kept, replaced, dropped, noted?, report?}`, a line of the funnel."""
        line: dict[str, Any] = {"step": self.step, "read": self.read, "made": self.made, "kept": len(self.kept),
                                "replaced": self.replaced, "dropped": self.reasons}
        line |= {"noted": dict(sorted(self.noted.items()))} if self.noted else {}
        return line | ({"report": self.report} if self.report else {})
