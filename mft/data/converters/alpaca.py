"""Alpaca's schema: `{"instruction", "input", "output", "system", "history": [[question, answer], ...]}`; the first and `output` needed."""

from collections.abc import Iterator
from typing import Any

from mft.conversation import Message
from mft.data.converters.base import Converter, Notes, Row, RowFault, as_text, optional_text, shown, text_at, with_system


def convert(row: Row, notes: Notes) -> tuple[Message, ...]:
    """System, the rounds of `history`, then instruction, newline and input as one user message, and the output.

    `input_start` says where the input begins, for formats that give it a heading of its own. An input of white space is none;
    an instruction without text leaves the input alone.
    """
    instruction, given, output = text_at(row, "instruction"), optional_text(row, "input"), text_at(row, "output")
    if not given.strip():
        user = Message("user", instruction)
    elif not instruction.strip():
        user = Message("user", given)
    else:
        user = Message("user", f"{instruction}\n{given}", input_start=len(instruction) + 1)
    return with_system(row, "system", [*_history(row.get("history")), user, Message("assistant", output)])


def _history(rounds: Any) -> Iterator[Message]:
    """The rounds before the instruction; null, '' and [] are none.

    Raises:
        RowFault: `bad_history`.
    """
    if rounds is None or rounds == "":
        return
    if not isinstance(rounds, list):
        raise RowFault("bad_history", f"expected a list of [question, answer], found {shown(rounds)}")
    for number, pair in enumerate(rounds, start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowFault("bad_history", f"entry {number}: expected [question, answer], found {shown(pair)}")
        question, answer = (as_text(part, f"entry {number} of 'history'") for part in pair)
        yield Message("user", question)
        yield Message("assistant", answer)


ALPACA = Converter("alpaca", convert, frozenset({"instruction", "input", "output", "system", "history"}))
