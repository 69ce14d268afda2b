"""Suites of many rows in one go: what `tests_pass`, `tests_bite` and `agreement` have in common."""

from collections.abc import Callable, Sequence

from mft.sandbox.program import Limits
from mft.synthesis.feedback.config import PythonTests
from mft.synthesis.feedback.suites import SuiteFault
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally


def limits_of(timeout_s: float) -> Limits:
    """The sandbox's bounds with this time."""
    return Limits(timeout_s=timeout_s)


def testable(rows: Sequence[Row], config: PythonTests, tally: Tally, fault: Callable[[Row], str]) -> list[Row]:
    """The rows whose tests can be run, in order; the others are dropped by reason, or kept where the step says so.

    Drops: `not_python`, `no_solution`, `no_tests`, and what `fault` says of a row or a SuiteFault that it raises.
    """
    out = []
    for row in rows:
        if row.language != "python":
            tally.keep(row, "not_tested") if config.other_languages == "keep" else tally.drop(row, "not_python")
            continue
        reason = "no_solution" if not row.code else "" if row.tests.strip() else "no_tests"
        try:
            reason = reason or fault(row)
        except SuiteFault as found:
            reason = found.reason
        tally.drop(row, reason) if reason else out.append(row)
    return out
