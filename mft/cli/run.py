"""`mft run`: all stages of a project."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mft.cli.outcome import Outcome, Table
from mft.errors import CheckFailed, ConfigError

app = typer.Typer(add_completion=False)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="a project's YAML")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
    start: Annotated[str | None, typer.Option("--from", help="run this stage and all after it again; those before, if needed")] = None,
    until: Annotated[str | None, typer.Option(help="stop after this stage")] = None,
    out: Annotated[Path | None, typer.Option(help="output folder; default runs/NAME")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="run every stage again")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what each stage would do and take; nothing is loaded or written")] = False,
    gpu: Annotated[str | None, typer.Option(help="with --dry-run: as of `mft plan`; default: this machine's")] = None,
    tokens_per_second: Annotated[float | None, typer.Option(min=0.001, help="with --dry-run, of all GPUs together: gives hours")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="with --dry-run, of one GPU for an hour: gives the cost")] = None,
) -> Outcome:
    """Run the stages of CONFIG in one process. A stage is skipped when its inputs, its settings and its output are unchanged.

    Stopped or killed, the same command goes on where it was.
    """
    from mft.report.page import write_report
    from mft.runs.config import load_project
    from mft.runs.project import Project, run_project

    project_config = load_project(config, overrides)
    project = Project(project_config, config, out or Path("runs") / project_config.name, write_report, overwrite=overwrite,
                      overrides=overrides or ())
    if dry_run:
        return _foresee(project, start, until, gpu, tokens_per_second, price)
    asked = {"--gpu": gpu, "--tokens-per-second": tokens_per_second, "--price": price}
    if given := [option for option, value in asked.items() if value is not None]:
        raise ConfigError([f"{', '.join(given)}: only with --dry-run"])
    record = run_project(project, start=start, until=until)
    return Outcome(record, [stage_table(record), str(project.out)])


def stage_table(record: dict[str, Any]) -> Table:
    """Seconds of each stage."""
    rows = [[entry["name"], entry["kind"], "skipped" if entry["skipped"] else f"{entry['seconds']:.1f} s"] for entry in record["stages"]]
    return Table(record["name"], ["stage", "kind", "time"], rows)


def _foresee(project: Any, start: str | None, until: str | None, gpu: str | None, tokens_per_s: float | None,
             price: float | None) -> Outcome:
    from mft.runs.foresee import faults_of, foresee, summary
    from mft.runs.foreseen_text import lines
    from mft.runs.planning import PlanOptions

    foreseen = foresee(project, PlanOptions(gpu, tokens_per_s=tokens_per_s, price=price), start=start, until=until)
    facts = summary(project, foreseen)
    outcome = Outcome(facts, lines(facts))
    if faults := faults_of(foreseen):
        outcome.show()   # a failed check prints its message alone
        failed = CheckFailed("; ".join(faults))
        failed.result = facts
        raise failed
    return outcome
