"""The requests of one call: which are answered from the store, which are to be asked, and the answers in the order of the requests."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mft.synthesis.client.ledger import Ledger
from mft.synthesis.client.request import Answer, Request, Unanswered
from mft.synthesis.client.store import AnswerStore

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Kept:
    """`keys[i]` is the hash of what `requests[i]` asks. Equal ones are asked once, for the first of them."""

    store: AnswerStore
    ledger: Ledger
    requests: Sequence[Request]
    keys: Sequence[str]
    places: list[int] = field(init=False)
    """Places of the requests that differ from all before them."""

    missing: list[int] = field(init=False)
    """Those of them that must be asked, in order."""

    settled: int = field(init=False, default=0)
    _found: dict[str, Answer | Unanswered] = field(init=False, default_factory=dict)
    _times: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        first: dict[str, int] = {}
        for place, key in enumerate(self.keys):
            first.setdefault(key, place)
        self._times = Counter(self.keys)
        self.places = list(first.values())
        self.missing = [place for place in self.places if self.keys[place] not in self.store]
        self.settled = len(self.keys) - sum(self._times[self.keys[place]] for place in self.missing)

    def settle(self, place: int, result: Answer | Unanswered) -> None:
        """Take in what a request that was missing got."""
        self._found[self.keys[place]] = result
        self.settled += self._times[self.keys[place]]

    def results(self) -> list[Answer | Unanswered]:
        """Answers in the order of the requests, counted in the ledger. All must be settled."""
        seen = set[str]()
        results = []
        for request, key in zip(self.requests, self.keys, strict=True):
            result = self._found[key] if key in self._found else answer_of(self.store.answer(key))
            if isinstance(result, Answer) and key in seen:
                result = replace(result, cached=True)
            what = result.reason if isinstance(result, Unanswered) else "cached" if result.cached else "answered"
            self.ledger.count(request.purpose, what)
            results.append(result)
            seen.add(key)
        return results

    def log(self) -> None:
        """One line of counts."""
        reasons = Counter(result.reason for result in self._found.values() if isinstance(result, Unanswered))
        logger.info("asked %d of %d requests, %d were answered already%s", len(self.missing), len(self.requests),
                    len(self.requests) - len(self.missing), "".join(f"; {reason} {count}" for reason, count in sorted(reasons.items())))


def answer_of(entry: dict[str, Any]) -> Answer:
    """An answer as the store keeps it."""
    return Answer(entry["text"], entry["cut"], entry["known"][0], entry["known"][1], cached=True)
