"""ShareGPT's schema: `{"id", "system": str, "conversations": [{"from": "human"|"gpt", "value": str}]}`, `system` optional."""

from collections.abc import Mapping
from typing import Any

from mft.conversation import Message
from mft.data.converters.base import Converter, RowFault, read_messages


def convert(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """Messages of one row; a `system` that is not empty becomes the first."""
    messages = read_messages(row["conversations"], "from", "value")
    system = row.get("system")
    if system is None or system == "":
        return messages
    if not isinstance(system, str):
        raise RowFault("content_not_text", f"'system' is {type(system).__name__}")
    return (Message("system", system), *messages)


SHAREGPT = Converter("sharegpt", "conversations", convert, frozenset({"id", "task", "data_name", "system", "conversations"}),
                     frozenset({"from", "value", "train", "weight"}))
