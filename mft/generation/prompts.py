"""Prompts in a JSONL file: one row, one question. A row that cannot be used is told with its reason; it is no exception.

    {"prompt": "2+2?"}   {"id": "q7", "system": "Be brief.", "prompt": "2+2?"}   {"messages": [{"role": "user", "content": "2+2?"}]}

`messages` may also be called `chat_rounds` or `conversations`, roles and keys as in training data (`human`, `from`/`value`). Where the last
message is the assistant's, it is left out: the row's own answer is no part of its prompt.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mft.conversation import ROLE_ALIASES, Message
from mft.errors import DataError
from mft.reading import read_lines

LISTS = ("messages", "chat_rounds", "conversations")
ROLE_KEYS, TEXT_KEYS = ("role", "from"), ("content", "value")


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One row: its messages, or the fault that keeps it from being a prompt. `id`: the row's own, or `file:line`."""

    id: Any
    messages: tuple[Message, ...] = ()
    fault: str = ""


def read_prompts(path: Path) -> list[PromptRow]:
    """The rows of a JSONL file (plain or .gz), in order; empty lines are none.

    Raises:
        DataError: no such file, it is damaged, not UTF-8, or has no row.
    """
    rows = [_row(line, f"{path.name}:{number}") for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not rows:
        raise DataError(f"{path}: has no row")
    return rows


def _row(line: str, place: str) -> PromptRow:
    try:
        value = json.loads(line)
    except ValueError as error:
        return PromptRow(place, fault=f"not JSON: {error}")
    if not isinstance(value, dict):
        return PromptRow(place, fault=f"a JSON {type(value).__name__}, expected an object")
    name = value.get("id", place)
    try:
        return PromptRow(name, tuple(_messages(value)))
    except ValueError as error:
        return PromptRow(name, fault=str(error))


def _messages(value: dict[str, Any]) -> Iterator[Message]:
    lists = [key for key in LISTS if key in value]
    if len(lists) + ("prompt" in value) != 1:
        raise ValueError(f"has keys {', '.join(value) or 'none'}; expected exactly one of prompt, {', '.join(LISTS)}")
    if "system" in value and value["system"] is not None:
        yield Message("system", _text(value["system"], "system"))
    if not lists:
        yield Message("user", _text(value["prompt"], "prompt"))
        return
    turns = value[lists[0]]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{lists[0]} is no list of objects")
    messages = [_message(turn, f"{lists[0]}[{number}]") for number, turn in enumerate(turns)]
    yield from messages[:-1] if messages and messages[-1].role == "assistant" else messages


def _message(turn: dict[str, Any], place: str) -> Message:
    role, text = (next((turn[key] for key in keys if key in turn), None) for keys in (ROLE_KEYS, TEXT_KEYS))
    if not isinstance(role, str) or role not in ROLE_ALIASES:
        raise ValueError(f"{place} has role {role!r}; expected {', '.join(ROLE_ALIASES)}")
    return Message(ROLE_ALIASES[role], _text(text, place))


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place} is {type(value).__name__}, expected a text")
    return value
