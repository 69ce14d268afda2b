"""The loss over steps of a train run, read from `metrics.jsonl`."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mft.errors import DataError

TASK_LOSS = "loss/task/"
TASK_TOKENS = "tokens/task/"
VALIDATION = "eval/"


@dataclass(frozen=True, slots=True)
class Point:
    """A mean loss at an optimizer step, over `weight` trained tokens (1 where the file does not say)."""

    step: int
    loss: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Curve:
    """Losses by step, ascending; a step that was logged again after a resume counts once, as last written."""

    overall: tuple[Point, ...] = ()
    tasks: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    validation: tuple[Point, ...] = ()
    validation_tasks: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    tokens_per_s: float | None = None
    """Median over the log lines."""
    memory_bytes: float | None = None
    """Largest of the log lines."""
    not_finite: int = 0
    """Losses left out because they are NaN or infinite."""
    cut_off: bool = False
    """The last line was not written to its end, as after a kill."""


def read_curve(path: Path) -> Curve:
    """Read a `metrics.jsonl`.

    Raises:
        DataError: a line other than an unfinished last one is not a JSON object with a `step`.
    """
    train: dict[int, dict[str, Any]] = {}
    validation: dict[int, dict[str, Any]] = {}
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.split("\n")
    cut_off = bool(lines[-1]) and not _is_whole(lines[-1])
    for number, line in enumerate(lines[:-1] if cut_off else lines, 1):
        if line.strip():
            record = _record(path, number, line)
            if any(key.startswith(VALIDATION) for key in record):
                validation[int(record["step"])] = record
            if "loss" in record:
                train[int(record["step"])] = record
    series = _Series()
    rates, memory = (_numbers(train, key) for key in ("tokens_per_s", "memory_bytes"))
    return Curve(
        overall=series.points(train, "loss"), tasks=series.by_task(train, ""),
        validation=series.points(validation, VALIDATION + "loss"), validation_tasks=series.by_task(validation, VALIDATION),
        tokens_per_s=statistics.median(rates) if rates else None, memory_bytes=max(memory, default=None),
        not_finite=series.not_finite, cut_off=cut_off)


def _numbers(records: dict[int, dict[str, Any]], key: str) -> list[float]:
    return [float(record[key]) for record in records.values() if isinstance(record.get(key), int | float)]


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number}: is not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise DataError(f"{path}:{number}: expected an object with a whole number 'step'")
    return record


class _Series:
    """Picks series out of the records and counts the losses that no chart can show."""

    def __init__(self) -> None:
        self.not_finite = 0

    def points(self, records: dict[int, dict[str, Any]], key: str, weight_key: str | None = None) -> tuple[Point, ...]:
        points = []
        for step, record in sorted(records.items()):
            loss, weight = record.get(key), record.get(weight_key, 1.0) if weight_key else 1.0
            if loss is None or not weight:   # a task without a trained token in this step has no loss
                continue
            if math.isfinite(loss):
                points.append(Point(step, float(loss), float(weight)))
            else:
                self.not_finite += 1
        return tuple(points)

    def by_task(self, records: dict[int, dict[str, Any]], prefix: str) -> dict[str, tuple[Point, ...]]:
        start = prefix + TASK_LOSS
        keys = sorted({key for record in records.values() for key in record if key.startswith(start)})
        series = {key[len(start):]: self.points(records, key, prefix + TASK_TOKENS + key[len(start):]) for key in keys}
        return {task: points for task, points in series.items() if points}


def mean_of(points: Iterable[Point]) -> Point:
    """The last step, the mean loss weighted by tokens, and the tokens of all points (at least one)."""
    points = list(points)
    weight = sum(point.weight for point in points)
    return Point(points[-1].step, sum(point.loss * point.weight for point in points) / weight, weight)


def trailing_mean(points: tuple[Point, ...], window: int) -> tuple[Point, ...]:
    """Each point as the mean of itself and up to `window - 1` before it, weighted by tokens."""
    return tuple(mean_of(points[max(0, end - window):end]) for end in range(1, len(points) + 1))


def thinned(points: tuple[Point, ...], limit: int) -> tuple[Point, ...]:
    """At most `limit` points: means of equally many neighbours, weighted by tokens."""
    group = -(-len(points) // limit)
    return points if group <= 1 else tuple(mean_of(points[start:start + group]) for start in range(0, len(points), group))
