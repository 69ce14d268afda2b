"""What was asked, answered and paid, for each purpose and in all; without a prompt, an answer or a key."""

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mft.synthesis.client.amounts import Amount
from mft.synthesis.client.books import NOTHING, Books, Charge
from mft.synthesis.client.config import Budget

COUNTS: Final = ("requests", "cached", "answered", "given_up", "refused", "budget_spent")
"""`requests` is the sum of the others."""


@dataclass(slots=True)
class Ledger:
    """Counts of this run, and beside them what all runs in the folder have spent."""

    books: Books
    currency: str | None = None
    """None where no price is known: money is then not counted."""

    budget: Budget | None = None
    _run: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _retried: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, purpose: str, what: str) -> None:
        """Count a request that was settled as `what`, one of COUNTS but the first."""
        with self._lock:
            self._run[purpose].update(("requests", what))

    def retry(self, purpose: str, cause: str) -> None:
        """Count an attempt that failed."""
        with self._lock:
            self._retried[purpose][cause] += 1

    def to_json(self) -> dict[str, Any]:
        """`{"currency", "budget", "this_run": {"by_purpose": {p: ...}, "total": ...}, "all_runs": {"by_purpose": {p: ...}, "total": ...}}`.

        A row of `this_run` has COUNTS and `failed_attempts {cause: n}`; one of `all_runs` has `answers`, `estimated` (answers whose tokens
        the server did not count), `prompt_tokens`, `completion_tokens`, `cost`, what may have been charged beyond that (`uncertain_tokens`,
        `uncertain_cost`), and `failed_attempts`.
        """
        with self._lock:
            purposes = sorted(self._run.keys() | self._retried.keys())
            run = {purpose: self._run_row([purpose]) for purpose in purposes}
            run_total = self._run_row(purposes)
        charges = self.books.rows()
        kept = {purpose: self._kept_row(charges[purpose], [purpose]) for purpose in sorted(charges)}
        every = [charge for row in charges.values() for charge in row]
        return {"currency": self.currency, "budget": self.budget.model_dump(exclude_none=True) if self.budget else None,
                "this_run": {"by_purpose": run, "total": run_total},
                "all_runs": {"by_purpose": kept, "total": self._kept_row(every, list(charges))}}

    def _run_row(self, purposes: Sequence[str]) -> dict[str, Any]:
        counts = sum((self._run[purpose] for purpose in purposes if purpose in self._run), Counter[str]())
        causes = sum((self._retried[purpose] for purpose in purposes if purpose in self._retried), Counter[str]())
        return {**{name: counts[name] for name in COUNTS}, "failed_attempts": dict(sorted(causes.items()))}

    def _kept_row(self, charges: Sequence[Charge], purposes: Sequence[str]) -> dict[str, Any]:
        known = sum((charge.known for charge in charges), NOTHING)
        uncertain = sum((charge.uncertain for charge in charges), NOTHING)
        causes = sum((self.books.failed[purpose] for purpose in purposes if purpose in self.books.failed), Counter[str]())
        return {"answers": sum(charge.answered for charge in charges), "estimated": sum(charge.estimated for charge in charges),
                "prompt_tokens": known.prompt_tokens, "completion_tokens": known.completion_tokens, "cost": self._money(known),
                "uncertain_tokens": uncertain.tokens, "uncertain_cost": self._money(uncertain),
                "failed_attempts": dict(sorted(causes.items()))}

    def _money(self, amount: Amount) -> float | None:
        return None if self.currency is None else float(amount.cost)

    def table(self) -> str:
        """The same as lines of text.

            purpose  requests  cached  answered  given_up  refused  budget_spent  prompt tokens  completion tokens  cost USD
            answer       1000       0      1000         0        0             0          31000              88000    0.0575
        """
        facts = self.to_json()
        rows = [["purpose", *COUNTS, "prompt tokens", "completion tokens", *([f"cost {self.currency}"] if self.currency else [])]]
        run, kept = facts["this_run"], facts["all_runs"]
        purposes = sorted(run["by_purpose"].keys() | kept["by_purpose"].keys())
        rows += [self._line(purpose, run["by_purpose"].get(purpose), kept["by_purpose"].get(purpose)) for purpose in purposes]
        if len(rows) > 2:
            rows.append(self._line("total", run["total"], kept["total"]))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                           for place, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
        total = kept["total"]
        if total["uncertain_tokens"]:
            money = f" ({total['uncertain_cost']:.4f} {self.currency})" if self.currency else ""
            lines.append(f"at most {total['uncertain_tokens']} tokens{money} more may have been charged, for answers that were lost or not "
                         "counted")
        if total["failed_attempts"]:
            lines.append("failed attempts: " + ", ".join(f"{cause} {count}" for cause, count in total["failed_attempts"].items()))
        return "\n".join(lines)

    def _line(self, name: str, run: dict[str, Any] | None, kept: dict[str, Any] | None) -> list[str]:
        counts = [str((run or {}).get(count, 0)) for count in COUNTS]
        tokens = [str((kept or {}).get(key, 0)) for key in ("prompt_tokens", "completion_tokens")]
        return [name, *counts, *tokens, *([f"{(kept or {}).get('cost') or 0:.4f}"] if self.currency else [])]
