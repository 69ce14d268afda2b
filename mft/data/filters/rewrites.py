"""The named rewrites of `normalise`: each a function from text to text."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final, Literal

from mft.conversation import Message, Span

Rewrite = Literal["newlines", "nul", "nbsp", "zero_width", "bidi", "nfc", "full_width", "trailing_space"]

FULL_WIDTH = str.maketrans("，。！？：【】（）％＃＠＆１２３４５６７８９０", ",.!?:[]()%#@&1234567890")
"""The table of MFTCoder's preprocessing in 2023 (commit 99aaae8), which has no other full-width character, no `；` for one."""

NO_BREAK_SPACES = str.maketrans("\u00a0\u202f", "  ")
ZERO_WIDTH = str.maketrans("", "", "\u200b\u2060\ufeff")
"""Zero-width space, word joiner, byte order mark. The joiners U+200C and U+200D stay: scripts and emoji are spelt with them."""
BIDI = str.maketrans("", "", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates: they make code read unlike what it is (CVE-2021-42574)."""

TRAILING_SPACE = re.compile(r"(?<![ \t])[ \t]++(?=\r?\n|\Z)")

REWRITES: Final[Mapping[Rewrite, Callable[[str], str]]] = {
    "newlines": lambda text: text.replace("\r\n", "\n").replace("\r", "\n"),
    "nul": lambda text: text.replace("\0", ""),
    "nbsp": lambda text: text.translate(NO_BREAK_SPACES),
    "zero_width": lambda text: text.translate(ZERO_WIDTH),
    "bidi": lambda text: text.translate(BIDI),
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "full_width": lambda text: text.translate(FULL_WIDTH),
    "trailing_space": lambda text: TRAILING_SPACE.sub("", text),
}


class CrossesSpan(ValueError):
    """A rewrite would join what lies on the two sides of a span's edge."""


def rewritten(message: Message, rewrite: Callable[[str], str]) -> Message:
    """The message after a rewrite; `untrained` and `input_start` point at the same characters as before.

    The text is rewritten piece by piece between their edges. A span of which nothing is left is left out.

    Raises:
        CrossesSpan: the pieces, laid together, are not the rewritten text (a CR and its LF on two sides of an edge).
    """
    text = rewrite(message.content)
    if text == message.content:
        return message
    start = () if message.input_start is None else (message.input_start,)
    edges = sorted({0, len(message.content), *start, *(edge for span in message.untrained for edge in span)})
    pieces = [rewrite(message.content[first:last]) for first, last in pairwise(edges)]
    if "".join(pieces) != text:
        raise CrossesSpan
    moved = dict(zip(edges, _sums(pieces), strict=True))
    spans = tuple((moved[first], moved[last]) for first, last in message.untrained if moved[first] < moved[last])
    return replace(message, content=text, untrained=spans, input_start=moved[message.input_start] if start else None)


def moved_to(message: Message, edits: Sequence[tuple[Span, str]]) -> Message | None:
    """The message with the characters of each span replaced; the spans of `edits` are in order and do not overlap.

    None when the edge of an untrained span or the start of the input lies inside a span that is replaced.

    >>> moved_to(Message("assistant", "a key=1", untrained=((6, 7),)), [((0, 1), "the")]).untrained
    ((8, 9),)
    """
    start = () if message.input_start is None else (message.input_start,)
    edges = {*start, *(edge for span in message.untrained for edge in span)}
    if any(first < edge < last for edge in edges for (first, last), _ in edits):
        return None
    moved = {edge: edge + sum(len(text) - (last - first) for (first, last), text in edits if last <= edge) for edge in edges}
    parts, position = [], 0
    for (first, last), text in edits:
        parts += [message.content[position:first], text]
        position = last
    return replace(message, content="".join([*parts, message.content[position:]]),
                   untrained=tuple((moved[first], moved[last]) for first, last in message.untrained),
                   input_start=moved[message.input_start] if message.input_start is not None else None)


def _sums(pieces: Sequence[str]) -> list[int]:
    """Where each piece begins, and where the last one ends.

    >>> _sums(["ab", "", "c"])
    [0, 2, 2, 3]
    """
    sums = [0]
    for piece in pieces:
        sums.append(sums[-1] + len(piece))
    return sums
