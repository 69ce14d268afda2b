"""Exact ids from a cache of words, for vocabularies in which no piece reaches over the end of one.

BPE joins two neighbours only into a piece of the vocabulary. So at a place in the text where no piece could have both the
character before it and the one after it, nothing is ever joined, and the ids of the whole are those of its parts:

    'def f(x):\\n    return 中文'   ->   'def' ' f(x):' '\\n' '    return' ' ' '中' '文'

Such places are, in a Llama vocabulary: before a space that follows something else (no piece has `▁` behind another character),
around a newline, and around every character that stands in no piece of two characters or more. All of this is looked up in the
vocabulary; where it does not hold there is no cache, and texts are encoded whole.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mft.tokenization.family import BYTE_PIECE

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

LONGEST: Final = 40
"""Words of more characters are encoded each time: they hardly come twice."""

MOST: Final = 1_000_000
"""Words that are kept; about 150 bytes each."""

SPACE: Final = "▁"


class WordCache:
    """Ids of texts, as the bytes of little-endian whole numbers, by the words in them."""

    def __init__(self, words: "re.Pattern[str]", encode: Callable[[Sequence[str]], list[bytes]]) -> None:
        self._words = words
        self._encode = encode
        """Ids of whole texts as continuations, without a cache."""
        self._known: dict[str, bytes] = {}

    def continuations(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text as it goes on after a boundary."""
        split = self._words.findall
        parts = [split(text) for text in texts]
        new = sorted(word for word in set().union(*parts) if word not in self._known)   # not `-`: that walks through all keys
        self._known.update(zip(new, self._encode(new), strict=True))
        known = self._known.__getitem__
        found = [b"".join(map(known, words)) for words in parts]
        for word in new:
            if len(word) > LONGEST:
                del self._known[word]
        if len(self._known) > MOST:
            self._known.clear()
        return found

    def sections(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text as a section: the dummy prefix is a space before it, and an empty text has none."""
        found = self.continuations([" " + text for text in texts])
        return [ids if text else b"" for ids, text in zip(found, texts, strict=True)]


def word_cache(tokenizer: "TextTokenizer") -> WordCache | None:
    """The cache of a tokenizer whose vocabulary has the property; None for one where it cannot be proved."""
    pattern = word_pattern(tokenizer)
    return None if pattern is None else WordCache(pattern, tokenizer.whole_continuations)


def word_pattern(tokenizer: "TextTokenizer") -> "re.Pattern[str] | None":
    """How to cut text into words, or None.

    Proved from the vocabulary: every piece is a byte piece, or has its `▁` at the start alone, and no newline. Characters of
    pieces with two or more are those that may be joined; a run of them is one word, with the spaces before it.
    """
    if tokenizer.family != "llama":
        return None
    pieces = [piece for piece in tokenizer.backend.get_vocab(with_added_tokens=False) if not BYTE_PIECE.fullmatch(piece)]
    added = set(tokenizer.control.values())
    joinable: set[str] = set()
    for piece in pieces:
        if piece in added:
            continue
        if SPACE in piece.lstrip(SPACE) or "\n" in piece or " " in piece:
            return None
        if len(piece) > 1:
            joinable |= set(piece)
    letters = "".join(map(re.escape, sorted(joinable - {SPACE})))
    if not letters:
        return None
    return re.compile(rf"\n| *[{letters}]+| +|[^ ]")
