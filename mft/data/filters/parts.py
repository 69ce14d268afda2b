"""Which text of a row a step looks at; system messages, which many rows share, are never looked at."""

import hashlib
from typing import Literal

from mft.conversation import Conversation
from mft.data.ids import own_id

Part = Literal["user", "answer", "all"]
"""`user`: the user messages. `answer`: the assistant messages that are trained. `all`: the user and all assistant messages."""


def texts_of(row: Conversation, part: Part) -> tuple[str, ...]:
    """The texts of one part of a row, one a message, in order."""
    return tuple(message.content for message in row.messages
                 if (part != "answer" and message.role == "user")
                 or (message.role == "assistant" and (part == "all" or (part == "answer" and message.train))))


CHOICE_BYTES = 16


def choice_of(row: Conversation) -> bytes:
    """What a row is chosen by: a hash of the id that it was read with and of its texts, whatever else the recipe reads."""
    said = "\x1f".join([own_id(row), *(f"{message.role}\x1f{message.content}" for message in row.messages)])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:CHOICE_BYTES]


def choice_rank(choice: bytes, task: str, salt: str, seed: int) -> int:
    """A number below 2**256 by which rows are chosen; `salt` keeps the choices of two steps apart."""
    key = "\x1f".join((salt, str(seed), task, choice.hex()))
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), "big")
