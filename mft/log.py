"""What goes to stderr: logging, configured once, by the command line alone, and bars of work that counts itself."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class Move(Protocol):
    """Moves a bar: what is done, of how much (None: not known), a few words beside it, and another title."""

    def __call__(self, done: int, total: int | None = None, note: str = "", title: str | None = None) -> None:
        """Move it."""


class View(Protocol):
    """A view of larger work that shows the bars of its parts among its own lines."""

    def bar(self, title: str) -> AbstractContextManager[Move]:
        """A bar in the view, gone when the block ends."""


current_view: ContextVar[View | None] = ContextVar("current_view", default=None)
"""The view in which bars are shown; None: each by itself."""


def configure_logging(verbosity: int = 0, debug: bool = False) -> None:
    """Set the level of mft's loggers: -1 warnings, 0 information, 1 and up debug; of libraries only errors are shown."""
    level = logging.DEBUG if debug or verbosity > 0 else logging.WARNING if verbosity < 0 else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    pattern = "%(asctime)s %(levelname).1s %(name)s: %(message)s" if debug else "%(message)s"
    handler.setFormatter(logging.Formatter(pattern, "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("mft").setLevel(level)
    if not debug:
        # Libraries set levels of their own when they are imported, so theirs are filtered where they come out.
        handler.addFilter(lambda record: record.name.split(".")[0] == "mft" or record.levelno >= logging.ERROR)
        logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)   # it has its own handler
        warnings.filterwarnings("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info" if debug else "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if debug else "1")


def shows_progress() -> bool:
    """True when a progress bar would be seen: stderr is a terminal."""
    return sys.stderr.isatty()


@contextmanager
def terminal_bar(title: str) -> Iterator[Move]:
    """A bar on stderr, in the current view if there is one; for callers that have asked `shows_progress`."""
    if view := current_view.get():
        with view.bar(title) as move:
            yield move
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(*bar_columns(), console=Console(stderr=True), transient=True) as progress:
        yield bar_of(progress, title)


def bar_columns() -> tuple[Any, ...]:
    """Title, bar, how much is done, a few words, the time left."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())


def bar_of(progress: Any, title: str) -> Move:
    """A bar among those of a rich Progress."""
    task = progress.add_task(title, total=None, note="")

    def move(done: int, total: int | None = None, note: str = "", title: str | None = None) -> None:
        progress.update(task, completed=done, total=total, note=note, **({"description": title} if title else {}))

    return move
