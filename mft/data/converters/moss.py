"""MOSS's schema: `{"meta_instruction": str, "chat": {"turn_1": {"Human": "<|Human|>: ...<eoh>\\n", "MOSS": "<|MOSS|>: ...<eom>\\n"}}}`.

The marks around a text are the file's own and are taken off; a text without them is a counted drop, not a guess.
"""

import re
from collections.abc import Iterator
from typing import Any

from mft.conversation import Message
from mft.data.converters.base import Converter, Notes, Row, RowFault, shown, text_at, with_system

HUMAN = re.compile(r"<\|Human\|>: (.*?)<eoh>\n?", re.DOTALL)
MOSS_ANSWER = re.compile(r"<\|MOSS\|>: (.*?)<eom>\n?", re.DOTALL)
NO_COMMAND = "<|Commands|>: None<eoc>"
"""What the turns of a conversation without plugins have under `Commands`."""


def convert(row: Row, notes: Notes) -> tuple[Message, ...]:
    """System from `meta_instruction`, then the turns in the order of their numbers."""
    if "chat" not in row:
        raise RowFault("missing_key", "'chat', which converter moss needs")
    chat = row["chat"]
    if not isinstance(chat, dict):
        raise RowFault("messages_not_a_list", f"'chat' is {shown(chat)}, not an object of turns")
    return with_system(row, "meta_instruction", [message for turn in _in_order(chat) for message in _turn(turn)])


def _in_order(chat: Row) -> Iterator[Any]:
    numbers = {name: re.fullmatch(r"turn_(\d{1,9})", name) for name in chat}
    if bad := [name for name, found in numbers.items() if found is None]:
        raise RowFault("unknown_role", f"'chat' has {shown(bad[0])}; expected turn_1, turn_2, ...")
    return (chat[name] for name in sorted(chat, key=lambda name: (int(name[5:]), name)) if chat[name] is not None)


def _turn(turn: Any) -> Iterator[Message]:
    if not isinstance(turn, dict):
        raise RowFault("message_not_an_object", f"a turn is {shown(turn)}")
    command = turn.get("Commands")
    if isinstance(command, str) and command.strip() not in ("", NO_COMMAND):
        raise RowFault("tool_call", "a turn has Commands, for which no prompt format has a place")
    yield Message("user", _inside(text_at(turn, "Human"), HUMAN))
    yield Message("assistant", _inside(text_at(turn, "MOSS"), MOSS_ANSWER))


def _inside(text: str, marks: re.Pattern[str]) -> str:
    found = marks.fullmatch(text)
    if found is None:
        raise RowFault("no_marks", f"expected {marks.pattern[:12]}... around {shown(text)}")
    return found[1]


MOSS = Converter("moss", convert, frozenset({"chat", "meta_instruction"}))
