"""A data recipe: what a person writes in `data_recipes/*.yaml`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mft.config.load import load_config
from mft.config.model import StrictModel
from mft.config.yaml import Document
from mft.data.dedup.config import HeldOutDedupStep
from mft.data.mixture.config import Mixture, ProportionalMixture, mixture_fault
from mft.data.parameters import NAME, fill_parameters, holds_parameters
from mft.data.source_config import JoinBelow, LocalSource, Source
from mft.data.split_config import SplitConfig
from mft.data.step_registry import Step


class TaskConfig(StrictModel):
    """One training task: where its rows come from and how often they are seen."""

    weight: float = Field(1.0, gt=0, le=1000)
    """How often each training row is emitted: 2 is twice, 2.5 twice and a half of them thrice, 0.5 a half of them.
    The half is chosen by hash and seed. Validation rows always appear once. For a mixture of type `proportional` alone."""

    sources: tuple[Source, ...] = Field(min_length=1)

    steps: tuple[Step, ...] = ()
    """Steps for this task's rows alone, after the common ones."""


class RecipeConfig(StrictModel):
    """A data set: tasks, common steps, mixture and split."""

    name: str = Field(min_length=1)

    seed: int = 1234
    """Decides the order of the rows and which of them a mixture takes; not the split."""

    parameters: dict[Annotated[str, Field(pattern=NAME)], Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    """Paths with a name: `{name}` in the `path` of a source or in a step's `problems` stands for the value. Whoever builds the recipe
    may give others. They are filled in when a recipe is read from a file, and are empty then."""

    tasks: dict[Annotated[str, Field(min_length=1)], TaskConfig] = Field(min_length=1)
    """In this order: of two equal rows the first task's is kept."""

    steps: tuple[Step, ...] = ()
    """Steps over the rows of all tasks together, in order."""

    mixture: Mixture = ProportionalMixture()
    """How many training rows each task gives; validation rows always appear once."""

    split: SplitConfig = SplitConfig()

    @field_validator("parameters")
    @classmethod
    def _are_filled_in(cls, parameters: dict[str, str]) -> dict[str, str]:
        if parameters:
            raise ValueError("parameters are filled in where a recipe is read from a file; here the paths themselves are needed")
        return parameters

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

    @model_validator(mode="after")
    def _a_key_decides_where_files_do(self) -> "RecipeConfig":
        named = [name for name, task in self.tasks.items() for source in task.sources if getattr(source, "split_key", None) is not None]
        if named and self.split.by == "id":
            raise ValueError(f"a source of '{named[0]}' names a split_key, which takes the place of a file's path, but split.by is id; "
                             "take split_key away, or split by file")
        return self

    @model_validator(mode="after")
    def _steps_know_the_split(self) -> "RecipeConfig":
        for step in (*self.steps, *(step for task in self.tasks.values() for step in task.steps)):
            if isinstance(step, HeldOutDedupStep):
                step.learn(self.split)
        return self


def join_rule(task: TaskConfig) -> JoinBelow | None:
    """The `join_below` of a task's sources, or None."""
    return next(iter(_join_rules(task)), None)


def _join_rules(task: TaskConfig) -> list[JoinBelow]:
    return [source.join_below for source in task.sources if isinstance(source, LocalSource) and source.join_below]


def copies_of(weight: float) -> tuple[int, float]:
    """Whole copies of each training row, and the share of the rows that get one more.

    >>> copies_of(2.5)
    (2, 0.5)
    """
    return math.floor(weight), weight - math.floor(weight)


def load_recipe(path: Path, overrides: Sequence[str] = (), *, parameters: Mapping[str, str] = MappingProxyType({}),
                must_exist: bool = False) -> RecipeConfig:
    """Read and check a recipe; with `must_exist` the files and folders that it names are looked for too.

    `overrides`: `key.sub=value`, put over the file. `parameters`: values for the recipe's parameters, above those in the file.

    Raises:
        ConfigError: every mistake, each as `file:line: key: what is wrong; what is allowed`.
    """
    context = {"folder": path.parent, "must_exist": must_exist}

    def prepare(document: Document) -> list[str]:
        problems = fill_parameters(document, parameters)
        if problems or holds_parameters(document):   # paths that are not filled in cannot be looked for
            context["must_exist"] = False
        return problems

    return load_config(RecipeConfig, path, overrides, context=context, prepare=prepare)
