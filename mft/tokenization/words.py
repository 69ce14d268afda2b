"""Exact ids from a cache of words, for vocabularies in which no piece reaches over the end of one.

BPE joins two neighbours only into a piece of the vocabulary. So at a place in the text where no piece could have both the
character before it and the one after it, nothing is ever joined, and the ids of the whole are those of its parts:

    'def f(x):\\n    return 中文'   ->   'def' ' f(x):' '\\n' '    return' ' ' '中' '文'

Such places are, in a Llama vocabulary: before a space that follows something else (no piece has `▁` behind another character),
around a newline, and around every character that stands in no piece of two characters or more. All of this is looked up in the
vocabulary; where it does not hold there is no cache, and texts are encoded whole.

A batch of texts is cut by whole-array operations, equal words are found by Arrow, and new words are encoded many at a time with
newlines between them: 3.9M tokens of 13,000 conversations took 0.23 s besides the words that were new.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from mft.tokenization.family import BYTE_PIECE

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

LONGEST: Final = 40
"""Words of more characters are encoded each time: they hardly come twice."""

MOST: Final = 1_000_000
"""Words that are kept; about 150 bytes each."""

CHARACTERS: Final = 4_000_000
"""Characters that are cut at once, more where a single text has more; about 40 bytes of memory each."""

TOGETHER: Final = 128
"""New words that the tokenizer gets as one text."""

SPACE: Final = "▁"
_NEWLINE, _SPACE, _JOINABLE, _ALONE = range(4)
"""Kinds of characters: of the last, none stands in a piece with another."""


class WordCache:
    """Ids of texts, as the bytes of little-endian whole numbers, by the words in them.

    `joinable`: the characters that stand in a piece with others. `encode`: ids of whole texts as continuations, without a cache.
    """

    def __init__(self, joinable: set[str], encode: Callable[[Sequence[str]], list[list[int]]], id_type: "np.dtype[Any]") -> None:
        self._kinds = np.full(0x110000, _ALONE, dtype=np.uint8)
        self._kinds[[ord(character) for character in joinable]] = _JOINABLE
        self._kinds[[ord("\n"), ord(" ")]] = _NEWLINE, _SPACE
        self._encode = encode
        self._id_type = id_type
        (self._newline,) = encode(["\n"])[0]
        self._known: dict[str, bytes] = {"\n": self._bytes([self._newline])}

    def continuations(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text as it goes on after a boundary."""
        return [ids for group in _groups(texts) for ids in self._ids(group)]

    def sections(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text as a section: the dummy prefix is a space before it, and an empty text has none."""
        found = self.continuations([" " + text for text in texts])
        return [ids if text else b"" for ids, text in zip(found, texts, strict=True)]

    def cut(self, characters: "np.ndarray[Any, np.dtype[np.uint32]]") -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Whether a word starts at each code point: a run of joinable ones with the spaces before it, else spaces, else one."""
        kinds = self._kinds[characters]
        before, here = kinds[:-1], kinds[1:]
        starts = np.ones(len(kinds), dtype=np.bool_)
        starts[1:] = ~(((here == _JOINABLE) & ((before == _JOINABLE) | (before == _SPACE))) | ((here == _SPACE) & (before == _SPACE)))
        return starts

    def _ids(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each of some texts, laid end to end and cut at once."""
        whole = "".join(texts)
        if not whole:
            return [b""] * len(texts)
        characters = np.frombuffer(whole.encode("utf-32-le"), dtype="<u4")
        bounds = np.cumsum([0, *map(len, texts)])
        is_start = self.cut(characters)
        is_start[bounds[bounds < len(whole)]] = True
        starts = np.flatnonzero(is_start)
        words = _words(whole, characters, starts).dictionary_encode()
        ids, ends = self._laid_out(words.dictionary.to_pylist(), words.indices.to_numpy())
        edges = np.concatenate(([0], ends))[np.searchsorted(starts, bounds)] * self._id_type.itemsize
        return list(map(ids.__getitem__, map(slice, edges[:-1].tolist(), edges[1:].tolist())))

    def _laid_out(self, words: list[str], order: "np.ndarray[Any, np.dtype[np.int32]]") -> "tuple[bytes, np.ndarray[Any, Any]]":
        """The ids of `words` laid end to end in this order, and where those of each place end (in ids)."""
        self._learn([word for word in words if word not in self._known])
        parts = [self._known[word] for word in words]
        vocabulary = np.frombuffer(b"".join(parts), dtype=self._id_type)
        lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)) // self._id_type.itemsize
        first, counts = (np.cumsum(lengths) - lengths)[order], lengths[order]
        ends = np.cumsum(counts)
        ids = vocabulary[np.repeat(first - (ends - counts), counts) + np.arange(ends[-1])]
        self._forget(words)
        return ids.tobytes(), ends

    def _learn(self, words: list[str]) -> None:
        """Encode words that are new, many in one text: nothing is joined around a newline, and only a newline has its id."""
        size = self._id_type.itemsize
        for at in range(0, len(words), TOGETHER * 8):
            groups = [words[start:start + TOGETHER] for start in range(at, min(at + TOGETHER * 8, len(words)), TOGETHER)]
            for group, ids in zip(groups, self._encode(["\n".join(group) for group in groups]), strict=True):
                joined = np.array(ids, dtype=self._id_type)
                ends = (np.flatnonzero(joined == self._newline) * size).tolist()
                data = joined.tobytes()
                starts = [0, *(end + size for end in ends)]
                self._known.update(zip(group, map(data.__getitem__, map(slice, starts, [*ends, len(data)])), strict=True))

    def _forget(self, words: Sequence[str]) -> None:
        for word in words:
            if len(word) > LONGEST:
                del self._known[word]
        if len(self._known) > MOST:
            self._known = {"\n": self._bytes([self._newline])}

    def _bytes(self, ids: Sequence[int]) -> bytes:
        return np.array(ids, dtype=self._id_type).tobytes()


def word_cache(tokenizer: "TextTokenizer") -> WordCache | None:
    """The cache of a tokenizer whose vocabulary has the property; None for one where it cannot be proved."""
    joinable = joinable_characters(tokenizer)
    return None if joinable is None else WordCache(joinable, tokenizer.encode_continuations, tokenizer.id_type)


def joinable_characters(tokenizer: "TextTokenizer") -> set[str] | None:
    """The characters that a piece has together with others, or None where text cannot be cut into words.

    Proved from the vocabulary: every piece is a byte piece, or has its `▁` at the start alone, and no newline. And that a newline
    is one byte piece which no other text gives.
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
    newline = tokenizer.encode_continuation("\n")
    if len(newline) != 1 or tokenizer.backend.id_to_token(newline[0]) != "<0x0A>" or newline[0] in tokenizer.encode_continuation("<0x0A>"):
        return None
    return joinable - {SPACE} or None


def neighbours(tokenizer: "TextTokenizer") -> frozenset[str] | None:
    """Every two characters that stand side by side in a piece (spaces as `▁`), or None where other things than pieces join text.

    Where a text's next two characters are none of them, nothing is ever joined there.
    """
    if tokenizer.family != "llama":
        return None
    pieces = tokenizer.backend.get_vocab(with_added_tokens=False)
    return frozenset(piece[at:at + 2] for piece in pieces if not BYTE_PIECE.fullmatch(piece) for at in range(len(piece) - 1))


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in order, as many at once as have `CHARACTERS` characters."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > CHARACTERS:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _words(whole: str, characters: "np.ndarray[Any, Any]", starts: "np.ndarray[Any, Any]") -> pa.LargeStringArray:
    """The words of a text as Arrow strings over its UTF-8; `starts`: the code point where each begins."""
    data = whole.encode()
    if len(data) == len(whole):
        offsets = np.append(starts, len(data))
    else:
        widths = 1 + (characters > 0x7F).astype(np.int64) + (characters > 0x7FF) + (characters > 0xFFFF)
        offsets = np.append((np.cumsum(widths) - widths)[starts], len(data))
    return pa.LargeStringArray.from_buffers(len(starts), pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(data))
