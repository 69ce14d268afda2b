"""One view of a whole project on a terminal: its stages with their state and time, and the bar of the one that runs.

    data     data      done       0:12
    train    train     running    1:03:20
    merged   merge     waiting
    train ━━━━━━━━━━━━━━━━  34% 412/1200  loss 0.713  1:58:04

Log lines go by above it. Where stderr is no terminal there is no view, and the log lines tell it all.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from mft.log import Move, bar_columns, bar_of, current_view, shows_progress

STYLES = {"done": "green", "skipped": "dim", "running": "bold", "failed": "red", "interrupted": "yellow", "waiting": "dim"}


class StageView:
    """The stages of a project, by name and kind. Nothing is drawn without a console."""

    def __init__(self, stages: Sequence[tuple[str, str]], console: Any = None) -> None:
        self._kinds = dict(stages)
        self._states = dict.fromkeys(self._kinds, "waiting")
        self._seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._console = console
        self._live: Any = None
        self._bars: Any = None
        self._handlers: list[tuple[Any, Any]] = []

    def begin(self, name: str) -> None:
        """A stage runs."""
        self._states[name] = "running"
        self._started[name] = time.monotonic()
        self._draw()

    def end(self, name: str, state: str, seconds: float | None = None) -> None:
        """A stage has ended: `done`, `skipped`, `failed` or `interrupted`; `seconds`: what it took, if not since `begin`."""
        self._states[name] = state
        self._seconds[name] = time.monotonic() - self._started[name] if seconds is None else seconds
        if self._bars is not None:
            for task in list(self._bars.task_ids):
                self._bars.remove_task(task)
        self._draw()

    @contextmanager
    def bar(self, title: str) -> Iterator[Move]:
        """A bar under the stages."""
        if self._bars is None:
            yield lambda done, total=None, note="", title=None: None
            return
        before = set(self._bars.task_ids)
        move = bar_of(self._bars, title)
        try:
            yield move
        finally:
            for task in set(self._bars.task_ids) - before:
                with suppress(KeyError):     # the stage has ended, and its bars with it
                    self._bars.remove_task(task)

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 3))
        for name, kind in self._kinds.items():
            state = self._states[name]
            table.add_row(Text(name), Text(kind, style="dim"), Text(state, style=STYLES[state]), Text(self._time(name)))
        return Group(table, self._bars) if self._bars is not None and self._bars.task_ids else table

    def _time(self, name: str) -> str:
        if self._states[name] == "running":
            return elapsed(time.monotonic() - self._started[name])
        return elapsed(self._seconds[name]) if name in self._seconds else ""

    def _draw(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def open(self) -> None:
        """Begin to draw."""
        if self._console is None:
            return
        from rich.live import Live
        from rich.progress import Progress

        if self._bars is None:
            self._bars = Progress(*bar_columns(), console=self._console)
        before = self._console.file
        self._live = Live(self, console=self._console, refresh_per_second=4)
        self._live.start()
        for handler in logging.getLogger().handlers:     # log lines go by above the view
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                self._handlers.append((handler, handler.setStream(sys.stderr)))

    def close(self) -> None:
        """Leave the stages as they stand on the terminal, and draw no more."""
        if self._live is not None:
            for handler, stream in self._handlers:
                handler.setStream(stream)
            self._handlers.clear()
            self._live.stop()
            self._live = None


def elapsed(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> elapsed(12.4), elapsed(3800)
    ('0:12', '1:03:20')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def stage_view(stages: Sequence[tuple[str, str]]) -> Iterator[StageView]:
    """The view of these stages while the block runs; one of several ranks, and a process without a terminal, draw nothing."""
    console = None
    if shows_progress() and "RANK" not in os.environ:
        from rich.console import Console

        console = Console(stderr=True)
    view = StageView(stages, console)
    before = current_view.set(view if console else None)
    view.open()
    try:
        yield view
    finally:
        view.close()
        current_view.reset(before)


@contextmanager
def without_view() -> Iterator[None]:
    """While the block runs the terminal belongs to other processes, such as ranks with a bar of their own."""
    view = current_view.get()
    if not isinstance(view, StageView):
        yield
        return
    view.close()
    try:
        yield
    finally:
        view.open()
