"""Rows that hold a list of messages: roles by ROLE_ALIASES, content, and which of it is trained."""

from dataclasses import dataclass
from typing import Any

from mft.conversation import ROLE_ALIASES, Message, Role
from mft.data.converters.base import Notes, Row, RowFault, as_text, listed, shown
from mft.data.converters.train_marks import MARK_KEYS, train_flag, untrained_spans

TOOL_KEYS = frozenset({"tool_calls", "function_call"})


@dataclass(frozen=True, slots=True)
class MessageKeys:
    """Where a schema keeps the role and the content of a message, and whether content may be a list of text parts."""

    role: str
    content: str
    parts: bool = False

    @property
    def read(self) -> frozenset[str]:
        """All keys of a message that are read."""
        return MARK_KEYS | {self.role, self.content, *TOOL_KEYS}


def messages_at(row: Row, key: str, keys: MessageKeys, notes: Notes) -> tuple[Message, ...]:
    """Messages from a list of objects.

    Raises:
        RowFault: `missing_key`, `messages_not_a_list`, `message_not_an_object`, `unknown_role`, `content_not_text`,
            `part_not_text`, `tool_call`, `bad_train_flag`, `bad_train_span`.
    """
    if key not in row:
        raise RowFault("missing_key", f"'{key}', which the converter needs; keys: {listed(row)}")
    items = row[key]
    if not isinstance(items, list):
        raise RowFault("messages_not_a_list", f"'{key}' is {shown(items)}")
    return tuple(_message(item, number, keys, notes) for number, item in enumerate(items, start=1))


def _message(item: Any, number: int, keys: MessageKeys, notes: Notes) -> Message:
    if not isinstance(item, dict):
        raise RowFault("message_not_an_object", f"message {number} is {shown(item)}")
    role = _role(item.get(keys.role), number, keys.role, notes)
    if not TOOL_KEYS.isdisjoint(item) and (used := sorted(key for key in TOOL_KEYS if item.get(key))):
        raise RowFault("tool_call", f"message {number} has {used[-1]}, for which no prompt format has a place")
    content = _content(item.get(keys.content), f"message {number}: '{keys.content}'", keys.parts)
    if MARK_KEYS.isdisjoint(item):
        return Message(role, content)
    train, spans = train_flag(item, number), untrained_spans(item, len(content), number)
    return Message(role, content, train, spans) if role == "assistant" else Message(role, content)


def _role(name: Any, number: int, key: str, notes: Notes) -> Role:
    plain = name.strip().lower() if isinstance(name, str) else None
    role = ROLE_ALIASES.get(plain) if plain is not None else None
    if role is None:
        raise RowFault("unknown_role", f"message {number} has {key} {shown(name)}; expected one of {', '.join(ROLE_ALIASES)}")
    if name != plain:
        notes.add("role_case")
    return role


def _content(value: Any, where: str, parts: bool) -> str:
    """Text, or the texts of `[{"type": "text", "text" or "value": ...}, ...]` end to end."""
    if not (parts and isinstance(value, list)):
        return as_text(value, where)
    texts = []
    for part in value:
        text = (part.get("text") if part.get("text") is not None else part.get("value")) if isinstance(part, dict) else None
        if not isinstance(text, str) or part.get("type", "text") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            raise RowFault("part_not_text", f"{where} has a part that is no text: {shown(kind)}")
        texts.append(text)
    return "".join(texts)
