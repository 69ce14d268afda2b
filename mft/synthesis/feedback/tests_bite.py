"""`tests_bite`: tests that would pass anything are thrown away, with their rows."""

from collections.abc import Callable, Sequence

from mft.synthesis.feedback.config import TestsBiteStep
from mft.synthesis.feedback.mutants import constant_bodies, empty_bodies, mutants_of
from mft.synthesis.feedback.running import limits_of, testable
from mft.synthesis.feedback.suites import assertions_in, is_constant, read_suite
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools


def tests_bite(rows: Sequence[Row], config: TestsBiteStep, tools: Tools) -> Tally:
    """Drops, cheapest check first: those of `testable` and `read_suite`, `no_assertions`, `constant_assertions`; `passes_empty_body`,
    `passes_constant_body`; `passes_mutants` (fewer than `min_killed` of the mutants are noticed). Measures `mutants` and
    `mutants_killed`; where a solution has nothing to mutate, both are 0 and it stays.

    A suite that fails whatever it is given bites too: `tests_pass` is what drops it.
    """
    tally = Tally(config.type, rows)
    left = testable(rows, config, tally, static_fault)
    for reason, broken in (("passes_empty_body", lambda code: [empty_bodies(code)]), ("passes_constant_body", constant_bodies)):
        passed = _passed(left, broken, config.timeout_s, tools, again=True)
        for row, number in zip(left, passed, strict=True):
            if number:
                tally.drop(row, reason)
        left = [row for row, number in zip(left, passed, strict=True) if not number]
    sources = {row.id: [mutant.source for mutant in mutants_of(row.code, config.mutants)] for row in left}
    by_code = {row.code: sources[row.id] for row in left}
    passed = _passed(left, lambda code: by_code[code], config.mutant_timeout_s, tools, again=False)
    for row, survivors in zip(left, passed, strict=True):
        number = len(sources[row.id])
        killed = number - survivors
        if number and killed < config.min_killed * number:
            tally.drop(row, "passes_mutants")
        else:
            tally.keep(row.measure(mutants=number, mutants_killed=killed), "" if number else "nothing_to_mutate")
    return tally


def static_fault(row: Row) -> str:
    """What the text of the tests alone shows: `no_assertions`, `constant_assertions`; raises the faults of `read_suite`."""
    suite = read_suite(row.tests, row.code)
    assertions = assertions_in(suite.tree)
    if not assertions:
        return "no_assertions"
    return "constant_assertions" if all(map(is_constant, assertions)) else ""


def _passed(rows: Sequence[Row], broken: Callable[[str], list[str]], timeout_s: float, tools: Tools, *, again: bool) -> list[int]:
    """For each row, how many of the broken versions of its solution its tests pass."""
    programs, modes, owners = [], [], []
    for place, row in enumerate(rows):
        suite = read_suite(row.tests, row.code)
        for source in broken(row.code):
            programs.append(suite.program(source))
            modes.append(suite.mode)
            owners.append(place)
    verdicts = tools.judging.verdicts(programs, modes=modes, limits=limits_of(timeout_s), again=again,
                                      told=lambda done, total: tools.told("tests_bite", done, total))
    counts = [0] * len(rows)
    for owner, verdict in zip(owners, verdicts, strict=True):
        counts[owner] += verdict.passed
    return counts
