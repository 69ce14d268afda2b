"""Problems of a layout that nobody has named before, by the keys that a recipe declares."""

import json

import pytest

from mft.errors import DataError
from mft.problems.columns import ProblemColumns
from mft.problems.read import read_problems

ROWS = [{"q": "How many\r\neggs?", "a": ["five", "5"], "n": 7, "f": "eggs"}, {"q": "How many hens?", "a": "two", "n": "x/2", "f": ""}]


def write(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_declared_keys_make_the_problem(tmp_path):
    first, second = read_problems(write(tmp_path / "own.jsonl"), ProblemColumns("q", solution="a", id="n", entry_point="f", language="go"))
    assert (first.name, first.prompt, first.solution, first.entry_point) == ("own/7", "How many\neggs?", "five", "eggs")
    assert (second.name, second.prompt, second.solution, second.language, second.style) == (
        "own/x/2", "How many hens?", "two", "go", "instruction")


def test_without_an_id_the_line_names_a_problem_and_without_a_solution_the_prompt_is_all(tmp_path):
    problems = read_problems(write(tmp_path / "own.jsonl"), ProblemColumns("q"))
    assert [(problem.name, problem.solution) for problem in problems] == [("own/1", ""), ("own/2", "")]


@pytest.mark.parametrize(("columns", "message"), [
    (ProblemColumns("question"), r"own\.jsonl:1: no 'question', which the recipe names; its keys are q, a, n, f"),
    (ProblemColumns("q", solution="n"), r"own\.jsonl:1: 'n' is int; expected text, or a list of texts"),
    (ProblemColumns("f"), r"own\.jsonl:2: 'f' has no text"),
    (ProblemColumns("q", id="a"), r"own\.jsonl:1: 'a' is list; expected text or a number"),
    (ProblemColumns("q", id="f"), r"own\.jsonl:2: 'f' is empty; expected text or a number"),
])
def test_a_key_that_is_not_there_or_says_nothing_is_an_error_with_its_line(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        read_problems(write(tmp_path / "own.jsonl"), columns)


def test_a_second_problem_of_one_name_and_a_line_that_is_no_object_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"own\.jsonl:3: a second problem with the id '7'"):
        read_problems(write(tmp_path / "own.jsonl", [*ROWS, ROWS[0]]), ProblemColumns("q", id="n"))
    with pytest.raises(DataError, match=r"own\.jsonl:1: expected an object, found list"):
        read_problems(write(tmp_path / "own.jsonl", [[1]]), ProblemColumns("q"))
