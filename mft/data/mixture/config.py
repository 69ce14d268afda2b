"""The mixtures as a recipe writes them."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field

from mft.config.model import StrictModel

Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class ProportionalMixture(StrictModel):
    """Every training row of every task, `tasks.T.weight` times."""

    type: Literal["proportional"] = "proportional"


class _Measured(StrictModel):
    """A mixture that says how many rows each task gives."""

    max_epochs: int = Field(1, ge=1, le=1000)
    """How often a training row may appear at most. A task that cannot give what it is asked for within this many rounds
    gives all it has; what is missing is reported as a shortfall and never made up by another task."""


class WeightsMixture(_Measured):
    """Training rows in fixed shares."""

    type: Literal["weights"]

    weights: dict[Name, Share] = Field(min_length=1)
    """The share of every task; any positive numbers, as only their ratios count."""

    total: int | None = Field(None, gt=0)
    """Training rows of all tasks together; null: as many as there can be without a shortfall."""


class TemperatureMixture(_Measured):
    """Shares between those of the data and equal ones: a task with n training rows has a share proportional to n^(1/temperature).

    Source: multilingual training (Devlin et al. 2018, exponent S = 1/T; Conneau et al. 2020, arXiv:1911.02116, section 3.1).
    """

    type: Literal["temperature"]

    temperature: float = Field(gt=0, le=1000, allow_inf_nan=False)
    """1: as much of each task as there is; 2: n^0.5; large: equal shares; below 1: large tasks become larger."""

    total: int | None = Field(None, gt=0)
    """Training rows of all tasks together; null: as many as there can be without a shortfall."""


class QuotasMixture(_Measured):
    """An exact number of training rows of each task."""

    type: Literal["quotas"]

    quotas: dict[Name, Annotated[int, Field(gt=0)]] = Field(min_length=1)
    """Training rows of every task. Validation rows come on top, each once."""


Mixture = Annotated[ProportionalMixture | WeightsMixture | TemperatureMixture | QuotasMixture, Field(discriminator="type")]


def named_tasks(mixture: Mixture) -> tuple[str, ...] | None:
    """The tasks that a mixture gives a number each; None when it needs none."""
    if isinstance(mixture, WeightsMixture):
        return tuple(mixture.weights)
    return tuple(mixture.quotas) if isinstance(mixture, QuotasMixture) else None


def mixture_fault(mixture: Mixture, weights: dict[str, float], joining: Iterable[str]) -> str | None:
    """What is wrong between a mixture and the tasks, as a sentence, or None.

    `weights`: `tasks.T.weight` of every task; `joining`: the tasks with a `join_below`.
    """
    named, tasks, joining = named_tasks(mixture), list(weights), tuple(joining)
    weighted = [task for task, weight in weights.items() if weight != 1]
    if weighted and not isinstance(mixture, ProportionalMixture):
        return (f"tasks.{weighted[0]}.weight is {weights[weighted[0]]:g}, and a mixture of type {mixture.type} decides alone how often "
                f"a row appears; leave the weight out, or take type proportional")
    if named is None:
        return None
    for name in named:
        if name not in weights:
            close = get_close_matches(name, tasks, n=1)
            return f"'{name}' is not a task of this recipe{f'; did you mean {close[0]!r}?' if close else ''}; tasks: {', '.join(tasks)}"
    missing = [task for task in tasks if task not in named]
    if missing:
        return f"{mixture.type} names no number for task '{missing[0]}'; every task needs one, missing: {', '.join(missing)}"
    if joining:
        return (f"task '{joining[0]}' may join another (join_below), so it can have no number of its own in {mixture.type}; "
                f"take join_below away, or mix by proportional or temperature")
    return None
