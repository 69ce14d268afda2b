"""Where models are put, and in which type they compute there. Torch alone is needed."""

import logging
from functools import cache

import torch

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def device() -> torch.device:
    """The device that models are put on: the first CUDA device, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def computes_in(compute_dtype: str, place: torch.device | None = None) -> torch.dtype:
    """The type that weights and activations have on a device, `device()` unless given, where a config asks for this one.

    On a CPU without bf16 arithmetic that is float32 for bf16, with one warning: torch's products of bf16 matrices are about a hundred times
    slower there than those of float32.
    """
    asked = DTYPES[compute_dtype]
    if asked == torch.bfloat16 and (place or device()).type == "cpu" and not cpu_has_bf16():
        _tell_of_float32()
        return torch.float32
    return asked


@cache
def cpu_has_bf16() -> bool:
    """Whether oneDNN multiplies bf16 matrices on this CPU: with AVX512 or AMX, or on ARM with its bf16 instructions."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _tell_of_float32() -> None:
    logger.warning("this CPU has no bf16 arithmetic (no AVX512): what bf16 is asked for is computed in float32")
