"""Servers as a client: requests go out in order, many at a time; each is answered once, kept, and never paid again.

A worker takes the next request once the budget lets it in, finds a server for it, and sends it until it is answered, refused, or has failed
`attempts` times. What ends all requests alike (a wrong key, no server at all) ends the run with one message; answers that are on their way
then are still waited for and kept. Logs hold hashes, causes and counts alone.
"""

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from mft.errors import ModelError
from mft.generation.http import Connections, TransferFault, api_key
from mft.synthesis.client.amounts import Amount, estimated_tokens, most_prompt_tokens, priced
from mft.synthesis.client.books import Books
from mft.synthesis.client.config import EndpointConfig
from mft.synthesis.client.exchange import Declined, Failed, Written, body_of, key_of, read_reply, whole_run_fault
from mft.synthesis.client.kept import Kept
from mft.synthesis.client.lanes import Lanes, Ticket
from mft.synthesis.client.ledger import Ledger
from mft.synthesis.client.request import Answer, Progress, Request, Unanswered
from mft.synthesis.client.store import AnswerStore
from mft.synthesis.client.waits import asked_wait_s
from mft.synthesis.client.workers import Work, run_workers

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S: Final = 60.0
REFUSED_AND_NONE_ANSWERED: Final = 20
"""After so many requests refused and none answered, the config is taken to be wrong."""

GIVEN_UP_IN_A_ROW: Final = 5
"""After so many requests given up with no answer between them, the servers are taken to be down."""

SENT_IN_VAIN: Final = {"timed_out", "connection_lost", "truncated"}
"""Faults after which the server may have done, and charged, the work."""


@dataclass(slots=True)
class Outage:
    """How the servers did lately, over all requests. `given_up`: since the last answer; `refused`: before the first one."""

    answers: int = 0
    given_up: int = 0
    refused: int = 0


