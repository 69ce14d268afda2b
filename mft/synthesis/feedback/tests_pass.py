"""`tests_pass`: the solution does what its tests say, in every run."""

from collections.abc import Sequence
from dataclasses import replace

from mft.synthesis.feedback.config import TestsPassStep
from mft.synthesis.feedback.running import limits_of, testable
from mft.synthesis.feedback.suites import SuiteFault, read_suite
from mft.synthesis.row import Row, Solution
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools


def tests_pass(rows: Sequence[Row], config: TestsPassStep, tools: Tools) -> Tally:
    """Drops: those of `testable`; `tests_fail`, `tests_time_out`, `tests_unstable` (a solution passed once and failed once), where no
    solution of a row passes. Measures `pass_share`: solutions that pass every run, of all that the model was asked for,
    and `judged`: `separate` or `inside` (`Suite.mode`)."""
    tally = Tally(config.type, rows)
    ready = testable(rows, config, tally, lambda row: "")
    pairs = [(row, solution) for row in ready for solution in row.solutions]
    outcomes = _outcomes(pairs, config, tools)
    by_row: dict[str, list[tuple[Solution, str]]] = {row.id: [] for row in ready}
    for (row, solution), outcome in zip(pairs, outcomes, strict=True):
        by_row[row.id].append((solution, outcome))
    for row in ready:
        passing = tuple(solution for solution, outcome in by_row[row.id] if outcome == "passed")
        if not passing:
            tally.drop(row, by_row[row.id][0][1])
            continue
        samples = row.measured.get("samples", len(row.solutions))
        if gone := len(row.solutions) - len(passing):
            tally.noted["solutions_dropped"] += gone
        share = round(len(passing) / max(samples, len(row.solutions)), 4)
        tally.keep(replace(row, solutions=passing).measure(pass_share=share, judged=read_suite(row.tests, passing[0].code).mode))
    return tally


def _outcomes(pairs: Sequence[tuple[Row, Solution]], config: TestsPassStep, tools: Tools) -> list[str]:
    """`passed` or the reason of each pair. A run is made of what has passed the runs before it."""
    outcomes = [""] * len(pairs)
    suites = {}
    for place, (row, solution) in enumerate(pairs):
        try:
            suites[place] = read_suite(row.tests, solution.code)
        except SuiteFault as fault:
            outcomes[place] = fault.reason
    for run in range(config.runs):
        places = [place for place in suites if outcomes[place] in ("", "passed")]
        programs = [suites[place].program(pairs[place][1].code) for place in places]
        verdicts = tools.judging.verdicts(programs, modes=[suites[place].mode for place in places], limits=limits_of(config.timeout_s),
                                          run=run, told=lambda done, total: tools.told(config.type, done, total))
        for place, verdict in zip(places, verdicts, strict=True):
            if verdict.passed:
                outcomes[place] = "passed"
            elif run:
                outcomes[place] = "tests_unstable"
            else:
                outcomes[place] = "tests_time_out" if verdict.status == "timeout" else "tests_fail"
    return outcomes
