"""`mft run`: all stages of a project."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome, Table

app = typer.Typer(add_completion=False)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="a project's YAML")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
    start: Annotated[str | None, typer.Option("--from", help="run this stage and all after it again")] = None,
    until: Annotated[str | None, typer.Option(help="stop after this stage")] = None,
    out: Annotated[Path | None, typer.Option(help="output folder; default runs/NAME")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="run every stage again")] = False,
) -> Outcome:
    """Run the stages of CONFIG in one process. A stage is skipped when its inputs and its settings are unchanged."""
    from mft.report.page import write_report
    from mft.runs.config import load_project
    from mft.runs.project import Project, run_project

    project_config = load_project(config, overrides)
    project = Project(project_config, config, out or Path("runs") / project_config.name, write_report, overwrite=overwrite,
                      overrides=overrides or ())
    record = run_project(project, start=start, until=until)
    return Outcome(record, [stage_table(record), str(project.out)])


def stage_table(record: dict) -> Table:
    """Seconds of each stage."""
    rows = [[entry["name"], entry["kind"], "skipped" if entry["skipped"] else f"{entry['seconds']:.1f} s"] for entry in record["stages"]]
    return Table(record["name"], ["stage", "kind", "time"], rows)
