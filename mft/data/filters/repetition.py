"""`repetition`: answers that say the same again and again, by the rules of Gopher.

Source of the rules: Rae et al. 2021, arXiv:2112.11446, appendix A.1.1, table A1. What differs here stands in `broken_rules`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from mft.conversation import Conversation
from mft.data.filters.config import RepetitionStep
from mft.data.filters.parts import texts_of
from mft.data.filters.tokens import tokens_of
from mft.data.verdict import KEEP, RowStep, Verdict, drop

PARAGRAPH_END: Final = re.compile(r"\n[ \t]*\n\s*")


class Repetition(RowStep):
    """`repetitive`: one message of the judged part is above one limit. The report counts rows by the rule that they broke first."""

    def __init__(self, config: RepetitionStep) -> None:
        self.config = config
        self._rules: Counter[str] = Counter()

    def judge(self, row: Conversation) -> Verdict:
        for text in texts_of(row, self.config.on):
            for rule, share, limit in broken_rules(text, self.config):
                self._rules[rule] += 1
                return drop("repetitive", f"{rule}: {share:.2f}, more than {limit}")
        return KEEP

    def report(self) -> dict[str, int]:
        """Rows dropped, by rule: `duplicate_lines`, `top_ngrams.2`, ..."""
        return dict(sorted(self._rules.items()))


def broken_rules(text: str, config: RepetitionStep) -> Iterator[tuple[str, float, float]]:
    """(rule, share found, limit) of each limit that a text is above; none for a text of fewer than `min_words` words.

    Words are those of `tokens_of` without the signs of punctuation, so `f(x);` and `f(x)` count alike and each Chinese
    character is a word. Lines and paragraphs without a letter or digit are not counted.
    """
    words = [token for token in tokens_of(text) if token[0].isalnum() or token[0] == "_"]
    if len(words) < config.min_words:
        return
    measures: list[tuple[str, Callable[[], float], float]] = [
        ("duplicate_lines", lambda: duplicate_share(_lines(text), by_length=False), config.duplicate_lines),
        ("duplicate_line_characters", lambda: duplicate_share(_lines(text), by_length=True), config.duplicate_line_characters),
        ("duplicate_paragraphs", lambda: duplicate_share(_paragraphs(text), by_length=False), config.duplicate_paragraphs),
        ("duplicate_paragraph_characters", lambda: duplicate_share(_paragraphs(text), by_length=True),
         config.duplicate_paragraph_characters),
        *((f"top_ngrams.{size}", partial(top_ngram_share, words, size), limit) for size, limit in config.top_ngrams.items()),
        *((f"duplicate_ngrams.{size}", partial(duplicate_ngram_share, words, size), limit)
          for size, limit in config.duplicate_ngrams.items())]
    for rule, measure, limit in measures:
        if (share := measure()) > limit:
            yield rule, share, limit


def duplicate_share(items: Sequence[str], *, by_length: bool) -> float:
    """The share of items that came before, by their number or by their characters; 0.0 without items.

    >>> duplicate_share(["a", "bb", "bb", "bb"], by_length=False)
    0.5
    """
    weights = [len(item) if by_length else 1 for item in items]
    seen: set[str] = set()
    again = 0
    for item, weight in zip(items, weights, strict=True):
        again += weight * (item in seen)
        seen.add(item)
    return again / sum(weights) if again else 0.0


def top_ngram_share(words: Sequence[str], size: int) -> float:
    """The share of characters inside the run of `size` words that stands most often, each character counted once.

    >>> top_ngram_share("to be or not to be".split(), 2)
    0.6153846153846154
    """
    places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for start, run in enumerate(zip(*(words[offset:] for offset in range(size)), strict=False)):
        places[run].append(start)
    most = max(map(len, places.values()), default=0)
    if most < 2:
        return 0.0
    return max(_covered(words, starts, size) for starts in places.values() if len(starts) == most)


def duplicate_ngram_share(words: Sequence[str], size: int) -> float:
    """The share of characters inside runs of `size` words that came before, each character counted once.

    >>> duplicate_ngram_share("a b c a b c".split(), 3)
    0.5
    """
    seen: set[tuple[str, ...]] = set()
    again = []
    for start, run in enumerate(zip(*(words[offset:] for offset in range(size)), strict=False)):
        if run in seen:
            again.append(start)
        seen.add(run)
    return _covered(words, again, size)


def _covered(words: Sequence[str], starts: Sequence[int], size: int) -> float:
    """The share of characters inside runs of `size` words that begin at `starts` (ascending)."""
    characters, end = 0, 0
    for start in starts:
        characters += sum(map(len, words[max(start, end):start + size]))
        end = start + size
    return characters / sum(map(len, words)) if characters else 0.0


def _lines(text: str) -> list[str]:
    """Lines with a letter or digit: `}` and `---` repeat in every program."""
    return [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in PARAGRAPH_END.split(text) if any(map(str.isalnum, part))]
