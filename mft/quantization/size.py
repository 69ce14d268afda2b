"""What quantised weights and their use take, from config.json alone, before anything is loaded. No torch.

A file of GPTQ's layout holds, for each linear module of a block with `in` inputs, `out` outputs, b bits and G groups:

    qweight  in * out * b / 8      scales  2 * G * out      qzeros  G * out * b / 8      g_idx  4 * in

bytes; embedding, head, norms and biases stay in 2 bytes a weight. Compared with the six branches of TheBloke/CodeLlama-70B-Instruct-GPTQ
and the 4-bit release of CodeFuse-CodeLlama-34B in tests/quantization/test_quantization_size.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mft.modeling.devices import named_accelerator
from mft.modeling.memory import nf4_bytes
from mft.modeling.shape import Shape

GIB = 2**30
RUNTIME_BYTES = 3 * GIB // 2
"""What a process with a model on a GPU holds beside it: CUDA context, libraries, kernels' scratch. An estimate: the idle rows of the
CodeFuse 4-bit card are 2.0 GiB (bf16) and 1.4 GiB (4 bit) above the weights."""

CARDS = ("RTX4090", "A100-40G", "RTX-A6000", "A100-80G", "H200")
"""Accelerators of 24, 40, 48, 80 and 141 GB."""

CONTEXTS = (2048, 4096, 8192, 16384)


def grid_bytes(shape: Shape, bits: int, group_size: int) -> int:
    """Bytes of the tensors of a file in GPTQ's layout; `group_size` -1: no groups. AWQ's is smaller by its g_idx.

    >>> grid_bytes(Shape(80, 8192, 28672, 64, 8, 128, 32016), 4, 128)
    36639096832
    """
    def linear(inputs: int, outputs: int) -> int:
        groups = 1 if group_size == -1 else math.ceil(inputs / group_size)
        blocks, columns = math.ceil(inputs / 32), math.ceil(outputs / 32)
        return 4 * blocks * bits * outputs + 2 * groups * outputs + 4 * groups * columns * bits + 4 * inputs

    return shape.layers * sum(linear(inputs, outputs) for inputs, outputs in shape.linear.values()) + 2 * shape.other_parameters


def full_bytes(shape: Shape) -> int:
    """All weights in 2 bytes."""
    return 2 * shape.parameters


def bnb_bytes(shape: Shape, method: str, *, double_quant: bool = True) -> int:
    """Bytes of bitsandbytes' `nf4` (as it lies in memory) and `int8` (a byte a weight, a float32 for each output)."""
    sizes = shape.linear.values()
    one = (sum(nf4_bytes(inputs * outputs, double=double_quant) for inputs, outputs in sizes) if method == "nf4"
           else sum(inputs * outputs + 4 * outputs for inputs, outputs in sizes))
    return shape.layers * one + 2 * shape.other_parameters


def cache_bytes(shape: Shape, tokens: int) -> int:
    """Keys and values of `tokens` tokens in 2 bytes each.

    >>> cache_bytes(Shape(48, 8192, 22016, 64, 8, 128, 32000), 1) // 1024
    192
    """
    return shape.layers * 2 * shape.keys * 2 * tokens


def prefill_bytes(shape: Shape, tokens: int) -> int:
    """The most that one layer holds at once while a prompt is read: the stream twice, gate, up and their product, in 2 bytes."""
    return 2 * tokens * (2 * shape.hidden + 3 * shape.inner)


def serving_bytes(weights: int, shape: Shape, context: int) -> int:
    """Memory of a GPU that answers one request of `context` tokens at a time."""
    return weights + cache_bytes(shape, context) + prefill_bytes(shape, context) + RUNTIME_BYTES


def quantising_bytes(shape: Shape, rows: int, tokens: int) -> int:
    """Memory of a GPU that quantises layer by layer, the rest of the model in the machine's memory. An estimate, not measured.

    One layer in 2 bytes and its largest matrix in float32 twice (weight, and what is rounded); the largest Hessian in float32 four times
    (it, its factor, its inverse, the working copy); the activations of one row of the calibration set.
    """
    layer = 2 * sum(inputs * outputs for inputs, outputs in shape.linear.values())
    largest = max(inputs * outputs for inputs, outputs in shape.linear.values())
    widest = max(inputs for inputs, _ in shape.linear.values())
    return layer + 8 * largest + 16 * widest**2 + prefill_bytes(shape, min(tokens, rows * tokens)) + RUNTIME_BYTES


def host_bytes(shape: Shape, rows: int, tokens: int) -> int:
    """Memory of the machine meanwhile: the whole model, and what goes into and comes out of a layer for every calibration row."""
    return full_bytes(shape) + 2 * 2 * rows * tokens * shape.hidden


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a card holds a job's model at a context. `longest`: the longest context that it holds, 0 where not even the weights fit."""

    card: str
    memory_bytes: int
    fits: Mapping[int, bool]
    longest: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"card": self.card, "memory_bytes": self.memory_bytes, "fits": {str(key): value for key, value in self.fits.items()},
                "longest_context": self.longest}


def fit_table(weights: int, shape: Shape, cards: Sequence[str] = CARDS, contexts: Sequence[int] = CONTEXTS) -> list[Fit]:
    """Which of the cards holds weights of this size, with keys and values of one request."""
    table = []
    for name in cards:
        memory = named_accelerator(name).memory_bytes
        a_token = cache_bytes(shape, 1) + prefill_bytes(shape, 1)
        longest = max(0, (memory - weights - RUNTIME_BYTES) // a_token)
        table.append(Fit(name, memory, {context: context <= longest for context in contexts}, longest))
    return table
