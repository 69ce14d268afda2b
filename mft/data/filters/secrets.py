"""`secrets`: credentials in any message, found by detect-secrets; the row goes, or they are masked.

A secret is never logged, named in a detail or put into a report: those hold its kind alone.
"""

from collections import Counter
from dataclasses import replace

from mft.conversation import Conversation, Message
from mft.data.filters.config import SecretsStep
from mft.data.filters.rewrites import moved_to
from mft.data.filters.secret_rules import SecretFinder
from mft.data.verdict import KEEP, RowStep, Verdict, drop


class Secrets(RowStep):
    """`secret`: a credential stands in a message (or, with `mask`, one that cannot be masked). Masked rows: `secret_masked`.

    Cannot be masked: a private key without an end, and a secret that an edge of an untrained span or of an input runs through.
    """

    def __init__(self, config: SecretsStep) -> None:
        self.config = config
        self.finder = SecretFinder(config.allow)
        self._kinds: Counter[str] = Counter()

    def judge(self, row: Conversation) -> Verdict:
        kinds: Counter[str] = Counter()
        masked = [self._masked(message, kinds) for message in row.messages]
        self._kinds += kinds
        if not kinds:
            return KEEP
        messages = tuple(message for message in masked if message is not None)
        if self.config.action == "drop" or len(messages) < len(row.messages):
            return drop("secret", ", ".join(sorted(kinds)))
        return Verdict(keep=True, changed=replace(row, messages=messages), note="secret_masked")

    def report(self) -> dict[str, int]:
        """Secrets found, by kind."""
        return dict(sorted(self._kinds.items()))

    def _masked(self, message: Message, kinds: Counter[str]) -> Message | None:
        """The message with the name of its kind in place of each secret, or None where that cannot be done; counted in `kinds`.

        A mask may uncover another secret, which began at no word's start before, so it is looked again until none is left.
        """
        while hits := self.finder.find(message.content):
            kinds.update(hit.kind for hit in hits)
            masked = moved_to(message, [(hit.span, f"<{hit.kind}>") for hit in hits]) if all(hit.end_found for hit in hits) else None
            if masked is None:
                return None
            message = masked
        return message
