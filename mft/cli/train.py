"""`mft train`: fine-tune one stage of a project."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome, Table
from mft.errors import ConfigError

app = typer.Typer(add_completion=False)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="a project's YAML")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
    stage: Annotated[str | None, typer.Option(help="which train stage; needed when the config has several")] = None,
    out: Annotated[Path | None, typer.Option(help="the project's output folder; default runs/NAME")] = None,
    resume: Annotated[str, typer.Option(help="auto: from the newest checkpoint; never; or a checkpoint folder")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start anew in a folder that holds another run")] = False,
    nproc: Annotated[int | None, typer.Option(min=1, help="start this many processes on this machine (torchrun)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="encode and pack the data, count steps, train nothing")] = False,
) -> Outcome:
    """Fine-tune an adapter. A data stage that it needs is built first. Stopped or killed, the same command goes on.

    On several GPUs or nodes: --nproc N, or start this command by torchrun, deepspeed or Slurm.
    """
    from mft.report.page import write_report
    from mft.runs.config import load_project
    from mft.runs.launch import OUTCOMES
    from mft.runs.project import Project, run_project

    project_config = load_project(config, overrides)
    trains = [candidate.name for candidate in project_config.stages if candidate.kind == "train"]
    if not trains or (stage is None and len(trains) > 1) or (stage is not None and stage not in trains):
        raise ConfigError([f"{config}: --stage: train stages of this config: {', '.join(trains) or 'none'}"])
    name = stage or trains[0]
    folder = out or Path("runs") / project_config.name
    joins, started_by_us = "RANK" in os.environ, OUTCOMES in os.environ
    if joins and nproc:
        raise ConfigError([f"--nproc {nproc}: this command has been started as one of several processes already; leave it out"])
    project = Project(project_config, config, folder, write_report, overwrite=overwrite and not started_by_us, resume=resume,
                      overrides=overrides or (), processes=nproc)
    if dry_run:
        from mft.runs.dry_run import plan_training

        facts = plan_training(project, name)
        return Outcome(facts, [f"{key}: {value}" for key, value in facts.items()])
    if joins:
        from mft.runs.ranks import join_training

        record = join_training(project, name, again=overwrite)
        if not record:
            return Outcome({}, [])
    else:
        record = run_project(project, only=name)
    result = next(entry["result"] for entry in record["stages"] if entry["name"] == name)
    rows = [[task, "-" if facts["loss"] is None else f"{facts['loss']:.4f}", f"{facts['tokens']:,}"]
            for task, facts in result["tasks"].items()]
    return Outcome(result, [Table(f"{result['steps']} steps", ["task", "loss", "trained tokens"], rows), result["adapter"]])
