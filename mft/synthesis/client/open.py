"""A client on a folder that keeps its answers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from mft.synthesis.client.amounts import Amount
from mft.synthesis.client.books import Books
from mft.synthesis.client.config import ClientConfig, EndpointConfig
from mft.synthesis.client.ledger import Ledger
from mft.synthesis.client.request import Client
from mft.synthesis.client.store import AnswerStore

logger = logging.getLogger(__name__)


class OpenClient(Client, Protocol):
    """A client, and what it was asked and paid so far."""

    ledger: Ledger

    def close(self) -> None:
        """Let go of connections or of a model; its answers stay."""
        ...


@contextmanager
def open_client(config: ClientConfig, folder: Path, *, beside: Path | None = None) -> Iterator[OpenClient]:
    """Open the client that `config` describes; its answers are kept in `folder`, and those that are there are not asked again.

    `beside`: the folder that a relative path of a local model is relative to. What runs in the same folder have spent counts against the
    budget. Several models may share a folder, several processes may not.

    Raises:
        OutputError: another process uses the folder, or its answers are damaged.
        ModelError: the local model is not there, or the value of `key_variable` can be no key.
    """
    price = config.price if isinstance(config, EndpointConfig) else None
    budget = config.budget if isinstance(config, EndpointConfig) else None
    books = Books(budget, once=isinstance(config, EndpointConfig) and config.charges == "requests")
    store = AnswerStore(folder, books.replay)
    try:
        if lost := books.lose_the_rest():
            _tell_lost(lost, store.path, price.currency if price else None)
        client = _client(config, store, books, Ledger(books, price.currency if price else None, budget), beside)
        try:
            yield client
        finally:
            client.close()
    finally:
        store.close()


def _client(config: ClientConfig, store: AnswerStore, books: Books, ledger: Ledger, beside: Path | None) -> OpenClient:
    if isinstance(config, EndpointConfig):
        from mft.synthesis.client.endpoint import EndpointClient

        return EndpointClient(config, store, books, ledger)
    from mft.synthesis.client.local import LocalClient

    return LocalClient(config, store, books, ledger, beside)


def _tell_lost(lost: list[Amount], path: Path, currency: str | None) -> None:
    tokens = sum(amount.tokens for amount in lost)
    money = f" ({sum((amount.cost for amount in lost), Decimal(0)):.4f} {currency})" if currency else ""
    logger.warning("%s: requests in flight when the last run was ended: %d; they may have been charged at most %d tokens%s, and are asked "
                   "again", path, len(lost), tokens, money)
