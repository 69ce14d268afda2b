"""`unit_tests`: a solution -> tests of it."""

import ast
from collections.abc import Sequence
from dataclasses import replace

from mft.conversation import Message
from mft.synthesis.code import code_of
from mft.synthesis.feedback.suites import Defined, SuiteFault, defined_in, read_suite
from mft.synthesis.makers.config import UnitTestsStep
from mft.synthesis.makers.wording import UNIT_TESTS, filled
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Said, Tools

SHOWN = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
"""What is left of a solution whose bodies are not shown."""


def unit_tests(rows: Sequence[Row], config: UnitTestsStep, tools: Tools) -> Tally:
    """Drops: `not_python`, `no_solution`, `nothing_to_test` (no function or class), the faults of `Tools.ask`, `tests_without_code`, and
    those of `read_suite`: the tests must parse and use the solution."""
    tally = Tally(config.type, rows)
    asked = [row for row in rows if row.language == "python" and row.code and (config.replace or not row.tests)
             and isinstance(_defined(row), Defined)]
    chats = [([Message("user", filled(UNIT_TESTS, tests=str(config.tests), instruction=row.instruction, code=_shown(row, config)))], 0)
             for row in asked]
    said = {row.id: text for row, text in zip(asked, tools.ask(config.type, config, chats), strict=True)}
    for row in rows:
        if row.language != "python":
            tally.keep(row, "not_tested") if config.other_languages == "keep" else tally.drop(row, "not_python")
        elif not row.code:
            tally.drop(row, "no_solution")
        elif row.tests and not config.replace:
            tally.keep(row, "has_tests")
        elif row.id not in said:
            tally.drop(row, str(_defined(row)))
        else:
            tests, fault = _read(said[row.id], row)
            tally.drop(row, fault) if fault else tally.keep(replace(row, tests=tests))
    return tally


def _defined(row: Row) -> Defined | str:
    """What the solution defines, or why there is nothing to test."""
    try:
        return defined_in(row.code)
    except SuiteFault as fault:
        return fault.reason


def _read(said: Said, row: Row) -> tuple[str, str]:
    """(tests, fault)."""
    if said.fault:
        return "", said.fault
    tests = code_of(said.text, "python")
    if not tests:
        return "", "tests_without_code"
    try:
        read_suite(tests, row.code)
    except SuiteFault as fault:
        return "", fault.reason
    return tests, ""


def _shown(row: Row, config: UnitTestsStep) -> str:
    """The solution, or its signatures and docstrings alone."""
    if config.sees_solution:
        return row.code
    tree = ast.parse(row.code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node) is not None
            node.body = [*node.body[:has_docstring], ast.Expr(ast.Constant(...))]
    return ast.unparse(ast.Module([node for node in tree.body if isinstance(node, SHOWN)], []))
