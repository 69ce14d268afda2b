"""pass@k without bias, and how sure it is."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mft.errors import DataError

Z95: Final = 1.959964
"""97.5% quantile of the standard normal distribution."""

RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% interval and the name of the method that gave it."""

    low: float
    high: float
    method: str


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that at least one of k samples is correct, drawn without replacement from `samples` of which `correct` are.

        pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod over i = n-c+1 .. n of (1 - k / i)

    >>> round(pass_at_k(20, 5, 1), 6), round(pass_at_k(20, 5, 10), 6), round(pass_at_k(10, 3, 5), 6)
    (0.25, 0.983746, 0.916667)

    Source: Chen et al., Evaluating Large Language Models Trained on Code, arXiv:2107.03374, equation 1.

    Raises:
        DataError: k is above `samples`, so that there is no estimate without bias.
    """
    if not 1 <= k <= samples:
        raise DataError(f"pass@{k} needs at least {k} samples of each problem; there are {samples}")
    if samples - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - correct + 1, samples + 1))


def mean_pass_at_k(correct: Mapping[str, int], samples: Mapping[str, int], k: int) -> float:
    """The mean over problems; `correct` and `samples` count by problem.

    Raises:
        DataError: a problem has fewer than k samples; the message names it.
    """
    short = [name for name, number in samples.items() if number < k]
    if short:
        raise DataError(f"pass@{k} needs at least {k} samples of each problem; '{short[0]}' has {samples[short[0]]}"
                        + (f", and {len(short) - 1} more have too few" if len(short) > 1 else ""))
    return math.fsum(pass_at_k(samples[name], correct[name], k) for name in samples) / len(samples)


def wilson(passed: int, total: int) -> Interval:
    """The score interval of a proportion.

    >>> wilson(122, 164)
    Interval(low=0.672052, high=0.804588, method='wilson')

    Source: E. B. Wilson, JASA 22 (1927), 209-212.
    """
    if total < 1:
        raise DataError("a score needs at least one problem")
    share, square = passed / total, Z95 * Z95
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return Interval(round(max(0.0, middle - half), 6), round(min(1.0, middle + half), 6), "wilson")


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The percentile interval of the mean of one value a problem, problems drawn anew with replacement.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, ch. 13.
    """
    draw, count = random.Random(seed), len(values)
    means = sorted(math.fsum(draw.choices(values, k=count)) / count for _ in range(RESAMPLES))
    return Interval(round(means[int(0.025 * RESAMPLES)], 6), round(means[int(0.975 * RESAMPLES) - 1], 6),
                    f"bootstrap over problems, {RESAMPLES} resamples, seed {seed}")


def interval(correct: Mapping[str, int], samples: Mapping[str, int], k: int) -> Interval:
    """The interval of pass@k: Wilson's where each problem has one sample, else a bootstrap over problems."""
    if all(number == 1 for number in samples.values()):
        return wilson(sum(correct.values()), len(samples))
    return bootstrap([pass_at_k(samples[name], correct[name], k) for name in samples])
