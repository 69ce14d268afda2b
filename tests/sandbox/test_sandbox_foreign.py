# ruff: noqa: E501 - programs are data
"""Programs of other languages: what counts as passed, and that leaving early does not."""

import shutil
from functools import cache

import pytest

from mft.sandbox.judge import judge
from mft.sandbox.program import ExecutionResult, Limits, Program, SandboxError

COMPILERS = {"cpp": "g++", "java": "javac", "javascript": "node", "go": "go", "rust": "rustc"}

LIMITS = Limits(timeout_s=20)

FRAMES = {
    "cpp": "#include <assert.h>\n#include <stdlib.h>\n#include <unistd.h>\nint add(int a, int b) { BODY }\n"
           "int main() { assert(add(1, 2) == 3); assert(add(2, 2) == 4); }\n",
    "java": "import java.util.*;\nclass Solution { public int add(int a, int b) { BODY } }\n"
            "public class Main { public static void main(String[] args) { if (new Solution().add(1, 2) != 3) throw new AssertionError(); } }\n",
    "javascript": "const add = (a, b) => { BODY }\nconst test = () => { console.assert(add(1, 2) === 3) }\ntest()\n",
    "go": "package main\nimport (\n\"testing\"\n\"os\"\n\"github.com/stretchr/testify/assert\"\n)\nvar _ = os.Exit\nfunc add(a, b int) int { BODY }\n"
          "func TestAdd(t *testing.T) { assert := assert.New(t)\nassert.Equal(3, add(1, 2)) }\n",
    "rust": "fn add(a: i32, b: i32) -> i32 { BODY }\n#[cfg(test)]\nmod tests { use super::*; #[test] fn t() { assert_eq!(add(1, 2), 3); } }\n",
}

BODIES = {
    "right": dict.fromkeys(FRAMES, "return a + b;"),
    "wrong": dict.fromkeys(FRAMES, "return a;"),
    "broken": dict.fromkeys(FRAMES, "return a +;"),
    "leaves": {"cpp": "exit(0);", "java": "System.exit(0); return 0;", "javascript": "process.exit(0)", "go": "os.Exit(0); return 0",
               "rust": "std::process::exit(0)"},
    "leaves otherwise": {"cpp": "_exit(0);", "java": "Runtime.getRuntime().halt(0); return 0;", "javascript": "process.reallyExit(0)",
                         "go": "os.Exit(0); return 0", "rust": "std::process::exit(0)"},
    "prints success": {"cpp": "write(1, \"passed\\n\", 7); return a;", "java": "System.out.println(\"passed\"); return a;",
                       "javascript": "console.log('passed'); return a", "go": "println(\"PASS\"); return a",
                       "rust": "println!(\"test result: ok. 1 passed\"); return a"},
    "endless": {"cpp": "volatile int n = 0; while (true) n = n + 1;", "java": "while (true) { a++; if (b == 0) return 0; }",
                "javascript": "while (true) {}", "go": "for { a++ }", "rust": "loop {}"},
}

LANGUAGES = [pytest.param(language, marks=[] if language in ("cpp", "javascript") else pytest.mark.slow) for language in FRAMES]


@cache
def results(language: str) -> dict[str, ExecutionResult]:
    if shutil.which(COMPILERS[language]) is None:
        pytest.skip(f"{COMPILERS[language]} is not on PATH")
    programs = [Program(id=name, solution=FRAMES[language].replace("BODY", bodies[language]), tests="", entry_point="add", language=language,
                        timeout_s=2 if name == "endless" else None) for name, bodies in BODIES.items()]
    try:
        return {result.id: result for result in judge(programs, limits=LIMITS)}
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_right_program_passes_and_says_where_it_was_judged(language: str):
    result = results(language)["right"]
    assert (result.status, result.detail, result.judged) == ("passed", "", "inside")
    assert result.why_inside == f"its tests are part of the {language} program"


@pytest.mark.parametrize("language", LANGUAGES)
def test_wrong_broken_early_and_endless_programs_do_not_pass(language: str):
    statuses = {name: result.status for name, result in results(language).items()}
    assert statuses["wrong"] == "failed" if language not in ("go",) else statuses["wrong"] in ("failed", "error")
    assert statuses["broken"] == "error"
    assert statuses["endless"] == "timeout"
    for name in ("leaves", "leaves otherwise", "prints success"):
        assert statuses[name] in ("failed", "error"), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compilers_first_error_is_the_detail(language: str):
    said = {"javascript": "SyntaxError", "go": "program_test.go:8:36: expected operand"}
    assert said.get(language, "error") in results(language)["broken"].detail
