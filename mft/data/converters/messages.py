"""OpenAI's chat schema: `{"messages": [{"role", "content": str, "weight": 0|1}]}`. Tool calls and content lists are dropped."""

from collections.abc import Mapping
from typing import Any

from mft.conversation import Message
from mft.data.converters.base import Converter, read_messages


def convert(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """Messages of one row."""
    return read_messages(row["messages"], "role", "content")


MESSAGES = Converter("messages", "messages", convert, frozenset({"id", "task", "data_name", "messages"}),
                     frozenset({"role", "content", "train", "weight"}))
