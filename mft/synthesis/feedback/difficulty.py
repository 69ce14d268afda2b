"""`difficulty`: rows that some samples solve and some do not."""

from collections.abc import Sequence

from mft.synthesis.feedback.config import DifficultyStep
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools


def difficulty(rows: Sequence[Row], config: DifficultyStep, tools: Tools) -> Tally:
    """Drops: `not_measured` (`tests_pass` has not seen the row), `too_hard`, `too_easy`."""
    tally = Tally(config.type, rows)
    for row in rows:
        share = row.measured.get("pass_share")
        if not isinstance(share, int | float):
            tally.drop(row, "not_measured")
        elif share < config.min_pass_share:
            tally.drop(row, "too_hard")
        elif share > config.max_pass_share:
            tally.drop(row, "too_easy")
        else:
            tally.keep(row)
    return tally
