"""HumanEval-X: complete programs whose `main` runs the tests, one source file each, and nothing beyond the standard library.

The benchmark's tests lean on three packages that a machine need not have; each is replaced by code of the same effect:

    Go          github.com/stretchr/testify/assert: `New(t).Equal(expected, actual)` alone is used; here it panics unless reflect.DeepEqual
    JavaScript  console.assert only writes to stderr, which the benchmark's own judge takes as a failure; here it throws
    Rust        `use rand; use regex; use md5;` stand in every prompt; a line whose crate is not named below is left out. `#[test]`
                functions are called by `main`

What names another package after that (Rust: rand, regex, md5; C++: boost, openssl; JavaScript: js-md5) compiles only where it is installed.
"""

import re
from collections.abc import Iterable
from typing import Final

from mft.problems.problem import Language, Problem

CPP_INCLUDES: Final = ("stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring", "iostream")
"""Source: CodeGeeX, import helper for C++."""

GO_ASSERT: Final = """
type assertions struct{}
type assertionsOf struct{}

var assert assertionsOf

func (assertionsOf) New(t *testing.T) assertions { return assertions{} }

func (assertions) Equal(expected, actual interface{}, _ ...interface{}) bool {
	if !reflect.DeepEqual(expected, actual) {
		panic(fmt.Sprintf("expected %v, found %v", expected, actual))
	}
	return true
}
"""
GO_KNOWN: Final = ("bytes", "crypto/md5", "errors", "math", "math/rand", "regexp", "sort", "strconv", "strings", "time", "unicode")
"""Packages that are imported where the program names them. Source: CodeGeeX, import helper for Go, and the prompts themselves."""

JS_ASSERT: Final = 'console.assert = (holds, ...rest) => { if (!holds) throw new Error("assertion failed " + rest.join(" ")); };\n'
RUST_CRATES: Final = {"rand": r"\b(?:rand|Rng)\b", "regex": r"\b(?:regex|Regex)\b", "md5": r"\bmd5\b"}

STUBS: Final[dict[Language, str]] = {
    "cpp": "    throw 1;\n}\n", "go": '    panic("stub")\n}\n', "java": "        throw new RuntimeException();\n    }\n}\n",
    "javascript": "}\n", "rust": "    panic!();\n}\n"}


def stub(problem: Problem) -> str:
    """A body that does nothing useful."""
    return STUBS[problem.language]


def assembled(problem: Problem, prompt: str, joined: str) -> str:
    """The whole source text, its tests last. `joined` is the prompt with the code."""
    return "\n".join(_parts(problem, prompt, joined))


def _parts(problem: Problem, prompt: str, joined: str) -> tuple[str, str]:
    tests = "\n".join(problem.tests)
    if problem.language == "cpp":
        return "".join(f"#include<{name}>\n" for name in CPP_INCLUDES if f"<{name}>" not in prompt) + joined, tests
    if problem.language == "javascript":
        return joined, JS_ASSERT + tests
    if problem.language == "go":
        return _go(problem, joined, tests)
    if problem.language == "rust":
        return _rust(joined, tests)
    return joined, tests


def _go(problem: Problem, joined: str, tests: str) -> tuple[str, str]:
    code = joined.replace(problem.imports, "", 1) if problem.imports else joined
    text = _without_comments(code + tests)
    named = [package for package in GO_KNOWN if re.search(rf"\b{package.rpartition('/')[2]}\.", text)]
    imports = _import_lines(dict.fromkeys([*named, "fmt", "reflect", "testing"]))
    calls = "".join(f"    {name}(new(testing.T))\n" for name in re.findall(r"^func (Test\w+)\(t \*testing\.T\)", tests, re.MULTILINE))
    return f"package main\n\n{imports}{code}", f"{GO_ASSERT}\n{tests}\nfunc main() {{\n{calls}}}\n"


def _import_lines(packages: Iterable[str]) -> str:
    return "import (\n" + "".join(f'    "{package}"\n' for package in packages) + ")\n"


def _without_comments(code: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", code, flags=re.DOTALL)


def _rust(joined: str, tests: str) -> tuple[str, str]:
    lines = joined.split("\n")
    for crate, named in RUST_CRATES.items():
        others = "\n".join(line for line in lines if not re.match(rf"\s*use {crate}\b", line)) + tests
        if not re.search(named, _without_comments(others)):
            lines = [line for line in lines if not re.match(rf"\s*use {crate}\b", line)]
    names = re.findall(r"#\[test\]\s*(?:pub\s+)?fn\s+(\w+)", tests)
    module = re.findall(r"^\s*mod\s+(\w+)", tests, re.MULTILINE)
    public = re.sub(r"#\[test\]\s*(?:pub\s+)?fn", "pub fn", tests).replace("#[cfg(test)]", "")
    path = f"{module[0]}::" if module else ""
    return "\n".join(lines), public + "\nfn main() {\n" + "".join(f"    {path}{name}();\n" for name in names) + "}\n"
