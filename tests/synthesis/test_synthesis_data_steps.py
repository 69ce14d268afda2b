"""Steps of a data recipe inside a synthesis: the same reasons, and no text of a row in what they report."""

import gzip
import json
from pathlib import Path

from model_by_rules import reasons, row_of, tools_of

from mft.data.decontamination.config import DecontaminateStep
from mft.data.dedup.config import NearDedupStep
from mft.data.filters.config import LanguageStep, LengthStep, NormaliseStep
from mft.synthesis.data_steps import run_data_step


def test_a_row_without_an_answer_is_judged_by_its_instruction():
    rows = [row_of("en", "Sort a list of numbers."), row_of("zh", "对一个整数列表排序。"), row_of("short", "Sort.")]
    assert reasons(run_data_step(rows, LanguageStep(type="language", keep=["en"]), tools_of())) == {"zh": "other_language"}
    assert reasons(run_data_step(rows, LengthStep(type="length", min_characters=8), tools_of())) == {"short": "too_short"}


def test_a_rewritten_row_keeps_its_tests_and_its_code_is_found_anew():
    row = row_of("a", "Print\u00a0it.", "```python\nprint(1)\r\n```", tests="assert True")
    tally = run_data_step([row], NormaliseStep(type="normalise", apply=["newlines", "nbsp"]), tools_of())
    assert [(each.instruction, each.code, each.tests) for each in tally.kept] == [("Print it.", "print(1)\n", "assert True")]
    assert tally.to_json()["noted"]


def test_near_duplicates_go_by_the_rule_of_the_data_step():
    words = "Write a function that takes a list of numbers and returns the largest of them that is even or none"
    rows = [row_of("a", words), row_of("b", words + " at all"), row_of("c", "Reverse a string without slicing it, in place if you can.")]
    tally = run_data_step(rows, NearDedupStep(type="near_dedup", on="user", threshold=0.7), tools_of())
    assert set(reasons(tally).values()) == {"near_duplicate"}
    assert {row.id for row in tally.kept} & {"c"} == {"c"}


def test_what_contaminates_is_counted_and_not_quoted(shared_data: Path):
    path = shared_data / "humaneval" / "HumanEval.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        prompt = json.loads(next(stream))["prompt"]
    tally = run_data_step([row_of("a", prompt), row_of("b", "Sort it.")],
                          DecontaminateStep.model_validate({"type": "decontaminate", "problems": [str(path)]}), tools_of())
    assert reasons(tally) == {"a": "contaminated_substring"}
    assert tally.report["by_problem"] == {"HumanEval/0": 1}
    assert "close to each other" not in json.dumps(tally.report)
