"""Which server a request goes to, and when: the least busy one that is neither resting nor at its limit.

A server that answers 429 rests as long as it asks, and takes half as many requests at a time from then on; each answer lets it take one
more. One that fails three times in a row rests too, longer each time, and is then tried with one request.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from mft.errors import ModelError

WINDOW_S: Final = 60.0
FAILURES_BEFORE_REST: Final = 3
LONGEST_REST_S: Final = 30.0
LOOK_S: Final = 0.2
"""How often a request that waits for a server looks whether the run was stopped."""


@dataclass(slots=True)
class Ticket:
    """A request on its way to a server. `entry` is its place in the server's window: (time, tokens)."""

    lane: "Lane"
    started: float
    entry: list[float]


@dataclass(slots=True)
class Lane:
    """One server, as it has behaved so far."""

    url: str
    most: int
    limit: int = 0
    busy: int = 0
    failures: int = 0
    rests_until: float = 0.0
    failed: float = 0.0
    """When the last failure was counted."""

    answered: bool = False
    """It has answered a request in this run."""

    window: deque[list[float]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.limit = self.most


@dataclass(slots=True)
class Lanes:
    """All servers of a client. Threads may share them."""

    urls: Collection[str]
    concurrency: int
    backoff_s: float
    longest_wait_s: float
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    lanes: list[Lane] = field(init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.lanes = [Lane(url, self.concurrency) for url in self.urls]

    def take(self, tokens: int, tried: Collection[str], stopped: Callable[[], bool]) -> Ticket | None:
        """A place at a server, waited for; servers in `tried` come last. None where the run was stopped.

        Raises:
            ModelError: every server asks for a longer pause than `longest_wait_s`.
        """
        with self._changed:
            while not stopped():
                now = time.monotonic()
                opening = {lane.url: self._opens(lane, tokens, now) for lane in self.lanes}
                free = [lane for lane in self.lanes if opening[lane.url] <= now and lane.busy < lane.limit]
                if free:
                    lane = min(free, key=lambda lane: (lane.url in tried, lane.busy))
                    entry = [now, float(tokens)]
                    lane.window.append(entry)
                    lane.busy += 1
                    return Ticket(lane, now, entry)
                rest = min(lane.rests_until for lane in self.lanes) - now
                if rest > self.longest_wait_s:
                    raise ModelError(f"{self.lanes[0].url}: asks to wait {rest:.0f} s, and longest_wait_s is {self.longest_wait_s:.0f}; "
                                     "what was answered is kept: run this again then")
                opens = min((opening[lane.url] for lane in self.lanes if lane.busy < lane.limit), default=now + LOOK_S)
                self._changed.wait(min(LOOK_S, max(0.001, opens - now)))
        return None

    def _opens(self, lane: Lane, tokens: int, now: float) -> float:
        """When the server may be sent a request of so many tokens, as far as rests and its window go."""
        window = lane.window
        while window and window[0][0] <= now - WINDOW_S:
            window.popleft()
        opens = lane.rests_until
        if self.requests_per_minute is not None and len(window) >= self.requests_per_minute:
            opens = max(opens, window[-self.requests_per_minute][0] + WINDOW_S)
        if self.tokens_per_minute is not None:
            used = sum(entry[1] for entry in window)
            for sent, count in window:      # the oldest leave the window until there is room; one alone may be larger than the limit
                if used + tokens <= self.tokens_per_minute:
                    break
                used -= count
                opens = max(opens, sent + WINDOW_S)
        return opens

    def answered(self, ticket: Ticket, tokens: int, wait_s: float | None) -> None:
        """The server answered; `wait_s`: it asks for a pause all the same, since a limit is used up now."""
        with self._changed:
            lane = self._leave(ticket)
            ticket.entry[1] = float(tokens)
            lane.failures, lane.answered = 0, True
            lane.limit = min(lane.most, lane.limit + 1)
            lane.rests_until = max(lane.rests_until, time.monotonic() + (wait_s or 0.0))

    def refused(self, ticket: Ticket) -> None:
        """The server is well, and does not take this request."""
        with self._changed:
            self._leave(ticket).failures = 0

    def limited(self, ticket: Ticket, wait_s: float | None) -> None:
        """The server answered 429; `wait_s`: the pause that it asks for."""
        with self._changed:
            lane, fresh = self._leave(ticket), self._is_fresh(ticket)
            if fresh:
                lane.limit = max(1, lane.limit // 2)
            pause = wait_s if wait_s is not None else self._pause(lane.failures)
            lane.rests_until = max(lane.rests_until, lane.failed + pause)

    def failed(self, ticket: Ticket) -> None:
        """The server could not be reached, or did not answer as it should."""
        with self._changed:
            lane = self._leave(ticket)
            if self._is_fresh(ticket) and lane.failures >= FAILURES_BEFORE_REST:
                lane.rests_until = max(lane.rests_until, lane.failed + self._pause(lane.failures - FAILURES_BEFORE_REST + 1))
                lane.limit = 1

    def _is_fresh(self, ticket: Ticket) -> bool:
        """Count a failure, but for one of a request that was on its way when the last one came: that tells nothing more."""
        lane = ticket.lane
        if lane.failures and ticket.started < lane.failed:
            return False
        lane.failures, lane.failed = lane.failures + 1, time.monotonic()
        return True

    def _pause(self, times: int) -> float:
        return float(min(LONGEST_REST_S, self.backoff_s * 2 ** min(times - 1, 20)))

    def _leave(self, ticket: Ticket) -> Lane:
        ticket.lane.busy -= 1
        self._changed.notify_all()
        return ticket.lane
