"""The schema of MFTCoder: `{"id", "data_name", "chat_rounds": [{"role": "system"|"human"|"bot", "content": str}]}`."""

from collections.abc import Mapping
from typing import Any

from mft.conversation import Message
from mft.data.converters.base import Converter, read_messages


def convert(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """Messages of one row."""
    return read_messages(row["chat_rounds"], "role", "content")


CHAT_ROUNDS = Converter("chat_rounds", "chat_rounds", convert, frozenset({"id", "task", "data_name", "chat_rounds"}),
                        frozenset({"role", "content", "train", "weight"}))
