"""`mft plan`: memory, time and cost of a project's train stages, before anything is loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mft.cli.outcome import Outcome
from mft.errors import CheckFailed

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="a project's YAML")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
    gpu: Annotated[str | None, typer.Option(help="H200, A100-80G, RTX4090, ... or a size such as 48GiB; default: this machine's")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="how many; default: distributed.processes of the config, or 1")] = None,
    stage: Annotated[str | None, typer.Option(help="one train stage; default: all")] = None,
    out: Annotated[Path | None, typer.Option(help="the project's output folder, for data encoded already; default runs/NAME")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="tokens of an epoch, where the data is not encoded yet")] = None,
    tokens_per_second: Annotated[float | None, typer.Option(min=0.001, help="of all GPUs together: gives hours")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="of one GPU for an hour: gives the cost")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="build the data, train a few steps here: gives the throughput")] = False,
) -> Outcome:
    """What each train stage takes of a GPU's memory and of time, and what else would fit. Exit code 3 where it does not fit."""
    from mft.report.page import write_report
    from mft.runs.config import load_project
    from mft.runs.plan_text import plan_parts
    from mft.runs.planning import PlanOptions, check_calibration, plan_project, summary
    from mft.runs.project import Project

    project_config = load_project(config, overrides)
    folder = out or Path("runs") / project_config.name
    options = PlanOptions(gpu, gpus, tokens, tokens_per_second, price)
    plans = plan_project(project_config, config.parent, folder, options, stage)
    measured: dict[str, Any] = {}
    if calibrate:
        check_calibration(gpu)
        from mft.runs.calibrate import calibrate_stages

        project = Project(project_config, config, folder, write_report, overrides=overrides or ())
        measured = calibrate_stages(project, [each.name for each in plans])
        plans = [each for plan in plans for each in plan_project(   # measured on one device, asked for all of them
            project_config, config.parent, folder, replace(options, tokens_per_s=measured[plan.name]["tokens_per_s"] * plan.devices),
            plan.name)]
    facts = summary(plans) | ({"calibration": measured} if measured else {})
    outcome = Outcome(facts, plan_parts(plans, measured))
    if not facts["fits"]:
        outcome.show()   # a failed check prints its message alone
        failed = CheckFailed("; ".join(f"stage '{each.name}' does not fit: {each.lack()}" for each in plans if not each.fits))
        failed.result = facts
        raise failed
    return outcome
