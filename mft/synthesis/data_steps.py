"""The steps of a data recipe over the rows of a synthesis: the same code, with the same reasons."""

from collections.abc import Mapping, Sequence
from typing import Any

from mft.data.step_registry import is_group_step, make_step
from mft.data.verdict import GroupStep, RowName, RowStep
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools

TEXTS = ("hits", "evidence")
"""Keys of reports and lists that quote rows."""


def run_data_step(rows: Sequence[Row], config: Any, tools: Tools) -> Tally:
    """Run one step that a data recipe knows. A row without an answer is judged by its instruction alone."""
    tally = Tally(config.type, rows)
    if is_group_step(config):
        _run_group(rows, config, tally)
    else:
        step = make_step(config)
        assert isinstance(step, RowStep)
        for row in rows:
            verdict = step.judge(row.to_conversation())
            if verdict.keep:
                tally.keep(row.rewritten(verdict.changed) if verdict.changed else row, verdict.note)
            else:
                tally.drop(row, verdict.reason)
        tally.report = without_texts(step.report())
    tools.told(config.type, len(rows), len(rows))
    return tally


def _run_group(rows: Sequence[Row], config: Any, tally: Tally) -> None:
    step = make_step(config)
    assert isinstance(step, GroupStep)
    verdicts = step.judge_keys([step.key(row.to_conversation()) for row in rows], [RowName(row.id, row.task) for row in rows])
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict.keep:
            tally.keep(row, verdict.note)
        else:
            tally.drop(row, verdict.reason)
    tally.report = without_texts(step.report())


def without_texts(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a step says of itself, but for what quotes rows."""
    return {key: value for key, value in report.items() if key not in TEXTS}
