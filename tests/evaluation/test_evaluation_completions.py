"""Samples files: every layout that is met, and one clear message for every fault."""

import gzip
import json
from pathlib import Path

import pytest
from evaluation_problems import ADD, PROSE, ROUND, write_lines

from mft.errors import DataError
from mft.evaluation.completions import Columns, read_samples
from mft.problems.problem import Problem

TWO = [ADD, ROUND]


@pytest.mark.parametrize("rows", [
    [{"task_id": "HumanEval/0", "completion": "a"}, {"task_id": "HumanEval/1", "completion": "b"}],
    [{"task_id": "Python/1", "generation": "b", "prompt": "p"}, {"task_id": "Python/0", "generation": "a"}],
    [{"task_id": 0, "completion": "a"}, {"task_id": "1", "completion": "b"}],
    [{"id": "HumanEval/0", "output": "a"}, {"id": "HumanEval/1", "output": "b"}],
    [{"task_id": "HumanEval/0", "samples": ["a"]}, {"task_id": "HumanEval/1", "samples": ["b"]}],
    [{"task_id": "HumanEval/0", "solution": "a"}, {"task_id": "HumanEval/1", "solution": "b"}],
])
def test_layouts_of_other_makers_are_read(tmp_path: Path, rows):
    samples = read_samples(write_lines(tmp_path / "s.jsonl", rows), TWO)
    assert [(sample.id, sample.answer) for sample in samples] == [("HumanEval/0#0", "a"), ("HumanEval/1#0", "b")]
    assert all(sample.whole == ("solution" in rows[0]) for sample in samples)


def test_several_samples_of_a_problem_are_numbered_in_the_files_order(tmp_path: Path):
    path = tmp_path / "s.jsonl.gz"
    rows = [{"task_id": "HumanEval/1", "completion": "c"}, {"task_id": "HumanEval/0", "samples": ["a", "b"]},
            {"task_id": "HumanEval/1", "completion": "d"}]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert [(sample.id, sample.answer) for sample in read_samples(path, TWO)] == [
        ("HumanEval/0#0", "a"), ("HumanEval/0#1", "b"), ("HumanEval/1#0", "c"), ("HumanEval/1#1", "d")]


def test_columns_can_be_named(tmp_path: Path):
    rows = [{"nr": 0, "text": "a", "completion": "x"}, {"nr": 1, "text": "b", "completion": "y"}]
    samples = read_samples(write_lines(tmp_path / "s.jsonl", rows), TWO, Columns("nr", "text"))
    assert [sample.answer for sample in samples] == ["a", "b"]


GOOD = {"task_id": "HumanEval/0", "completion": "a"}


@pytest.mark.parametrize(("rows", "message"), [
    ([GOOD], r"has no sample of 1 of 2 problems: HumanEval/1; a score is over all problems"),
    ([], r"has no sample of 2 of 2 problems"),
    ([GOOD, "{"], r"s.jsonl:2: not JSON"),
    ([GOOD, [1]], r"s.jsonl:2: expected an object, found list"),
    ([GOOD, {"completion": "b"}], r"s.jsonl:2: no id: looked for task_id, id, problem_id; the row has completion"),
    ([GOOD, {"task_id": "HumanEval/1"}], r"s.jsonl:2: no answer: looked for completion, generation"),
    ([GOOD, {"task_id": "HumanEval/1", "completion": 5}], r"s.jsonl:2: 'completion' holds int; expected text"),
    ([GOOD, {"task_id": "HumanEval/1", "samples": ["b", None]}], r"s.jsonl:2: 'samples' holds NoneType"),
    ([GOOD, {"task_id": "HumanEval/1", "samples": []}], r"s.jsonl:2: 'samples' is an empty list"),
    ([GOOD, {"task_id": None, "completion": "b"}], r"s.jsonl:2: 'task_id' is NoneType"),
    ([GOOD, {"task_id": "Mbpp/11", "completion": "b"}, {"task_id": "Mbpp/12", "completion": "b"}],
     r"s.jsonl:2: 'Mbpp/11' is no problem of HumanEval, whose ids are like 'HumanEval/0' \(and 1 more such rows\); is it the samples file "
     r"of another benchmark"),
    ([GOOD, {"task_id": "HumanEval/1", "completion": "b"}, {"task_id": "HumanEval/1", "completion": "b"}],
     r"s.jsonl:3: 'HumanEval/1' has 2 samples, other problems have 1; this one stands twice"),
])
def test_each_fault_of_a_samples_file_is_one_message_with_its_line(tmp_path: Path, rows, message: str):
    with pytest.raises(DataError, match=message):
        read_samples(write_lines(tmp_path / "s.jsonl", rows), TWO)


def test_all_faults_come_at_once(tmp_path: Path):
    rows = [{"task_id": "HumanEval/0"}, {"task_id": "HumanEval/1", "completion": 3}, {"task_id": "CPP/5", "completion": ""}]
    with pytest.raises(DataError) as caught:
        read_samples(write_lines(tmp_path / "s.jsonl", rows), TWO)
    assert [line.split(": ")[0].rpartition(":")[2] for line in str(caught.value).splitlines()] == ["1", "2", "3"]


def test_a_missing_or_damaged_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        read_samples(tmp_path / "none.jsonl", TWO)
    (tmp_path / "bad.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(tmp_path / "bad.jsonl.gz", TWO)


def test_python_ids_mean_mbpp_only_where_the_problems_are_mbpp(tmp_path: Path):
    path = write_lines(tmp_path / "s.jsonl", [{"task_id": "Python/11", "completion": "x"}])
    assert read_samples(path, [PROSE])[0].problem == "11"
    with pytest.raises(DataError, match="is no problem of humanevalx_cpp"):
        read_samples(path, [Problem("CPP/11", "humanevalx_cpp", "cpp", "completion", "p", "s", "f", ("t",))])
