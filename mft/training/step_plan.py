"""How a step is run in the memory there is: rows of a micro-batch, and which layers are recomputed. No torch.

For `mft plan`, which asks for a device of any kind, and for a run, which asks for the device that it is on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mft.config.sizes import parse_size
from mft.errors import ConfigError
from mft.modeling.memory import FLOPS_PER_BYTE, MARGIN, StepShape, again_flops
from mft.modeling.recompute import LEVELS, WHOLE, Level, Recompute, candidates, cheapest, every
from mft.training.config import RECOMPUTE, DistributedConfig, TrainingConfig
from mft.training.memory_plan import ROWS, MemoryPlan, memory_plan


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What was chosen, and what a step then holds. `again`: the FLOPs computed twice, by those of the layers' forward pass."""

    micro_batch_rows: int
    recompute: Recompute
    memory: MemoryPlan
    again: float


@dataclass(frozen=True, slots=True)
class StepPlanner:
    """Plans the steps of a stage on one of `ranks` devices.

    `row`: a micro-batch of one row. `fits`: whether a device can hold what is planned. `trains_rows`: see `memory_plan`.
    """

    row: StepShape
    training: TrainingConfig
    distributed: DistributedConfig
    ranks: int
    fits: Callable[[MemoryPlan], bool]
    trains_rows: bool = False

    def plan(self) -> StepPlan:
        """The fastest that fits, by arithmetic; where nothing fits, what takes the least.

        Raises:
            ConfigError: `training.recompute` is a size that recomputing all layers of one row does not keep to.
        """
        asked = self.training.micro_batch_rows
        plans = [plan for rows in (self._numbers() if asked == "auto" else [asked]) if (plan := self._with_rows(rows)) is not None]
        if not plans:
            raise ConfigError([self._too_small(1 if asked == "auto" else asked)])
        fitting = [plan for plan in plans if self.fits(plan.memory)]
        return min(fitting, key=self._cost) if fitting else min(plans, key=lambda plan: plan.memory.total)

    def _numbers(self) -> Sequence[int]:
        each = self.training.global_batch_rows // self.ranks
        return [number for number in ROWS if each % number == 0]

    def _levels(self) -> Sequence[Level]:
        """Parts of a layer are not recomputed where its weights are sharded, and gathered for a whole layer; or where it is compiled."""
        whole = self.training.kernels.compile or self.distributed.stage == 3 or self.distributed.engine == "fsdp"
        return WHOLE if whole else LEVELS

    def _step(self, rows: int) -> StepShape:
        return replace(self.row, tokens=rows * self.row.tokens, rows=rows)

    def memory(self, rows: int, recompute: Recompute) -> MemoryPlan:
        """What a step holds with this many rows at once."""
        return memory_plan(self._step(rows), self.training, self.distributed, self.ranks, recompute=recompute, trains_rows=self.trains_rows)

    def _with_rows(self, rows: int) -> StepPlan | None:
        """The least recomputation as `training.recompute` says; None where a size is not kept to even by all of it."""
        setting, flops, layers = self.training.recompute, again_flops(self._step(rows)), self.row.shape.layers
        if setting in ("full", "none"):
            chosen: Recompute | None = every("full" if setting == "full" else "keep", layers)
        else:
            room = None if setting == "auto" else parse_size(setting)

            def fits(choice: Recompute) -> bool:
                memory = self.memory(rows, choice)
                return self.fits(memory) if room is None else memory.activations * MARGIN <= room

            chosen = cheapest(list(candidates(layers, self._levels())), lambda choice: choice.total(flops), fits)
            if chosen is None and setting == "auto":
                chosen = every("full", layers)
        if chosen is None:
            return None
        return StepPlan(rows, chosen, self.memory(rows, chosen), chosen.total(flops) / (layers * flops["full"]))

    def _too_small(self, rows: int) -> str:
        least = self.memory(rows, every("full", self.row.shape.layers)).activations * MARGIN
        assert self.training.recompute not in RECOMPUTE
        return (f"training.recompute is {self.training.recompute}, but {rows} row{'s' * (rows > 1)} of {self.row.tokens:,} tokens keep "
                f"{math.ceil(least / 1e7) / 100:.2f}GB with every layer recomputed; give at least that much"
                f"{', or a smaller micro_batch_rows' if rows > 1 else ''}")

    def _cost(self, plan: StepPlan) -> tuple[float, int]:
        """What the number of rows and the recomputation change in the time of a token, in FLOPs; of equals, more rows at once.

        Making 4-bit weights whole moves 2.5 bytes a weight in every pass over the layers, however many tokens there are. A mask lets
        all tokens of a micro-batch meet.
        """
        step, shape = self._step(plan.micro_batch_rows), self.row.shape
        cost = plan.recompute.total(again_flops(step)) / step.tokens
        if step.quantization.type == "nf4" and not step.full:
            cost += 2.5 * FLOPS_PER_BYTE * shape.linear_parameters * (2 + plan.again) / step.tokens
        if step.attention != "flash":
            cost += 3 * 4 * shape.layers * shape.queries * step.tokens
        return cost, -plan.micro_batch_rows
