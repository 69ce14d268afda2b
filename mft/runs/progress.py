"""A progress bar on stderr for work that counts itself; where stderr is no terminal, a line in the log every half minute."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mft.log import shows_progress, terminal_bar

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `report(done, total)`; the bar is gone when the block ends."""
    if not shows_progress():
        yield _log_lines(description)
        return
    with terminal_bar(description) as move:
        yield move


def _log_lines(description: str) -> Callable[[int, int], None]:
    """`report(done, total)` that logs how far the work is and what is left, at the pace since the first report."""
    first: int | None = None
    started = told = 0.0

    def report(done: int, total: int) -> None:
        nonlocal told, first, started
        now = time.monotonic()
        if first is None:
            first, started, told = done, now, now
        if now - told >= SECONDS_BETWEEN_LINES and done > first:
            told = now
            left = (now - started) * (total - done) / (done - first)
            logger.info("%s: %.0f%%, about %.0f s left", description, 100 * done / max(total, 1), left)
    return report
