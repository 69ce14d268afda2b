"""A question and its answer under one of eight pairs of keys, with an optional `system`."""

from typing import Final

from mft.conversation import Message
from mft.data.converters.base import Converter, Notes, Row, RowFault, listed, text_at, with_system
from mft.errors import DataError

PAIRS: Final = (
    ("prompt", "answer"), ("prompt", "response"), ("input", "output"), ("instruction", "output"), ("instruction", "response"),
    ("question", "response"), ("question", "answer"), ("query", "answer"),
)
"""The keys that MFTCoder reads, in its order; it takes the first that fits."""


def pairs_in(row: Row) -> list[tuple[str, str]]:
    """The pairs of keys that a row has."""
    return [pair for pair in PAIRS if pair[0] in row and pair[1] in row]


def convert(row: Row, notes: Notes) -> tuple[Message, ...]:
    """One round.

    Raises:
        RowFault: `missing_key`. DataError: the row has several pairs, so that one of its texts would be lost in silence.
    """
    found = pairs_in(row)
    if not found:
        raise RowFault("missing_key", f"a pair such as prompt and answer; keys: {listed(row)}")
    if len(found) > 1:
        raise DataError(f"the row has {' and '.join('/'.join(pair) for pair in found)}; name one: '{line_for(*found[0])}'")
    return one_round(row, *found[0])


def one_round(row: Row, question: str, answer: str) -> tuple[Message, ...]:
    """Question and answer under these keys."""
    return with_system(row, "system", [Message("user", text_at(row, question)), Message("assistant", text_at(row, answer))])


def declared(row: Row, notes: Notes) -> tuple[Message, ...]:
    """One round of a row whose columns a recipe declares as `prompt` and `answer`."""
    return one_round(row, "prompt", "answer")


def line_for(question: str, answer: str) -> str:
    """What a recipe writes to read this pair and no other."""
    return f"converter: {{type: pairs, columns: {{prompt: {question}, answer: {answer}}}}}"


PAIRS_CONVERTER = Converter("pairs", convert, frozenset({"system"}), uses=lambda row: {key for pair in pairs_in(row)[:1] for key in pair})
DECLARED_PAIR = Converter("pairs", declared, frozenset({"prompt", "answer", "system"}))
