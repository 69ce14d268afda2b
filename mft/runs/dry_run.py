"""`mft train --dry-run`: everything up to the first step, and what the run would be."""

import math
from dataclasses import replace
from typing import Any

from mft.runs.config import TrainStage
from mft.runs.kinds.context import StageContext
from mft.runs.kinds.train import encode_stage, ranks_here, train_job
from mft.runs.project import Project, run_project
from mft.training.job import TrainJob, check_job
from mft.training.memory_use import planned_job


def plan_training(project: Project, name: str) -> dict[str, Any]:
    """Build the data that a train stage needs, encode and pack it, refuse what could not run, count the steps; no model is loaded.

    Returns `samples`, `tokens`, `trained_tokens`, `rows`, `fill`, `dropped`, `steps`, `steps_per_epoch`, `tokens_per_step`, `ranks` and
    `accumulation`, micro-batches of a rank in a step.

    Raises:
        ConfigError: what does not go together on as many ranks as this command would start.
    """
    stage = next(stage for stage in project.config.stages if isinstance(stage, TrainStage) and stage.name == name)
    run_project(project, only=stage.data)
    context = project.context(stage)
    tokens, ranks = encode_stage(context, stage), ranks_here(context, stage)
    job = _as_it_will_be(context, stage)
    check_job(job, tokens, ranks, project.config.tracking.generations)
    counts = tokens.summary()["train"]
    settings = job.training if job.training.micro_batch_rows != "auto" else planned_job(job, ranks, None)[0].training
    per_epoch = math.ceil(counts["rows"] / settings.global_batch_rows)
    return {key: counts[key] for key in ("samples", "tokens", "trained_tokens", "rows", "fill", "dropped")} | {
        "steps_per_epoch": per_epoch, "steps": settings.max_steps or per_epoch * settings.epochs,
        "tokens_per_step": settings.global_batch_rows * project.config.model.context,
        "ranks": ranks, "accumulation": settings.global_batch_rows // (ranks * settings.rows_at_once)}


def _as_it_will_be(context: StageContext, stage: TrainStage) -> TrainJob:
    """The stage's job; where the stage that `init_from` names has not been run, without what that one will leave."""
    job = train_job(context, stage)
    return replace(job, base=job.base if job.base.is_dir() else context.base, start=job.start if job.start and job.start.is_dir() else None)
