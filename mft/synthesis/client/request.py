"""What is asked of a language model, and what comes back; the seam between makers and clients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mft.conversation import Message

Progress = Callable[[int, int], None]
"""(requests that are settled, all requests)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One chat that asks for one answer.

    `purpose`: who asks (`evolve`, `answer`), a line of the ledger; not part of what is asked. `sample`: the n-th answer to the same chat,
    which is another request: it has another seed and its own place in the cache.
    """

    purpose: str
    messages: tuple[Message, ...]
    max_tokens: int = 2048
    temperature: float = 0.0
    top_p: float = 1.0
    sample: int = 0
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Text that the model wrote. `cut`: it ended at `max_tokens`, not by itself. `cached`: nothing was paid for it this time."""

    text: str
    cut: bool
    prompt_tokens: int
    completion_tokens: int
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request without an answer. `given_up`: every attempt failed; `refused`: the server refuses this request (4xx); `budget_spent`: not
    sent, since it could have gone over the budget. `detail` holds no prompt, no answer and no key."""

    reason: Literal["given_up", "refused", "budget_spent"]
    detail: str = ""


class Client(Protocol):
    """A language model that answers chats."""

    def ask(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Answer | Unanswered]:
        """Answers in the order of the requests, whatever came first. Equal requests are asked once."""
        ...
