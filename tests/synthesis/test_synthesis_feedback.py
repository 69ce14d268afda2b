"""`compile`, `tests_pass`, `agreement`, `difficulty`."""

import shutil
from dataclasses import replace

import pytest
from model_by_rules import reasons, row_of, tools_of
from pydantic import ValidationError

from mft.synthesis.config import SynthesizeOptions
from mft.synthesis.feedback.agreement import agreement
from mft.synthesis.feedback.compile import COMPILERS, checker_of, compile_solutions
from mft.synthesis.feedback.config import AgreementStep, CompileStep, DifficultyStep, TestsPassStep
from mft.synthesis.feedback.difficulty import difficulty
from mft.synthesis.feedback.tests_pass import tests_pass as run_tests
from mft.synthesis.row import Row, Solution

SOURCES = {
    "python": ("def f(x):\n    return x\n", "def f(x):\n    return = x\n"),
    "c": ("#include <stdio.h>\nint twice(int x) { return 2 * x; }\n", "int twice(int x) { return y; }\n"),
    "cpp": ("#include <vector>\nint size(const std::vector<int>& v) { return v.size(); }\n",
            "int size(vector<int> v) { return v.size(); }\n"),
    "javascript": ("const twice = x => 2 * x;\n", "const twice = x => 2 * ;\n"),
    "java": ("public class Twice { static int twice(int x) { return 2 * x; } }\n",
             "public class Twice { static int twice(int x) { return y; } }\n"),
    "go": ("package main\n\nfunc twice(x int) int { return 2 * x }\n", "package main\n\nfunc twice(x int) int { return y }\n"),
    "rust": ("pub fn twice(x: i32) -> i32 { 2 * x }\n", "pub fn twice(x: i32) -> i32 { y }\n"),
    "typescript": ("const twice = (x: number): number => 2 * x;\n", "const twice = (x: number: => 2 * x;\n"),
}


def fenced(code: str, tag: str) -> str:
    return f"```{tag}\n{code}```"


@pytest.mark.parametrize("language", SOURCES)
def test_a_compiler_takes_the_right_code_and_refuses_the_wrong(language: str):
    """The wrong code of the compiled languages parses, and is wrong in its names alone: only a compiler sees it."""
    if language in COMPILERS and shutil.which(COMPILERS[language]) is None:
        pytest.skip(f"{COMPILERS[language]} is not on PATH")
    rows = [row_of(name, answer=fenced(code, language), language=language)
            for name, code in zip(("right", "wrong"), SOURCES[language], strict=True)]
    tally = compile_solutions(rows, CompileStep(type="compile"), tools_of())
    assert reasons(tally) == {"wrong": "does_not_compile"}
    without_command = {"python": "python", "typescript": "tree-sitter"}
    assert tally.kept[0].measured == {"checked_by": without_command.get(language, COMPILERS.get(language))}


def test_code_is_compiled_and_not_run(tmp_path):
    mark = tmp_path / "ran"
    row = row_of("a", answer=f"```python\nopen({str(mark)!r}, 'w')\nwhile True:\n    pass\n```")
    assert reasons(compile_solutions([row], CompileStep(type="compile", timeout_s=5), tools_of())) == {}
    assert not mark.exists()


def test_a_fragment_is_left_to_the_parser_or_refused():
    method = "int twice(int x) { return 2 * x; }\n"
    assert checker_of("java", method, CompileStep(type="compile")) == "tree-sitter"
    if shutil.which("javac"):
        assert checker_of("java", method, CompileStep(type="compile", fragments="drop")) == "javac"
    assert checker_of("csharp", "", CompileStep(type="compile", without_compiler="drop")) == "no_compiler"
    assert checker_of("cobol", "", CompileStep(type="compile")) == "unknown_language"


def test_only_the_solutions_that_compile_stay():
    row = row_of("a")
    row = replace(row, solutions=(Solution("bad", "def f(:\n"), Solution("good", "def f():\n    return 1\n")))
    kept = compile_solutions([row, row_of("none")], CompileStep(type="compile"), tools_of())
    assert [solution.text for solution in kept.kept[0].solutions] == ["good"]
    assert reasons(kept) == {"none": "no_solution"}


def samples(name: str, *bodies: str, tests: str = "assert f(1) == 2\nassert f(5) == 6\n") -> Row:
    codes = [f"def f(x):\n    {body}\n" for body in bodies]
    return replace(row_of(name, tests=tests), solutions=tuple(Solution(code, code) for code in codes)).measure(samples=len(codes))


def test_tests_pass_keeps_the_solutions_that_pass_and_measures_their_share():
    rows = [samples("some", "return x", "return x + 1", "return 1 + x", "raise ValueError"), samples("none", "return x", "return 2"),
            samples("late", "while True: pass"), samples("all", "return x + 1")]
    tally = run_tests(rows, TestsPassStep(type="tests_pass", runs=1, timeout_s=1), tools_of())
    assert reasons(tally) == {"none": "tests_fail", "late": "tests_time_out"}
    assert {row.id: (len(row.solutions), row.measured["pass_share"]) for row in tally.kept} == {"some": (2, 0.5), "all": (1, 1.0)}


def test_tests_that_pass_by_chance_are_unstable():
    tests = "import time\nassert f(1) == 2\nassert str(time.time_ns())[-4] in '012345678'\n"     # holds nine times in ten
    rows = [samples(f"r{number}", "return x + 1", tests=f"{tests}# {number}\n") for number in range(30)]
    rows = [replace(row, tests=row.tests.replace("f(1) == 2", f"f({number}) == {number + 1}")) for number, row in enumerate(rows)]
    tally = run_tests(rows, TestsPassStep(type="tests_pass", runs=4), tools_of())
    found = set(reasons(tally).values())
    assert found <= {"tests_unstable", "tests_fail"}
    assert "tests_unstable" in found


