"""A model in GPTQ's layout, loaded without gptqmodel: its few bits multiplied out into ordinary weights.

It computes with the numbers that the folder holds, so scores and answers are those of the quantised model up to a kernel's rounding; it
takes the memory of the unquantised one. To save memory, load it with transformers where gptqmodel is installed, or serve it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mft.errors import ModelError
from mft.modeling.gptq_layout import BITS, multiplied_out

PARTS = ("qweight", "qzeros", "scales", "g_idx")


def is_gptq(config: dict[str, Any]) -> bool:
    """Whether a config.json says that the weights are in GPTQ's layout."""
    return (config.get("quantization_config") or {}).get("quant_method") == "gptq"


def load_multiplied_out(folder: Path, dtype: torch.dtype, device: torch.device, attention: str) -> PreTrainedModel:
    """The model of such a folder in evaluation mode, all weights in `dtype`.

    Raises:
        ModelError: a file is missing or damaged, a tensor is missing, or the layout is another one (`gptq_v2`, `marlin`).
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    quantization = config.pop("quantization_config")
    bits, layout = quantization.get("bits"), quantization.get("checkpoint_format", "gptq")
    if bits not in BITS or layout != "gptq":
        raise ModelError(f"{folder}: {bits} bits in the layout '{layout}'; known: {', '.join(map(str, BITS))} bits in the layout 'gptq'")
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=dtype, attn_implementation=attention)
    try:
        state = {name: tensor.to(device=device, dtype=dtype) for name, tensor in _weights(folder, bits)}
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"{folder}: cannot be loaded: {str(error).splitlines()[0]}") from error
    missing = [name for name in model.load_state_dict(state, strict=False, assign=True).missing_keys if name not in _tied(model)]
    if missing:
        raise ModelError(f"{folder}: has no weights for {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}")
    model.tie_weights()
    return model.to(device).eval()


def _tied(model: PreTrainedModel) -> set[str]:
    """Names that need no tensor of their own: a head that is the embedding."""
    return {"lm_head.weight"} if model.config.get_text_config().tie_word_embeddings else set()


def _weights(folder: Path, bits: int) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of an ordinary model; the four parts of a linear module become its weight."""
    places: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), path)
    if not places:
        raise ModelError(f"{folder}: has no .safetensors weights")

    def read(name: str) -> torch.Tensor:
        with safe_open(places[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
            return tensor

    for name in places:
        module, _, part = name.rpartition(".")
        if part == "qweight":
            qweight, qzeros, scales, g_idx = (read(f"{module}.{each}") for each in PARTS)
            yield f"{module}.weight", multiplied_out(qweight, qzeros, scales, g_idx, bits)
        elif part not in PARTS:
            yield name, read(name)
