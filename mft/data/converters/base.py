"""What every converter shares: roles by ROLE_ALIASES, text content, train flags, and a reason for what does not fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mft.conversation import ROLE_ALIASES, Message, turn_fault


class RowFault(Exception):
    """Why a row is no conversation. `reason` is counted, the message explains it; it never leaves the reader."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Converter:
    """One schema: the key that its rows have, and how a row becomes messages (it may raise RowFault)."""

    name: str
    key: str
    convert: Callable[[Mapping[str, Any]], tuple[Message, ...]]
    row_keys: frozenset[str]
    """Keys of a row that are read; others are named once in the log."""
    message_keys: frozenset[str]
    """Keys of a message that are read."""


def read_messages(items: Any, role_key: str, content_key: str) -> tuple[Message, ...]:
    """Messages from a list of objects.

    Raises:
        RowFault: `messages_not_a_list`, `message_not_an_object`, `unknown_role`, `content_not_text`, `bad_train_flag`.
    """
    if not isinstance(items, list):
        raise RowFault("messages_not_a_list", f"found {type(items).__name__}")
    return tuple(_message(item, number, role_key, content_key) for number, item in enumerate(items, start=1))


def check_messages(messages: tuple[Message, ...]) -> None:
    """Refuse what no format could render.

    Raises:
        RowFault: the reasons of `turn_fault`, or `lone_surrogate` (half of a surrogate pair: not text, no UTF-8 for it).
    """
    if reason := turn_fault(messages):
        raise RowFault(reason)
    if any(has_lone_surrogate(message.content) for message in messages):
        raise RowFault("lone_surrogate", "half of a surrogate pair such as \\ud83d")


def has_lone_surrogate(text: str) -> bool:
    """True for text that cannot be written as UTF-8.

    >>> has_lone_surrogate("\\ud83d")
    True
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _message(item: Any, number: int, role_key: str, content_key: str) -> Message:
    if not isinstance(item, dict):
        raise RowFault("message_not_an_object", f"message {number}")
    name, content = item.get(role_key), item.get(content_key)
    role = ROLE_ALIASES.get(name) if isinstance(name, str) else None
    if role is None:
        raise RowFault("unknown_role", f"message {number} has {role_key} {name!r}; expected one of {', '.join(ROLE_ALIASES)}")
    if not isinstance(content, str):
        raise RowFault("content_not_text", f"message {number}: '{content_key}' is {type(content).__name__}")
    train = _train_flag(item, number)
    return Message(role, content, train if role == "assistant" else True)


def _train_flag(item: Mapping[str, Any], number: int) -> bool:
    """`train: false` or `weight: 0` leave a turn untrained; both keys must agree."""
    train, weight = item.get("train", True), item.get("weight", 1)
    if not isinstance(train, bool) or isinstance(weight, bool) or weight not in (0, 1):
        raise RowFault("bad_train_flag", f"message {number}: train must be true or false, weight 0 or 1")
    if "train" in item and "weight" in item and train != bool(weight):
        raise RowFault("bad_train_flag", f"message {number}: train and weight disagree")
    return train and bool(weight)
