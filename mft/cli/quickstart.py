"""`mft quickstart`: the whole chain, on the running Python's standard library."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome, Table
from mft.cli.run import stage_table

app = typer.Typer(add_completion=False)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="output folder")] = Path("mft-quickstart"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="run every stage again")] = False,
) -> Outcome:
    """Harvest tasks, fine-tune the built-in base with NF4 QLoRA, merge, verify, evaluate, report. No network."""
    from mft.report.page import write_report
    from mft.runs.quickstart import run_quickstart

    result, record = run_quickstart(out, write_report, overwrite=overwrite)
    return Outcome(result, [stage_table(record), loss_table(result), _merge_part(result), f"report: {result['report']}"])


def loss_table(result: dict) -> Table:
    """Held-out loss of each task, before and after."""
    rows = [[name, f"{facts['rows']}", f"{facts['loss_before']:.4f}", f"{facts['loss_after']:.4f}", f"{facts['loss_merged']:.4f}",
             f"{facts['difference']:+.4f} ± {facts['standard_error']:.4f}"] for name, facts in [*result["tasks"].items(),
                                                                                              ("all", result["overall"])]]
    return Table("held-out loss (nats per trained token)", ["task", "rows", "base", "adapter", "merged", "adapter - base"], rows)


def _merge_part(result: dict) -> str:
    from mft.cli.merge import merge_line

    return f"merge: {merge_line(result['merge'])}"
