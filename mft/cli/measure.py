"""`mft measure`: what a model takes of a machine."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome, Table

app = typer.Typer(add_completion=False, help="What a model takes of a machine.")


# With one command alone, typer would take `mft measure` for it; a callback keeps `memory` a command of its own.
@app.callback()
def measure() -> None:
    """What a model takes of a machine."""


@app.command()
def memory(
    model: Annotated[list[str], typer.Option(help="NAME=FOLDER, or a folder, a hub id, a built-in base: bf16 and quantised ones")],
    scale: Annotated[float, typer.Option(min=0.001, max=16, help="of the lengths, for models of a short context")] = 1.0,
) -> Outcome:
    """Memory idle, and with 2048 tokens in and 1024 out, 1024 in and 2048 out, in GiB; lengths are forced. Each cell is a process.

    On a GPU: the allocator's peak (reserved and device-used are in --json). On a CPU: peak resident memory, the interpreter included.
    """
    from mft.modeling.base import resolve_base
    from mft.quantization.memory_table import header_and_rows, measure_memory
    from mft.runs.progress import progress_bar

    models: list[tuple[str, Path]] = []
    for text in model:
        name, sign, place = text.partition("=")
        folder = resolve_base(place if sign else text)
        models.append((name if sign else Path(text).name, folder))
    with progress_bar("measure") as report:
        result = measure_memory(models, scale, report)
    header, rows = header_and_rows(result)
    what = "peak of the allocator" if result["device"] != "cpu" else "peak resident memory, the interpreter included"
    note = "" if scale == 1 else f"; lengths are the card's times {scale:g}"
    return Outcome(result, [Table(f"GiB on {result['device']}: {what}{note}", header, rows)])
