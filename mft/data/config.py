"""A data recipe: what a person writes in `data_recipes/*.yaml`."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from mft.config.load import load_config
from mft.config.model import StrictModel
from mft.data.mixture.config import Mixture, ProportionalMixture, mixture_fault
from mft.data.source_config import CodeSource, JoinBelow, PythonCodeSource, Source
from mft.data.step_registry import Step


class TaskConfig(StrictModel):
    """One training task: where its rows come from and how often they are seen."""

    weight: float = Field(1.0, gt=0, le=1000)
    """How often each training row is emitted: 2 is twice, 2.5 twice and a half of them thrice, 0.5 a half of them.
    The half is chosen by hash and seed. Validation rows always appear once. For a mixture of type `proportional` alone."""

    sources: tuple[Source, ...] = Field(min_length=1)

    steps: tuple[Step, ...] = ()
    """Steps for this task's rows alone, after the common ones."""


class SplitConfig(StrictModel):
    """Which rows are held out, by a stable hash: the same on every machine and in every later build."""

    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the keys (not of the rows) that are held out."""

    by: Literal["file", "id"] = "file"
    """The key: the path of the row's file, so that no file is on both sides, or the id that the row was read with."""


class RecipeConfig(StrictModel):
    """A data set: tasks, common steps, mixture and split."""

    name: str = Field(min_length=1)

    seed: int = 1234
    """Decides the order of the rows and which of them a mixture takes; not the split."""

    tasks: dict[Annotated[str, Field(min_length=1)], TaskConfig] = Field(min_length=1)
    """In this order: of two equal rows the first task's is kept."""

    steps: tuple[Step, ...] = ()
    """Steps over the rows of all tasks together, in order."""

    mixture: Mixture = ProportionalMixture()
    """How many training rows each task gives; validation rows always appear once."""

    split: SplitConfig = SplitConfig()

    @field_validator("tasks")
    @classmethod
    def _joins(cls, tasks: dict[str, TaskConfig]) -> dict[str, TaskConfig]:
        joins = {name: rule for name, task in tasks.items() if (rule := join_rule(task))}
        for name, rule in joins.items():
            allowed = sorted(tasks.keys() - joins.keys())
            if rule.task not in allowed:
                raise ValueError(f"'{name}' would join '{rule.task}', which is not a task that stays; "
                                 f"allowed: {', '.join(allowed) or 'none'}")
        for name, task in tasks.items():
            if len(set(_join_rules(task))) > 1:
                raise ValueError(f"the sources of '{name}' disagree on join_below; it decides for the whole task")
        return tasks

    @field_validator("mixture")
    @classmethod
    def _mixes_these_tasks(cls, mixture: Mixture, info: ValidationInfo) -> Mixture:
        tasks: dict[str, TaskConfig] = info.data.get("tasks", {})   # absent when a task has a mistake of its own
        weights = {name: task.weight for name, task in tasks.items()}
        if tasks and (fault := mixture_fault(mixture, weights, [name for name, task in tasks.items() if join_rule(task)])):
            raise ValueError(fault)
        return mixture


def join_rule(task: TaskConfig) -> JoinBelow | None:
    """The `join_below` of a task's sources, or None."""
    return next(iter(_join_rules(task)), None)


def _join_rules(task: TaskConfig) -> list[JoinBelow]:
    return [source.join_below for source in task.sources if isinstance(source, PythonCodeSource | CodeSource) and source.join_below]


def copies_of(weight: float) -> tuple[int, float]:
    """Whole copies of each training row, and the share of the rows that get one more.

    >>> copies_of(2.5)
    (2, 0.5)
    """
    return math.floor(weight), weight - math.floor(weight)


def load_recipe(path: Path, *, must_exist: bool = False) -> RecipeConfig:
    """Read and check a recipe; with `must_exist` the files and folders that it names are looked for too.

    Raises:
        ConfigError: every mistake, each as `file:line: key: what is wrong; what is allowed`.
    """
    return load_config(RecipeConfig, path, context={"folder": path.parent, "must_exist": must_exist})
