"""Two models on the same rows: how far apart their losses are, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mft.scoring.loss import SampleScore

Z95 = 1.959964
"""97.5% quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of two mean losses per token, in nats: its standard error over rows and its 95% interval.

    `se` and `ci95` are None for fewer than two rows.
    """

    mean: float
    se: float | None
    ci95: tuple[float, float] | None


def mean_loss(scores: Sequence[SampleScore]) -> float | None:
    """Loss per trained token, in nats; None without a row."""
    return math.fsum(score.nll_sum for score in scores) / sum(score.tokens for score in scores) if scores else None


def paired_difference(scores: Sequence[SampleScore], reference: Sequence[SampleScore]) -> PairedDifference:
    """`scores` minus `reference`, row by row, as a ratio of totals.

    With d_i the difference of row i's loss sums, n_i its tokens and M rows:

        mean = sum d_i / sum n_i        se^2 = M / (M - 1) * sum (d_i - mean * n_i)^2 / (sum n_i)^2

    Rows are taken as independent of each other; long rows weigh more, as they do in the loss.

    Source: linearised variance of the ratio estimator, Cochran, Sampling Techniques, 3rd ed., ch. 6.
    """
    differences = [a.nll_sum - b.nll_sum for a, b in zip(scores, reference, strict=True)]
    tokens = [score.tokens for score in reference]
    total, rows = sum(tokens), len(tokens)
    mean = math.fsum(differences) / total
    if rows < 2:
        return PairedDifference(mean, None, None)
    squares = math.fsum((d - mean * n) ** 2 for d, n in zip(differences, tokens, strict=True))
    error = math.sqrt(rows / (rows - 1) * squares) / total
    return PairedDifference(mean, error, (mean - Z95 * error, mean + Z95 * error))
