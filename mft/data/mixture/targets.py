"""How many training rows each task is asked for, by the mixture and by what there is."""

import math
from collections.abc import Mapping
from fractions import Fraction

from mft.data.mixture.config import Mixture, QuotasMixture, TemperatureMixture, WeightsMixture


def requested_rows(mixture: Mixture, available: Mapping[str, int]) -> dict[str, int] | None:
    """Training rows asked of each task, where `available` says how many each has; None for `proportional`, which asks for all.

    >>> requested_rows(WeightsMixture(type="weights", weights={"a": 3, "b": 1}, total=10), {"a": 100, "b": 100})
    {'a': 8, 'b': 2}
    >>> requested_rows(WeightsMixture(type="weights", weights={"a": 3, "b": 1}), {"a": 100, "b": 20})
    {'a': 60, 'b': 20}
    """
    if isinstance(mixture, QuotasMixture):
        return {task: mixture.quotas[task] for task in available}
    if isinstance(mixture, WeightsMixture):
        ratios = {task: Fraction(repr(mixture.weights[task])) for task in available}
    elif isinstance(mixture, TemperatureMixture):
        ratios = {task: _tempered(rows, mixture.temperature) for task, rows in available.items()}
    else:
        return None
    whole = sum(ratios.values())
    shares = {task: ratio / whole for task, ratio in ratios.items()}
    total = mixture.total or largest_total(shares, {task: rows * mixture.max_epochs for task, rows in available.items()})
    return apportion(total, shares)


def _tempered(rows: int, temperature: float) -> Fraction:
    """n^(1/T) to twelve digits: the last bit of a power is not the same on every machine."""
    return Fraction(f"{rows ** (1 / temperature):.12g}")


def largest_total(shares: Mapping[str, Fraction], limits: Mapping[str, int]) -> int:
    """The most rows in these shares (their sum is 1) of which no task needs more than its limit, and at least one row."""
    return max(1, min(math.floor(limits[task] / share) for task, share in shares.items() if share))


def apportion(total: int, shares: Mapping[str, Fraction]) -> dict[str, int]:
    """`total` in whole rows: every share rounded down, the rows left over to the largest remainders, the first task's if equal.

    >>> apportion(10, {"a": Fraction(1, 3), "b": Fraction(1, 3), "c": Fraction(1, 3)})
    {'a': 4, 'b': 3, 'c': 3}
    """
    whole = {task: math.floor(total * share) for task, share in shares.items()}
    order = sorted(shares, key=lambda task: whole[task] - total * shares[task])
    for task in order[:total - sum(whole.values())]:
        whole[task] += 1
    return whole
