"""`length`: rows that are too short or too long, in characters."""

from mft.conversation import Conversation
from mft.data.filters.config import LengthStep
from mft.data.verdict import KEEP, RowStep, Verdict, drop


class Length(RowStep):
    """`too_short` and `too_long`, by the characters of user and assistant messages together."""

    def __init__(self, config: LengthStep) -> None:
        self.config = config

    def judge(self, row: Conversation) -> Verdict:
        characters = sum(len(message.content) for message in row.messages if message.role != "system")
        if characters < self.config.min_characters:
            return drop("too_short", f"{characters} characters")
        if self.config.max_characters is not None and characters > self.config.max_characters:
            return drop("too_long", f"{characters} characters")
        return KEEP
