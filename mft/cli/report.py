"""`mft report`: one HTML page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="the output folder of `mft run`, `mft quickstart` or `mft train`")],
    out: Annotated[Path | None, typer.Option(help="the page; default RUN/report.html")] = None,
) -> Outcome:
    """Write one self-contained HTML page: data, losses by task, masks in colour, merge check, before and after."""
    from mft.report.page import write_report

    path = write_report(run, out)
    return Outcome({"path": str(path)}, [str(path)])
