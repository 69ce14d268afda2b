"""What became of every row: `read == kept + sum(dropped by reason)`, for each step and for the whole build (law 1)."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

SHOWN = 5
"""Drops of one reason that are logged with their place; the rest is a total."""


class Ledger:
    """The counts of one step. Rows are counted where they enter, and again where they leave or are dropped."""

    def __init__(self, step: str, task: str | None = None, level: int = logging.WARNING) -> None:
        self.step = step
        self.task = task
        self.level = level
        """Level of the log lines that name drops: what a reader cannot use is a warning, what a step was asked to drop is not."""
        self.read = 0
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        """Rows that were kept, or kept after a change, with something that a person should know of, by what it is."""
        self.report: dict[str, Any] = {}
        """What the step says of itself beside its counts."""
        self.lists: Mapping[str, Sequence[Mapping[str, Any]]] = {}
        """What is too long for the manifest: file name -> lines."""
        self.sources: dict[str, Ledger] = {}
        """The counts of each source of a `read` step, by its name; together they are those of the step."""
        self._located: Counter[str] = Counter()

    def drop(self, reason: str, where: str = "", detail: str = "") -> None:
        """Count one dropped row; with `where` (`file:line`) the first few of each reason are logged."""
        self.dropped[reason] += 1
        if where:
            self._located[reason] += 1
            if self._located[reason] <= SHOWN:
                self._name(reason, where, detail)

    def note(self, what: str) -> None:
        """Count a row that is kept although it is odd (a byte order mark, NUL) or that a step has changed."""
        self.noted[what] += 1

    def absorb(self, counts: Mapping[str, Any], source: str | None = None) -> None:
        """Add what another ledger of the same step counted over other rows: `ShardLedger.to_counts`. `source`: those of this source."""
        if source is not None:
            own = self.sources.setdefault(source, Ledger(f"{self.step} {self.task}", source))
            own.absorb({**counts, "report": {}, "lists": {}, "located": {}})
        self.read += counts["read"]
        self.kept += counts["kept"]
        self.dropped.update(counts["dropped"])
        self.noted.update(counts["noted"])
        self.report = added(self.report, counts["report"])
        for name, lines in counts["lists"].items():
            self.lists = {**self.lists, name: [*self.lists.get(name, ()), *lines]}
        for reason, (number, first) in counts["located"].items():
            for where, detail in first[:max(0, SHOWN - self._located[reason])]:
                self._name(reason, where, detail)
            self._located[reason] += number

    def _name(self, reason: str, where: str, detail: str) -> None:
        logger.log(self.level, "%s: dropped: %s%s", where, reason, f" ({detail})" if detail else "")

    def summary(self) -> str:
        """`12 rows in, 10 kept, 2 dropped (no_answer 2)`."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.dropped.most_common())
        return f"{self.read} rows in, {self.kept} kept, {self.dropped.total()} dropped" + (f" ({reasons})" if reasons else "")

    def close(self) -> None:
        """Check that the counts add up and log them.

        Raises:
            AssertionError: a row was lost or counted twice, which is a bug of ours.
        """
        if self.read != self.kept + self.dropped.total():
            raise AssertionError(f"step '{self.step}' does not add up: {self.summary()}")
        for name, own in self.sources.items():
            if own.read != own.kept + own.dropped.total():
                raise AssertionError(f"source '{name}' does not add up: {own.summary()}")
        if self.sources and (self.read, self.dropped) != (sum(own.read for own in self.sources.values()),
                                                          sum((own.dropped for own in self.sources.values()), Counter())):
            raise AssertionError(f"step '{self.step}' and its sources do not add up: {self.summary()}")
        for reason, count in self._located.items():
            if count > SHOWN:
                logger.log(self.level, "%s: %d in all, the first %d are named above", reason, count, SHOWN)
        for own in self.sources.values() if len(self.sources) > 1 else ():
            logger.info("%s, %s: %s", own.step, own.task, own.summary())
        logger.info("%s%s: %s", self.step, f" {self.task}" if self.task else "", self.summary())

    def to_json(self) -> dict[str, Any]:
        """`{step, task?, read, kept, dropped, noted?, report?, sources? [{source, read, kept, dropped}]}`."""
        head = {"step": self.step, "task": self.task} if self.task else {"step": self.step}
        noted = {"noted": dict(sorted(self.noted.items()))} if self.noted else {}
        report = {"report": self.report} if self.report else {}
        sources = {"sources": [{"source": name} | own.counts() for name, own in self.sources.items()]} if self.sources else {}
        return {**head, **self.counts(), **noted, **report, **sources}

    def counts(self) -> dict[str, Any]:
        """`{read, kept, dropped}`."""
        return {"read": self.read, "kept": self.kept, "dropped": dict(sorted(self.dropped.items()))}


