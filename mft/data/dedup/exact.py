"""`exact_dedup`: rows with equal roles and, but for white space and NFC, equal texts."""

import unicodedata
from collections.abc import Sequence

from mft.conversation import Conversation
from mft.data.dedup.config import ExactDedupStep
from mft.data.verdict import KEEP, GroupStep, Verdict, drop
from mft.files import sha256_json


class ExactDedup(GroupStep):
    """`duplicate`: an equal row came before."""

    def __init__(self, config: ExactDedupStep) -> None:
        self.config = config

    def judge_all(self, rows: Sequence[Conversation]) -> Sequence[Verdict]:
        first: dict[str, int] = {}
        verdicts = []
        for index, row in enumerate(rows):
            before = first.setdefault(text_key(row), index)
            verdicts.append(KEEP if before == index else drop("duplicate", f"of {rows[before].id}"))
        return verdicts


def text_key(conversation: Conversation) -> str:
    """Hash of the roles and the NFC, whitespace-collapsed texts of all messages; the task and the id have no part in it."""
    return sha256_json([(message.role, " ".join(unicodedata.normalize("NFC", message.content).split()))
                        for message in conversation.messages])
