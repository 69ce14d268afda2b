"""Threads that work through the missing requests of one call, in order, until all are settled or the run is stopped."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from mft.synthesis.client.kept import Kept
from mft.synthesis.client.request import Answer, Progress, Request, Unanswered

logger = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often the main thread looks up from waiting: Ctrl-C reaches it between two looks."""


@dataclass(slots=True)
class Work:
    """The requests of one call on their way. Workers are threads of their own."""

    kept: Kept
    progress: Progress | None
    next: int = 0
    fault: BaseException | None = None
    over_budget: Unanswered | None = None
    busy: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _admission: threading.Lock = field(default_factory=threading.Lock)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def stopped(self) -> bool:
        """True once no further request shall be sent."""
        return self._stop.is_set()

    def stop(self, fault: BaseException | None = None) -> None:
        """Send nothing more; the first fault is the one that is raised."""
        with self._changed:
            self.fault = self.fault or fault
            self._stop.set()
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Sleep, unless the run is stopped."""
        self._stop.wait(seconds)


Answering = Callable[[Work, str, Request], Answer | Unanswered | None]
Admitting = Callable[[Work, str, Request], Unanswered | None]


def run_workers(work: Work, answer: Answering, admit: Admitting, most: int) -> None:
    """Settle every missing request, or raise the fault that ended the work.

    Raises:
        KeyboardInterrupt: after answers that were on their way have come; at once when pressed a second time.
    """
    kept = work.kept
    if work.progress:
        work.progress(kept.settled, len(kept.keys))
    work.busy = min(most, len(kept.missing))
    for number in range(work.busy):
        threading.Thread(target=_worker, args=(work, answer, admit), name=f"client-{number}", daemon=True).start()
    try:
        _wait(work, work.progress)
    except BaseException as error:      # of Ctrl-C, or of the caller's progress
        work.stop()
        if isinstance(error, KeyboardInterrupt):
            logger.warning("waiting for the answers that are on their way and paid for; Ctrl-C once more leaves them")
        _wait(work, None)
        raise
    if work.fault is not None:
        raise work.fault


def _wait(work: Work, progress: Progress | None) -> None:
    """Wait for the workers, telling how far they are."""
    shown = -1
    while True:
        with work._changed:
            if work.busy and shown == work.kept.settled:
                work._changed.wait(LOOK_S)
            busy, settled = work.busy, work.kept.settled
        if progress and settled != shown:
            progress(settled, len(work.kept.keys))
        shown = settled
        if not busy:
            return


def _worker(work: Work, answer: Answering, admit: Admitting) -> None:
    try:
        while (admitted := _next(work, admit)) is not None:
            place, over_budget = admitted
            result = over_budget or answer(work, work.kept.keys[place], work.kept.requests[place])
            if result is None:
                break
            with work._changed:
                work.kept.settle(place, result)
                work._changed.notify_all()
    except BaseException as error:  # noqa: BLE001  raised anew by the main thread
        work.stop(error)
    finally:
        with work._changed:
            work.busy -= 1
            work._changed.notify_all()


def _next(work: Work, admit: Admitting) -> tuple[int, Unanswered | None] | None:
    """(place of the next request, what it gets without being asked); None where there is none. One after the other, in order: a request
    that does not fit into the budget ends the sending, so that no later one takes its turn."""
    with work._admission:
        if work.stopped() or work.next == len(work.kept.missing):
            return None
        place = work.kept.missing[work.next]
        if work.over_budget is None:
            work.over_budget = admit(work, work.kept.keys[place], work.kept.requests[place])
            if work.over_budget is not None and work.stopped():
                return None
        work.next += 1
        return place, work.over_budget
