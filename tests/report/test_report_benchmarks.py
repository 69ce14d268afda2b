"""Scores of code benchmarks on the page: the table, the pairs, the problems, with text that would break a page that does not escape."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_example import RUN

from mft.errors import DataError
from mft.report.page import render_page, write_report
from mft.report.read import read_run

PROTOCOL = {"name": "openai", "sha256": "ab" * 32, "timeout_s": 3.0}


def record(passed: int, name: str, **more: Any) -> dict[str, Any]:
    return {"benchmark": "humaneval", "passed": passed, "total": 2, "pass@1": passed / 2, "ci95": [0.1, 0.9], "ci95_method": "wilson",
            "protocol": PROTOCOL, "problem_file": {"file": "HumanEval.jsonl.gz", "sha256": "cd" * 32, "count": 2},
            "judge": {"isolation": "bubblewrap", "mode": "separate", "judged_inside": {}},
            "correct": {"HumanEval/0": passed > 0, "HumanEval/1": 0},
            "samples": {"HumanEval/0": 1, "HumanEval/1": 1}, "failures": [], "versions": {"mft": "0.1.0"}, "seconds": 1.0,
            "model": {"name": name}, "generation": {"endings": {"length": 1, "stop": 1}}, "samples_file": {"file": "samples.jsonl"}, **more}


ANSWERS = [{"id": "HumanEval/0", "prompt": "def f():\n", "completion": "\n    return '<script>alert(1)</script>'", "status": "failed",
            "detail": "AssertionError: 1 < 2 & x", "passed": 0, "samples": 1, "sample": 0},
           {"id": "HumanEval/1", "prompt": "def g():\n", "completion": "    return 1", "status": "passed", "detail": "", "passed": 1,
            "samples": 1, "sample": 0}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A project with one evaluate stage on HumanEval, of two models."""
    stage = tmp_path / "he"
    scores = {"base": record(0, "base"), "train": record(1, "train")}
    for name, score in scores.items():
        (stage / name).mkdir(parents=True)
        (stage / name / "evaluation.json").write_text(json.dumps(score))
        (stage / name / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ANSWERS))
    result = {"benchmark": "humaneval", "models": ["base", "train"], "scores": scores, "card": ["| model |"],
              "comparisons": {"train": {"both": 0, "neither": 1, "gained": ["HumanEval/0"], "lost": [], "p": 1.0}},
              "published": [{"model": "GPT-4 (zero-shot)", "percent": 67.0, "source": "a card", "protocol": "not stated", "ours": False},
                            {"model": "train", "percent": 50.0, "source": "measured here", "protocol": "openai", "ours": True}]}
    (stage / "result.json").write_text(json.dumps(result))
    stages = [{"name": "he", "kind": "evaluate", "seconds": 2.0, "skipped": False}]
    (tmp_path / "run.json").write_text(json.dumps({**RUN, "stages": stages}))
    return tmp_path


def test_scores_pairs_and_published_scores_are_on_the_page(run: Path) -> None:
    page = render_page(read_run(run))
    for text in ("<h2>HumanEval</h2>", "50.0%", "1 of 2", "10.0% to 90.0%", "+HumanEval/0", "GPT-4 (zero-shot)", "<strong>train</strong>",
                 "openai (abababababab)", "HumanEval.jsonl.gz (cdcdcdcdcdcd)", "bubblewrap", "in a process of their own"):
        assert text in page, text
    assert "near 0" not in page


def test_every_problem_shows_prompt_answer_and_what_failed_as_text(run: Path) -> None:
    page = render_page(read_run(run))
    problems = page[page.index('id="problems"'):]
    assert "<script" not in page
    assert "<span>\n    return &#x27;&lt;script&gt;alert(1)&lt;/script&gt;&#x27;</span>" in problems
    assert "AssertionError: 1 &lt; 2 &amp; x" in problems
    assert problems.count("base: failed, train: failed") == 1
    assert problems.count("base: passed, train: passed") == 1


def test_scores_near_zero_are_said_to_tell_nothing(run: Path) -> None:
    path = run / "he" / "result.json"
    result = json.loads(path.read_text())
    result["scores"]["train"] = record(0, "train")
    path.write_text(json.dumps(result))
    assert "pass@1 is near 0." in render_page(read_run(run))


def test_the_folder_of_one_evaluation_has_a_page_of_its_own(run: Path) -> None:
    page = write_report(run / "he" / "train").read_text()
    assert "<h2>HumanEval</h2>" in page
    assert "Problems" in page


def test_a_damaged_result_is_one_message_with_its_name(run: Path) -> None:
    path = run / "he" / "result.json"
    result = json.loads(path.read_text())
    del result["scores"]["base"]["protocol"]
    path.write_text(json.dumps(result))
    with pytest.raises(DataError, match=r"result.json: is damaged: KeyError: 'protocol'"):
        read_run(run)
