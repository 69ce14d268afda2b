"""`mft train --dry-run`: everything up to the first step, and what the run would be."""

import math
from typing import Any

from mft.runs.project import Project, run_project
from mft.runs.stages import StageContext, encode_stage


def plan_training(project: Project, name: str) -> dict[str, Any]:
    """Build the data that a train stage needs, encode and pack it, count the steps; no model is loaded.

    Returns `samples`, `tokens`, `trained_tokens`, `rows`, `fill`, `dropped`, `steps`, `steps_per_epoch`, `tokens_per_step`.
    """
    stage = next(stage for stage in project.config.stages if stage.kind == "train" and stage.name == name)
    run_project(project, only=stage.data)
    context = StageContext(project.config, project.path.parent, project.out, project.out / name, project.done,
                           overwrite=False, replace=False, resume=project.resume, record={}, write_report=project.write_report)
    counts = encode_stage(context, stage).summary()["train"]
    settings = stage.training
    per_epoch = math.ceil(counts["rows"] / settings.global_batch_rows)
    return {key: counts[key] for key in ("samples", "tokens", "trained_tokens", "rows", "fill", "dropped")} | {
        "steps_per_epoch": per_epoch, "steps": settings.max_steps or per_epoch * settings.epochs,
        "tokens_per_step": settings.global_batch_rows * project.config.model.context}
