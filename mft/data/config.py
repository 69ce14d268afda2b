"""A data recipe: what a person writes in `data_recipes/*.yaml`."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from mft.config.load import load_config
from mft.config.model import StrictModel
from mft.data.step_registry import Step
from mft.data.walk import named_files, tree_folder
from mft.errors import DataError

ConverterName = Literal["auto", "chat_rounds", "messages", "sharegpt"]
Make = Literal["text2code", "docstring", "completion", "usage"]


class JoinBelow(StrictModel):
    """When a task is too small to be measured alone, and where its rows go then."""

    rows: int = Field(gt=0)
    """Fewer validation rows than this, and the task is joined to another."""

    files: int = Field(gt=0)
    """Validation rows from fewer files than this, and the task is joined to another."""

    task: str
    """The task of this recipe that takes the rows of all splits; they take its weight too."""


class _Located(StrictModel):
    """A source whose `path` is relative to the recipe's folder (to the working directory for a recipe made in Python)."""

    _folder: Path = PrivateAttr(default_factory=Path)

    def model_post_init(self, context: Any) -> None:
        self._folder = Path((context or {}).get("folder", "."))

    @property
    def folder(self) -> Path:
        """The folder that `path` is relative to."""
        return self._folder


class JsonlSource(_Located):
    """One or more files of one JSON object a line, plain or `.gz`."""

    type: Literal["jsonl"]

    path: str = Field(min_length=1)
    """A file, or a glob: `*` inside a name, `**/` for any number of folders."""

    converter: ConverterName = "auto"
    """The schema of the rows; `auto` decides by key and refuses a row that fits none or several."""

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str, info: ValidationInfo) -> str:
        return _checked(path, info, named_files)


class PythonCodeSource(_Located):
    """The functions of a tree of Python files, made into one kind of row."""

    type: Literal["python_code"]

    path: str = Field(min_length=1)
    """`stdlib` (of the running Python), or a folder."""

    make: Make
    """The kind of row; mft/data/harvest.py shows each."""

    exclude: tuple[str, ...] = ()
    """Globs over paths relative to the tree. site-packages, __pycache__, .git, .venv and node_modules are never read."""

    join_below: JoinBelow | None = None
    """Decides for the whole task; none: the task stays alone however small it is."""

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str, info: ValidationInfo) -> str:
        return _checked(path, info, tree_folder)


Source = Annotated[JsonlSource | PythonCodeSource, Field(discriminator="type")]


class TaskConfig(StrictModel):
    """One training task: where its rows come from and how often they are seen."""

    weight: float = Field(1.0, gt=0, le=1000)
    """How often each training row is emitted: 2 is twice, 2.5 twice and a half of them thrice, 0.5 a half of them.
    The half is chosen by hash and seed. Validation rows always appear once."""

    sources: tuple[Source, ...] = Field(min_length=1)

    steps: tuple[Step, ...] = ()
    """Steps for this task's rows alone, after the common ones."""


class MixtureConfig(StrictModel):
    """How the tasks are mixed."""

    type: Literal["proportional"] = "proportional"
    """Every row of every task, `weight` times."""


class SplitConfig(StrictModel):
    """Which rows are held out, by a stable hash: the same on every machine and in every later build."""

    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the keys (not of the rows) that are held out."""

    by: Literal["file", "id"] = "file"
    """The key: the path of the row's file, so that no file is on both sides, or the row's id."""


class RecipeConfig(StrictModel):
    """A data set: tasks, common steps, mixture and split."""

    name: str = Field(min_length=1)

    seed: int = 1234
    """Decides the order of the rows and the choice of a fractional weight; not the split."""

    tasks: dict[Annotated[str, Field(min_length=1)], TaskConfig] = Field(min_length=1)
    """In this order: of two equal rows the first task's is kept."""

    steps: tuple[Step, ...] = ()
    """Steps over the rows of all tasks together, in order."""

    mixture: MixtureConfig = MixtureConfig()

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


def join_rule(task: TaskConfig) -> JoinBelow | None:
    """The `join_below` of a task's sources, or None."""
    return next(iter(_join_rules(task)), None)


def _join_rules(task: TaskConfig) -> list[JoinBelow]:
    return [source.join_below for source in task.sources if isinstance(source, PythonCodeSource) and source.join_below]


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


def _checked(path: str, info: ValidationInfo, find: Any) -> str:
    """`path`, looked for when the context asks for it."""
    context = info.context or {}
    if context.get("must_exist"):
        try:
            find(context["folder"], path)
        except DataError as error:
            raise ValueError(str(error)) from error
    return path
