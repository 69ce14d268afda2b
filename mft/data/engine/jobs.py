"""What a process is given to do, and how its end, its log lines and its errors come back."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mft.errors
from mft.data.engine.work import finish
from mft.errors import ConfigError, MftError
from mft.process import peak_rss_bytes


class Job(ABC):
    """One piece of work: it reads and writes files of the working folder under names of its own, and its result is JSON."""

    folder: Path

    @property
    @abstractmethod
    def name(self) -> str:
        """The start of the names of its files."""

    @abstractmethod
    def run(self) -> dict[str, Any]:
        """Do it; the result has `rows`, the rows that it went through."""


def run_job(job: Job) -> dict[str, Any]:
    """Run a job in whatever process this is. A mistake of the user comes back as `{"error": [class, message]}`.

    The result has `logs` [[logger, level, message]], to be logged where the user sees it, and `peak_rss_bytes` of this process.
    """
    with _captured() as logs:
        try:
            result = job.run() | {"logs": logs, "peak_rss_bytes": peak_rss_bytes()}
            finish(job.folder, job.name, result)
        except MftError as error:
            return {"error": [type(error).__name__, str(error)], "logs": logs}
    return result


def replay(result: dict[str, Any]) -> dict[str, Any]:
    """Log what a job logged, raise its error, or return its result.

    Raises:
        MftError: of the class that the job raised.
    """
    for name, level, message in result["logs"]:
        logging.getLogger(name).log(level, "%s", message)
    if "error" not in result:
        return result
    kind, message = result["error"]
    error: type[MftError] = getattr(mft.errors, kind, MftError)
    raise error(message.splitlines()) if error is ConfigError else error(message)


class _Keep(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.levelno, record.getMessage()))


@contextmanager
def _captured() -> Iterator[list[tuple[str, int, str]]]:
    """Keep what mft logs from INFO on: a process of a pool has no log of its own."""
    logger, handler = logging.getLogger("mft"), _Keep()
    before = logger.level, logger.propagate, logger.handlers
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.handlers, logger.propagate = before[2], before[1]
        logger.setLevel(before[0])
