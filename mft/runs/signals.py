"""A request to stop, by Ctrl-C or by SIGTERM, is the same to every stage: a KeyboardInterrupt where it stands."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_as_interrupt() -> Iterator[None]:
    """While the block runs SIGTERM raises KeyboardInterrupt, as Ctrl-C does.

    A train stage takes both signals over while it trains, to save its state first. One of several ranks keeps its own handling: they are
    told together, and the process that started them says how it ended.
    """
    if threading.current_thread() is not threading.main_thread() or "RANK" in os.environ:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
