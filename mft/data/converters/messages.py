"""OpenAI's chat schema: `{"messages": [{"role", "content": str or [{"type": "text", "text": str}], "weight": 0|1}]}`."""

from mft.conversation import Message
from mft.data.converters.base import Converter, Notes, Row
from mft.data.converters.message_list import MessageKeys, messages_at

KEYS = MessageKeys("role", "content", parts=True)


def convert(row: Row, notes: Notes) -> tuple[Message, ...]:
    """Messages of one row."""
    return messages_at(row, "messages", KEYS, notes)


MESSAGES = Converter("messages", convert, frozenset({"messages"}), "messages", KEYS.read)
