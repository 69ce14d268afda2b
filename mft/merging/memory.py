"""How much memory a merge takes, watched while it runs."""

import threading
from types import TracebackType

from mft.process import anonymous_bytes


class MemoryWatch:
    """Samples the anonymous memory of the process every few milliseconds between `with` and its end.

    Memory that earlier work has left free for use again does not show, as the process does not grow by it.
    """

    def __init__(self, interval_s: float = 0.01) -> None:
        self._interval_s = interval_s
        self._start = self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._start = self._peak = anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):
            self._peak = max(self._peak, anonymous_bytes())

    @property
    def grown_bytes(self) -> int:
        """Largest anonymous memory seen, less that at the start."""
        return max(self._peak, anonymous_bytes()) - self._start
