"""Held-out losses side by side, and whether training did what it should."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mft.evaluation.paired import PairedDifference, mean_loss, paired_difference
from mft.scoring.loss import SampleScore

CLEARLY = 2.0
"""Standard errors by which the overall loss must fall."""

TOLERATED = 1.0
"""Standard errors by which a task's loss may rise."""


@dataclass(frozen=True, slots=True)
class LossTable:
    """One task's rows, or all rows. `loss`: model -> nats per trained token; `difference`: model -> minus the first model."""

    rows: int
    tokens: int
    loss: dict[str, float | None]
    difference: dict[str, PairedDifference]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`faults` make it not ok; `notes` say what could not be judged."""

    ok: bool
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def loss_table(scores: Mapping[str, Sequence[SampleScore]]) -> LossTable:
    """Compare models (the first is the reference) on the same rows in the same order."""
    reference = next(iter(scores.values()))
    others = list(scores.items())[1:] if reference else []
    differences = {name: paired_difference(those, reference) for name, those in others}
    return LossTable(len(reference), sum(score.tokens for score in reference),
                     {name: mean_loss(those) for name, those in scores.items()}, differences)


def judge(tasks: Mapping[str, LossTable], overall: LossTable) -> Verdict:
    """Every model after the first must have a clearly lower loss over all rows, and no task may have risen.

    Clearly: by more than two standard errors of the paired difference. Risen: by more than one.
    """
    faults, notes = [], []
    first = next(iter(overall.loss))
    if len(overall.loss) == 1:
        notes.append(f"one model ({first}): nothing to compare")
    for name, difference in overall.difference.items():
        if difference.se is None:
            faults.append(f"overall, {name}: one row cannot show that the loss fell")
        elif difference.mean + CLEARLY * difference.se >= 0:
            faults.append(f"overall, {name}: the loss did not fall clearly (by more than {CLEARLY:g} standard errors): "
                          f"{_change(overall, first, name)}")
    for task, table in tasks.items():
        if table.rows < 2 and len(overall.loss) > 1:
            notes.append(f"task '{task}': {table.rows} held-out rows, too few to judge")
        faults += [f"task '{task}', {name}: the loss rose by more than {TOLERATED:g} standard error: {_change(table, first, name)}"
                   for name, difference in table.difference.items()
                   if difference.se is not None and difference.mean > TOLERATED * difference.se]
    return Verdict(not faults, tuple(faults), tuple(notes))


def _change(table: LossTable, first: str, name: str) -> str:
    difference = table.difference[name]
    return (f"{table.loss[first]:.4f} for {first}, {table.loss[name]:.4f} for {name}, difference {difference.mean:+.4f} "
            f"with standard error {difference.se:.4f}")
