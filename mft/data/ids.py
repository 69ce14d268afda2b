"""Ids of rows: unique within a task, with the row's own id found again behind them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol, TypeVar


class Named(Protocol):
    """A frozen dataclass with the names of a row."""

    @property
    def id(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def origin(self) -> str: ...


AnyRow = TypeVar("AnyRow", bound=Named)


def unique_ids(conversations: Iterable[AnyRow]) -> Iterator[AnyRow]:
    """The same rows; an id that its task has had already gets its place behind it (and a number if need be)."""
    taken: defaultdict[str, set[str]] = defaultdict(set)
    for conversation in conversations:
        name, number = conversation.id, 1
        while name in taken[conversation.task]:
            name = f"{conversation.id}@{place_of(conversation)}" + (f"#{number}" if number > 1 else "")
            number += 1
        taken[conversation.task].add(name)
        yield conversation if name == conversation.id else replace(conversation, id=name)  # type: ignore[type-var]


def place_of(conversation: Named) -> str:
    """`file:line`, the first word of a row's origin."""
    return conversation.origin.split(" ", 1)[0]


def own_id(conversation: Named) -> str:
    """The id that the row was read with: what `unique_ids` put behind it is taken off.

    Which of two rows with one id keeps it bare depends on their order, so nothing that must not depend on what else is in a
    recipe may use `Conversation.id`.

    >>> from mft.conversation import Conversation
    >>> own_id(Conversation("7@b.jsonl:3", "t", (), "b.jsonl:3"))
    '7'
    """
    name, mark = conversation.id, f"@{place_of(conversation)}"
    while (start := name.rfind(mark)) > 0 and _is_number_mark(name[start + len(mark):]):
        name = name[:start]
    return name


def _is_number_mark(text: str) -> bool:
    return not text or (text[0] == "#" and text[1:].isdecimal())
