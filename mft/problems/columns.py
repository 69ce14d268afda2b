"""Problems of any JSON lines file: which key of a row is what is said by whoever names the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mft.errors import DataError
from mft.problems.problem import Language, Problem


@dataclass(frozen=True, slots=True)
class ProblemColumns:
    """The keys of a file's rows. Without an `id` a problem is called by its line; one without a `solution` is looked for by its prompt.

    A value may be a list of texts (several reference solutions): the first is the problem's. `style` is that of `Problem`.
    """

    prompt: str
    solution: str | None = None
    id: str | None = None
    entry_point: str | None = None
    language: Language = "python"
    style: Literal["completion", "instruction"] = "instruction"


def problem_by_columns(record: Any, columns: ProblemColumns, benchmark: str, number: int, where: str) -> Problem:
    """The problem that one JSON object describes under these keys. `where` (`file:line`) is for messages.

    Raises:
        DataError: it is no object, lacks a key, a value is not text, or the prompt says nothing.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, found {type(record).__name__}")
    prompt = _text(record, columns.prompt, where)
    if not prompt.strip():
        raise DataError(f"{where}: '{columns.prompt}' has no text")
    solution = _text(record, columns.solution, where) if columns.solution else ""
    entry_point = _text(record, columns.entry_point, where) if columns.entry_point else ""
    return Problem(id=_name(record, columns.id, number, where), benchmark=benchmark, language=columns.language, style=columns.style,
                   prompt=prompt, solution=solution, entry_point=entry_point, tests=())


def _name(record: Mapping[str, Any], key: str | None, number: int, where: str) -> str:
    if key is None:
        return str(number)
    value = _at(record, key, where)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        found = "empty" if value == "" else type(value).__name__
        raise DataError(f"{where}: '{key}' is {found}; expected text or a number")
    return str(value)


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = _at(record, key, where)
    value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, str):
        raise DataError(f"{where}: '{key}' is {type(value).__name__}; expected text, or a list of texts")
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _at(record: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in record:
        raise DataError(f"{where}: no '{key}', which the recipe names; its keys are {', '.join(record)}")
    return record[key]
