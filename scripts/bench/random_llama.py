"""A model of Llama's kind with random weights, made on the device tensor by tensor: no 16-bit copy of a 4-bit model is ever whole."""

from typing import Any

import bitsandbytes
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mft.modeling.compute import DTYPES
from mft.modeling.config import QuantizationConfig

SPREAD = 0.02


def random_llama(config: dict[str, Any], quantization: QuantizationConfig, device: torch.device, attention: str) -> PreTrainedModel:
    """The model that a config.json describes, frozen, its linear layers but the head in NF4 if `quantization` says so."""
    options = {key: value for key, value in config.items() if key != "model_type"}
    described = AutoConfig.for_model(config["model_type"], **options, attn_implementation=attention)
    dtype = DTYPES[quantization.compute_dtype]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described, dtype=dtype)
    torch.manual_seed(1)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head" and quantization.type == "nf4":
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _nf4_linear(module, quantization, device, dtype))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            parent, _, own = name.rpartition(".")
            drawn = torch.randn(parameter.shape, dtype=dtype, device=device) * SPREAD
            setattr(model.get_submodule(parent), own, nn.Parameter(drawn + 1 if "norm" in name else drawn, requires_grad=False))
    base = model.model
    base.rotary_emb = type(base.rotary_emb)(described).to(device)
    if quantization.type == "nf4":
        model.is_loaded_in_4bit = True
    model.tie_weights()
    return model.requires_grad_(False).eval()


def _nf4_linear(module: nn.Linear, quantization: QuantizationConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    weight = torch.randn(module.out_features, module.in_features, dtype=dtype, device=device) * SPREAD
    made = bitsandbytes.nn.Linear4bit(module.in_features, module.out_features, bias=module.bias is not None, compute_dtype=dtype,
                                      compress_statistics=quantization.double_quant, quant_type="nf4", device="meta")
    made.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, compress_statistics=quantization.double_quant, quant_type="nf4")
    if module.bias is not None:
        made.bias = nn.Parameter(torch.zeros(module.out_features, dtype=dtype, device=device), requires_grad=False)
    made = made.to(device)
    made.support_avx512bf16_for_cpu = False   # mft/modeling/load.py has the reason
    return made
