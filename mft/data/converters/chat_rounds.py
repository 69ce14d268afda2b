"""The schema of MFTCoder: `{"id", "data_name", "chat_rounds": [{"role": "system"|"human"|"bot", "content": str}]}`."""

from mft.conversation import Message
from mft.data.converters.base import Converter, Notes, Row
from mft.data.converters.message_list import MessageKeys, messages_at

KEYS = MessageKeys("role", "content")


def convert(row: Row, notes: Notes) -> tuple[Message, ...]:
    """Messages of one row."""
    return messages_at(row, "chat_rounds", KEYS, notes)


CHAT_ROUNDS = Converter("chat_rounds", convert, frozenset({"chat_rounds"}), "chat_rounds", KEYS.read)
