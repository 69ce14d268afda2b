"""The memory of a training step on one device, part by part, before anything is loaded. No torch.

The arithmetic of model and activations is in mft/modeling/memory.py; here is what the optimizer and the engine add. What is chosen by it
is in mft/training/step_plan.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

from mft.modeling.memory import (
    BLOCK,
    MARGIN,
    StepShape,
    adapter_parameters,
    head_bytes,
    saved_bytes,
    weight_bytes,
    workspace_bytes,
)
from mft.modeling.recompute import Recompute, every
from mft.training.config import DistributedConfig, TrainingConfig

RUNTIME = {"cuda": 600_000_000, "cpu": 700_000_000}
"""What a process holds besides tensors: CUDA's context and kernels, of which its allocator knows nothing; the interpreter with torch and
transformers."""

ZERO_STAGES: Final[tuple[Literal[1, 2, 3], ...]] = (1, 2, 3)

ROWS = (1, 2, 4, 8, 16, 32)
"""Rows of a micro-batch that are looked at."""

BUCKET, LIVE, PREFETCH = 500_000_000, 1_000_000_000, 50_000_000
"""DeepSpeed's defaults, in numbers: reduce_bucket_size, stage3_max_live_parameters, stage3_prefetch_bucket_size."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes on one device. `logits` and `workspace` are held for a moment, one after the other: the larger counts.

    `adapters`: trained weights beside the base (none where the base itself trains). `activations`: kept from the forward to the backward
    pass. `communication`: the engine's buffers. `runtime`: beside the tensors.
    """

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    communication: int
    activations: int
    logits: int
    workspace: int
    runtime: int

    @property
    def held(self) -> int:
        """Bytes that do not hang on the micro-batch, `runtime` included."""
        return self.weights + self.adapters + self.gradients + self.optimizer + self.communication + self.runtime

    @property
    def total(self) -> int:
        """The most that is held at once."""
        return self.held + self.activations + max(self.logits, self.workspace)

    @property
    def tensors(self) -> int:
        """The most that the device's allocator holds at once: `total` without `runtime`."""
        return self.total - self.runtime

    def fits(self, memory_bytes: int) -> bool:
        """Whether a device with so much memory can run it, with a margin of 5%."""
        return self.total * MARGIN <= memory_bytes

    def to_json(self) -> dict[str, int]:
        """Every part, and `total`."""
        return {**asdict(self), "total": self.total}


def memory_plan(step: StepShape, training: TrainingConfig, distributed: DistributedConfig, ranks: int, *, recompute: Recompute,
                trains_rows: bool = False) -> MemoryPlan:
    """What one of `ranks` devices holds. `trains_rows`: rows of embedding and head train beside an adapter (`model.add_tokens`)."""
    trained = adapter_parameters(step)
    shards = ranks if distributed.engine in ("deepspeed", "fsdp") else 1
    stage, offload = (distributed.stage, distributed.offload) if shards > 1 or distributed.engine == "deepspeed" else (0, "none")
    weights, communication = weight_bytes(step), 0
    if distributed.engine == "fsdp" or stage == 3:
        weights, communication = _sharded(step, shards, offload)
    if distributed.engine == "deepspeed":
        communication += 4 * BUCKET
    elif distributed.engine == "ddp" and ranks > 1:
        communication += 4 * trained
    sharded_weights = distributed.engine == "fsdp" or stage == 3
    adapters = 0 if step.full else 4 * trained // (shards if sharded_weights else 1)
    gradients = 4 * trained // (shards if stage >= 2 or distributed.engine == "fsdp" else 1)
    optimizer = 0 if offload != "none" else _optimizer_bytes(training.optimizer, trained, master=stage > 0) // shards
    rows = 4 * step.width * step.shape.vocabulary * step.shape.hidden if trains_rows else 0
    return MemoryPlan(
        weights=weights, adapters=adapters, gradients=gradients if stage < 2 or offload == "none" else 0, optimizer=optimizer,
        communication=communication, activations=saved_bytes(step, recompute), logits=head_bytes(step) + rows,
        workspace=workspace_bytes(step, recompute) + rows, runtime=RUNTIME[step.device])


def _optimizer_bytes(name: str, trained: int, *, master: bool) -> int:
    """Two moments a weight: in float32, or in 8 bits with a float32 constant for each 256; DeepSpeed keeps a float32 copy of the weights.

    Paged states count nothing: they leave the device when it is full.
    """
    if name.startswith("paged_"):
        return 0
    moments = 8 * trained if name == "adamw" else 2 * trained + 2 * 4 * trained // 256
    return moments + (4 * trained if master else 0)


def _sharded(step: StepShape, shards: int, offload: str) -> tuple[int, int]:
    """(weights that stay, weights that are gathered for a while) where the base is sharded.

    The constants of 4-bit weights are no parameters, so that each rank has all of them.
    """
    shape, whole = step.shape, weight_bytes(step)
    nf4 = step.quantization.type == "nf4" and not step.full
    constants = shape.linear_parameters // BLOCK * (1 if step.quantization.double_quant else 4) if nf4 else 0
    bytes_each = 1 if nf4 else 4 if step.full else step.width
    stored = shape.linear_parameters // 2 if nf4 else shape.parameters
    gathered = min(bytes_each * (LIVE + PREFETCH), bytes_each * stored)
    return constants + (0 if offload == "all" else (whole - constants) // shards), gathered


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run a step: the engine, whether it recomputes, rows of a micro-batch, context, and what it takes."""

    distributed: DistributedConfig
    recompute: Recompute
    micro_batch_rows: int
    context: int
    memory: MemoryPlan


def choices(step: StepShape, training: TrainingConfig, engines: Sequence[DistributedConfig], ranks: int, *, context: int,
            micro_batch_rows: int, contexts: tuple[int, ...], trains_rows: bool = False) -> Iterator[Choice]:
    """Other ways to run the same optimizer step: every micro-batch that the ranks can share, with and without recomputation.

    And with a row a micro-batch, the longer contexts; all of that with the first of `engines`. With each other engine, the micro-batch as
    it is and of one row. `step` is a micro-batch of any size.
    """
    each = training.global_batch_rows // ranks
    sizes = [rows for rows in ROWS if each % rows == 0]
    own = [(context, rows) for rows in sizes] + [(length, 1) for length in contexts if length != context]
    few = [(context, rows) for rows in sorted({1, micro_batch_rows})]
    layers = step.shape.layers
    for engine in engines:
        for length, rows in own if engine is engines[0] else few:
            for recompute in (every("keep", layers), every("full", layers)):
                there = replace(step, tokens=rows * length, rows=rows)
                yield Choice(engine, recompute, rows, length,
                             memory_plan(there, training, engine, ranks, recompute=recompute, trains_rows=trains_rows))


def engines_beside(own: DistributedConfig, ranks: int) -> list[DistributedConfig]:
    """The other engines for so many ranks, and the other ZeRO stages, without offload. None for one rank, which has nothing to share."""
    every = [DistributedConfig(engine="ddp", processes=ranks), DistributedConfig(engine="fsdp", processes=ranks),
             *(DistributedConfig(engine="deepspeed", zero_stage=stage, processes=ranks) for stage in ZERO_STAGES)]
    return [engine for engine in every if ranks > 1 and (engine.engine, engine.stage) != (own.engine, own.stage)]
