"""The 4-bit kernels on this device: NF4 there and back, a LoRA layer's forward and backward pass, and an 8-bit optimizer's step.

The reference is computed here from the definition of NF4 (arXiv:2305.14314, appendix E): the 16 values, the largest magnitude of each
block of 64 as its scale.
"""

from collections.abc import Iterator
from typing import Any

import bitsandbytes
import torch
from torch import Tensor

from mft.modeling.compute import computes_in, device

NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
BLOCK = 64
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.004}
"""Largest relative difference ||d|| / ||reference|| that is rounding in the compute type."""

DOUBLE_QUANT_TOLERANCE = 0.02
"""The same for weights whose block scales are quantised to 8 bits as well."""

ROWS, WIDTH, OUT, RANK = 24, 256, 384, 8


def run(compute_dtype: str, double_quant: bool, optimizer: str) -> Iterator[dict[str, Any]]:
    """`{"device", "computes_in", "differences", "faults"}`: relative differences from the reference by what was compared.

    `compute_dtype`: as in a config.
    """
    place, dtype = device(), computes_in(compute_dtype)
    differences = {**_weights(place, double_quant), **_layer(place, dtype)}
    limits = {"dequantised": 1e-3, "double_quant": DOUBLE_QUANT_TOLERANCE}
    faults = [f"{what} differs from the reference by {found:.2g}, and {limits.get(what, TOLERANCES[dtype]):g} is allowed"
              for what, found in differences.items() if not found <= limits.get(what, TOLERANCES[dtype])]
    if optimizer.endswith("_8bit"):
        faults += _optimizer_step(place, paged=optimizer.startswith("paged_"))
    yield {"device": str(place), "computes_in": str(dtype).removeprefix("torch."), "differences": differences, "faults": faults,
           "bitsandbytes": bitsandbytes.__version__}


def nf4_reference(weight: Tensor) -> Tensor:
    """A float32 matrix after NF4 and back, by the definition."""
    blocks = weight.reshape(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    values = torch.tensor(NF4)
    nearest = ((blocks / scales).unsqueeze(-1) - values).abs().argmin(dim=-1)
    return (values[nearest] * scales).reshape(weight.shape)


def _weights(place: torch.device, double_quant: bool) -> dict[str, float]:
    weight = torch.randn(OUT, WIDTH, generator=torch.Generator().manual_seed(1)) * 0.02
    wanted = nf4_reference(weight)
    found = {}
    for name, nested in (("dequantised", False), *((("double_quant", True),) if double_quant else ())):
        packed, state = bitsandbytes.functional.quantize_4bit(weight.to(place), blocksize=BLOCK, compress_statistics=nested,
                                                              quant_type="nf4")
        found[name] = _difference(bitsandbytes.functional.dequantize_4bit(packed, state).float().cpu(), wanted)
    return found


def _layer(place: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """A frozen 4-bit layer with a LoRA pair, as in training: output, and gradients of input and pair."""
    generator = torch.Generator().manual_seed(2)
    weight, inputs, first, second, weighing = (
        torch.randn(*shape, generator=generator) * scale for shape, scale in
        (((OUT, WIDTH), 0.02), ((ROWS, WIDTH), 1.0), ((RANK, WIDTH), 0.1), ((OUT, RANK), 0.1), ((ROWS, OUT), 1.0)))
    layer = bitsandbytes.nn.Linear4bit(WIDTH, OUT, bias=False, compute_dtype=dtype, compress_statistics=False, quant_type="nf4")
    layer.weight = bitsandbytes.nn.Params4bit(weight.to(dtype), requires_grad=False, compress_statistics=False, quant_type="nf4")
    layer = layer.to(place)
    layer.support_avx512bf16_for_cpu = False   # as mft/modeling/load.py: packed for inference, it passes no gradient on
    frozen = nf4_reference(weight.to(dtype).float())
    found = _forward_backward([tensor.to(place) for tensor in (inputs, first, second)], weighing.to(place),
                              lambda rows: layer(rows.to(dtype)).float())
    wanted = _forward_backward([inputs, first, second], weighing, lambda rows: rows @ frozen.T)
    names = ("output", "gradient of the input", "gradient of A", "gradient of B")
    return {name: _difference(one.cpu(), other) for name, one, other in zip(names, found, wanted, strict=True)}


def _forward_backward(tensors: list[Tensor], weighing: Tensor, base: Any) -> list[Tensor]:
    inputs, first, second = (tensor.clone().requires_grad_() for tensor in tensors)
    output = base(inputs) + 2 * (inputs @ first.T) @ second.T
    (output * weighing).sum().backward()
    gradients = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in (inputs, first, second)]
    return [output.detach(), *gradients]


def _optimizer_step(place: torch.device, *, paged: bool) -> list[str]:
    """A step down a bowl must go down."""
    weight = torch.nn.Parameter(torch.randn(128, 64, generator=torch.Generator().manual_seed(4)).to(place))
    optimizer = bitsandbytes.optim.AdamW([weight], lr=0.01, weight_decay=0.0, optim_bits=8, is_paged=paged)
    before = weight.detach().square().sum().item()
    for _ in range(3):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    after = weight.detach().square().sum().item()
    return [] if after < before else [f"three steps of the 8-bit optimizer went from {before:.4g} to {after:.4g}"]


def _difference(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()
