"""The memory that a run is predicted to take, and the memory that it took."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import TRAINER_STATE_NAME

from mft.errors import ConfigError, ModelError
from mft.files import read_json
from mft.modeling.added_tokens import added_tokens
from mft.modeling.attention import choose_attention
from mft.modeling.base import read_model_config
from mft.modeling.compute import computes_in, device
from mft.modeling.memory import AUTO_MARGIN, free_memory_bytes
from mft.process import peak_rss_bytes, reset_peak_rss
from mft.training.config import RECOMPUTE
from mft.training.job import TrainJob, step_shape
from mft.training.memory_plan import MemoryPlan
from mft.training.ranks import least_of_ranks
from mft.training.step_plan import StepPlan, StepPlanner

logger = logging.getLogger(__name__)


def planned_job(job: TrainJob, ranks: int, checkpoint: Path | None) -> tuple[TrainJob, StepPlan | None]:
    """The job with the rows of a micro-batch decided, and this rank's plan, None for a base of an unknown kind. Every rank calls it.

    With `auto` all ranks take what the one with the least room takes; what and how much is recomputed may differ. A run that goes on
    keeps its rows, if its ranks can still share them: with others at once, dropout would draw other numbers.

    Raises:
        ConfigError: `training.recompute` is a size that cannot be kept to.
    """
    training = job.training
    if training.micro_batch_rows != "auto":
        return job, plan_on_this_rank(job, ranks)
    rows = rows_before(checkpoint, training.global_batch_rows // ranks)
    if rows is None:
        plan = plan_on_this_rank(job, ranks)
        assert plan is not None
        rows = least_of_ranks(plan.micro_batch_rows)
    decided = replace(job, training=training.model_copy(update={"micro_batch_rows": rows}))
    return decided, plan_on_this_rank(decided, ranks)


def rows_before(checkpoint: Path | None, each: int) -> int | None:
    """The rows at once of the run that left a checkpoint; None where they do not divide the rows of a rank, or without one."""
    if checkpoint is None:
        return None
    rows = int(read_json(checkpoint / TRAINER_STATE_NAME)["train_batch_size"])
    return rows if rows and each % rows == 0 else None


def plan_on_this_rank(job: TrainJob, ranks: int) -> StepPlan | None:
    """How a step is run on this device, and what it will then hold; None for a base of an unknown kind.

    Raises:
        ConfigError: `training.recompute` is a size that cannot be kept to. ModelError: no implementation of attention can be used here.
    """
    base_config, here = read_model_config(job.base), device()
    attention = choose_attention(base_config, here, computes_in(job.quantization.compute_dtype), job.model.attention)
    try:
        row = step_shape(job, base_config, attention=attention, device="cuda" if here.type == "cuda" else "cpu")
    except ModelError as error:
        logger.debug("memory is not predicted: %s", error)
        _check_without_a_plan(job, error)
        return None
    free = _free_bytes_of_this_rank()
    planner = StepPlanner(row, job.training, job.distributed, ranks, fits=lambda memory: AUTO_MARGIN * memory.tensors <= free,
                          trains_rows=bool(added_tokens(job.base)) and not row.full)
    return planner.plan()


def _check_without_a_plan(job: TrainJob, error: ModelError) -> None:
    training = job.training
    if training.recompute not in RECOMPUTE or training.micro_batch_rows == "auto":
        key, value = ("micro_batch_rows", "auto") if training.micro_batch_rows == "auto" else ("recompute", training.recompute)
        raise ConfigError([f"training.{key} is {value}, which needs to know what a layer keeps: {error}"]) from error


def _free_bytes_of_this_rank() -> int:
    """On a CPU the ranks of a machine share its memory."""
    return free_memory_bytes() // (1 if torch.cuda.is_available() else int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class MemoryUse:
    """Begun before the base is loaded; at the end it says what was held at most since then, beside what was predicted."""

    def __init__(self, predicted: MemoryPlan | None) -> None:
        self.predicted = predicted
        self.before = reset_peak_rss()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def to_json(self) -> dict[str, Any]:
        """`measured_bytes`: on CUDA the allocator's peak, else what resident memory grew by; beside it `predicted_bytes`."""
        cuda = torch.cuda.is_available()
        peak = peak_rss_bytes()
        measured = torch.cuda.max_memory_allocated() if cuda else peak - self.before
        return {"peak_rss_bytes": peak, **({"peak_cuda_bytes": measured} if cuda else {}), "measured_bytes": measured,
                "predicted_bytes": self.predicted.tensors if self.predicted else None,
                "predicted": replace(self.predicted, runtime=0).to_json() if self.predicted else None}
