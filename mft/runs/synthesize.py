"""A synthesis with its progress on the terminal."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mft.runs.progress import progress_bar
from mft.synthesis.config import SynthesizeOptions
from mft.synthesis.run import synthesize
from mft.synthesis.tools import Told


def synthesize_with_bars(seeds: Path, out: Path, options: SynthesizeOptions, *, beside: Path | None = None,
                         overwrite: bool = False) -> dict[str, Any]:
    """Run it, a bar a step; returns `{made, kept, dropped, funnel, ledger, path}`."""
    with step_bars() as told:
        return synthesize(seeds, out, options, beside=beside, overwrite=overwrite, told=told).to_json()


@contextmanager
def step_bars() -> Iterator[Told]:
    """Yield `told(step, done, total)`; the bar of one step is gone when the next one begins."""
    stack, current = ExitStack(), [""]
    with stack:
        report = None

        def told(step: str, done: int, total: int) -> None:
            nonlocal report
            if step != current[0]:
                stack.close()
                report, current[0] = stack.enter_context(progress_bar(step)), step
            if report is not None:
                report(done, total)

        yield told
