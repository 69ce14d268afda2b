"""Layer `substring`: a statement, a prompt or a solution stands in the row, word for word and mark for mark.

Compared token by token after normalise.py. A passage is looked for when it has enough tokens, and enough different ones, that nobody
writes it by chance (`return len(string)` is HumanEval/23, and thousands of other programs):

| passage | tokens | different tokens | HumanEval passages that are too short |
|---|---|---|---|
| statement, prompt | 12 | 9 | none |
| solution | 20 | 12 | 25 |
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from mft.data.decontamination.layer import Hit, Layer, RowText, excerpt
from mft.data.decontamination.normalise import View, clean, tokenize
from mft.data.decontamination.passages import Part, Passage

LEAST: Final[Mapping[Part, tuple[int, int]]] = {"statement": (12, 9), "prompt": (12, 9), "solution": (20, 12)}
"""Part -> least tokens, least different tokens."""

ANCHOR = 8
"""Tokens at the head of a passage by which it is looked up; not more than the shortest passage has."""


class Substring(Layer):
    """Every passage that is long enough, found by its first tokens and then compared whole."""

    def __init__(self, passages: Iterable[Passage], allowed: Sequence[str] = ()) -> None:
        self._anchored: dict[View, defaultdict[tuple[str, ...], list[tuple[list[str], Passage]]]] = {}
        self._heads: dict[View, set[str]] = {}
        self._seen: dict[str, bool] = {}
        for passage in passages:
            self._seen.setdefault(passage.problem, False)
            tokens = tokenize(clean(passage.text), passage.view)
            if is_telling(tokens, passage.part) and not _is_allowed(tokens, passage.view, allowed):
                self._anchored.setdefault(passage.view, defaultdict(list))[tuple(tokens[:ANCHOR])].append((tokens, passage))
                self._heads.setdefault(passage.view, set()).add(tokens[0])
                self._seen[passage.problem] = True

    def find(self, row: RowText) -> Sequence[Hit]:
        found: dict[str, Hit] = {}
        for view, anchored in self._anchored.items():
            tokens, heads = row.tokens(view), self._heads[view]
            for start in [index for index, token in enumerate(tokens) if token in heads]:
                for wanted, passage in anchored.get(tuple(tokens[start:start + ANCHOR]), ()):
                    if passage.problem not in found and tokens[start:start + len(wanted)] == wanted:
                        evidence = f"{passage.part}: {excerpt(passage.text)}"
                        found[passage.problem] = Hit(passage.problem, "substring", evidence, 1.0, contaminated=True)
        return list(found.values())

    def unseen(self) -> list[str]:
        return [problem for problem, seen in self._seen.items() if not seen]


def is_telling(tokens: Collection[str], part: Part) -> bool:
    """True for a passage that is long and varied enough to be looked for."""
    least, least_different = LEAST[part]
    return len(tokens) >= least and len(set(tokens)) >= least_different


def _is_allowed(tokens: list[str], view: View, allowed: Sequence[str]) -> bool:
    """True when the passage stands in one of the allowed texts."""
    return any(contains(tokenize(clean(text), view), tokens) for text in allowed)


def contains(tokens: Sequence[str], wanted: Sequence[str]) -> bool:
    """True when `wanted` stands in `tokens`, in one piece."""
    return any(tokens[start:start + len(wanted)] == wanted for start in range(len(tokens) - len(wanted) + 1))
