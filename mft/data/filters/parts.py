"""Which text of a row a step looks at; system messages, which many rows share, are never looked at."""

import hashlib
from typing import Literal

from mft.conversation import Conversation
from mft.data.verdict import RowName

Part = Literal["user", "answer", "all"]
"""`user`: the user messages. `answer`: the assistant messages that are trained. `all`: the user and all assistant messages."""


def texts_of(row: Conversation, part: Part) -> tuple[str, ...]:
    """The texts of one part of a row, one a message, in order."""
    return tuple(message.content for message in row.messages
                 if (part != "answer" and message.role == "user")
                 or (message.role == "assistant" and (part == "all" or (part == "answer" and message.train))))


def row_hash(row: Conversation | RowName, salt: str, seed: int) -> int:
    """A number below 2**256 that depends on the seed, the task and the id alone; `salt` keeps the choices of two steps apart."""
    key = "\x1f".join((salt, str(seed), row.task, row.id))
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), "big")
