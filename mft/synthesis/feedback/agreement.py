"""`agreement`: samples that give the same outputs for the calls of the row's tests; the chosen solution is voted for."""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mft.sandbox.program import Program
from mft.synthesis.feedback.config import AgreementStep
from mft.synthesis.feedback.judging import Verdict
from mft.synthesis.feedback.running import limits_of, testable
from mft.synthesis.feedback.suites import defined_in, read_suite
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools

MOST_CALLS: Final = 50

ONE_CALL: Final = """
try:
    _mft_outputs.append(repr(CALL))
except Exception as _mft_error:
    _mft_outputs.append(type(_mft_error).__name__)
"""
FINGERPRINT: Final = """
import hashlib as _mft_hashlib
_mft_digest = _mft_hashlib.sha256("\\n".join(_mft_outputs).encode("utf-8", "backslashreplace")).hexdigest()
raise AssertionError("outputs " + _mft_digest)
"""
SAID: Final = re.compile(r"# outputs ([0-9a-f]{64})$")


def agreement(rows: Sequence[Row], config: AgreementStep, tools: Tools) -> Tally:
    """Drops: those of `testable` and `read_suite`, `one_solution`, `nothing_to_compare` (the tests hold no call with literal arguments),
    `samples_disagree`. The solutions that the most agree with stay, in their order. Measures `agreement`, their share of all samples."""
    tally = Tally(config.type, rows)
    ready = testable(rows, config, tally, _fault)
    programs = [_program(row, solution.code) for row in ready for solution in row.solutions]
    verdicts = iter(tools.judging.verdicts(programs, limits=limits_of(config.timeout_s),
                                           told=lambda done, total: tools.told(config.type, done, total)))
    for row in ready:
        votes = [_fingerprint(next(verdicts)) for _ in row.solutions]
        counted = Counter(vote for vote in votes if vote)
        vote, number = counted.most_common(1)[0] if counted else ("", 0)
        share = number / max(row.measured.get("samples", 0), len(votes))
        if share < config.min_share:
            tally.drop(row, "samples_disagree")
        else:
            chosen = tuple(solution for solution, said in zip(row.solutions, votes, strict=True) if said == vote)
            tally.keep(replace(row, solutions=chosen).measure(agreement=round(share, 4)))
    return tally


def _fault(row: Row) -> str:
    if len(row.solutions) < 2:
        return "one_solution"
    return "" if calls_in(row.tests, row.code) else "nothing_to_compare"


def calls_in(tests: str, solution: str) -> list[str]:
    """The calls of the solution's functions in its tests whose arguments are all literals, each once, in order.

    >>> calls_in("def test_f():\\n    assert f(1, b=[2]) == 3\\n    x = 1\\n    assert f(x) == 3", "def f(a, b=0): ...")
    ['f(1, b=[2])']
    """
    suite, functions = read_suite(tests, solution), defined_in(solution).functions
    found = [ast.unparse(node) for node in ast.walk(suite.tree)
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions
             and all(map(_is_literal, [*node.args, *(keyword.value for keyword in node.keywords)]))]
    return list(dict.fromkeys(found))[:MOST_CALLS]


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _program(row: Row, code: str) -> Program:
    """Tests that always fail, with a hash of the outputs as the message."""
    calls = "".join(ONE_CALL.replace("CALL", call) for call in calls_in(row.tests, row.code))
    suite = read_suite(row.tests, row.code)
    return Program(id="", solution=code, tests=f"_mft_outputs = []\n{calls}{FINGERPRINT}", entry_point=suite.uses[0])


def _fingerprint(verdict: Verdict) -> str:
    """The hash; empty for a sample that gave no outputs, which agrees with none."""
    found = SAID.search(verdict.detail) if verdict.status == "failed" else None
    return found[1] if found else ""
