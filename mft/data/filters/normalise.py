"""`normalise`: the rewrites that a recipe names, in its order, and no other change of text."""

from dataclasses import replace
from functools import partial
from typing import Any

from mft.conversation import Conversation, Message
from mft.data.filters.config import NormaliseStep
from mft.data.filters.fences import outside_fences
from mft.data.filters.rewrites import REWRITES, CrossesSpan, rewritten
from mft.data.verdict import KEEP, RowStep, Verdict, drop


class Normalise(RowStep):
    """Changed rows are noted as `normalised`; the report counts the messages that each rewrite changed.

    `rewrite_crosses_span`: a rewrite would change characters on both sides of the edge of an untrained span or of an input.
    `empty_message`: nothing but white space is left of a message that had text.
    """

    def __init__(self, config: NormaliseStep) -> None:
        self.config = config
        self._messages: dict[str, int] = dict.fromkeys(config.apply, 0)

    def judge(self, row: Conversation) -> Verdict:
        try:
            messages = tuple(self._normalised(message) if message.role in self.config.roles else message for message in row.messages)
        except CrossesSpan:
            return drop("rewrite_crosses_span")
        if messages == row.messages:
            return KEEP
        if any(before.content.strip() and not after.content.strip() for before, after in zip(row.messages, messages, strict=True)):
            return drop("empty_message", "after normalise")
        return Verdict(keep=True, changed=replace(row, messages=messages), note="normalised")

    def report(self) -> dict[str, Any]:
        """Messages changed, by rewrite."""
        return self._messages

    def _normalised(self, message: Message) -> Message:
        for name in self.config.apply:
            rewrite = REWRITES[name]
            after = rewritten(message, rewrite if self.config.fenced_code else partial(outside_fences, rewrite=rewrite))
            self._messages[name] += after is not message
            message = after
        return message