@dataclass(slots=True)
class EndpointClient:
    """Asks servers; `Client` of the seam. Made by `open_client`."""

    config: EndpointConfig
    store: AnswerStore
    books: Books
    ledger: Ledger
    _lanes: Lanes = field(init=False)
    _key: str | None = field(init=False, repr=False)
    _connections: Connections = field(default_factory=Connections, repr=False)
    _outage: Outage = field(default_factory=Outage)
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        config = self.config
        self._key = api_key(config.key_variable)
        self._lanes = Lanes(config.urls, config.concurrency, config.backoff_s, config.longest_wait_s, config.requests_per_minute,
                            config.tokens_per_minute)

    def ask(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Answer | Unanswered]:
        """As `Client.ask`.

        Raises:
            ModelError: no request can be answered: the key, the model or the URL is wrong, or the servers are down. What was answered
                until then is kept.
            OutputError: the disk is full.
        """
        kept = Kept(self.store, self.ledger, requests, [key_of(self.config, request) for request in requests])
        try:
            run_workers(Work(kept, progress), self._answer, self._admit, self.config.concurrency * len(self.config.urls))
        finally:
            self.books.release()
        kept.log()
        return kept.results()

    def close(self) -> None:
        """Close the connections to the servers."""
        self._connections.close()

    def _worst(self, request: Request) -> Amount:
        """The most that one attempt can cost."""
        return priced(most_prompt_tokens(request.messages, self.config.template_tokens), request.max_tokens, self.config.price)

    def _admit(self, work: Work, key: str, request: Request) -> Unanswered | None:
        """Wait until a request fits into the budget; what it gets instead where it does not."""
        worst = self._worst(request)
        if self.books.hold(key, request.purpose, worst, work.stopped):
            return None
        return self._over_budget(worst)

    def _over_budget(self, worst: Amount) -> Unanswered:
        spent, price = self.books.spent, self.config.price
        if price is None:
            return Unanswered("budget_spent", f"{spent.tokens} tokens are spent; the next request can have {worst.tokens}")
        money = f"{spent.tokens} tokens and {spent.cost.normalize():f} {price.currency} are spent"
        return Unanswered("budget_spent", f"{money}; the next request can have {worst.tokens} and cost {worst.cost.normalize():f}")

    def _answer(self, work: Work, key: str, request: Request) -> Answer | Unanswered | None:
        """All attempts at one request that the budget has let in; None where the run was stopped meanwhile."""
        tried = set[str]()
        failures, limited_since, answers_before, held = 0, 0.0, self._outage.answers, True
        causes = set[str]()
        while True:
            if not held and not self.books.hold(key, request.purpose, self._worst(request), work.stopped):
                return None if work.stopped() else self._over_budget(self._worst(request))
            ticket = self._lanes.take(self._estimate(request), tried, work.stopped)
            if ticket is None:
                return None
            outcome = self._attempt(key, request, ticket)
            if isinstance(outcome, Written):
                return self._keep(key, request, outcome)
            if isinstance(outcome, Declined):
                self._settle_failed(key, request, Failed("refused", outcome.usage), again=False)
                self._check_refusals(outcome, ticket)
                return Unanswered("refused", outcome.detail)
            tried = {ticket.lane.url, *(tried if len(tried) < len(self.config.urls) - 1 else ())}
            causes.add(outcome.cause)
            if outcome.cause == "rate_limited":
                limited_since = limited_since or time.monotonic()
                last = time.monotonic() - limited_since > self.config.longest_wait_s
            else:
                failures += 1
                last = failures >= self.config.attempts
            held = self._settle_failed(key, request, outcome, again=not last)
            if last:
                self._check_outage(causes, answers_before, ticket)
                return Unanswered("given_up", f"{failures} attempts: {', '.join(sorted(causes))}")
            if outcome.cause != "rate_limited":
                work.pause(self._pause_s(key, failures))

    def _attempt(self, key: str, request: Request, ticket: Ticket) -> Written | Failed | Declined:
        """Send a request once, and tell its server's lane how it did."""
        worst, lane = self._worst(request), ticket.lane
        self.store.append({"record": "started", "key": key, "purpose": request.purpose, "worst": worst.to_json()})
        headers = {"Idempotency-Key": key, **({"Authorization": f"Bearer {self._key}"} if self._key else {})}
        try:
            reply = self._connections.post(f"{lane.url}/chat/completions", body_of(self.config, request), headers, self.config.timeout_s)
        except TransferFault as fault:
            self._lanes.failed(ticket)
            logger.debug("%s: %s: %s", lane.url, fault.cause, fault)
            return Failed(fault.cause, uncertain=fault.cause in SENT_IN_VAIN)
        wait_s = asked_wait_s(reply.headers, time.time())
        if message := whole_run_fault(reply, lane.url, self._key, self.config, request, answered=lane.answered):
            self._lanes.refused(ticket)
            self._settle_failed(key, request, Failed("refused"), again=False)
            raise ModelError(message)
        outcome = read_reply(reply, request, self._key)
        if isinstance(outcome, Written):
            self._lanes.answered(ticket, sum(outcome.usage or self._guess(request, outcome)), wait_s)
        elif isinstance(outcome, Declined):
            self._lanes.refused(ticket)
        elif outcome.cause == "rate_limited":
            self._lanes.limited(ticket, wait_s)
        else:
            self._lanes.failed(ticket)
        return outcome

    def _keep(self, key: str, request: Request, written: Written) -> Answer:
        """Write an answer down; it is on the disk when this returns."""
        counted = written.usage is not None
        usage = written.usage or self._guess(request, written)
        known = priced(*usage, self.config.price)
        worst = self._worst(request)
        rest = None if counted else replace(worst - known, requests=0)
        if counted:
            self._check_bounds(known, worst)
        self.store.append({"record": "answer", "key": key, "text": written.text, "cut": written.cut, "known": known.to_json(),
                           **({} if rest is None else {"uncertain": rest.to_json(), "estimated": True})}, durable=True)
        self.books.settle(key, known=known, uncertain=rest, answered=True, estimated=not counted)
        self._outage.answers += 1
        self._outage.given_up = 0
        return Answer(written.text, written.cut, *usage)

    def _check_bounds(self, known: Amount, worst: Amount) -> None:
        """Say once where a server counts more than it can, by which a budget could be passed."""
        for what, found, most, advice in (
                ("a prompt", known.prompt_tokens, worst.prompt_tokens, "raise template_tokens"),
                ("an answer", known.completion_tokens, worst.completion_tokens, "try the other max_tokens_key")):
            if found > most and what not in self._told:
                self._told.add(what)
                logger.warning("%s: the server counts %d tokens in %s that can have %d; %s, or a budget is not exact", self.config.model,
                               found, what, most, advice)

    def _settle_failed(self, key: str, request: Request, failed: Failed, *, again: bool) -> bool:
        """Write down an attempt without an answer. True where the next one needs not be let in anew."""
        known = self._paid(failed.usage)
        uncertain = self._worst(request) if failed.uncertain else None
        self.store.append({"record": "failed", "key": key, "cause": failed.cause, "known": known and known.to_json(),
                           "uncertain": uncertain and uncertain.to_json()})
        self.ledger.retry(request.purpose, failed.cause)
        return self.books.settle(key, known=known, uncertain=uncertain, cause=failed.cause, again=again)

    def _paid(self, usage: tuple[int, int] | None) -> Amount | None:
        return priced(*usage, self.config.price) if usage else None

    def _check_outage(self, causes: set[str], answers_before: int, ticket: Ticket) -> None:
        """Stop all where the servers are down: every further request would be given up too, and its row be dropped for it."""
        self._outage.given_up += 1
        nobody = causes == {"unreachable"} and self._outage.answers == answers_before
        if nobody or self._outage.given_up >= GIVEN_UP_IN_A_ROW:
            what = ", ".join(sorted(causes)).replace("unreachable", "cannot be reached")
            raise ModelError(f"{ticket.lane.url}/chat/completions: {what}; {self._outage.given_up} requests in a row had no answer after "
                             f"{self.config.attempts} attempts each. What was answered is kept: run this again once the server answers")

    def _check_refusals(self, declined: Declined, ticket: Ticket) -> None:
        """Stop all where a server takes none of many requests, and their length is not why: then it is the config that is wrong."""
        self._outage.given_up = 0
        self._outage.refused += 1
        too_long = re.search(r"context|length|long|token", f"{declined.detail} {declined.said}", re.IGNORECASE)
        if not self._outage.answers and self._outage.refused >= REFUSED_AND_NONE_ANSWERED and not too_long:
            raise ModelError(f"{ticket.lane.url}/chat/completions: refused {self._outage.refused} requests and answered none: "
                             f"{declined.detail}" + (f": {declined.said}" if declined.said else "") + "; check model, extra and omit")

    def _guess(self, request: Request, written: Written) -> tuple[int, int]:
        """Tokens of prompt and answer, estimated."""
        prompt = sum(estimated_tokens(message.content) for message in request.messages)
        return prompt, min(estimated_tokens(written.text), request.max_tokens)

    def _estimate(self, request: Request) -> int:
        """Tokens that a server's own limit will count, about."""
        return sum(estimated_tokens(message.content) for message in request.messages) + request.max_tokens

    def _pause_s(self, key: str, failures: int) -> float:
        """Exponential, with a share between a half and one that follows from the request, so that not all come back at once."""
        share = 0.5 + int(sha256(f"{key} {failures}".encode()).hexdigest()[:8], 16) / (2 << 32)
        return min(LONGEST_PAUSE_S, self.config.backoff_s * 2.0 ** min(failures - 1, 30)) * share
