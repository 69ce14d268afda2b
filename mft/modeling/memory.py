"""What a training step needs of the device's memory, as far as the choice of recomputation needs it."""

from typing import Any, Literal

SHARE = 0.6
"""Part of the free memory that saved activations may take when `recompute: auto` decides."""


def activation_bytes_per_token(config: dict[str, Any]) -> int:
    """Bytes that autograd keeps per token without recomputation, for a Llama shape in a 16-bit type.

    layers * 2 * (6 hidden + 3 ffn): 11.06 MB for the 34B shape (48, 8192, 22016), where naive autograd was counted at 11.3.
    """
    return int(config["num_hidden_layers"] * 2 * (6 * config["hidden_size"] + 3 * config["intermediate_size"]))


def choose_recompute(setting: Literal["auto", "full", "none"], config: dict[str, Any], tokens: int, free_bytes: int) -> bool:
    """True when the layers' activations are to be recomputed in the backward pass.

    `tokens`: tokens of one micro-batch; `free_bytes`: memory free on the device after the model is loaded. `auto`
    recomputes when the activations would take more than 60% of it.
    """
    if setting != "auto":
        return setting == "full"
    return activation_bytes_per_token(config) * tokens > SHARE * free_bytes


def free_memory_bytes() -> int:
    """Memory free on the device that models are put on: CUDA's, else the machine's available memory."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(psutil.virtual_memory().available)
