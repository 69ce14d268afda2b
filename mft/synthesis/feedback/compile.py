"""`compile`: solutions that a compiler takes."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Final, cast

from mft.data.filters.config import CodeLanguage
from mft.data.filters.grammars import parses
from mft.sandbox.program import Limits, Program
from mft.synthesis.code import LANGUAGES
from mft.synthesis.feedback.config import CompileStep
from mft.synthesis.row import Row, Solution
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools

COMPILERS: Final = {"c": "gcc", "cpp": "g++", "java": "javac", "javascript": "node", "go": "go", "rust": "rustc"}

WHOLE: Final = {"java": re.compile(r"^[^\S\n]*(?:\w+\s+)*(?:class|interface|enum|record)\s+\w+", re.M),
                "go": re.compile(r"^package\s+\w+", re.M)}
"""What a whole file of a language holds."""


def compile_solutions(rows: Sequence[Row], config: CompileStep, tools: Tools) -> Tally:
    """Drops: `no_solution`, `no_compiler`, `unknown_language`, `does_not_compile`, `compiler_timed_out`, where no solution of a row
    compiles. Measures `checked_by`: the compiler, or `tree-sitter`."""
    tally = Tally("compile", rows)
    pairs = [(row, solution) for row in rows for solution in row.solutions if solution.code]
    how = [checker_of(row.language, solution.code, config) for row, solution in pairs]
    compiled = [place for place, name in enumerate(how) if name in ("python", *COMPILERS.values())]
    limits = Limits(timeout_s=config.timeout_s, build_timeout_s=config.timeout_s)
    verdicts = tools.judging.verdicts([_program(*pairs[place]) for place in compiled], limits=limits,
                                      told=lambda done, total: tools.told(config.type, done, total))
    outcomes = dict(zip(compiled, verdicts, strict=True))
    by_row: dict[str, list[tuple[Solution, str, str]]] = {row.id: [] for row in rows}
    for place, (row, solution) in enumerate(pairs):
        if place in outcomes:
            status = outcomes[place].status
            fault = "" if status == "passed" else "compiler_timed_out" if status == "timeout" else "does_not_compile"
        elif how[place] == "tree-sitter":
            fault = "" if parses(solution.code, cast(CodeLanguage, row.language)) else "does_not_compile"
        else:
            fault = how[place]
        by_row[row.id].append((solution, how[place], fault))
    for row in rows:
        good = [(solution, name) for solution, name, fault in by_row[row.id] if not fault]
        if good:
            tally.keep(replace(row, solutions=tuple(solution for solution, _ in good)).measure(checked_by=good[0][1]), f"by_{good[0][1]}")
        else:
            tally.drop(row, by_row[row.id][0][2] if by_row[row.id] else "no_solution")
    return tally


def checker_of(language: str, code: str, config: CompileStep) -> str:
    """`python`, a compiler's command, `tree-sitter`; or the reason to drop: `no_compiler`, `unknown_language`."""
    if language == "python":
        return "python"
    whole = WHOLE.get(language)
    if language in COMPILERS and _installed(COMPILERS[language]):
        is_fragment = config.fragments == "parse" and whole is not None and not whole.search(code)
        return "tree-sitter" if is_fragment else COMPILERS[language]
    if language not in LANGUAGES:
        return "unknown_language"
    return "tree-sitter" if config.without_compiler == "parse" else "no_compiler"


@cache
def _installed(command: str) -> bool:
    return shutil.which(command) is not None


def _program(row: Row, solution: Solution) -> Program:
    if row.language != "python":
        return Program(id="", solution=solution.code, tests="", entry_point="", language=row.language, build_only=True)
    return Program(id="", solution="def solution():\n    pass\n", entry_point="solution",
                   tests=f"compile({solution.code!r}, 'solution', 'exec', dont_inherit=True)")
