"""Two scores on the same problems: which flipped, and whether more flipped one way than chance would have it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

from mft.errors import DataError


@dataclass(frozen=True, slots=True)
class Comparison:
    """`gained`: problems that B passes and A fails; `lost`: the other way; `p`: two-sided, exact."""

    both: int
    neither: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    p: float

    def to_json(self) -> dict[str, Any]:
        """As printed by `mft evaluate compare`."""
        return {"both": self.both, "neither": self.neither, "gained": list(self.gained), "lost": list(self.lost), "p": self.p,
                "test": "McNemar, exact, two-sided", "total": self.both + self.neither + len(self.gained) + len(self.lost)}


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided exact p of a table with these off-diagonal counts: under no difference each flip is a fair coin.

        p = min(1, 2 * P[X <= min(gained, lost)]), X ~ Binomial(gained + lost, 1/2)

    >>> mcnemar(8, 1), mcnemar(0, 0), mcnemar(5, 5)
    (0.0390625, 1.0, 1.0)

    Source: Q. McNemar, Psychometrika 12 (1947); exact form as in Fagerland et al., BMC Med Res Methodol 13:91.
    """
    flips = gained + lost
    return min(1.0, 2 * sum(comb(flips, i) for i in range(min(gained, lost) + 1)) / 2 ** flips)


def compare(a: Mapping[str, bool], b: Mapping[str, bool]) -> Comparison:
    """Pair the verdicts of two scores by problem.

    Raises:
        DataError: they are not of the same problems.
    """
    if a.keys() != b.keys():
        only = sorted(a.keys() ^ b.keys())
        raise DataError(f"the two scores are not of the same problems: {len(only)} are in one of them alone, such as '{only[0]}'")
    gained = tuple(name for name in a if b[name] and not a[name])
    lost = tuple(name for name in a if a[name] and not b[name])
    both = sum(a[name] and b[name] for name in a)
    return Comparison(both, len(a) - both - len(gained) - len(lost), gained, lost, mcnemar(len(gained), len(lost)))