class ShardLedger(Ledger):
    """The counts of one step over one shard. Nothing is logged: the ledger that absorbs the counts names the first drops of all shards."""

    def __init__(self, step: str) -> None:
        super().__init__(step)
        self._first: dict[str, list[tuple[str, str]]] = {}

    def _name(self, reason: str, where: str, detail: str) -> None:
        self._first.setdefault(reason, []).append((where, detail))

    def to_counts(self) -> dict[str, Any]:
        """All that `Ledger.absorb` needs, as JSON."""
        located = {reason: (number, self._first[reason]) for reason, number in self._located.items()}
        return {"read": self.read, "kept": self.kept, "dropped": dict(self.dropped), "noted": dict(self.noted), "report": self.report,
                "lists": {name: list(lines) for name, lines in self.lists.items()}, "located": located}


def added(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The reports of a step over two shards as one: numbers are added, mappings merged, and sorted if both were.

    >>> added({"a": 1, "c": {"x": 1}}, {"b": 2, "c": {"x": 2}})
    {'a': 1, 'b': 2, 'c': {'x': 3}}
    """
    out = dict(first)
    for key, value in second.items():
        out[key] = value if key not in out else added(out[key], value) if isinstance(value, Mapping) else out[key] + value
    return dict(sorted(out.items())) if list(first) == sorted(first) and list(second) == sorted(second) else out


class BuildLedger:
    """The ledgers of a whole build: `read` steps first, then every step that may drop a row; the last one sees all rows."""

    def __init__(self) -> None:
        self.steps: list[Ledger] = []

    def open(self, step: str, task: str | None = None) -> Ledger:
        """A new ledger, noted in the order of opening."""
        self.steps.append(Ledger(step, task, logging.WARNING if step == "read" else logging.DEBUG))
        return self.steps[-1]

    @property
    def read(self) -> int:
        """Rows that came in."""
        return sum(ledger.read for ledger in self.steps if ledger.step == "read")

    @property
    def lists(self) -> dict[str, list[Mapping[str, Any]]]:
        """File name -> lines of the lists of all steps, each line with its `task` where the step ran over one alone."""
        out: dict[str, list[Mapping[str, Any]]] = {}
        for ledger in self.steps:
            for name, lines in ledger.lists.items():
                out.setdefault(name, []).extend({"task": ledger.task, **line} if ledger.task else line for line in lines)
        return out

    @property
    def dropped(self) -> Counter[str]:
        """Rows dropped by reason, over all steps."""
        return sum((ledger.dropped for ledger in self.steps), Counter())

    def close(self, *, emitted: int, weighted: bool) -> dict[str, Any]:
        """Check the whole build and return its facts: `{read, kept, emitted, dropped, steps}`.

        Raises:
            AssertionError: a row was lost, or rows were multiplied although the recipe repeats none.
        """
        dropped, kept = self.dropped, self.steps[-1].kept
        if self.read != kept + dropped.total():
            raise AssertionError(f"the build does not add up: {self.read} read, {kept} kept, {dropped.total()} dropped")
        if emitted != kept and not weighted:
            raise AssertionError(f"{kept} rows kept but {emitted} emitted, and the recipe repeats no row")
        logger.info("build: %d rows read, %d kept, %d dropped, %d emitted", self.read, kept, dropped.total(), emitted)
        return {"read": self.read, "kept": kept, "emitted": emitted, "dropped": dict(sorted(dropped.items())),
                "steps": [ledger.to_json() for ledger in self.steps]}
