"""The memory that a run is predicted to take, and the memory that it took."""

import logging
import os
from dataclasses import replace
from typing import Any

import torch

from mft.errors import ModelError
from mft.modeling.added_tokens import added_tokens
from mft.modeling.attention import choose_attention
from mft.modeling.base import read_model_config
from mft.modeling.compute import computes_in, device
from mft.modeling.memory import MARGIN, free_memory_bytes
from mft.process import peak_rss_bytes, reset_peak_rss
from mft.training.job import TrainJob, step_shape
from mft.training.memory_plan import MemoryPlan, memory_plan

logger = logging.getLogger(__name__)


def predict_memory(job: TrainJob, ranks: int) -> tuple[bool, MemoryPlan | None]:
    """Whether the layers are recomputed on this device, and what a step will then hold; None for a base of an unknown kind.

    `recompute: auto` recomputes where what is kept without it does not fit, and for a base whose memory is not known.

    Raises:
        ModelError: no implementation of attention can be used here.
    """
    base_config, setting = read_model_config(job.base), job.training.recompute
    here, dtype = device(), computes_in(job.quantization.compute_dtype)
    attention = choose_attention(base_config, here, dtype, job.model.attention)
    try:
        step = step_shape(job, base_config, attention=attention, device="cuda" if here.type == "cuda" else "cpu")
    except ModelError as error:
        logger.debug("memory is not predicted: %s", error)
        return setting != "none", None
    rows = bool(added_tokens(job.base)) and not step.full
    kept = memory_plan(step, job.training, job.distributed, ranks, recompute=False, trains_rows=rows)
    again = memory_plan(step, job.training, job.distributed, ranks, recompute=True, trains_rows=rows)
    recompute = setting == "full" or (setting == "auto" and MARGIN * kept.tensors > _free_bytes_of_this_rank())
    return recompute, again if recompute else kept


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
