"""The loss over steps, as the log lines say."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mft.report.curve import Point, read_curve, thinned, trailing_mean


def written(folder: Path, *lines: dict[str, Any], end: str = "") -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + end, encoding="utf-8")
    return path


def test_training_and_validation_lines_are_told_apart(tmp_path: Path) -> None:
    curve = read_curve(written(
        tmp_path,
        {"step": 1, "loss": 2.0, "loss/task/a": 2.5, "tokens/task/a": 10, "loss/task/b/c": 1.5, "tokens/task/b/c": 30,
         "tokens_per_s": 100},
        {"step": 2, "loss": 1.0, "loss/task/a": 1.0, "tokens/task/a": 20, "tokens_per_s": 300, "memory_bytes": 7},
        {"step": 2, "eval/loss": 1.25, "eval/loss/task/a": 1.75}))
    assert curve.overall == (Point(1, 2.0), Point(2, 1.0))
    assert curve.tasks == {"a": (Point(1, 2.5, 10), Point(2, 1.0, 20)), "b/c": (Point(1, 1.5, 30),)}
    assert curve.validation == (Point(2, 1.25),)
    assert curve.validation_tasks == {"a": (Point(2, 1.75),)}
    assert (curve.tokens_per_s, curve.memory_bytes) == (200, 7)


def test_a_task_without_tokens_in_a_step_has_no_point_there(tmp_path: Path) -> None:
    curve = read_curve(written(tmp_path, {"step": 1, "loss": 1.0, "loss/task/a": 0.0, "tokens/task/a": 0},
                               {"step": 2, "loss": 1.0, "loss/task/a": 3.0, "tokens/task/a": 5}))
    assert curve.tasks == {"a": (Point(2, 3.0, 5),)}


def test_a_step_logged_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": loss} for step, loss in ((1, 4.0), (2, 3.0), (3, 9.0), (2, 2.0), (3, 1.0))]
    assert [point.loss for point in read_curve(written(tmp_path, *lines)).overall] == [4.0, 2.0, 1.0]


def test_losses_that_are_not_finite_are_counted_and_not_drawn(tmp_path: Path) -> None:
    curve = read_curve(written(tmp_path, {"step": 1, "loss": math.nan}, {"step": 2, "loss": math.inf}, {"step": 3, "loss": 1.0}))
    assert curve.overall == (Point(3, 1.0),)
    assert curve.not_finite == 2


@pytest.mark.parametrize(("end", "steps", "cut_off"), [
    ('{"step": 2, "lo', [1], True), ('{"step": 2, "loss": 1.0}', [1, 2], False), ("\n", [1], False)])
def test_an_unfinished_last_line_is_left_out_and_said(tmp_path: Path, end: str, steps: list[int], cut_off: bool) -> None:
    curve = read_curve(written(tmp_path, {"step": 1, "loss": 2.0}, end=end))
    assert [point.step for point in curve.overall] == steps
    assert curve.cut_off is cut_off


def test_means_are_weighted_by_tokens() -> None:
    points = (Point(1, 1.0, 10), Point(2, 4.0, 20), Point(3, 2.0, 30), Point(4, 7.0, 0.5))
    assert trailing_mean(points, 2) == (Point(1, 1.0, 10), Point(2, 3.0, 30), Point(3, 2.8, 50), Point(4, 63.5 / 30.5, 30.5))
    assert thinned(points, 2) == (Point(2, 3.0, 30), Point(4, 63.5 / 30.5, 30.5))
    assert thinned(points, 4) is points
