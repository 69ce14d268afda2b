"""One block of the merge: read rows of the base, add the adapter's part in fp32, round once, write."""

from functools import lru_cache

import torch

from mft.errors import ModelError
from mft.merging.base_values import BaseValues
from mft.merging.blocks import MAX_WORKERS, Block, Scratch
from mft.merging.changes import Changes, LowRank
from mft.merging.token_rows import put_rows
from mft.merging.writer import ShardWriter


def add_delta(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, *, total: torch.Tensor, out: torch.Tensor) -> None:
    """`out = weight + scale * b @ a`: the sum in fp32 (in `total`), rounded once to the dtype of `out`.

    Shapes: weight, total, out [rows, in]; a [rank, in] and b [rows, rank] in fp32. The order of the steps is that of
    PEFT's `merge_and_unload(safe_merge=False)` with an fp32 adapter on the CPU, so the bits are the same;
    `safe_merge=True` rounds the delta to the base's dtype first. `out` may lie where `weight` lies.
    """
    torch.mm(b, a, out=total)
    total.mul_(scale)
    total.add_(weight)
    out.copy_(total)


def add_delta_dora(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, magnitude: torch.Tensor, *,
                   total: torch.Tensor, out: torch.Tensor) -> None:
    """`out = magnitude * S / ||S||` by rows, S = weight + scale * b @ a: in fp32, the lengths in fp64, rounded once.

    Shapes as in `add_delta`; magnitude [rows]. Source: DoRA, arXiv:2402.09353, equation 5; as in PEFT the length is taken over
    the inputs of each output.
    """
    torch.mm(b, a, out=total)
    total.mul_(scale)
    total.add_(weight)
    lengths = torch.linalg.vector_norm(total, dim=1, dtype=torch.float64)
    total.mul_((magnitude.double() / lengths).float()[:, None])
    out.copy_(total)


class BlockMerger:
    """Merges blocks of a base and its changes into a writer's files. Threads may call it at once."""

    def __init__(self, base: BaseValues, changes: Changes, writer: ShardWriter) -> None:
        self._base, self._changes, self._writer = base, changes, writer
        self._scratch = Scratch()
        self._matrices = lru_cache(maxsize=MAX_WORKERS)(changes.load)
        self._rows = lru_cache(maxsize=2)(changes.load_rows)

    def merge(self, block: Block) -> None:
        """Read, change and write one block.

        Raises:
            ModelError: a value is not finite in the output dtype.
        """
        name, target = block.tensor.name, self._writer.tensors[block.tensor.name]
        values = self._base.read(block)
        if name in self._changes.terms:
            values = self._add(block, values, target.torch_dtype)
        if target.is_floating and values.dtype != target.torch_dtype:
            values = values.to(target.torch_dtype)
        if name in self._changes.rows:
            put_rows(block, self._changes.rows[name], self._rows(name), values)
        if target.is_floating and (name in self._changes.targets or block.tensor.dtype != target.dtype):
            _check_finite(values, block, target.dtype)
        data = values.view(-1).view(torch.uint8)
        self._writer.write(name, block.first_element * target.torch_dtype.itemsize, data)

    def _add(self, block: Block, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        update = self._matrices(block.tensor.name)
        assert update is not None
        total = self._scratch.take("total", block.num_elements, torch.float32).view(weight.shape)
        out = weight if weight.dtype == dtype else self._scratch.take("out", block.num_elements, dtype).view(weight.shape)
        add_update(weight, update, slice(block.start, block.stop), total=total, out=out)
        return out


def add_update(weight: torch.Tensor, update: LowRank, rows: slice, *, total: torch.Tensor, out: torch.Tensor) -> None:
    """`add_delta` or, where the update has lengths, `add_delta_dora`, of some rows of a weight."""
    if update.magnitude is None:
        add_delta(weight, update.a, update.b[rows], update.scale, total=total, out=out)
    else:
        add_delta_dora(weight, update.a, update.b[rows], update.scale, update.magnitude[rows], total=total, out=out)


def _check_finite(values: torch.Tensor, block: Block, dtype: str) -> None:
    """Infinity and NaN both show in the least or the largest value."""
    if values.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(values))).all()):
        raise ModelError(f"'{block.tensor.name}': rows {block.start} to {block.stop}: a value is not finite in {dtype}; " + (
            "it is too large for fp16: merge with dtype bf16" if dtype == "F16" else "the base or the adapter is damaged"))
