"""Which attention implementation a model uses: the first that keeps packed samples apart, by a test run on the device itself.

transformers finds packed samples by `position_ids` that begin anew, given no mask and no cache, and each implementation has a way of its
own to keep them apart: a mask (eager, sdpa, flex_attention) or offsets (flash_attention_2, flash_attention_3). Where one does not, there is
no warning: the samples of a row see each other.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from mft.errors import ModelError

logger = logging.getLogger(__name__)

CANDIDATES = {"cuda": ("flash_attention_3", "flash_attention_2", "sdpa", "eager"), "cpu": ("sdpa", "eager")}
"""What `auto` tries, best first. flash_attention does only the work of each sample; sdpa with a mask does that of the whole row. Not
flex_attention, which is compiled anew for rows of another length; it can be asked for."""

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.06, torch.float16: 0.01}
"""Largest difference of packed samples from each alone, relative, that is rounding: at least three times what sdpa and eager show on a
CPU with the lengths of either device. Where all samples see each other it is 1.2 to 1.7."""

LENGTHS = {"cuda": (517, 1100, 431), "cpu": (23, 70, 35)}
VOCABULARY, WIDTH, LAYERS = 128, 64, 2


def choose_attention(base_config: dict[str, Any], device: torch.device, dtype: torch.dtype, asked: str = "auto") -> str:
    """The implementation for a base with this `config.json` on this device: the one asked for, or the first that passes the test.

    The test model is a random Llama with the base's head size and ratio of query to key heads, whose weights have this dtype.

    Raises:
        ModelError: the one asked for is not installed, cannot run on this device, or lets packed samples see each other; with `auto`, if
        that holds for all of them.
    """
    if "num_attention_heads" not in base_config:
        raise ModelError("the base's config.json has no num_attention_heads, by which its attention could be tested")
    heads = int(base_config["num_attention_heads"])
    keys = int(base_config.get("num_key_value_heads") or heads)
    shape = (heads // keys, min(keys, 2), int(base_config.get("head_dim") or int(base_config["hidden_size"]) // heads))
    faults = []
    for name in CANDIDATES[device.type] if asked == "auto" else (asked,):
        fault = _fault(name, device, dtype, shape)
        if fault is None:
            logger.debug("attention: %s", name)
            return name
        faults.append(f"{name}: {fault}")
        if "see each other" in fault:
            logger.warning("attention %s", faults[-1])
    if asked == "auto":
        raise ModelError(f"no attention implementation can be used on {device}: {'; '.join(faults)}")
    raise ModelError(f"model.attention {faults[0]}; use attention: auto")


@cache
def _fault(name: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> str | None:
    """Why an implementation cannot be used; None where it can. `shape`: query heads a key head, key heads, head size."""
    if (absent := _absent(name, device, dtype)) is not None:
        return absent
    try:
        found = leak(probe_model(name, device, dtype, shape), LENGTHS[device.type])
    except (RuntimeError, ValueError, ImportError) as error:
        return f"does not run on {device} with heads of {shape[2]}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    if found <= TOLERANCES[dtype]:   # not of NaN
        return None
    return (f"packed samples see each other on {device}: logits or gradients differ by {found:.2g} from those of the samples alone, and "
            f"{TOLERANCES[dtype]:g} is allowed in {_plain(dtype)}")


def _absent(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why an implementation is not tried at all."""
    if name.startswith("flash_attention"):
        if device.type != "cuda" or dtype == torch.float32:
            return f"runs on CUDA in bf16 and fp16 alone, not on {device} in {_plain(dtype)}"
        package, present = {"flash_attention_2": ("flash-attn", is_flash_attn_2_available),
                            "flash_attention_3": ("flash-attn-3", is_flash_attn_3_available)}[name]
        return None if present() else f"the package {package} is not installed"
    if name == "flex_attention" and device.type == "cpu":
        return "has no backward pass on a CPU"
    return None


def probe_model(name: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> LlamaForCausalLM:
    """A small random Llama, large enough in its weights for attention to matter. torch's random numbers stay as they are."""
    groups, keys, size = shape
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
                         num_attention_heads=groups * keys, num_key_value_heads=keys, head_dim=size, initializer_range=0.2,
                         max_position_embeddings=sum(LENGTHS[device.type]), attn_implementation=name)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(7)
        model = LlamaForCausalLM(config)
    return model.to(device, dtype).eval()


def leak(model: PreTrainedModel, lengths: Sequence[int]) -> float:
    """How far samples of these lengths, packed into one row, are from each of them alone: ||d|| / ||alone||.

    The largest of: the logits of each single token, since one that sees too much would be lost in the mean; and the gradient of all
    weights together, for a fixed random weighing of the logits.
    """
    generator = torch.Generator().manual_seed(11)
    ids = [torch.randint(0, model.config.vocab_size, (1, length), generator=generator).to(model.device) for length in lengths]
    weighing = [torch.randn(1, length, model.config.vocab_size, generator=generator).to(model.device) for length in lengths]
    logits, gradient = _forward_backward(model, [torch.cat(ids, dim=1)], [torch.cat(weighing, dim=1)], lengths)
    alone, gradient_alone = _forward_backward(model, ids, weighing, lengths)
    by_token = (logits - alone).norm(dim=1) / alone.norm(dim=1)
    return torch.cat((by_token, ((gradient - gradient_alone).norm() / gradient_alone.norm()).reshape(1))).max().item()


def _forward_backward(model: PreTrainedModel, rows: Sequence[Tensor], weighing: Sequence[Tensor],
                      lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits, [sum of lengths, vocabulary], and the gradient of all weights as one vector; float32. One row holds all samples, or one."""
    positions = [torch.cat([torch.arange(length) for length in ([row.shape[1]] if len(rows) > 1 else lengths)]) for row in rows]
    model.zero_grad()
    logits = []
    with torch.enable_grad():
        for row, weights, position_ids in zip(rows, weighing, positions, strict=True):
            output = model(input_ids=row, position_ids=position_ids.unsqueeze(0).to(row.device), use_cache=False).logits.float()
            (output * weights).sum().backward()
            logits.append(output.detach()[0])
    gradient = torch.cat([parameter.grad.float().flatten() for parameter in model.parameters() if parameter.grad is not None])
    model.zero_grad()
    return torch.cat(logits), gradient


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
