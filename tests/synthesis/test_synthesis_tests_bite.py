"""`tests_bite`: what a suite that proves nothing looks like, and that a real one stays."""

import pytest
from model_by_rules import reasons, row_of, tools_of

from mft.synthesis.feedback.config import TestsBiteStep
from mft.synthesis.feedback.mutants import empty_bodies, mutants_of
from mft.synthesis.feedback.suites import SuiteFault, read_suite
from mft.synthesis.feedback.tests_bite import tests_bite as bite

CLAMP = """def clamp(x, low, high):
    if x < low:
        return low
    if x > high:
        return high
    return x
"""

GOOD = """from solution import clamp

def test_below():
    assert clamp(-5, 0, 10) == 0

def test_above():
    assert clamp(11, 0, 10) == 10

def test_inside():
    assert clamp(5, 0, 10) == 5
    assert clamp(0, 0, 10) == 0
"""

SUITES = {
    "good": (GOOD, None),
    "good, unittest": ("import unittest\nimport solution\n\nclass TestClamp(unittest.TestCase):\n    def test_all(self):\n"
                       "        self.assertEqual(solution.clamp(-5, 0, 10), 0)\n        self.assertEqual(solution.clamp(11, 0, 10), 10)\n"
                       "        self.assertEqual(solution.clamp(5, 0, 10), 5)\n", None),
    "good, under another name": ("from solution import clamp as c\nassert c(-5, 0, 10) == 0\nassert c(11, 0, 10) == 10\n"
                                 "assert c(5, 0, 10) == 5\n", None),
    "no assertion": ("from solution import clamp\n\ndef test_runs():\n    clamp(1, 0, 10)\n    print('fine')\n", "no_assertions"),
    "assert True": ("from solution import clamp\n\ndef test_true():\n    clamp(1, 0, 10)\n    assert True\n", "constant_assertions"),
    "a thing equals itself": ("from solution import clamp\nresult = clamp(1, 0, 10)\nassert result == result\n", "constant_assertions"),
    "imports nothing": ("def test_arithmetic():\n    assert 1 + 1 == 2\n    assert max(3, 4) == 4\n", "tests_ignore_solution"),
    "tests its own copy": (f"{CLAMP}\ndef test_clamp():\n    assert clamp(-5, 0, 10) == 0\n", "tests_redefine_solution"),
    "passes on pass": ("from solution import clamp\n\ndef test_quiet():\n    try:\n        assert clamp(-5, 0, 10) == 0\n"
                       "    except AssertionError:\n        pass\n", "passes_empty_body"),
    "never called": ("from solution import clamp\n\ndef check_clamp():\n    assert clamp(-5, 0, 10) == 0\n", "passes_empty_body"),
    "asks for a type alone": ("from solution import clamp\n\ndef test_type():\n    assert type(clamp(5, 0, 10)) is int\n",
                              "passes_constant_body"),
    "asks for one case": ("from solution import clamp\n\ndef test_one():\n    assert clamp(50, 0, 10) == 10\n", "passes_mutants"),
    "needs pytest": ("import pytest\nfrom solution import clamp\n\ndef test_x():\n    assert clamp(1, 0, 10) == 1\n",
                     "tests_need_packages"),
    "takes fixtures": ("from solution import clamp\n\ndef test_x(tmp_path):\n    assert clamp(1, 0, 10) == 1\n", "tests_need_fixtures"),
    "does not parse": ("from solution import clamp\n\ndef test_x(:\n    assert clamp(1, 0, 10) == 1\n", "tests_do_not_parse"),
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    rows = [row_of(name, answer=CLAMP, tests=tests) for name, (tests, _) in SUITES.items()]
    return reasons(bite(rows, TestsBiteStep(type="tests_bite", mutants=12, min_killed=0.6), tools_of()))


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_stays_only_if_broken_solutions_fail_it(verdicts: dict[str, str], name: str):
    assert verdicts.get(name) == SUITES[name][1]


def test_a_solution_without_anything_to_mutate_keeps_its_suite():
    row = row_of("a", answer="def identity(x):\n    return x\n", tests="assert identity(3) == 3\nassert identity('a') == 'a'\n")
    tally = bite([row], TestsBiteStep(type="tests_bite", min_killed=1), tools_of())
    assert reasons(tally) == {"a": "passes_constant_body"}    # an identity is its first argument, unchanged


def test_other_languages_are_dropped_or_kept_untested_as_asked():
    row = row_of("go", answer="```go\npackage main\n```", language="go", tests="x")
    assert reasons(bite([row], TestsBiteStep(type="tests_bite"), tools_of())) == {"go": "not_python"}
    kept = bite([row], TestsBiteStep(type="tests_bite", other_languages="keep"), tools_of())
    assert (len(kept.kept), kept.to_json()["noted"]) == (1, {"not_tested": 1})


def test_every_mutant_differs_from_the_solution_and_from_every_other():
    sources = [mutant.source for mutant in mutants_of(CLAMP, 100)]
    assert len(sources) == len(set(sources)) == 9       # 2 comparisons, 2 bounds, 2 conditions, 3 results
    assert "    if x <= low:" in "\n".join(sources)
    assert mutants_of(CLAMP, 4) == mutants_of(CLAMP, 100)[:4]


def test_mutants_leave_docstrings_and_the_top_level_alone():
    source = 'LIMIT = 3\n\ndef f(x):\n    """Doc."""\n    return x + 1\n'
    mutants = [mutant.source for mutant in mutants_of(source, 100)]
    assert all("LIMIT = 3" in mutant and '"""Doc."""' in mutant for mutant in mutants)
    assert sorted(mutant.splitlines()[-1].strip() for mutant in mutants) == ["return None", "return x + 2", "return x - 1"]


def test_empty_bodies_reach_methods():
    assert empty_bodies("class A:\n    def f(self):\n        return 1\n") == "class A:\n\n    def f(self):\n        pass"


@pytest.mark.parametrize(("solution", "reason"), [("x = 1\n", "nothing_to_test"), ("def f(:\n", "solution_does_not_parse")])
def test_a_solution_that_cannot_be_tested_says_why(solution: str, reason: str):
    with pytest.raises(SuiteFault) as caught:
        read_suite("assert f() == 1", solution)
    assert caught.value.reason == reason
