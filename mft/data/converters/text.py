"""Rows that are not talk: a text, or the three parts of a text with a hole. All of a text, and of a middle, is trained."""

from mft.conversation import Message
from mft.data.converters.base import Converter, Notes, Row, text_at


def convert_text(row: Row, notes: Notes) -> tuple[Message, ...]:
    """`{"text": str}` as one assistant message, the shape `text`."""
    return (Message("assistant", text_at(row, "text")),)


def convert_infill(row: Row, notes: Notes) -> tuple[Message, ...]:
    """`{"prefix": str, "suffix": str, "middle": str}` as user, user and assistant, the shape `infill`."""
    return Message("user", text_at(row, "prefix")), Message("user", text_at(row, "suffix")), Message("assistant", text_at(row, "middle"))


TEXT = Converter("text", convert_text, frozenset({"text"}), shape="text")
INFILL = Converter("infill", convert_infill, frozenset({"prefix", "suffix", "middle"}), shape="infill")
