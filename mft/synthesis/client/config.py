"""How to reach a language model, and what it may cost."""

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mft.config.model import StrictModel

OWN_KEYS: Final = ("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "stream", "n")
"""What `extra` may not hold: the request says it, or the client could not read the answer."""


class Price(StrictModel):
    """What a server charges, for a million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    currency: str = "USD"


class Budget(StrictModel):
    """Where to stop. A request is sent only if, at its dearest, it cannot go over any of these; runs in the same folder add up."""

    cost: float | None = Field(None, gt=0)
    """In the price's currency."""

    tokens: int | None = Field(None, gt=0)
    """Of prompts and answers together."""

    requests: int | None = Field(None, gt=0)
    """Requests that were charged, or may have been."""

    @model_validator(mode="after")
    def _names_a_limit(self) -> "Budget":
        if self.cost is None and self.tokens is None and self.requests is None:
            raise ValueError("names no limit; give cost, tokens or requests")
        return self


class EndpointConfig(StrictModel):
    """Servers with OpenAI's chat interface: vLLM, SGLang, llama.cpp, or a hosted one."""

    type: Literal["endpoint"]

    urls: list[str] = Field(min_length=1)
    """Each up to and with `/v1`. Several servers of one model share the work; one that fails rests for a while."""

    model: str = Field(min_length=1)
    """The model's name, as the servers know it."""

    key_variable: str | None = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; without a value no key is sent. The key itself is never written anywhere."""

    concurrency: int = Field(8, ge=1, le=1024)
    """Requests under way at a time, for each URL."""

    timeout_s: float = Field(300.0, gt=0)
    """For one whole answer."""

    attempts: int = Field(6, ge=1)
    """How often a request is sent before it is given up. An answer of 429 (too many requests) does not count."""

    backoff_s: float = Field(1.0, gt=0)
    """Pause before the second attempt, about; twice as long before each further one, at most a minute."""

    longest_wait_s: float = Field(900.0, gt=0)
    """Longest time that a request waits for servers which answer 429. One that asks for a longer pause ends the run; nothing is lost."""

    requests_per_minute: int | None = Field(None, ge=1)
    """Most requests sent to each URL in any 60 seconds. What servers say of their limits is followed in any case."""

    tokens_per_minute: int | None = Field(None, ge=1)
    """The same in tokens of prompts and answers; estimated where an answer is not there yet."""

    price: Price | None = None
    """Without it the ledger counts tokens alone."""

    budget: Budget | None = None

    charges: Literal["attempts", "requests"] = "attempts"
    """What a server charges when a request is sent again after its answer was lost. `attempts`: each. `requests`: once, as it knows the
    header Idempotency-Key. Under `attempts` each lost answer counts against the budget with the most that it can have cost."""

    template_tokens: int = Field(64, ge=0)
    """Most tokens that the server's chat template adds to a message; for the most that a request can cost. Each byte of text counts
    as one."""

    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Under which name the length of the answer is sent; some hosted models know the second one alone."""

    omit: list[Literal["temperature", "top_p", "stop", "seed"]] = Field(default_factory=list)
    """Settings that are not sent, since the server refuses them. Stop strings are then applied here."""

    seed: int = 0
    """Sent as `seed`, plus the number of the sample."""

    extra: dict[str, Any] = Field(default_factory=dict)
    """Sent with every request, `{top_k: 20}` say."""

    @field_validator("urls")
    @classmethod
    def _plain_urls(cls, urls: list[str]) -> list[str]:
        for number, url in enumerate(urls, start=1):
            try:
                parts = urlsplit(url)
                _ = parts.port
            except ValueError:
                raise ValueError(f"URL {number} is none") from None
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"URL {number} does not begin with http:// or https:// and a host")
            if parts.username is not None or parts.query or parts.fragment:
                raise ValueError(f"URL {number} holds a user name, a query or a fragment, where keys could stand; a key comes from the "
                                 "environment variable that key_variable names")
        stripped = [url.rstrip("/") for url in urls]
        if len(set(stripped)) < len(stripped):
            raise ValueError("the same URL stands twice; raise concurrency to send it more at a time")
        return stripped

    @field_validator("key_variable")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        """A key that was put here by mistake is refused, and the message does not repeat it."""
        if name is None or (re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) and not re.fullmatch(r"(?=.*\d)[A-Z0-9]{16,}", name)):
            return name
        raise ValueError("is not the name of an environment variable in capitals, like OPENAI_API_KEY; if it is a key, take it out of this "
                         "file, and put it into such a variable")

    @field_validator("extra")
    @classmethod
    def _nothing_of_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if own := [key for key in extra if key in OWN_KEYS]:
            raise ValueError(f"may not hold {', '.join(own)}; the request says it, or another key of this config")
        if secret := [key for key in extra if re.search(r"api.?key|token$|secret|password|authorization", key, re.IGNORECASE)]:
            raise ValueError(f"may not hold {', '.join(secret)}; a key comes from the environment variable that key_variable names")
        return extra

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> "EndpointConfig":
        if self.budget and self.budget.cost is not None and self.price is None:
            raise ValueError("budget.cost needs price, the cost of a million tokens")
        return self


class LocalConfig(StrictModel):
    """A model loaded in this process."""

    type: Literal["local"]

    model: str = Field(min_length=1)
    """A built-in base, a model or adapter folder (also relative to the config), or a hub id."""

    format: str | None = None
    """Prompt format; without it the one that the folder names."""

    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Type of the weights that are not quantised. An adapter folder's base is held as it was while training."""

    quantization: Literal["nf4", "none"] = "none"
    """`nf4`: the model's weights in 4 bits, through bitsandbytes; not for adapter folders."""

    batch_size: int = Field(8, ge=1)
    """Chats answered at a time. Sampled answers depend on it."""

    seed: int = 0
    """Of sampled answers."""


ClientConfig = Annotated[EndpointConfig | LocalConfig, Field(discriminator="type")]
"""Who answers: `type: endpoint` or `type: local`."""
