"""All 164 problems of HumanEval are found when planted, however they are disguised; what is missed is written down here."""

import pytest
from planted_problems import UNDONE_IN_PART, VARIANTS, conversation, in_prose, part_of, renamed, without_docstrings

from mft.data.decontamination.config import DecontaminateStep
from mft.data.decontamination.detector import Detector
from mft.problems.read import read_problems

SHORT_SOLUTIONS = {2, 7, 13, 16, 22, 23, 27, 28, 29, 30, 33, 34, 38, 41, 42, 45, 52, 53, 54, 60, 79, 97, 100, 138}
"""A line or two that thousands of other programs have: `return len(string)`, `return x + y`. Alone they prove nothing."""


@pytest.fixture(scope="module")
def humaneval(shared_data):
    return read_problems(shared_data / "humaneval" / "HumanEval.jsonl.gz")


def detector_of(problems, **keys):
    return Detector(problems, DecontaminateStep(type="decontaminate", problems=("unused.jsonl",), **keys))


@pytest.fixture(scope="module")
def detector(humaneval):
    return detector_of(humaneval)


def missed(detector, planted):
    """Numbers of the problems that no layer calls contaminated in the row that holds them."""
    return {int(name.split("/")[-1]) for name, row in planted.items()
            if not any(hit.problem == name and hit.contaminated for hit in detector.hits(row))}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_problem_is_found_when_its_prompt_and_solution_are_planted(detector, humaneval, variant):
    assert missed(detector, {problem.name: VARIANTS[variant](problem.program) for problem in humaneval}) == set()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_problem_is_found_by_its_prompt_alone(detector, humaneval, variant):
    assert missed(detector, {problem.name: VARIANTS[variant](problem.prompt) for problem in humaneval}) == set()


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("split with prose between", "split inside a line")])
def test_a_solution_alone_is_found_unless_it_is_a_line_or_two(detector, humaneval, variant):
    assert missed(detector, {problem.name: VARIANTS[variant](problem.solution) for problem in humaneval}) == SHORT_SOLUTIONS


def test_half_a_solution_in_each_turn_is_found_where_the_halves_are_long(detector, humaneval):
    counts = {name: 164 - len(missed(detector, {problem.name: VARIANTS[name](problem.solution) for problem in humaneval}))
              for name in ("split with prose between", "split inside a line")}
    assert counts == {"split with prose between": 99, "split inside a line": 116}


@pytest.mark.parametrize(("variant", "programs", "prompts"), [
    ("line feeds written as \\n", 70, 58), ("numbered lines", 70, 57), ("HTML entities", 150, 144)])
def test_known_misses_of_disguises_that_are_not_undone(detector, humaneval, variant, programs, prompts):
    plant = UNDONE_IN_PART[variant]
    assert 164 - len(missed(detector, {problem.name: plant(problem.program) for problem in humaneval})) == programs
    assert 164 - len(missed(detector, {problem.name: plant(problem.prompt) for problem in humaneval})) == prompts


@pytest.mark.parametrize("part", ["program", "prompt"])
def test_every_problem_is_found_with_all_names_changed(detector, humaneval, part):
    planted = {problem.name: in_prose(part_of(problem, part, renamed(problem.program))) for problem in humaneval}
    assert missed(detector, planted) == set()


def test_renamed_solutions_are_found_from_twenty_nodes_on_with_or_without_their_signature(detector, humaneval):
    alone = missed(detector, {problem.name: in_prose(part_of(problem, "solution", renamed(problem.program))) for problem in humaneval})
    reworded = missed(detector, {problem.name: in_prose(without_docstrings(renamed(problem.program))) for problem in humaneval})
    assert (164 - len(alone), 164 - len(reworded)) == (122, 122)
    assert reworded >= SHORT_SOLUTIONS


def test_chinese_prompts_are_found_by_a_chinese_index_and_their_code_by_an_english_one(detector, shared_data):
    chinese = read_problems(shared_data / "humaneval" / "humaneval_python_cn.jsonl.gz")
    own = detector_of(chinese)
    assert missed(own, {problem.name: in_prose(problem.prompt) for problem in chinese}) == set()
    english = {"HumanEval/" + problem.id.split("/")[1]: problem for problem in chinese}
    assert 164 - len(missed(detector, {name: in_prose(problem.program) for name, problem in english.items()})) == 151
    assert 164 - len(missed(detector, {name: in_prose(problem.prompt) for name, problem in english.items()})) == 103  # by its examples
    structure = detector_of(read_problems(shared_data / "humaneval" / "HumanEval.jsonl.gz"), layers=("structure",))
    assert 164 - len(missed(structure, {name: in_prose(problem.program) for name, problem in english.items()})) == 121


@pytest.mark.parametrize(("file", "solutions"), [("cpp", 157), ("go", 156), ("java", 154), ("js", 148), ("rust", 157)])
def test_problems_in_other_languages_are_found(shared_data, file, solutions):
    problems = read_problems(shared_data / "humaneval" / f"humanevalx_{file}.jsonl.gz")
    detector = detector_of(problems)
    assert missed(detector, {problem.name: in_prose(problem.program) for problem in problems}) == set()
    assert missed(detector, {problem.name: in_prose(problem.prompt.upper()) for problem in problems}) == set()
    assert 164 - len(missed(detector, {problem.name: in_prose(problem.solution) for problem in problems})) == solutions


def test_every_problem_of_mbpp_is_found_when_question_and_answer_are_planted(shared_data):
    problems = read_problems(shared_data / "mbpp" / "mbpp.jsonl.gz")
    detector = detector_of(problems)
    planted = {problem.name: conversation(f"You are a Python programmer. {problem.prompt}", problem.solution) for problem in problems}
    assert missed(detector, planted) == set()


def test_the_same_problems_in_several_files_do_not_hide_each_other(humaneval, shared_data):
    """Their n-grams then stand in four problems each; what counts is the share."""
    files = ("HumanEval", "humanevalx_python", "humanevalpack_python", "humaneval_python_cn")
    together = [problem for name in files for problem in read_problems(shared_data / "humaneval" / f"{name}.jsonl.gz")]
    alone, crowd = (detector_of(problems, layers=("ngrams",)) for problems in (humaneval, together))
    for text in ("prompt", "solution"):
        planted = {problem.name: in_prose(getattr(problem, text)) for problem in humaneval}
        assert missed(crowd, planted) == missed(alone, planted)


def test_brackets_tell_56_from_61_word_for_word(humaneval, detector):
    """They differ by the kind of bracket alone. `substring` names the right one; n-grams without punctuation name both, which is safe."""
    for number, other in ((56, 61), (61, 56)):
        hits = detector.hits(in_prose(humaneval[number].program))
        assert [hit.problem for hit in hits if hit.layer == "substring"] == [f"HumanEval/{number}"]
        assert {hit.problem for hit in hits if hit.layer == "ngrams"} == {f"HumanEval/{number}", f"HumanEval/{other}"}
