"""Whether merged files hold what base and adapter say: every tensor, read back, in the memory of a few blocks.

For a merged weight, W is the base's, V the output's, u the unit roundoff of the output dtype (half the distance of 1 to
the next number), and E = V - (W + s B A), which for a right merge is the error of rounding once. Three things are checked:

- every element: |E| <= (u + 2^-23) max(|V|, m) + a, where m is the dtype's smallest normal number, 2^-23 what the fp32 sum of
  W and the adapter's part (and this check's own) may lose of V, and a what s B A may lose in fp32;
- outputs: for 8 inputs x of random signs, x V^T against x W^T + s (x A^T) B^T, which never forms B A. A row of the
  difference is the sum of its errors with random signs; by Hoeffding's inequality it stays below 8 ||e||, where
  e = (u + 2^-23) max(|V|, m) + a is the row's bound from above, but for a chance of 2 exp(-32) = 3e-14. x V^T - x W^T is
  computed as x (V - W)^T, in fp64, so that the sum's own error does not matter;
- the weight changed at all.

With DoRA, S = W + s B A and the wanted weight is g S, where g = m / ||S|| by rows; both checks are made against it. Here g comes
from ||S||^2 = ||W||^2 + 2 s B (A W^T) + s^2 B (A A^T) B^T in fp64, which never forms B A either. What fp32 may lose grows by the
rounding of g and of the product, and by the length's own error: g a + (2^-21 + 2 sqrt(in) a / ||S||) |V|.

Of embedding and head with trained token rows, these rows must be the adapter's and all others the base's, bit for bit after rounding to
the output dtype. The other tensors are those of the base, or of the adapter that holds them whole: bit for bit, or their values rounded
to the output dtype. Onto quantised weights, W is what NF4 makes of the base's, computed anew from its files.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from mft.errors import CheckFailed
from mft.merging.base_values import BaseValues
from mft.merging.blocks import MAX_WORKERS, Block, Scratch, for_each_block
from mft.merging.changes import Changes, LowRank
from mft.merging.distance import BlockDistance, TrainedModel
from mft.merging.reader import SafetensorsReader, open_model
from mft.merging.result import Verdict
from mft.modeling.safetensors_header import StoredTensor

NUM_INPUTS = 8
DEVIATIONS = 8.0
FP32_ROUNDOFF = 2.0**-24
REFERENCE = (f"x @ W'^T of every merged weight, read back from the output, for {NUM_INPUTS} inputs x of random signs, against "
             "x @ W^T + scale * (x @ A^T) @ B^T from base and adapter")


@dataclass(frozen=True, slots=True)
class BlockCheck:
    """What one block of a merged weight showed: the largest output difference, and its bound."""

    name: str
    max_abs_diff: float
    tolerance: float
    changed: bool


class Probe(NamedTuple):
    """An update with its random inputs. Shapes: a [rank, in], b [out, rank], inputs [in, n], from_adapter [out, n], fp32_loss [out]."""

    update: LowRank
    inputs: torch.Tensor
    from_adapter: torch.Tensor
    fp32_loss: torch.Tensor


@dataclass(frozen=True, slots=True)
class Findings:
    """What one block showed: its check, if something was added to it, and its distance from what was trained, if it was 4-bit."""

    check: BlockCheck | None
    distance: BlockDistance | None


class BlockVerifier:
    """Checks blocks of the output against the values before the change, and the change. Threads may call it at once."""

    def __init__(self, base: BaseValues, changes: Changes, merged: SafetensorsReader, trained: TrainedModel | None = None) -> None:
        self._base, self._changes, self._merged, self._trained = base, changes, merged, trained
        self._scratch = Scratch()
        self._probe = lru_cache(maxsize=MAX_WORKERS)(self._make_probe)

    def verify(self, block: Block) -> Findings:
        """Check one block.

        Raises:
            CheckFailed: names the tensor and the rows that are not as they should be.
        """
        name = block.tensor.name
        weight, merged = self._base.read(block), self._read(block)
        probe = self._probe(name) if name in self._changes.terms else None
        distance = self._trained.measure(block, weight, merged, probe and probe.update) if self._trained else None
        if name in self._changes.rows:
            return Findings(self._check_rows(block, weight, merged), distance)
        if probe is not None:
            return Findings(self._check_merged(block, probe, weight, merged), distance)
        if not torch.equal(weight.to(merged.dtype).view(torch.uint8), merged.view(torch.uint8)):
            whose = "of the adapter, which holds this tensor whole" if name in self._changes.wholes else \
                "of the base, though the adapter does not touch this tensor"
            raise CheckFailed(f"'{name}': elements {block.start} to {block.stop} are not those {whose}")
        return Findings(None, distance)

    def _check_rows(self, block: Block, weight: torch.Tensor, merged: torch.Tensor) -> BlockCheck:
        """Every row of a block is the base's or the adapter's, rounded once. Shapes: weight, merged [rows, hidden]."""
        rows, kept = self._changes.rows[block.tensor.name], weight.to(merged.dtype)
        values, wanted = self._changes.load_rows(block.tensor.name).to(merged.dtype), kept.clone()
        for index, value in zip(rows.ids, values, strict=True):
            if block.start <= index < block.stop:
                wanted[index - block.start] = value
        if not torch.equal(wanted.view(torch.uint8), merged.view(torch.uint8)):
            wrong = int((wanted != merged).any(dim=1).sum())
            raise CheckFailed(f"'{block.tensor.name}': {wrong} of the rows {block.start} to {block.stop} are neither those of the base nor "
                              "the trained token rows of the adapter")
        return BlockCheck(block.tensor.name, 0.0, 0.0, changed=not torch.equal(kept, merged))

    def _read(self, block: Block) -> torch.Tensor:
        tensor = self._merged.tensors[block.tensor.name]
        raw = self._scratch.take("merged", block.num_elements, tensor.torch_dtype)
        self._merged.read_into(tensor, block.first_element * tensor.torch_dtype.itemsize, raw.view(torch.uint8))
        return raw.view(-1, block.columns)

    def _make_probe(self, name: str) -> Probe:
        update = self._changes.load(name)
        assert update is not None
        a, b, scale, _ = update
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1
        inputs = torch.randint(2, (a.shape[1], NUM_INPUTS), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
        from_adapter = scale * (b.double() @ (a.double() @ inputs))
        products = len(a) + 4   # of one element of s B A + W, each rounded
        fp32_loss = 2 * products * FP32_ROUNDOFF * abs(scale) * (b.abs() @ a.abs().amax(dim=1))
        return Probe(update, inputs, from_adapter, fp32_loss)

    def _check_merged(self, block: Block, probe: Probe, weight: torch.Tensor, merged: torch.Tensor) -> BlockCheck:
        rows, (a, b, scale, magnitude) = slice(block.start, block.stop), probe.update
        allowed = self._take("allowed", weight, torch.float32).copy_(merged)
        info = torch.finfo(merged.dtype)
        allowed.abs_().clamp_(min=info.smallest_normal)
        if magnitude is None:
            allowed.mul_(info.eps / 2 + 2 * FP32_ROUNDOFF).add_(probe.fp32_loss[rows, None])
            differences, errors = self._lora_errors(probe, rows, weight, merged)
        else:
            lengths = _row_lengths(weight.double(), a.double(), b[rows].double(), scale)
            factors, loss = magnitude[rows].double() / lengths, probe.fp32_loss[rows].double()
            of_length = 2 * math.sqrt(block.columns) * loss / lengths
            allowed.mul_((info.eps / 2 + 8 * FP32_ROUNDOFF + of_length).float()[:, None]).add_((factors.abs() * loss).float()[:, None])
            differences, errors = self._dora_errors(probe, rows, weight, merged, factors[:, None])
        tolerances = DEVIATIONS * torch.linalg.vector_norm(allowed, dim=1).double()
        if not bool((errors.sub_(allowed).amax() <= 0) & (differences <= tolerances).all()):
            raise CheckFailed(_fault(block, differences, tolerances, errors))
        worst = int(differences.argmax())
        changed = not torch.equal(merged, weight.to(merged.dtype))
        return BlockCheck(block.tensor.name, float(differences[worst]), float(tolerances[worst]), changed)

    def _lora_errors(self, probe: Probe, rows: slice, weight: torch.Tensor, merged: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Largest output difference of each row [rows]; |V - (W + s B A)| [rows, in]."""
        change = self._take("change", weight, torch.float32).copy_(merged).sub_(weight)
        wide = self._take("wide", weight, torch.float64).copy_(change)
        differences = (wide @ probe.inputs - probe.from_adapter[rows]).abs().amax(dim=1)
        delta = torch.mm(probe.update.b[rows], probe.update.a, out=self._take("delta", weight, torch.float32))
        return differences, change.sub_(delta.mul_(probe.update.scale)).abs_()

    def _dora_errors(self, probe: Probe, rows: slice, weight: torch.Tensor, merged: torch.Tensor,
                     factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_lora_errors`, of V - g (W + s B A); factors: g, [rows, 1], fp64."""
        wide = self._take("wide", weight, torch.float64).copy_(weight).mul_(factors).neg_().add_(merged)
        differences = (wide @ probe.inputs - factors * probe.from_adapter[rows]).abs().amax(dim=1)
        delta = torch.mm(probe.update.b[rows], probe.update.a, out=self._take("delta", weight, torch.float32))
        errors = wide.sub_(delta.double().mul_(probe.update.scale).mul_(factors))
        return differences, self._take("change", weight, torch.float32).copy_(errors).abs_()

    def _take(self, name: str, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self._scratch.take(name, like.numel(), dtype).view(like.shape)


def _row_lengths(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """||W + scale * B A|| of every row without B A. Shapes: weight [rows, in], a [rank, in], b [rows, rank]; all fp64."""
    squares = weight.square().sum(dim=1) + 2 * scale * (b * (weight @ a.T)).sum(dim=1) + scale**2 * (b * (b @ (a @ a.T))).sum(dim=1)
    return squares.clamp_(min=0).sqrt_()


def _fault(block: Block, differences: torch.Tensor, tolerances: torch.Tensor, excess: torch.Tensor) -> str:
    worst, elements = int((differences - tolerances).argmax()), int((~(excess <= 0)).sum())
    return (f"'{block.tensor.name}': rows {block.start} to {block.stop} are not base plus adapter: {elements} elements are off by more "
            f"than one rounding; outputs differ by up to {float(differences[worst]):.3g} (row {block.start + worst}), "
            f"where {float(tolerances[worst]):.3g} is allowed")


def verify_layers(base: BaseValues, tensors: Mapping[str, StoredTensor], changes: Changes, folder: Path, plan: Sequence[Block],
                  report: Callable[[Block], None], trained: TrainedModel | None = None) -> tuple[Verdict, list[BlockDistance]]:
    """Check every block of the weights in `folder`; the verdict has the block with the largest output difference.

    `tensors`: those that the output must have. Returns the distances from what was trained too, if `trained` measures them.

    Raises:
        CheckFailed: a tensor is missing or too many, is not as it should be, or is merged but equals the base.
    """
    with open_model(folder) as merged:
        if odd := sorted(merged.tensors.keys() ^ tensors.keys()):
            raise CheckFailed(f"'{odd[0]}': is in only one of base and output ({len(odd)} such tensors)")
        found = for_each_block(BlockVerifier(base, changes, merged, trained).verify, plan, report)
    checks = [finding.check for finding in found if finding.check is not None]
    changed, names = {check.name for check in checks if check.changed}, {check.name for check in checks}
    if unchanged := sorted(names - changed):
        raise CheckFailed(f"'{unchanged[0]}': equals the base after merging ({len(unchanged)} of {len(names)} weights do): "
                          "the adapter's part is zero, or so small that rounding loses it")
    distances = [finding.distance for finding in found if finding.distance is not None]
    if not checks:      # whole tensors alone: compared bit for bit
        return Verdict(0.0, 0.0, REFERENCE), distances
    worst = max(checks, key=lambda check: check.max_abs_diff)
    return Verdict(worst.max_abs_diff, worst.tolerance, REFERENCE), distances
