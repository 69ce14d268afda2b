"""Programs of every protocol, judged for real: what must pass passes, what must fail fails, and a killed evaluation goes on."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_problems import ADD, PROSE, ROUND, humaneval_rows, write_lines

import mft.evaluation.judging as judging
from mft.errors import ConfigError, DataError
from mft.evaluation.completions import Sample
from mft.evaluation.judging import JudgeOptions, score
from mft.evaluation.programs import canonical, entry_point, helpers, program, stubbed
from mft.evaluation.protocols import names, protocol
from mft.problems.evalplus import evalplus_problem, typed_arguments
from mft.problems.read import read_problems
from mft.runs.benchmark import Exam, check_benchmark, compare_scores, score_file
from mft.sandbox.probe import probe_sandboxes

pytestmark = pytest.mark.skipif(not any(probe.works for probe in probe_sandboxes()), reason="this machine has no sandbox")

ONE = JudgeOptions(workers=1)


@pytest.mark.parametrize("name", [name for name in names() if name != "sql"])
def test_canonical_solutions_pass_and_empty_bodies_fail_under_every_protocol(name: str):
    for problems in ([ADD, ROUND], [PROSE]):
        rules = protocol(name, problems[0].style)
        good = score([canonical(problem, rules) for problem in problems], problems, rules, options=ONE)
        bad = score([stubbed(problem, rules) for problem in problems], problems, rules, options=ONE)
        assert [(verdict.problem, verdict.status) for verdict in good.verdicts] == [(problem.id, "passed") for problem in problems]
        assert [verdict.passed for verdict in bad.verdicts] == [False] * len(problems)


def test_a_prompts_helpers_stand_on_the_tests_side():
    assert helpers(ROUND.prompt) == "import math\ndef up(x):\n    return math.ceil(x)\n"
    assert program(Sample(ROUND.id, 0, ROUND.solution), ROUND, protocol("openai")).trusted_prefix == helpers(ROUND.prompt)
    cheat = Sample(ROUND.id, 0, "    return 0, 1\n\n\ndef up(x):\n    return 0\n")
    assert not score([cheat], [ROUND], protocol("completion"), options=ONE).verdicts[0].passed


def test_tests_that_call_check_themselves_are_not_called_twice():
    own = replace(ADD, tests=("def check(add):\n    assert add(1, 2) == 3\n\ncheck(add)\n",))
    assert program(Sample(ADD.id, 0, ADD.solution), own, protocol("openai")).call == ""
    assert program(Sample(ADD.id, 0, ADD.solution), ADD, protocol("openai")).call == "check(add)"


def test_prose_is_judged_by_the_function_that_its_tests_name():
    assert entry_point(replace(PROSE, entry_point="helper")) == "add"


def test_a_score_says_what_it_depends_on():
    rules = protocol("openai")
    facts = score([Sample(ADD.id, 0, "    return a - b\n"), canonical(ROUND, rules)], [ADD, ROUND], rules, options=ONE).to_json()
    assert (facts["passed"], facts["total"], facts["pass@1"]) == (1, 2, 0.5)
    assert facts["ci95"] == [0.094531, 0.905469]
    assert facts["protocol"]["sha256"] == rules.sha256
    assert facts["judge"]["isolation"] in ("bubblewrap", "unshare")
    assert facts["judge"]["limits"]["timeout_s"] == 3.0
    assert [(failure["id"], failure["status"]) for failure in facts["failures"]] == [("HumanEval/0", "failed")]
    assert facts["correct"] == {"HumanEval/0": 0, "HumanEval/1": 1}


def test_pass_at_k_over_samples_and_k_above_them():
    rules = protocol("openai")
    samples = [Sample(ADD.id, 0, "    return a + b\n"), Sample(ADD.id, 1, "    return 0\n")]
    found = score(samples, [ADD], rules, options=ONE)
    assert (found.to_json([1, 2])["pass@1"], found.to_json([1, 2])["pass@2"]) == (0.5, 1.0)
    with pytest.raises(DataError, match="pass@3 needs at least 3 samples"):
        found.to_json([3])


def test_a_protocol_for_other_problems_is_refused():
    with pytest.raises(ConfigError, match="is for completion problems; '11' is one of instruction"):
        score([Sample("11", 0, "x")], [PROSE], protocol("openai"))
    with pytest.raises(ConfigError, match="is for python; 'Go/0' is go"):
        score([Sample("Go/0", 0, "x")], [replace(ADD, id="Go/0", language="go")], protocol("openai"))


def test_verdicts_that_are_written_down_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rules = protocol("openai")
    samples = [canonical(ADD, rules), canonical(ROUND, rules)]
    whole = score(samples, [ADD, ROUND], rules, options=ONE, folder=tmp_path)
    lines = (tmp_path / "verdicts.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "verdicts.jsonl").write_text(lines[0] + lines[1][:20])     # killed while it wrote the second
    asked: list[list[str]] = []
    real = judging.judge

    def noting(programs, **options):
        asked.append([each.id for each in programs])
        return real(programs, **options)

    monkeypatch.setattr(judging, "judge", noting)
    again = score(samples, [ADD, ROUND], rules, options=ONE, folder=tmp_path)
    kept = json.loads(lines[0])["id"]
    assert asked == [[sample.id for sample in samples if sample.id != kept]]
    assert again.to_json()["correct"] == whole.to_json()["correct"]
    # another answer is another program, whose verdict is not known
    score([replace(samples[0], answer="    return 5\n"), samples[1]], [ADD, ROUND], rules, options=ONE, folder=tmp_path)
    assert asked[1] == ["HumanEval/0#0"]


def test_a_samples_file_is_scored_and_compared(tmp_path: Path):
    problems = write_lines(tmp_path / "HumanEval.jsonl", humaneval_rows([ADD, ROUND]))
    good = write_lines(tmp_path / "good.jsonl", [{"task_id": p.id, "completion": p.solution} for p in (ADD, ROUND)])
    poor = write_lines(tmp_path / "poor.jsonl", [{"task_id": ADD.id, "completion": "    return 0\n"},
                                                 {"task_id": ROUND.id, "completion": ROUND.solution}])
    exam = Exam("humaneval", "completion", problems, judge=ONE)
    first = score_file(exam, good, out=tmp_path / "a")
    score_file(exam, poor, out=tmp_path / "b")
    assert (first["passed"], first["total"], first["problem_file"]["count"]) == (2, 2, 2)
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["samples_file"]["file"] == "good.jsonl"
    found = compare_scores(tmp_path / "a", tmp_path / "b" / "evaluation.json")
    assert (found["lost"], found["gained"], found["both"], found["same_judging"]) == (["HumanEval/0"], [], 1, True)
    with pytest.raises(DataError, match="pass@5 cannot be said without bias from 1 sample a problem"):
        score_file(exam, good, ks=[5])


def test_scores_by_other_test_files_are_not_compared(tmp_path: Path):
    for name, test in (("a", "assert candidate(1, 2) == 3"), ("b", "assert candidate(2, 2) == 4")):
        problem = replace(ADD, tests=(f"def check(candidate):\n    {test}\n",))
        path = write_lines(tmp_path / f"HumanEval-{name}.jsonl", humaneval_rows([problem]))
        samples = write_lines(tmp_path / f"{name}.jsonl", [{"task_id": ADD.id, "completion": ADD.solution}])
        score_file(Exam("humaneval", "completion", path, judge=ONE), samples, out=tmp_path / name)
    with pytest.raises(DataError, match="are not scores of the same problems: problem_file is"):
        compare_scores(tmp_path / "a", tmp_path / "b")


PLUS = {"task_id": "HumanEval/0", "prompt": ADD.prompt, "entry_point": "add", "canonical_solution": ADD.solution, "contract": "",
        "base_input": [[1, 2]], "plus_input": [[1.5, 2.25], [-1, 1]], "atol": 0}


def test_plus_tests_find_what_base_tests_do_not(tmp_path: Path):
    problems = write_lines(tmp_path / "HumanEvalPlus.jsonl", [PLUS])
    samples = write_lines(tmp_path / "s.jsonl", [{"task_id": "HumanEval/0", "completion": "    return int(a) + int(b)\n"}])
    exam = Exam("humaneval-plus", "completion", problems, judge=ONE)
    result = score_file(exam, samples)
    assert (result["passed"], result["base"]["passed"]) == (0, 1)
    assert "add(*[1.5, 2.25]) is 3, expected 3.75" in result["failures"][0]["detail"]
    assert check_benchmark(exam)["passed"] == 1


def test_plus_floats_are_compared_within_a_millionth():
    row = {**PLUS, "canonical_solution": "    return a * 0.1\n", "base_input": [[3, 0]], "plus_input": []}
    problem = evalplus_problem(row, "HumanEvalPlus", "file:1")
    near = score([Sample(problem.id, 0, "    return a / 10 + 1e-9\n")], [problem], protocol("completion"), options=ONE)
    far = score([Sample(problem.id, 0, "    return a / 10 + 1e-3\n")], [problem], protocol("completion"), options=ONE)
    assert (near.verdicts[0].passed, far.verdicts[0].passed) == (True, False)


@pytest.mark.parametrize(("name", "given", "typed"), [
    ("Mbpp/2", [[3, 4], [5]], [(3, 4), (5,)]), ("Mbpp/63", [[[1, 2], [3]]], [[(1, 2), (3,)]]), ("Mbpp/124", ["1", "2j"], [1.0, 2j]),
    ("Mbpp/106", [[1], [2, 3]], [[1], (2, 3)]), ("Mbpp/259", [[[1, 2]], [[3]]], [((1, 2),), ((3,),)]),
    ("Mbpp/580", [[1, [2, [3]]]], [(1, (2, (3,)))]), ("Mbpp/307", [[1], 0, 5], [(1,), 0, 5]), ("Mbpp/115", [[[1], []]], [[{1}, {}]]),
    ("HumanEval/2", [[3]], [[3]]), ("Mbpp/9", [[3]], [[3]])])
def test_inputs_get_back_the_types_that_json_took(name: str, given, typed):
    assert typed_arguments(name, given, "file:1") == typed


@pytest.mark.slow
def test_the_published_completions_of_codefuse_score_as_they_should(shared_data: Path):
    """One file, eight scores: by import rule and test file (DESIGN.md, "How good is good")."""
    path = shared_data / "humaneval" / "generations" / "codefuse_codellama_34b.jsonl.gz"
    expected = json.loads(path.with_name("expected_pass.json").read_text())["codefuse_codellama_34b"]
    for problems, first in ((shared_data / "humaneval" / "HumanEval.jsonl.gz", 121), (path, 120)):
        for added, imports in enumerate(("none", "codefuse", "codefuse+math", "codefuse+ceil-factorial")):
            result = score_file(Exam("humaneval", "completion", problems, {"imports": imports}), path)
            assert result["passed"] == first + added, (problems.name, imports)
            if first == 121 and added < 2:
                wanted = expected["plain" if added == 0 else "with_import_helper"]["failed"]
                assert [failure["id"] for failure in result["failures"]] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name != "sql"])
def test_humaneval_canonical_all_pass_and_stubs_all_fail(shared_data: Path, name: str):
    result = check_benchmark(Exam("humaneval", name, shared_data / "humaneval" / "HumanEval.jsonl.gz"))
    assert (result["passed"], result["total"], result["stubs"]["passed"]) == (164, 164, 0)


@pytest.mark.parametrize("language", ["cpp", "go", "java", "javascript", "rust"])
def test_other_languages_are_one_source_text(shared_data: Path, language: str):
    short = "js" if language == "javascript" else language
    problems = read_problems(shared_data / "humaneval" / f"humanevalx_{short}.jsonl.gz")
    rules = protocol("completion")
    texts = [program(canonical(problem, rules), problem, rules) for problem in problems]
    assert {text.language for text in texts} == {language}
    assert all(text.tests == "" and problem.tests[0] in text.solution for text, problem in zip(texts, problems, strict=True))
    if language == "go":
        assert all(text.solution.count("package main") == 1 and text.solution.count('"testing"') == 1 for text in texts)


def test_gzip_of_the_tests_is_what_the_hash_names(tmp_path: Path):
    plain = write_lines(tmp_path / "HumanEval.jsonl", humaneval_rows([ADD]))
    packed = tmp_path / "HumanEval.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    hashes = {Exam("humaneval", "openai", path).load().problem_facts["sha256"] for path in (plain, packed)}
    assert len(hashes) == 2
