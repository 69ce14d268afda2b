"""What is trained, as text: for the terminal and for the report."""

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

TRAINED_STYLE = "bold green"
CONTEXT_STYLE = "dim"


class Span(NamedTuple):
    """The text of a run of tokens that are all trained or all not."""

    text: str
    trained: bool


def spans(sample: TokenizedSample, tokenizer: "TextTokenizer") -> list[Span]:
    """The runs of a sample in order, decoded in context: laid end to end they are the text of the row.

    Of a row made segment by segment (`codefuse_2023`) the text shows a space where each segment's dummy prefix stands,
    since that is what its ids say.
    """
    result: list[Span] = []
    start = 0
    for trained, run in groupby(label != IGNORE_INDEX for label in sample.labels):
        end = start + sum(1 for _ in run)
        text = tokenizer.decode_continuation(sample.input_ids[:start], sample.input_ids[start:end])
        result.append(Span(text, trained))
        start = end
    return result


def render_terminal(sample: TokenizedSample, tokenizer: "TextTokenizer") -> Text:
    """The row's text with trained parts in colour and the rest dimmed; control tokens stand there as their text."""
    text = Text()
    for span in spans(sample, tokenizer):
        text.append(span.text, style=TRAINED_STYLE if span.trained else CONTEXT_STYLE)
    return text
