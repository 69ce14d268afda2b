"""How long a run takes and what it costs: from a throughput that was given or measured, and the bound that arithmetic sets. No torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mft.training.config import TrainingConfig
from mft.training.utilization import flops_per_token


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage trains on. `rows`: packed rows of an epoch; `tokens` of them without padding; None where the data is not known yet."""

    rows: int | None
    tokens: int | None
    source: str

    def steps(self, training: TrainingConfig) -> int | None:
        """Optimizer steps of the run."""
        if training.max_steps is not None:
            return training.max_steps
        return None if self.rows is None else training.epochs * math.ceil(self.rows / training.global_batch_rows)


@dataclass(frozen=True, slots=True)
class TimePlan:
    """Times of a whole stage. `tokens_per_s` of all devices, as metrics.jsonl has it; `bound_tokens_per_s` if every FLOP went at the peak.

    `hours` and `cost` are None without a throughput, `cost` without a price, and all of them without a number of steps.
    """

    steps: int | None
    tokens: int | None
    tokens_per_s: float | None
    bound_tokens_per_s: float | None
    hours: float | None
    hours_at_the_bound: float | None
    device_hours: float | None
    cost: float | None

    def to_json(self) -> dict[str, Any]:
        """Every value."""
        return asdict(self)


def time_plan(steps: int | None, tokens_per_step: int, devices: int, *, tokens_per_s: float | None, bound: float | None,
              price_per_hour: float | None) -> TimePlan:
    """Hours and cost of so many steps. `bound`: tokens a second of all devices; `price_per_hour`: of one device."""
    tokens = None if steps is None else steps * tokens_per_step

    def hours(rate: float | None) -> float | None:
        return None if tokens is None or not rate else tokens / rate / 3600

    needed = hours(tokens_per_s)
    device_hours = None if needed is None else needed * devices
    cost = None if device_hours is None or price_per_hour is None else device_hours * price_per_hour
    return TimePlan(steps, tokens, tokens_per_s, bound, needed, hours(bound), device_hours, cost)


def bound_tokens_per_s(config: Mapping[str, Any], *, context: int, adapter_parameters: int, again: float, flops_per_s: float,
                       devices: int) -> float:
    """Tokens a second that so many devices at their peak could train on, rows being one sample each (packed samples need less).

    Recomputing adds the forward pass of the layers, or the part `again` of it: all of it is half of what a frozen base's passes need.
    """
    keys = context / 2
    flops = flops_per_token(config, keys=keys, adapter_parameters=adapter_parameters)
    forward = flops_per_token({**config, "vocab_size": 0}, keys=keys, adapter_parameters=adapter_parameters)
    flops += again * forward / (2 if adapter_parameters else 3)
    return devices * flops_per_s / flops
