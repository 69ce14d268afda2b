"""`mft data build`: the options of the command line as an engine, and a progress bar with rows a second."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mft.data.config import load_recipe
from mft.data.engine.config import Engine
from mft.data.engine.run import Progress, Report, report_nothing
from mft.data.pipeline import build
from mft.errors import ConfigError
from mft.log import shows_progress, terminal_bar


def build_data(recipe: Path, out: Path, overwrite: bool, overrides: Sequence[str] = (), **options: Any) -> dict[str, Any]:
    """Build a recipe, `overrides` (`key.sub=value`) put over it, into a folder; `options` are the fields of `Engine`. Returns the facts.

    Raises:
        ConfigError: options that do not go together. MftError: what `mft.data.build` raises.
    """
    try:
        engine = Engine(**options)
    except ValidationError as error:
        raise ConfigError([_named(fault["loc"], fault["msg"]) for fault in error.errors()]) from error
    config = load_recipe(recipe, overrides, must_exist=True)
    with rows_bar() as report:
        return build(config, out, overwrite=overwrite, engine=engine, report=report).facts


def _named(place: Sequence[Any], message: str) -> str:
    """The option that is wrong, if it is one alone, before what is wrong with it."""
    option = f"--{str(place[0]).replace('_', '-')}: " if place else ""
    return option + message.removeprefix("Value error, ")


@contextmanager
def rows_bar() -> Iterator[Report]:
    """Yield what is told of a build's progress: stage, shards done, rows a second and the time left of the stage, on stderr."""
    if not shows_progress():
        yield report_nothing
        return
    with terminal_bar("build") as move:
        started: dict[str, float] = {}

        def report(progress: Progress) -> None:
            if progress.done == 0:
                started[progress.stage] = time.monotonic()
            seconds = time.monotonic() - started[progress.stage]
            move(progress.done, progress.total, speed_of(progress, seconds), progress.stage)

        yield report


def speed_of(progress: Progress, seconds: float) -> str:
    """`12,345 rows/s, 0:42 left`, by the shards that are done; empty before the first.

    >>> speed_of(Progress("clean", done=2, total=6, rows=4000), 2.0)
    '2,000 rows/s, 0:04 left'
    """
    if not progress.done or seconds <= 0:
        return ""
    left = round(seconds / progress.done * (progress.total - progress.done))
    return f"{progress.rows / seconds:,.0f} rows/s, {left // 60}:{left % 60:02d} left"
