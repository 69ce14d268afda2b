"""A client on a fake server, as the tests of the client use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mft.conversation import Message
from mft.synthesis.client.config import Budget, EndpointConfig, Price
from mft.synthesis.client.open import OpenClient, open_client
from mft.synthesis.client.request import Request

PRICE = Price(prompt=1.0, completion=3.0)


def endpoint(*urls: str, **settings: Any) -> EndpointConfig:
    """A config with short pauses."""
    return EndpointConfig(**{"type": "endpoint", "urls": list(urls), "model": "m", "backoff_s": 0.01, "timeout_s": 5.0,
                             "price": PRICE, "charges": "requests", **settings})


def asks(count: int, purpose: str = "answer", **settings: Any) -> list[Request]:
    """Different requests: `say 0`, `say 1`, ..."""
    return [Request(purpose, (Message("user", f"say {number}"),), **{"max_tokens": 20, **settings}) for number in range(count)]


@contextmanager
def opened(folder: Path, *urls: str, **settings: Any) -> Iterator[OpenClient]:
    """A client of these servers whose answers are kept in `folder`."""
    with open_client(endpoint(*urls, **settings), folder) as client:
        yield client


def budget(**limits: Any) -> Budget:
    return Budget(**limits)
