"""The sources of a recipe: files of rows, data sets of a hub, a tree of code."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from mft.config.model import StrictModel
from mft.data.code.languages import ALL_LANGUAGES, HarvestLanguage
from mft.data.converters.config import ConverterChoice
from mft.data.located import Located
from mft.data.walk import named_files, tree_folder
from mft.errors import DataError

Make = Literal["text2code", "docstring", "completion", "usage", "function"]
TrainedTurns = Literal["all", "last"]


class JoinBelow(StrictModel):
    """When a task is too small to be measured alone, and where its rows go then. A task without any row is one of these."""

    rows: int = Field(gt=0)
    """Fewer validation rows than this, and the task is joined to another."""

    files: int = Field(gt=0)
    """Validation rows from fewer files than this, and the task is joined to another."""

    task: str
    """The task of this recipe that takes the rows of all splits; they take its weight too."""


class _Origin(StrictModel):
    """What the manifest says of where a source comes from; neither changes a row."""

    license: str = ""
    """The terms of the rows, as their publisher names them: `CC BY-NC 4.0`."""

    origin: str = ""
    """Where they come from: an address, a paper, the model that wrote them."""


class _Rows(StrictModel):
    """What all sources of rows have in common."""

    converter: ConverterChoice = "auto"
    """The schema of the rows: a name, or a mapping with `type` and `columns`, or `type: fields` with a template a role.
    `auto` decides by the keys of each row and refuses a row that fits several."""

    train: TrainedTurns = "all"
    """Which answers of a conversation are trained: all that the row does not mark untrained, or the last one alone."""

    split_key: str | None = Field(None, min_length=1)
    """A key of the rows whose text decides, in place of the path of their own file, on which side of `split.by: file` each is: the file
    that a row was made of. None: rows of one file stay together."""


class _Files(_Origin, Located, _Rows):
    """One or more files, plain, `.gz` or `.zst`."""

    path: str = Field(min_length=1)
    """A file, or a glob: `*` inside a name, `**/` for any number of folders."""

    join_below: JoinBelow | None = None
    """Decides for the whole task; none: the task stays alone however small it is. With it a file may be empty."""

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str, info: ValidationInfo) -> str:
        return _checked(path, info, named_files)


class JsonlSource(_Files):
    """One JSON object a line."""

    type: Literal["jsonl"]


class JsonSource(_Files):
    """One JSON array of objects a file."""

    type: Literal["json"]


class ParquetSource(_Files):
    """Parquet; nested columns (a list of messages) are read as they are."""

    type: Literal["parquet"]


class CsvSource(_Files):
    """Comma-separated text with a line of column names; every cell is text."""

    type: Literal["csv"]

    delimiter: str = Field(",", min_length=1, max_length=1)
    """The sign between cells; `"\\t"` for files of tab-separated values."""

    names: tuple[str, ...] = ()
    """The names of the columns, for files whose first line is a row already."""


class LinesSource(_Files):
    """Plain text, one text a line; the rows are `{text: line}`."""

    type: Literal["lines"]


class HubSource(_Origin, _Rows):
    """A data set of the Hugging Face hub, read over the network row by row, without a copy on the disk."""

    type: Literal["hub"]

    name: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")
    """The data set: `organisation/name`."""

    config: str | None = None
    """The configuration (subset) of a data set that has several."""

    split: str = Field("train", min_length=1)
    """The part to read."""

    revision: str = Field("main", min_length=1)
    """A commit (40 hex digits) gives the same rows for ever; a branch or tag is resolved to one, which the manifest names."""

    columns: tuple[str, ...] = ()
    """Only these columns are fetched; none: all of them. To rename columns, give `columns` to the converter."""

    _commit: str | None = PrivateAttr(default=None)

    @property
    def commit(self) -> str | None:
        """The commit that `revision` is or was resolved to; None while that is not known."""
        return self.revision if re.fullmatch(r"[0-9a-f]{40}", self.revision) else self._commit

    def pin(self, commit: str) -> None:
        """Note what `revision` was resolved to, so that hashing and reading take the same rows."""
        self._commit = commit


class ModelscopeSource(_Origin, _Rows):
    """Files of a data set of the ModelScope hub, fetched by the package `modelscope` into its cache."""

    type: Literal["modelscope"]

    name: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """The data set: `organisation/name`."""

    files: str = Field(min_length=1)
    """The files to read, a glob over the data set's paths: `data/train-*.parquet`. The ending of a name says what it is."""

    revision: str = Field("master", min_length=1)
    """A branch, tag or commit. The manifest has the hash of the files, so a branch that has moved is another build."""


class PythonCodeSource(_Origin, Located):
    """The functions of a tree of Python files, made into one kind of row."""

    type: Literal["python_code"]

    path: str = Field(min_length=1)
    """`stdlib` (of the running Python), or a folder."""

    make: Make
    """The kind of row; mft/data/harvest.py and mft/data/code/whole.py show each."""

    exclude: tuple[str, ...] = ()
    """Globs over paths relative to the tree. site-packages, __pycache__, .git, .venv and node_modules are never read."""

    join_below: JoinBelow | None = None
    """Decides for the whole task; none: the task stays alone however small it is."""

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str, info: ValidationInfo) -> str:
        return _checked(path, info, tree_folder)


class CodeSource(_Origin, Located):
    """The functions of a tree in several languages, made into one kind of row. `.gitignore` is honoured."""

    type: Literal["code"]

    path: str = Field(min_length=1)
    """A folder; `stdlib` is that of the running Python."""

    languages: tuple[HarvestLanguage, ...] = Field(ALL_LANGUAGES, min_length=1)
    """Files of these languages are read, by the endings of their names."""

    make: Literal["text2code", "docstring", "completion", "function"]
    """The kind of row; mft/data/code/makers.py and mft/data/code/whole.py show each."""

    exclude: tuple[str, ...] = ()
    """Globs over paths relative to the tree: files that are left out, and counted as `excluded`."""

    keep: tuple[str, ...] = ()
    """Globs over paths relative to the tree: files that are read though they lie in a folder such as `vendor` or `build`, or look
    generated. `.gitignore` and `exclude` still hold."""

    join_below: JoinBelow | None = None
    """Decides for the whole task; none: the task stays alone however small it is."""

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str, info: ValidationInfo) -> str:
        return _checked(path, info, tree_folder)


FileSource = JsonlSource | JsonSource | ParquetSource | CsvSource | LinesSource
LocalSource = FileSource | PythonCodeSource | CodeSource
Source = Annotated[
    JsonlSource | JsonSource | ParquetSource | CsvSource | LinesSource | HubSource | ModelscopeSource | PythonCodeSource | CodeSource,
    Field(discriminator="type")]


def _checked(path: str, info: ValidationInfo, find: Any) -> str:
    """`path`, looked for when the context asks for it."""
    context = info.context or {}
    if context.get("must_exist"):
        try:
            find(context["folder"], path)
        except DataError as error:
            raise ValueError(str(error)) from error
    return path
