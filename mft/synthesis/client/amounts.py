"""What requests cost: tokens, money, and the most that either can come to before an answer is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from mft.conversation import Message
from mft.synthesis.client.config import Budget, Price

BYTES_PER_TOKEN: Final = 4
"""For an estimate, where a server does not count; no bound."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens, money and requests. Money is exact: prices are decimal numbers, and so are their products."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)
    requests: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens, self.cost + other.cost,
                      self.requests + other.requests)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.prompt_tokens - other.prompt_tokens, self.completion_tokens - other.completion_tokens, self.cost - other.cost,
                      self.requests - other.requests)

    @property
    def tokens(self) -> int:
        """Of prompts and answers together."""
        return self.prompt_tokens + self.completion_tokens

    def within(self, budget: Budget) -> bool:
        """True where no limit of the budget is below this."""
        return not ((budget.cost is not None and self.cost > exact(budget.cost))
                    or (budget.tokens is not None and self.tokens > budget.tokens)
                    or (budget.requests is not None and self.requests > budget.requests))

    def to_json(self) -> list[Any]:
        """As a list that `from_json` reads; money as text, so that it stays exact."""
        return [self.prompt_tokens, self.completion_tokens, str(self.cost), self.requests]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> "Amount":
        """The amount that `to_json` wrote."""
        return cls(int(value[0]), int(value[1]), Decimal(value[2]), int(value[3]))


def exact(number: float) -> Decimal:
    """The decimal number that a person wrote.

    >>> exact(0.15) * 3
    Decimal('0.45')
    """
    return Decimal(repr(float(number)))


def priced(prompt_tokens: int, completion_tokens: int, price: Price | None) -> Amount:
    """One request of so many tokens.

    >>> priced(1000, 100, Price(prompt=0.15, completion=0.6)).cost
    Decimal('0.00021000')
    """
    if price is None:
        return Amount(prompt_tokens, completion_tokens, requests=1)
    cost = (exact(price.prompt) * prompt_tokens + exact(price.completion) * completion_tokens).scaleb(-6)
    return Amount(prompt_tokens, completion_tokens, cost, requests=1)


def most_prompt_tokens(messages: Sequence[Message], template_tokens: int) -> int:
    """More tokens a chat cannot have: a token is at least one byte of it, or one that the server's template adds."""
    return sum(_size(message.content) + template_tokens for message in messages) + template_tokens


def estimated_tokens(text: str) -> int:
    """About so many tokens, where nobody counted."""
    return -(-_size(text) // BYTES_PER_TOKEN)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def read_usage(reply: Mapping[str, Any]) -> tuple[int, int] | None:
    """(tokens of the prompt, tokens of the answer) as the server counted them, or None where it did not."""
    usage = reply.get("usage")
    if not isinstance(usage, Mapping):
        return None
    found = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in found):
        return None
    return int(found[0] or 0), int(found[1] or 0)
