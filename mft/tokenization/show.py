"""What is trained, as text: runs of tokens that are trained or not, control tokens told from text that looks like them."""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer


class Span(NamedTuple):
    """The text of a run of tokens that are all trained or all not."""

    text: str
    trained: bool


class Piece(NamedTuple):
    """As a span, of tokens that are all control tokens or all text: `</s>` by id is control, `</s>` in a message is not."""

    text: str
    trained: bool
    control: bool


def spans(sample: TokenizedSample, tokenizer: "TextTokenizer") -> list[Span]:
    """The runs of a sample in order, decoded in context: laid end to end they are the text of the row.

    Of a row made segment by segment (`codefuse_2023`) the text shows a space where each segment's dummy prefix stands,
    since that is what its ids say.
    """
    trained = [label != IGNORE_INDEX for label in sample.labels]
    return [Span(_text(sample, tokenizer, start, end), trained[start]) for start, end in _runs(trained)]


def pieces(sample: TokenizedSample, tokenizer: "TextTokenizer") -> list[Piece]:
    """`spans`, cut further where control tokens begin and end."""
    kinds = [(label != IGNORE_INDEX, token in tokenizer.control) for token, label in zip(sample.input_ids, sample.labels, strict=True)]
    return [Piece(_text(sample, tokenizer, start, end), *kinds[start]) for start, end in _runs(kinds)]


def _runs(values: list[bool] | list[tuple[bool, bool]]) -> Iterator[tuple[int, int]]:
    """(start, end) of every run of equal values."""
    start = 0
    for _, run in groupby(values):
        end = start + sum(1 for _ in run)
        yield start, end
        start = end


def _text(sample: TokenizedSample, tokenizer: "TextTokenizer", start: int, end: int) -> str:
    return tokenizer.decode_continuation(sample.input_ids[:start], sample.input_ids[start:end])
