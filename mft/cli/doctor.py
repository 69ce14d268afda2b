"""`mft doctor`: what this machine can and cannot do, and the remedy."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mft.cli.outcome import Outcome
from mft.errors import CheckFailed

if TYPE_CHECKING:
    from mft.doctor.examine import Checked
    from mft.doctor.subject import Subject
    from mft.runs.config import ProjectConfig

logger = logging.getLogger(__name__)
app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="a project's YAML; without one, the machine alone is looked at")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
    out: Annotated[Path | None, typer.Option(help="the project's output folder; default runs/NAME")] = None,
    need: Annotated[list[str] | None, typer.Option(help="a capability whose lack is a fault: gpu, sandbox, ...; may be repeated")] = None,
    only: Annotated[list[str] | None, typer.Option(help="make this check alone; may be repeated")] = None,
) -> Outcome:
    """Check versions, devices, ranks, kernels, tokenizer, disk, memory and sandbox by trying them. Exit code 3: a fault was found.

    A thing that this machine lacks is a fault where CONFIG or --need asks for it, else a warning.
    """
    from mft.doctor.context import Context
    from mft.doctor.examine import examine
    from mft.doctor.verdict import choose_checks, make_verdict

    checks = choose_checks(only or [], need or [])
    subject = None
    if config is not None:
        from mft.runs.config import load_project

        project = load_project(config, overrides)
        subject = subject_of(project, config, out or Path("runs") / project.name)
    began = time.monotonic()
    checked = examine(checks, Context(subject), _tell)
    verdict = make_verdict(checked, need or [], time.monotonic() - began)
    outcome = Outcome(verdict.to_json(), verdict.lines())
    if verdict.faults:
        outcome.show()   # a failed check prints its message alone
        failed = CheckFailed(verdict.summary())
        failed.result = outcome.result
        raise failed
    return outcome


def subject_of(project: "ProjectConfig", path: Path, out: Path) -> "Subject":
    """What a project asks of the machine."""
    from mft.doctor.subject import RecipeNeeds, Subject, TrainNeeds
    from mft.runs.config import BenchmarkStage, DataStage, MergeStage, TrainStage

    stages = project.stages
    return Subject(
        name=project.name, model=project.model, beside=path.parent, out=out, wandb=project.tracking.wandb,
        tensorboard=project.tracking.tensorboard,
        recipes=tuple(RecipeNeeds(path.parent / stage.recipe, stage.values(path.parent, out),
                                  complete=all(value.stage is None for value in stage.parameters.values()))
                      for stage in stages if isinstance(stage, DataStage)),
        trains=tuple(TrainNeeds(stage.name, stage.quantization, stage.adapter, stage.training, stage.distributed)
                     for stage in stages if isinstance(stage, TrainStage)),
        merges=sum(isinstance(stage, MergeStage) for stage in stages),
        runs_code=any(isinstance(stage, BenchmarkStage) for stage in stages))


def _tell(checked: "Checked", done: int, total: int) -> None:
    logger.info("%d/%d %s: %s (%.1f s)", done, total, checked.name, checked.state, checked.seconds)
