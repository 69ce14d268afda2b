"""ShareGPT's schema: `{"id", "system": str, "conversations": [{"from": "human"|"gpt", "value": str}]}`, `system` optional."""

from mft.conversation import Message
from mft.data.converters.base import Converter, Notes, Row, with_system
from mft.data.converters.message_list import MessageKeys, messages_at

KEYS = MessageKeys("from", "value")


def convert(row: Row, notes: Notes) -> tuple[Message, ...]:
    """Messages of one row; a `system` that is not empty becomes the first."""
    return with_system(row, "system", messages_at(row, "conversations", KEYS, notes))


SHAREGPT = Converter("sharegpt", convert, frozenset({"system", "conversations"}), "conversations", KEYS.read)
