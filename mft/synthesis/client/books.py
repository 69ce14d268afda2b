"""What was spent, what is under way at its dearest, and whether one more request fits into the budget.

Spent is what servers counted, and, apart from it, what they may have charged without an answer reaching us (`uncertain`): a request that
timed out, whose connection was lost, or that was in flight when the process was killed. Both count against the budget, and so does the
most that requests under way can cost. A request is let in only where all of that stays inside the budget; if it does not, it waits for
those under way to be settled, which cost less than their most. So the requests that are let in are the same, whatever comes back first.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mft.synthesis.client.amounts import Amount
from mft.synthesis.client.config import Budget

NOTHING = Amount()
LOOK_S = 0.2
"""How often a request that waits for the budget looks whether the run was stopped."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request has cost so far. `estimated`: the server did not count, and `known` is an estimate."""

    purpose: str
    known: Amount = NOTHING
    uncertain: Amount = NOTHING
    answered: bool = False
    estimated: bool = False

    @property
    def all(self) -> Amount:
        """All that it may have cost."""
        return self.known + self.uncertain


@dataclass(slots=True)
class _Held:
    """A request under way: the most it can cost, and its charge before it was sent."""

    worst: Amount
    before: Charge


@dataclass(slots=True)
class Books:
    """The charges of one folder, over all runs in it. Threads may share it.

    `once`: a server charges all attempts at a request once (`charges: requests`), so that an attempt takes the place of the one before.
    """

    budget: Budget | None = None
    once: bool = False
    charges: dict[str, Charge] = field(default_factory=dict)
    spent: Amount = NOTHING
    failed: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _held: dict[str, _Held] = field(default_factory=dict)
    _worst: Amount = NOTHING
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def hold(self, key: str, purpose: str, worst: Amount, stopped: Callable[[], bool]) -> bool:
        """Let an attempt in, once it fits; False if it does not fit though nothing else is under way, or the run was stopped."""
        with self._changed:
            while not self._fits(key, worst):
                if not self._held or stopped():
                    return False
                self._changed.wait(LOOK_S)
            self._enter(key, purpose, worst)
            return True

    def settle(self, key: str, *, known: Amount | None = None, uncertain: Amount | None = None, cause: str = "", answered: bool = False,
               estimated: bool = False, again: bool = False) -> bool:
        """End an attempt: what it cost for sure, what it may have cost beyond that; neither where it was not charged.

        `cause`: why it failed, for the ledger. `again`: another attempt follows. True where its place is kept, so that no later request can
        take it; False where it must be let in anew, as this attempt was charged.
        """
        with self._changed:
            held = self._held.pop(key)
            before = held.before
            self._worst -= held.worst
            if cause:
                self.failed[before.purpose][cause] += 1
            if known is None and uncertain is None:
                after = before
            elif self.once:
                after = Charge(before.purpose, known or NOTHING, uncertain or NOTHING, answered, estimated)
            else:
                after = Charge(before.purpose, before.known + (known or NOTHING), before.uncertain + (uncertain or NOTHING), answered,
                               before.estimated or estimated)
            self.spent += after.all - (NOTHING if self.once else before.all)
            self.charges[key] = after
            kept = again and (self.once or after is before)
            if kept:
                self._enter(key, before.purpose, held.worst)
            self._changed.notify_all()
            return kept

    def _fits(self, key: str, worst: Amount) -> bool:
        if self.budget is None:
            return True
        before = self.charges[key].all if self.once and key in self.charges else NOTHING
        return (self.spent - before + self._worst + worst).within(self.budget)

    def _enter(self, key: str, purpose: str, worst: Amount) -> None:
        before = self.charges.get(key) or Charge(purpose)
        if self.once:
            self.spent -= before.all
        self._held[key] = _Held(worst, before)
        self._worst += worst

    def replay(self, entry: dict[str, Any]) -> None:
        """Take in a line of the store."""
        key = entry["key"]
        if entry["record"] == "started":
            if key in self._held:
                self._lose(key)
            self._enter(key, entry["purpose"], Amount.from_json(entry["worst"]))
            return
        amounts = {name: Amount.from_json(entry[name]) for name in ("known", "uncertain") if entry.get(name)}
        if key in self._held:
            self.settle(key, known=amounts.get("known"), uncertain=amounts.get("uncertain"), cause=entry.get("cause", ""),
                        answered=entry["record"] == "answer", estimated=bool(entry.get("estimated")))

    def lose_the_rest(self) -> list[Amount]:
        """After the replay: what was under way when the last run ended is uncertain. Returns the most that each can have cost."""
        lost = [self._held[key].worst for key in self._held]
        for key in list(self._held):
            self._lose(key)
        return lost

    def _lose(self, key: str) -> None:
        self.settle(key, uncertain=self._held[key].worst, cause="process_ended")

    def release(self) -> None:
        """Let go of what was let in and not sent, once nothing is under way."""
        with self._changed:
            for held in self._held.values():
                self.spent += held.before.all if self.once else NOTHING
            self._held.clear()
            self._worst = NOTHING

    def rows(self) -> dict[str, list[Charge]]:
        """The charges by purpose."""
        found = defaultdict[str, list[Charge]](list)
        with self._changed:
            for charge in self.charges.values():
                found[charge.purpose].append(charge)
        return found