def test_a_solution_that_ends_the_process_or_lies_does_not_pass():
    liars = ["import os; os._exit(0)", "raise SystemExit(0)",
             "return type('Yes', (), {'__eq__': lambda a, b: True, '__ne__': lambda a, b: False})()"]
    rows = [samples(str(number), body) for number, body in enumerate(liars)]
    tally = run_tests(rows, TestsPassStep(type="tests_pass", runs=1), tools_of())
    assert reasons(tally) == {"0": "tests_fail", "1": "tests_fail", "2": "tests_fail"}


ORDINARY = {
    "a class": ("class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, x):\n        self.items.append(x)\n"
                "    def __len__(self):\n        return len(self.items)\n",
                "from solution import Stack\ns = Stack()\ns.push(1)\nassert len(s) == 1\nassert isinstance(s, Stack)\n", "inside"),
    "an exception of its own": ("class BadAge(ValueError):\n    pass\n\ndef check_age(age):\n    if age < 0:\n        raise BadAge(age)\n"
                                "    return age\n",
                                "from solution import check_age, BadAge\ntry:\n    check_age(-1)\n    assert False\nexcept BadAge:\n"
                                "    pass\nassert check_age(3) == 3\n", "inside"),
    "a constant": ("LIMIT = 3\n\ndef over(x):\n    return x > LIMIT\n",
                   "from solution import over, LIMIT\nassert over(LIMIT + 1)\nassert not over(LIMIT)\n", "inside"),
    "what is printed": ("def hello(name):\n    print('hi', name)\n",
                        "import io, contextlib\nfrom solution import hello\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n"
                        "    hello('a')\nassert out.getvalue() == 'hi a\\n'\n", "inside"),
    "a built-in exception": ("def half(x):\n    if x % 2:\n        raise ValueError('odd')\n    return x // 2\n",
                             "import unittest\nimport solution\n\nclass TestHalf(unittest.TestCase):\n    def test_odd(self):\n"
                             "        with self.assertRaises(ValueError):\n            solution.half(3)\n    def test_even(self):\n"
                             "        self.assertEqual(solution.half(4), 2)\n\nif __name__ == '__main__':\n    unittest.main()\n",
                             "separate"),
    "a generator": ("def evens(n):\n    for i in range(0, n, 2):\n        yield i\n",
                    "from solution import evens\nassert list(evens(5)) == [0, 2, 4]\n", "separate"),
    "a callback": ("def each(f, xs):\n    return [f(x) for x in xs]\n",
                   "from solution import each\nassert each(lambda x: x + 1, [1, 2]) == [2, 3]\n", "separate"),
}


def test_ordinary_suites_pass_and_say_where_they_were_judged():
    rows = [row_of(name, answer=fenced(code, "python"), tests=tests) for name, (code, tests, _) in ORDINARY.items()]
    tally = run_tests(rows, TestsPassStep(type="tests_pass", runs=1), tools_of())
    assert reasons(tally) == {}
    assert {row.id: row.measured["judged"] for row in tally.kept} == {name: mode for name, (_, _, mode) in ORDINARY.items()}


def test_agreement_chooses_what_most_samples_say():
    rows = [samples("vote", "return x * 9", "return x + 1", "return 1 + x"), samples("apart", "return 1", "return 2", "return 3"),
            samples("one", "return 1"), samples("raises", "raise ValueError", "return 1 / 0", "raise ValueError('no')"),
            samples("names", "return x", "return x", tests="n = 1\nassert f(n) == 2\n")]
    tally = agreement(rows, AgreementStep(type="agreement"), tools_of())
    assert reasons(tally) == {"apart": "samples_disagree", "one": "one_solution", "names": "nothing_to_compare"}
    assert [solution.code for solution in tally.kept[0].solutions] == ["def f(x):\n    return x + 1\n", "def f(x):\n    return 1 + x\n"]
    assert {row.id: row.measured["agreement"] for row in tally.kept} == {"vote": 0.6667, "raises": 0.6667}


def test_difficulty_keeps_a_band_of_pass_shares():
    rows = [row_of(name).measure(**found) for name, found in
            {"easy": {"pass_share": 1.0}, "middle": {"pass_share": 0.5}, "hard": {"pass_share": 0.1}, "unknown": {}}.items()]
    tally = difficulty(rows, DifficultyStep(type="difficulty", min_pass_share=0.2), tools_of())
    assert reasons(tally) == {"easy": "too_easy", "hard": "too_hard", "unknown": "not_measured"}


@pytest.mark.parametrize(("steps", "message"), [
    ([{"type": "difficulty"}], "put tests_pass before it"),
    ([{"type": "held_out_dedup"}], "put it into the recipe that reads them"),
    ([{"type": "answer", "samples": 4, "temperature": 0}], "at temperature 0 they are all the same"),
    ([{"type": "evolve", "operations": ["rarer", "rarer"]}], "each once"),
    ([{"type": "evolv"}], "evolve"),
    ([{"type": "tests_bite", "mutant": 3}], "mutant"),
])
def test_mistakes_in_the_steps_are_told(steps: list, message: str):
    with pytest.raises(ValidationError, match=message):
        SynthesizeOptions.model_validate({"steps": steps})
