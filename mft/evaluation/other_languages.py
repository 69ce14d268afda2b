"""HumanEval-X: the whole source text of one problem, its tests in it. The judge says of each language how it is built and what passes.

Nothing beyond the standard libraries is needed, but for Go's `testify/assert`, which the judge brings. In Rust's prompts stand
`use rand; use regex; use md5;` whether a problem needs them or not: a line whose crate the program does not name is left out. What names
such a package (Rust: rand, regex, md5; C++: boost, openssl; JavaScript: js-md5) is built only where it is installed.
"""

import re
from collections.abc import Iterable
from typing import Final

from mft.problems.problem import Language, Problem

CPP_INCLUDES: Final = ("stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring", "iostream")
"""Source: CodeGeeX, import helper for C++."""

GO_KNOWN: Final = ("bytes", "crypto/md5", "errors", "fmt", "math", "math/rand", "regexp", "sort", "strconv", "strings", "time", "unicode")
"""Packages that are imported where the program names them, as Go refuses one that it does not. Source: CodeGeeX, import helper for Go, and
the prompts themselves."""

RUST_CRATES: Final = {"rand": r"\b(?:rand|Rng)\b", "regex": r"\b(?:regex|Regex)\b", "md5": r"\bmd5\b"}

STUBS: Final[dict[Language, str]] = {
    "cpp": "    throw 1;\n}\n", "go": '    panic("stub")\n}\n', "java": "        throw new RuntimeException();\n    }\n}\n",
    "javascript": "}\n", "rust": "    panic!();\n}\n"}


def stub(problem: Problem) -> str:
    """A body that does nothing useful."""
    return STUBS[problem.language]


def assembled(problem: Problem, prompt: str, joined: str) -> str:
    """The source text: `joined`, the prompt with the code, then the tests."""
    tests = "\n".join(problem.tests)
    if problem.language == "cpp":
        head = "".join(f"#include<{name}>\n" for name in CPP_INCLUDES if not re.search(rf"<{re.escape(name)}>", prompt))
        return f"{head}{joined}\n{tests}"
    if problem.language == "go":
        code = joined.replace(problem.imports, "", 1) if problem.imports else joined
        return f"package main\n\n{_go_imports(code + tests)}{code}\n{tests}"
    if problem.language == "rust":
        return f"{_named_crates(joined, tests)}\n{tests}"
    return f"{joined}\n{tests}"


def _go_imports(code: str) -> str:
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', _without_comments(code))
    named = [package for package in GO_KNOWN if re.search(rf"\b{package.rpartition('/')[2]}\.", text)]
    return _import_lines([*named, "testing", "github.com/stretchr/testify/assert"])


def _import_lines(packages: Iterable[str]) -> str:
    return "import (\n" + "".join(f'    "{package}"\n' for package in packages) + ")\n"


def _without_comments(code: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", code, flags=re.DOTALL)


def _named_crates(joined: str, tests: str) -> str:
    lines = joined.split("\n")
    for crate, named in RUST_CRATES.items():
        others = [line for line in lines if not re.match(rf"\s*use {crate}\b", line)]
        if not re.search(named, _without_comments("\n".join(others) + tests)):
            lines = others
    return "\n".join(lines)
