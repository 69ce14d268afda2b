"""Which layers run their forward pass once more in the backward pass, and what of them; by arithmetic. Needs no torch.

A layer is two norms, attention and an MLP. The less of it is kept, the more is computed twice:

    level      computed again            kept of a layer's activations
    keep       nothing                   all
    norms      both norms                what attention and the MLP keep, and the norms' inputs
    attention  both norms, attention     what the MLP keeps, and three inputs
    mlp        both norms, the MLP       what attention keeps, and three inputs
    full       the layer                 its input

All of them give the gradients of `keep` to the bit: the same operations run on the same numbers, with the same random numbers.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

Level = Literal["full", "mlp", "attention", "norms", "keep"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""By what is kept, least first."""

WHOLE: tuple[Level, ...] = ("full", "keep")
"""What can be done where an engine gathers sharded weights layer by layer, or a layer is compiled."""

WORDS: dict[Level, str] = {"full": "whole", "mlp": "MLP and norms", "attention": "attention and norms", "norms": "norms alone"}


@dataclass(frozen=True, slots=True)
class Recompute:
    """A level for each layer, the first layer's first.

    Those that keep least come first: the backward pass frees what the last layers kept before the first ones are computed again.
    """

    levels: tuple[Level, ...]

    def __bool__(self) -> bool:
        return any(level != "keep" for level in self.levels)

    def counts(self) -> dict[Level, int]:
        """How many layers have each level, those that occur."""
        found = Counter(self.levels)
        return {level: found[level] for level in LEVELS if found[level]}

    def total(self, of_a_layer: Mapping[Level, float]) -> float:
        """The sum over the layers of something that hangs on the level alone."""
        return sum(number * of_a_layer[level] for level, number in self.counts().items())

    def __str__(self) -> str:
        """As a plan says it.

        >>> str(every("keep", 48)), str(every("full", 48))
        ('without recomputation', 'with recomputation')
        >>> str(Recompute(("full", "norms", "norms", "keep")))
        'recompute 3 of 4 layers (1 whole, 2 norms alone)'
        >>> str(Recompute(("full", "keep", "keep", "keep")))
        'recompute 1 of 4 layers'
        """
        counts = self.counts()
        again = {level: number for level, number in counts.items() if level != "keep"}
        if not again:
            return "without recomputation"
        if again == {"full": len(self.levels)}:
            return "with recomputation"
        parts = ", ".join(f"{number} {WORDS[level]}" for level, number in again.items())
        return f"recompute {sum(again.values())} of {len(self.levels)} layers" + ("" if set(again) == {"full"} else f" ({parts})")


def every(level: Level, layers: int) -> Recompute:
    """The same for all layers."""
    return Recompute((level,) * layers)


def candidates(layers: int, levels: Sequence[Level] = LEVELS) -> Iterator[Recompute]:
    """All ways to give a number of layers one level and the others another, those that keep least first."""
    for first, second in permutations(levels, 2):
        if LEVELS.index(first) < LEVELS.index(second):
            for number in range(layers + 1):
                yield Recompute((first,) * number + (second,) * (layers - number))


def cheapest(choices: Sequence[Recompute], cost: Callable[[Recompute], float], fits: Callable[[Recompute], bool]) -> Recompute | None:
    """The one of least cost that fits; None if none does. With more room the cost is never higher, since all that fitted still fits."""
    return next((choice for choice in sorted(choices, key=cost) if fits(choice)), None)
