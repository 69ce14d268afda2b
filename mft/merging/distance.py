"""How far merged weights are from the model that was trained: base in NF4, plus adapter. Measured block by block while verifying.

For a weight that was 4-bit in training, T = Q(W) + s B A (with DoRA: g (Q(W) + s B A)), V the merged one. T is not what a merge onto the
original weights aims at: the distance says what the choice of `onto` costs, and is no fault.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from mft.merging.arithmetic import add_update
from mft.merging.blocks import Block, Scratch
from mft.merging.changes import LowRank
from mft.merging.nf4 import Nf4RoundTrip

INPUTS = 8
SEED = 20241


@dataclass(frozen=True, slots=True)
class BlockDistance:
    """Of one block: the largest |x V^T - x T^T| for inputs x of random signs, and the squared lengths of V - T, T and T - Q(W)."""

    name: str
    max_abs_diff: float
    error: float
    trained: float
    update: float


@dataclass(frozen=True, slots=True)
class TrainedDistance:
    """Of all weights that were 4-bit in training. `relative`: ||V - T|| / ||T||; `to_update`: ||V - T|| / ||T - Q(W)||, of the weights
    that the adapter changes (above 1 the rounding to 4 bits moved them more than the training did)."""

    quantization: str
    max_abs_diff: float
    tensor: str
    """The weight with the largest `relative`."""
    largest_relative: float
    relative: float
    to_update: float | None
    kl: float | None = None
    """KL(trained || merged) in nats per token, with `verify: logits`."""
    top1_agreement: float | None = None


class TrainedModel:
    """Measures blocks against base-in-NF4 plus adapter. Threads may call it at once. `merged_onto_it`: the base values are Q(W) already."""

    def __init__(self, round_trip: Nf4RoundTrip, merged_onto_it: bool) -> None:
        self.round_trip, self._is_base = round_trip, merged_onto_it
        self._scratch = Scratch()

    def measure(self, block: Block, weight: torch.Tensor, merged: torch.Tensor, update: LowRank | None) -> BlockDistance | None:
        """The distance of one block; None for a tensor that was not 4-bit. Shapes: weight (as the merge read it), merged [rows, in]."""
        if block.tensor.name not in self.round_trip:
            return None
        rounded = weight if self._is_base else self.round_trip.apply(block, weight)
        trained = self._scratch.take("trained", block.num_elements, torch.float32).view(weight.shape)
        if update is None:
            trained.copy_(rounded)
        else:
            add_update(rounded, update, slice(block.start, block.stop), total=trained, out=trained)
        change = self._scratch.take("change", block.num_elements, torch.float32).view(weight.shape)
        moved = 0.0 if update is None else _squares(change.copy_(rounded).sub_(trained))
        change.copy_(merged).sub_(trained)
        generator = torch.Generator().manual_seed(SEED)
        inputs = torch.randint(2, (block.columns, INPUTS), generator=generator).float() * 2 - 1
        return BlockDistance(block.tensor.name, float((change @ inputs).abs().amax()), _squares(change), _squares(trained), moved)


def _squares(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def sum_up(distances: Iterable[BlockDistance], quantization: str) -> tuple[TrainedDistance, dict[str, dict[str, Any]]] | None:
    """The distance of the whole model, and of each tensor by name; None where no tensor was 4-bit."""
    by_tensor: dict[str, list[BlockDistance]] = {}
    for distance in distances:
        by_tensor.setdefault(distance.name, []).append(distance)
    if not by_tensor:
        return None
    table = {name: {"relative": _ratio(parts, lambda part: part.trained), "to_update": _ratio(parts, lambda part: part.update),
                    "max_abs_diff": max(part.max_abs_diff for part in parts)} for name, parts in by_tensor.items()}
    parts = [part for found in by_tensor.values() for part in found]
    worst = max(table, key=lambda name: float(table[name]["relative"] or 0))
    touched = [part for part in parts if table[part.name]["to_update"] is not None]
    return TrainedDistance(quantization, max(part.max_abs_diff for part in parts), worst, float(table[worst]["relative"] or 0),
                           float(_ratio(parts, lambda part: part.trained) or 0), _ratio(touched, lambda part: part.update)), table


def _ratio(parts: list[BlockDistance], of: Callable[[BlockDistance], float]) -> float | None:
    whole = sum(of(part) for part in parts)
    return math.sqrt(sum(part.error for part in parts) / whole) if whole else None
