"""`exact_dedup`: rows with equal roles and, but for white space and NFC, equal texts."""

import unicodedata
from collections.abc import Sequence

from mft.conversation import Conversation
from mft.data.dedup.config import ExactDedupStep
from mft.data.verdict import KEEP, GroupStep, RowName, Verdict, drop
from mft.hashes import sha256_json


class ExactDedup(GroupStep):
    """`duplicate`: an equal row came before."""

    def __init__(self, config: ExactDedupStep) -> None:
        self.config = config

    def key(self, row: Conversation) -> bytes:
        """32 bytes: `text_key`."""
        return bytes.fromhex(text_key(row))

    def judge_keys(self, keys: Sequence[bytes], names: Sequence[RowName]) -> Sequence[Verdict]:
        first: dict[bytes, int] = {}
        verdicts = []
        for index, key in enumerate(keys):
            before = first.setdefault(key, index)
            verdicts.append(KEEP if before == index else drop("duplicate", f"of {names[before].id}"))
        return verdicts


def text_key(conversation: Conversation) -> str:
    """Hash of the roles and the NFC, whitespace-collapsed texts of all messages; the task and the id have no part in it."""
    return sha256_json([(message.role, " ".join(unicodedata.normalize("NFC", message.content).split()))
                        for message in conversation.messages])
