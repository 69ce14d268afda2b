"""What an evaluation on a code benchmark left in a run folder, read into values and checked."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mft.errors import DataError

ANSWERS = "answers.jsonl"
EVALUATION = "evaluation.json"


@dataclass(frozen=True, slots=True)
class AnsweredProblem:
    """One problem: what was asked, one answer, and what became of it."""

    id: str
    prompt: str
    completion: str
    status: str
    detail: str = ""
    passed: int = 0
    samples: int = 1
    sample: int = 0


@dataclass(frozen=True, slots=True)
class BenchmarkScore:
    """`evaluation.json` of one model or samples file, and its `answers.jsonl`."""

    name: str
    benchmark: str
    passed: int
    total: int
    ci95: tuple[float, float]
    protocol: dict[str, Any]
    problem_file: dict[str, Any]
    pass_at: dict[str, float]
    judge: dict[str, Any] = field(default_factory=dict)
    ci95_method: str = ""
    generation: dict[str, Any] | None = None
    correct: dict[str, int] = field(default_factory=dict)
    base: dict[str, Any] | None = None
    """The score by the base tests alone, where the benchmark has plus tests."""
    answers: tuple[AnsweredProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchmarkEvaluation:
    """`result.json` of an evaluate stage on a code benchmark."""

    stage: str
    benchmark: str
    scores: tuple[BenchmarkScore, ...]
    comparisons: dict[str, dict[str, Any]] = field(default_factory=dict)
    published: tuple[dict[str, Any], ...] = ()
    card: tuple[str, ...] = ()


def is_benchmark(record: Mapping[str, Any]) -> bool:
    """True of the result of an evaluate stage that judged a code benchmark."""
    return record.get("benchmark") != "loss" and "scores" in record


def stage_evaluation(folder: Path, record: Mapping[str, Any], stage: str) -> BenchmarkEvaluation:
    """The value of an evaluate stage's `result.json` in its folder.

    Raises:
        DataError: a key is missing or of another type; the message names it.
    """
    path = folder / "result.json"
    try:
        scores = tuple(_score(name, score, folder / name) for name, score in record["scores"].items())
        return BenchmarkEvaluation(stage, str(record["benchmark"]), scores, dict(record["comparisons"]),
                                   tuple(record.get("published") or ()), tuple(record.get("card") or ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: is damaged: {type(error).__name__}: {error}") from error


def single_evaluation(folder: Path) -> BenchmarkEvaluation:
    """The value of a folder that `mft evaluate ... --out` wrote.

    Raises:
        DataError: it is damaged.
    """
    path = folder / EVALUATION
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        name = (record.get("model") or {}).get("name") or record["samples_file"]["file"]
        return BenchmarkEvaluation(folder.name, str(record["benchmark"]), (_score(str(name), record, folder),))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: is damaged: {type(error).__name__}: {error}") from error


def _score(name: str, record: Mapping[str, Any], folder: Path) -> BenchmarkScore:
    low, high = record["ci95"]
    return BenchmarkScore(
        name=name, benchmark=str(record["benchmark"]), passed=int(record["passed"]), total=int(record["total"]),
        ci95=(float(low), float(high)), protocol=dict(record["protocol"]), problem_file=dict(record["problem_file"]),
        pass_at={key: float(value) for key, value in record.items() if key.startswith("pass@")}, judge=dict(record.get("judge") or {}),
        ci95_method=str(record.get("ci95_method") or ""), generation=record.get("generation"),
        correct={str(key): int(value) for key, value in record["correct"].items()}, base=record.get("base"),
        answers=tuple(_answers(folder / ANSWERS)) if (folder / ANSWERS).is_file() else ())


def _answers(path: Path) -> Iterator[AnsweredProblem]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if line:
            try:
                yield AnsweredProblem(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path}:{number}: is damaged: {error}") from error
