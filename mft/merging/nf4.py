"""The weights that an NF4 fine-tune computed with: dequantised from 4 bits, by blocks of rows, bit for bit those of bitsandbytes.

NF4 keeps 64 consecutive numbers as 4-bit codes and their absmax. With double quantisation the absmax values are themselves kept in 8
bits, in groups of 256, less their mean over the whole tensor: so a first pass over a tensor finds all absmax values (1/16 of a byte
a weight), and a second one rounds its blocks.

The mean is a sum in fp32, whose last bit depends on the order of adding: on a GPU, or a CPU with another number of threads than one,
it may be another one, and a dequantised weight then differs in its last bit.

Groups run over the ends of rows. bitsandbytes' own CPU kernel (0.50.2, AVX512) takes the wrong absmax where rows are no multiple of 64
numbers.

Sources: QLoRA, arXiv:2305.14314; bitsandbytes 0.50 (`functional.quantize_4bit`); which layers are 4-bit: transformers 5.23
(`quantizers.base.get_keys_to_not_convert`, `integrations.bitsandbytes.replace_with_bnb_linear`).
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from bitsandbytes.functional import dequantize_blockwise, get_4bit_type, quantize_blockwise
from torch import nn
from transformers.pytorch_utils import Conv1D

from mft.errors import ModelError
from mft.merging import blocks
from mft.merging.blocks import Block, Scratch
from mft.merging.reader import SafetensorsReader
from mft.modeling.compute import DTYPES
from mft.modeling.config import QuantizationConfig
from mft.modeling.safetensors_header import StoredTensor
from mft.modeling.targets import base_layers

GROUP = 64
"""Consecutive numbers that share one absmax."""
GROUPS = 256
"""Absmax values that share one of the second level."""
TINY = 1e-38
"""Least absmax that numbers are divided by."""
KEPT_TENSORS = 6
"""Tensors whose absmax values are in memory: those that the threads are at, and some to spare."""


def quantised_names(config: dict[str, Any], tensors: Mapping[str, StoredTensor]) -> frozenset[str]:
    """The base tensors that bitsandbytes holds in 4 bits: of every linear layer but the head.

    Raises:
        ModelError: the model of this config has none, or the base's tensors have other names than the model's.
    """
    layers = base_layers(config)
    left = {layers.head, layers.embedding if layers.tied else None, list(layers.kinds)[-1]}
    names = {f"{name}.weight" for name, kind in layers.kinds.items() if (kind is nn.Linear or kind is Conv1D) and name not in left}
    lost = sorted(names - tensors.keys())
    if lost or not names:
        what = f"tensor '{lost[0]}'" if lost else "linear layer"
        raise ModelError(f"the base has no {what}, so nothing tells which of its weights were 4-bit in training")
    return frozenset(names)


class Nf4RoundTrip:
    """`apply(block, values)` gives what NF4 makes of a block of a tensor. Threads may call it at once.

    `tensors`: where the values of each 4-bit tensor lie.
    """

    def __init__(self, reader: SafetensorsReader, tensors: Mapping[str, StoredTensor], quantization: QuantizationConfig) -> None:
        self._reader, self._tensors = reader, tensors
        self._double, self.dtype = quantization.double_quant, DTYPES[quantization.compute_dtype]
        self._absmax: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self._scratch = Scratch()
        self._levels = get_4bit_type("nf4", device="cpu")
        self._bounds = ((self._levels[:-1] + self._levels[1:]) / 2).tolist()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    @property
    def names(self) -> frozenset[str]:
        """The tensors that were 4-bit."""
        return frozenset(self._tensors)

    def apply(self, block: Block, values: torch.Tensor) -> torch.Tensor:
        """The values [rows, columns] in the compute dtype, as the 4-bit model held them; the block begins at a group."""
        numbers = self._scratch.take("numbers", values.numel(), torch.float32)
        numbers.copy_(values.to(self.dtype).view(-1))
        absmax = absmax_of(numbers)
        codes = self._codes(numbers, absmax)
        if self._double:
            first = block.first_element // GROUP
            assert block.first_element % GROUP == 0, f"{block.tensor.name}: a block begins inside a group of {GROUP}"
            absmax = self.absmax(block.tensor.name)[first:first + len(absmax)]
        torch.index_select(self._levels, 0, codes, out=numbers)
        for part, largest in _by_groups(numbers, absmax):
            part.mul_(largest)
        return numbers.to(self.dtype, copy=True).view(values.shape)     # the scratch is used again

    def _codes(self, numbers: torch.Tensor, absmax: torch.Tensor) -> torch.Tensor:
        """The level nearest to each number, int32; `numbers`, fp32, are scaled on the way. By 15 comparisons: `torch.bucketize`, which
        bitsandbytes uses, takes 12 times as long on one core.
        """
        whole = len(numbers) // GROUP
        numbers[:whole * GROUP].view(whole, GROUP).mul_((1.0 / absmax[:whole].clamp(min=TINY))[:, None])
        numbers[whole * GROUP:].div_(absmax[whole:])
        numbers.clamp_(-1, 1)
        above = self._scratch.take("above", len(numbers), torch.bool)
        found = self._scratch.take("found", len(numbers), torch.uint8).zero_()
        for bound in self._bounds:
            torch.gt(numbers, bound, out=above)
            found.add_(above.view(torch.uint8))
        return self._scratch.take("codes", len(numbers), torch.int32).copy_(found)

    def absmax(self, name: str) -> torch.Tensor:
        """The absmax of every group of a tensor after its own quantisation, fp32 [groups]."""
        with self._lock:      # held while a tensor is read: the others wait for these very numbers
            if name not in self._absmax:
                self._absmax[name] = self._find(self._tensors[name])
                if len(self._absmax) > KEPT_TENSORS:
                    self._absmax.popitem(last=False)
            self._absmax.move_to_end(name)
            return self._absmax[name]

    def _find(self, tensor: StoredTensor) -> torch.Tensor:
        found = torch.empty(-(-tensor.num_elements // GROUP))
        step = max(blocks.BLOCK_ELEMENTS // GROUP, 1) * GROUP
        for start in range(0, tensor.num_elements, step):
            count = min(step, tensor.num_elements - start)
            numbers = self._reader.read_numbers(tensor, start, count).to(self.dtype).float()
            found[start // GROUP:-(-(start + count) // GROUP)] = absmax_of(numbers)
        offset = found.mean()
        codes, state = quantize_blockwise(found - offset, blocksize=GROUPS)
        return dequantize_blockwise(codes, state).add_(offset)


def absmax_of(numbers: torch.Tensor) -> torch.Tensor:
    """The absmax of every group of 64 numbers, the last may be shorter. fp32 [n] -> [groups]."""
    whole = len(numbers) // GROUP
    rows = numbers[:whole * GROUP].view(whole, GROUP)
    found = torch.maximum(rows.amax(dim=1), rows.amin(dim=1).neg_())
    rest = numbers[whole * GROUP:]
    return torch.cat([found, rest.abs().amax().clamp(min=TINY)[None]]) if len(rest) else found


def _by_groups(numbers: torch.Tensor, absmax: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The whole groups with the absmax of each as a column, and the shorter last one, if there is one."""
    whole = len(numbers) // GROUP
    parts = [(numbers[:whole * GROUP].view(whole, GROUP), absmax[:whole, None])]
    return parts + ([(numbers[whole * GROUP:], absmax[whole:])] if len(numbers) % GROUP else [])
