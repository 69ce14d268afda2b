"""Which training rows a task gives, how often, and in which order all of them stand."""

import hashlib
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

from mft.conversation import Conversation
from mft.data.config import copies_of
from mft.data.ids import own_id
from mft.data.outline import Outline
from mft.data.split import Row, hash_fraction


def number_of_copies(row: Conversation | Outline, weight: float, seed: int) -> int:
    """How often a row is emitted by `weight`: the whole part of it, and once more for a share of the rows, each drawn on its own."""
    whole, share = copies_of(weight)
    if not share:
        return whole
    name, text = choice_key(row, seed)
    return whole + (hash_fraction(f"weight:{name.hex()}:{text.hex()}") < share)


def draw_exactly(rows: Sequence[Row], wanted: int, seed: int) -> dict[str, int]:
    """Row id -> how often it is emitted; the numbers add up to `wanted`. `rows` are of one task, their ids differ.

    Every row appears `wanted // len(rows)` times, and those with the smallest `choice_key` once more. So a smaller number takes
    some of the rows of a greater one, and a row that is added pushes out one other at most.
    """
    if not rows:
        return {}
    whole, rest = divmod(wanted, len(rows))
    order = sorted(rows, key=lambda row: choice_key(row, seed)) if rest else rows
    return Counter({row.id: whole + (index < rest) for index, row in enumerate(order)})


def choice_key(row: Conversation | Outline, seed: int) -> tuple[bytes, bytes]:
    """What rows are chosen by: a hash of seed, task and the id that the row was read with; of equal ids, of its text.

    It depends on the seed and the row alone, wherever the row stands.
    """
    text = row.choice if isinstance(row, Outline) else text_choice(row, seed)
    return _digest(f"choice:{seed}:{row.task}:{own_id(row)}"), text


def text_choice(row: Conversation, seed: int) -> bytes:
    """The part of `choice_key` that needs the messages."""
    text = "\0".join(f"{message.role}\0{message.content}" for message in row.messages)
    return _digest(f"choice:{seed}:{text}")


def copies(row: Row, number: int, own_ids: Container[tuple[str, str]]) -> Iterator[Row]:
    """The row `number` times, under its id and then `id~2`, `id~3`; an id in `own_ids` (task, id) is left to its row."""
    suffix = 1
    for index in range(number):
        if not index:
            yield row
            continue
        suffix += 1
        while (row.task, f"{row.id}~{suffix}") in own_ids:   # a row's own id may look like that of a copy
            suffix += 1
        yield replace(row, id=f"{row.id}~{suffix}")


def shuffle_key(row: Conversation | Outline, seed: int) -> bytes:
    """What rows are sorted by: the same order on every machine. The task is part of it, as ids may repeat between tasks."""
    return _digest(f"{seed}:{row.task}:{row.id}")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
