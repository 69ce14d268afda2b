"""What every converter shares: the reason for a row that does not fit, text content, declared columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mft.conversation import Message, Shape, shape_of, turn_fault

LONGEST = 60
"""Characters of a value that a message repeats."""

Row = Mapping[str, Any]
Notes = set[str]
"""What a converter says of a row that it accepts although it is odd; the reader counts it if the row is kept."""

OWN_KEYS = frozenset({"id", "task", "data_name"})
"""Keys of a row that the reader uses, whatever the schema."""


class RowFault(Exception):
    """Why a row is no conversation. `reason` is counted, the message explains it; it never leaves the reader."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(detail.encode("utf-8", "backslashreplace").decode())   # a lone surrogate cannot be logged


@dataclass(frozen=True, slots=True)
class Converter:
    """One schema: how a row becomes messages (it may raise RowFault), and which keys it reads."""

    name: str
    convert: Callable[[Row, Notes], tuple[Message, ...]]
    row_keys: frozenset[str]
    """Keys of the schema that are read; others are named once a file."""
    list_key: str = ""
    """The key whose items are messages, for schemas that have one."""
    message_keys: frozenset[str] = frozenset()
    """Keys of such a message that are read."""
    shape: Shape = "chat"
    uses: Callable[[Row], set[str]] | None = None
    """Further keys that are read of this row, for schemas that choose among several."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Key of the schema -> key of the row, where a recipe declares them."""

    def view(self, row: Row) -> Row:
        """The row under the keys of the schema: a declared column stands in for whatever the row has under that key."""
        if not self.columns:
            return row
        return {**{key: value for key, value in row.items() if key not in self.columns},
                **{key: row[column] for key, column in self.columns.items() if column in row}}

    def unread(self, row: Row) -> set[str]:
        """Keys of a row, and `list[].key` of its messages, that are not read."""
        view = self.view(row)
        read = self.row_keys | OWN_KEYS | (self.uses(view) if self.uses else set())
        keys = set(row.keys() - (read - self.columns.keys()) - set(self.columns.values()))
        for message in view.get(self.list_key, ()) if self.list_key else ():
            keys |= {f"{self.list_key}[].{name}" for name in message.keys() - self.message_keys if message[name] is not None}
        return keys


def check_messages(messages: tuple[Message, ...], shape: Shape = "chat") -> None:
    """Refuse what no format could render.

    Raises:
        RowFault: the reasons of `turn_fault` for a chat; `empty_message` for a text or an infill without text to train;
            `lone_surrogate` (half of a surrogate pair: not text, no UTF-8 for it).
    """
    if shape == "chat":
        if reason := turn_fault(messages):
            raise RowFault(reason)
    elif shape_of(messages) != shape or not messages[-1].content.strip() or not any(part.content for part in messages[:-1] or messages):
        raise RowFault("empty_message", f"nothing to learn in the {'text' if shape == 'text' else 'middle, or nothing around it'}")
    if any(has_lone_surrogate(message.content) for message in messages):
        raise RowFault("lone_surrogate", "half of a surrogate pair such as \\ud83d")


def has_lone_surrogate(text: str) -> bool:
    """True for text that cannot be written as UTF-8.

    >>> has_lone_surrogate("\\ud83d")
    True
    """
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def text_at(row: Row, key: str) -> str:
    """The text under a key of the schema that every row must have.

    Raises:
        RowFault: `missing_key`, or `content_not_text`.
    """
    if key not in row:
        raise RowFault("missing_key", f"'{key}', which the converter needs; keys: {listed(row)}")
    return as_text(row[key], f"'{key}'")


def optional_text(row: Row, key: str) -> str:
    """The text under a key that may be missing, null or empty; '' then.

    Raises:
        RowFault: `content_not_text`.
    """
    value = row.get(key)
    return "" if value is None else as_text(value, f"'{key}'")


def with_system(row: Row, key: str, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, after a system message where the row has text for one."""
    system = optional_text(row, key)
    return (Message("system", system), *messages) if system else tuple(messages)


def as_text(value: Any, where: str) -> str:
    """The value, if it is text.

    Raises:
        RowFault: `content_not_text`.
    """
    if not isinstance(value, str):
        raise RowFault("content_not_text", f"{where} is {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value of any kind and size as a message repeats it.

    >>> shown({"a": 1}), shown(None), shown("x")
    ('an object', 'null', "'x'")
    """
    kinds: Mapping[type, str] = {dict: "an object", list: "a list", type(None): "null", bytes: "bytes"}
    if type(value) in kinds:
        return kinds[type(value)]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10 ** LONGEST:
        return "a huge number"
    text = repr(value[:LONGEST + 1]) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST + 2 else f"{text[:LONGEST]}..."


def listed(keys: Row | Sequence[str]) -> str:
    """Keys as a message names them: the first twenty."""
    names = [shown(name)[1:-1] for name in list(keys)[:20]]
    return (", ".join(names) + (" and more" if len(keys) > 20 else "")) or "none"
