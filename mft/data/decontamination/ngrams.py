"""Layer `ngrams`: how much of a problem stands in the row, in pieces of a few tokens.

The score of a row is the share of a statement's, of its examples' or of a solution's n-grams that the row holds, by weight: an n-gram
that n of the problems have counts 1/n. A few must be found whatever their share: a statement of nine words has two. The sizes are those
in use (Tulu 3, arXiv:2411.15124: 8 words); code has 10 names, numbers and operators, brackets and commas not counted.

Measured on 89,217 instruction rows without HumanEval in them: common code reaches 26% (the prime test inside HumanEval/94), 29% (/150),
38% (Heron's formula, /71) and 50% (the sieve of /96); a row that does the same task in the same steps 69%; a planted problem, whole or
cut in two, more than 60% for 161 of 164. Hence 0.6 to drop, and 0.2 to list.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mft.data.decontamination.layer import Hit, Layer, RowText, excerpt
from mft.data.decontamination.normalise import View, clean, is_cjk, is_word, tokenize
from mft.data.decontamination.passages import passages_of, prose_and_examples
from mft.problems.problem import Problem

Kind = Literal["words", "characters", "examples", "code"]

OPERATORS = frozenset("+-*/%=<>!&|^~")


def is_code(token: str) -> bool:
    """True for names, numbers and operators; brackets, commas, colons and quotes say little."""
    return is_word(token) or token in OPERATORS


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of n-gram: `size` tokens in a row out of those that count; at least `least` n-grams must be found."""

    size: int
    counts: Callable[[str], bool]
    least: int


MEASURES: dict[Kind, Measure] = {
    "words": Measure(8, is_word, 2),
    "characters": Measure(8, is_cjk, 4),
    "examples": Measure(10, is_code, 5),
    "code": Measure(10, is_code, 5),
}


@dataclass(slots=True)
class Portion:
    """The n-grams of one passage; the holders of each n-gram are counted when all are known."""

    problem: str
    kind: Kind
    text: str
    grams: dict[tuple[int, ...], None] = field(default_factory=dict)
    total: float = 0.0


class Index:
    """n-grams of one kind in one view -> the portions that hold them. A token that no portion has breaks a row's run of tokens."""

    def __init__(self, kind: Kind, view: View) -> None:
        self.kind, self.view, self.measure = kind, view, MEASURES[kind]
        self._numbers: dict[str, int] = {}
        self._holders: defaultdict[tuple[int, ...], list[Portion]] = defaultdict(list)
        self._weights: dict[tuple[int, ...], float] = {}

    def add(self, problem: str, texts: Iterable[str], title: str) -> None:
        """Note one passage of a problem; its `texts` are apart from each other."""
        portion = Portion(problem, self.kind, title)
        for text in texts:
            tokens = [token for token in tokenize(clean(text), self.view) if self.measure.counts(token)]
            numbers = [self._numbers.setdefault(token, len(self._numbers)) for token in tokens]
            portion.grams |= _windows(numbers, self.measure.size)
        for gram in portion.grams:
            self._holders[gram].append(portion)

    def close(self, allowed: Sequence[str]) -> None:
        """Weigh every n-gram: 1 over the number of problems that hold it, 0 where it stands in an allowed text."""
        for text in allowed:
            for gram in self._grams_of(tokenize(clean(text), self.view)):
                self._holders.pop(gram, None)
        for gram, portions in self._holders.items():
            self._weights[gram] = 1 / len({portion.problem for portion in portions})
            for portion in portions:
                portion.total += self._weights[gram]

    def problems(self) -> set[str]:
        """The problems with a portion that has enough n-grams."""
        holders = (portion for portions in self._holders.values() for portion in portions)
        return {portion.problem for portion in holders if sum(gram in self._holders for gram in portion.grams) >= self.measure.least}

    def shares(self, tokens: Sequence[str]) -> Iterable[tuple[Portion, float]]:
        """(portion, share of its weight that stands in the tokens) of every portion with enough n-grams there."""
        found: dict[int, list[float]] = {}
        portions: dict[int, Portion] = {}
        for gram in self._grams_of(tokens):
            for portion in self._holders.get(gram, ()):
                found.setdefault(id(portion), []).append(self._weights[gram])
                portions[id(portion)] = portion
        # Rounded, so that a sum of thirds that makes a whole is a whole.
        return [(portion, round(sum(found[key]) / portion.total, 9)) for key, portion in portions.items()
                if len(found[key]) >= self.measure.least]

    def _grams_of(self, tokens: Sequence[str]) -> dict[tuple[int, ...], None]:
        size, counts, numbers = self.measure.size, self.measure.counts, self._numbers
        grams: dict[tuple[int, ...], None] = {}
        run: list[int] = []
        for token in tokens:
            number = numbers.get(token)
            if number is not None:
                run.append(number)
            elif run and counts(token):
                if len(run) >= size:
                    grams |= _windows(run, size)
                run = []
        return grams | _windows(run, size)


def _windows(numbers: Sequence[int], size: int) -> dict[tuple[int, ...], None]:
    """Every run of `size` numbers, once, in order."""
    return {tuple(numbers[start:start + size]): None for start in range(len(numbers) - size + 1)}


class Ngrams(Layer):
    """Words and CJK characters of what is asked, tokens of the solution; the best share of a problem counts."""

    def __init__(self, problems: Iterable[Problem], allowed: Sequence[str], *, drop_share: float, list_share: float) -> None:
        self.drop_share, self.list_share = drop_share, list_share
        self._indices: dict[tuple[Kind, View], Index] = {}
        self._problems: list[str] = []
        for problem in problems:
            self._problems.append(problem.name)
            for passage in passages_of(problem):
                if passage.part == "statement":
                    prose, examples = prose_and_examples(problem, passage.text)
                    self._index("words", passage.view).add(problem.name, prose, passage.text)
                    self._index("characters", passage.view).add(problem.name, prose, passage.text)
                    self._index("examples", passage.view).add(problem.name, examples, " ".join(examples))
                elif passage.part == "solution":
                    self._index("code", passage.view).add(problem.name, [passage.text], passage.text)
        for index in self._indices.values():
            index.close(allowed)

    def _index(self, kind: Kind, view: View) -> Index:
        return self._indices.setdefault((kind, view), Index(kind, view))

    def find(self, row: RowText) -> Sequence[Hit]:
        best: dict[str, Hit] = {}
        for index in self._indices.values():
            for portion, share in index.shares(row.tokens(index.view)):
                if share < self.list_share or (portion.problem in best and best[portion.problem].score >= share):
                    continue
                evidence = f"{share:.0%} of its {index.measure.size}-grams of {index.kind}: {excerpt(portion.text)}"
                best[portion.problem] = Hit(portion.problem, "ngrams", evidence, share, contaminated=share >= self.drop_share)
        return list(best.values())

    def unseen(self) -> list[str]:
        seen = {problem for index in self._indices.values() for problem in index.problems()}
        return [problem for problem in self._problems if problem not in seen]
