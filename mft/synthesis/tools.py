"""What the steps of a synthesis share: the model that answers, the sandbox that judges, the seed of all choices."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mft.conversation import Message
from mft.errors import ConfigError
from mft.synthesis.client.request import Answer, Client, Request
from mft.synthesis.feedback.judging import Judging
from mft.synthesis.makers.config import Maker

Told = Callable[[str, int, int], None]
"""(step, what is done, all there is)."""


@dataclass(frozen=True, slots=True)
class Said:
    """What came back for one request: text, or the reason why there is none."""

    text: str = ""
    fault: str = ""


def tell_nobody(step: str, done: int, total: int) -> None:
    """A `Told` for callers who do not look."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Handed to every step."""

    judging: Judging
    seed: int
    client: Client | None = None
    told: Told = tell_nobody

    def ask(self, purpose: str, config: Maker, chats: Sequence[tuple[Sequence[Message], int]]) -> list[Said]:
        """Ask the model; a chat is its messages and the number of the sample. Answers come in the order of the chats.

        Faults: `unanswered_given_up`, `unanswered_refused`, `unanswered_budget_spent`, `answer_cut`, `answer_empty`.
        """
        if self.client is None:
            raise ConfigError([f"step '{purpose}' needs a language model; say where it is: client"])
        requests = [Request(purpose, tuple(messages), max_tokens=config.max_tokens, temperature=config.temperature, top_p=config.top_p,
                            sample=sample) for messages, sample in chats]
        answers = self.client.ask(requests, lambda done, total: self.told(purpose, done, total)) if requests else []
        return [_said(answer) if isinstance(answer, Answer) else Said(fault=f"unanswered_{answer.reason}") for answer in answers]

    def draw(self, *names: str | int) -> float:
        """A number in [0, 1) that depends on the seed and these names alone."""
        key = "\x1f".join(map(str, (self.seed, *names)))
        return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def _said(answer: Answer) -> Said:
    if answer.cut:
        return Said(fault="answer_cut")
    return Said(answer.text) if answer.text.strip() else Said(fault="answer_empty")
