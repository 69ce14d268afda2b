"""How much memory a merge takes, watched while it runs."""

import re
import resource
import sys
import threading
from pathlib import Path
from types import TracebackType

STATUS = Path("/proc/self/status")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def anonymous_bytes() -> int:
    """Memory of this process that no file backs, in bytes; where the system does not tell, its peak resident memory."""
    if STATUS.is_file() and (match := re.search(r"^RssAnon:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return int(match[1]) * 1024
    return peak_rss_bytes()


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
