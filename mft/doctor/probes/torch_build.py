"""What torch says of itself, and whether each CUDA device runs a product of matrices."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch

from mft.doctor.child import first_line

SIDE = 256


def run() -> Iterator[dict[str, Any]]:
    """Version, CUDA, devices. `warnings`: what torch said while it looked for them, such as that the driver is too old."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
        count = torch.cuda.device_count()
    distributed = torch.distributed.is_available()
    nccl = available and distributed and torch.distributed.is_nccl_available()
    yield {
        "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip, "available": available,
        "arch_list": torch.cuda.get_arch_list() if available else [],
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if nccl else None,
        "gloo": distributed and torch.distributed.is_gloo_available(), "threads": torch.get_num_threads(),
        "devices": [_device(index) for index in range(count)] if available else [],
        "warnings": [str(warning.message).splitlines()[0] for warning in caught]}


def _device(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    facts = {"name": properties.name, "capability": [properties.major, properties.minor], "total_bytes": properties.total_memory}
    try:
        facts["free_bytes"] = torch.cuda.mem_get_info(index)[0]
        found = _product(torch.device("cuda", index), torch.float32)
        facts["fault"] = None if found < 0.01 else f"a product of matrices is off by {found:.2g}"
        facts["bf16_fault"] = None if (rounded := _product(torch.device("cuda", index), torch.bfloat16)) < 0.05 else (
            f"a product of matrices in bf16 is off by {rounded:.2g}")
    except RuntimeError as error:
        facts.setdefault("free_bytes", 0)
        facts["fault"] = first_line(error)
    return facts


def _product(device: torch.device, dtype: torch.dtype) -> float:
    """How far a product of matrices on the device is from the CPU's, relative."""
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.randn(SIDE, SIDE, generator=generator) for _ in range(2))
    found = (left.to(device, dtype) @ right.to(device, dtype)).float().cpu()
    wanted = left @ right
    return ((found - wanted).norm() / wanted.norm()).item()
