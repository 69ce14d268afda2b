"""The memory of this process, as its system tells it."""

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far, pages of mapped files included, in bytes.

    Linux: from /proc, as `ru_maxrss` of a process that another one started is at least the memory of that other one.
    """
    peak = _status_bytes("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT if peak is None else peak


def reset_peak_rss() -> int:
    """Let the peak begin anew at what is resident now (Linux; elsewhere nothing changes); returns what is resident now, in bytes."""
    with suppress(OSError):
        CLEAR_REFS.write_text("5")
    now = _status_bytes("VmRSS")
    return peak_rss_bytes() if now is None else now


def anonymous_bytes() -> int:
    """Memory of this process that no file backs, in bytes; where the system does not tell, its peak resident memory."""
    anonymous = _status_bytes("RssAnon")
    return peak_rss_bytes() if anonymous is None else anonymous


def _status_bytes(key: str) -> int | None:
    """A size in /proc/self/status; None where there is no such line."""
    if STATUS.is_file() and (match := re.search(rf"^{key}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return int(match[1]) * 1024
    return None
