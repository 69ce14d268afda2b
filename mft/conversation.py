"""What a training row says, before any prompt format: messages of a system, users and an assistant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

Role = Literal["system", "user", "assistant"]

ROLE_ALIASES: Final[Mapping[str, Role]] = {
    "system": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "bot": "assistant", "gpt": "assistant",
}
"""Names of roles on input. Anything else (`tool`, `function`) is an error or a counted drop."""


Span = tuple[int, int]
"""Characters `start` up to, not including, `end` of a message's content."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `train` counts for assistant messages alone: False leaves the turn in the context, untrained.

    `untrained`: spans of an assistant's content that are left out of training; its other text and its end mark are trained.
    `input_start`: where the input of an instruction begins in a user's content (Alpaca's two fields, joined by a newline).
    """

    role: Role
    content: str
    train: bool = True
    untrained: tuple[Span, ...] = ()
    input_start: int | None = None

    def __post_init__(self) -> None:
        if self.untrained and not all(0 <= start < end <= len(self.content) for start, end in self.untrained):
            raise ValueError(f"spans {self.untrained} do not lie inside {len(self.content)} characters")


Shape = Literal["chat", "text", "infill"]
"""What a row is: a chat; a text (one assistant message, all of it trained); an infill (user: prefix, user: suffix, assistant: middle)."""


def shape_of(messages: Sequence[Message]) -> Shape:
    """The shape of a row, by its roles alone.

    >>> shape_of([Message("assistant", "import os\\n")])
    'text'
    """
    roles = tuple(message.role for message in messages)
    shapes: Mapping[tuple[Role, ...], Shape] = {("assistant",): "text", ("user", "user", "assistant"): "infill"}
    return shapes.get(roles, "chat")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row. A chat is an optional system message, then user and assistant in turn, ending with the assistant.

    `id` is the row's own, or `file:line`; `origin` says where it comes from (`json/decoder.py:69 JSONDecoder.decode`);
    `split_key` is what decides between training and validation (a relative path, or the id).
    """

    id: str
    task: str
    messages: tuple[Message, ...]
    origin: str = ""
    split_key: str = ""


def turn_fault(messages: tuple[Message, ...], *, prompt: bool = False) -> str | None:
    """Why these messages are not a conversation, as a reason to count, or None.

    Reasons: `no_messages`, `system_not_first`, `assistant_first`, `repeated_role`, `no_answer` (ends before the assistant),
    `empty_message` (a user or assistant turn without text), `nothing_trained`. With `prompt=True` the conversation must
    end with the user instead (`last_not_user`), and nothing needs to be trained.
    """
    if not messages:
        return "no_messages"
    turns = messages[1:] if messages[0].role == "system" else messages
    if any(message.role == "system" for message in turns):
        return "system_not_first"
    if turns and turns[0].role == "assistant":
        return "assistant_first"
    if any(first.role == second.role for first, second in pairwise(turns)):
        return "repeated_role"
    if any(not message.content.strip() for message in turns):
        return "empty_message"
    if prompt:
        return None if turns and turns[-1].role == "user" else "last_not_user"
    if not turns or turns[-1].role != "assistant":
        return "no_answer"
    if not any(message.train for message in turns if message.role == "assistant"):
        return "nothing_trained"
    return None
