"""Load a base model: in NF4 for training an adapter, or whole."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from mft.errors import ModelError
from mft.modeling.attention import choose_attention
from mft.modeling.base import read_model_config
from mft.modeling.compute import computes_in, device
from mft.modeling.config import QuantizationConfig
from mft.modeling.gptq_model import is_gptq, load_multiplied_out
from mft.modeling.quantized_cache import QuantizedCache

NF4_BLOCK = 64
NF4_ERROR = 0.15
"""Relative error of the test rows in NF4 that can still be rounding; measured: 0.04 to 0.09, and 0.5 or more where rows are misread."""


def load_base(folder: Path, quantization: QuantizationConfig, *, sharded: bool = False, attention: str = "auto",
              cache: QuantizedCache | None = None) -> PreTrainedModel:
    """The base from local safetensors, frozen, in evaluation mode, on `device()`.

    `sharded`: under ZeRO-3, whose arguments must have been made before, each rank keeps its part of every weight.
    `attention`: as `model.attention` of a config. `cache`: where a base in NF4 is kept; not with `sharded`.

    With `nf4` the linear layers of the blocks are 4-bit (embedding, norms and head stay in `compute_dtype`, see `computes_in`). A folder in
    GPTQ's layout is multiplied out (mft/modeling/gptq_model.py): it says what the quantised model says, in the memory of the whole one.

    Raises:
        ModelError: the folder has no safetensors weights, or they cannot be read; the attention asked for cannot be used; the CPU's 4-bit
            kernel would misread the base's rows.
    """
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: has no .safetensors weights")
    dtype = computes_in(quantization.compute_dtype)
    config = read_model_config(folder)
    implementation = choose_attention(config, device(), dtype, attention)
    if is_gptq(config):
        return _frozen(_load_gptq(folder, quantization, dtype, implementation))

    read = partial(_from_pretrained, quantization=quantization, dtype=dtype, attention=implementation, sharded=sharded)
    if cache is not None and quantization.type == "nf4" and not sharded:
        model = cache.load(folder, quantization, dtype, device(), read)
    else:
        model = read(folder)
    if quantization.type == "nf4" and device().type == "cpu":
        _refuse_misread_rows(model, folder)
    return _frozen(model)


def _from_pretrained(source: Path, *, quantization: QuantizationConfig, dtype: torch.dtype, attention: str, sharded: bool,
                     quantized: bool = False) -> PreTrainedModel:
    """`quantized`: `source` is in 4 bits already, and says so itself."""
    options = {}
    if quantization.type == "nf4" and not quantized:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=quantization.double_quant,
            bnb_4bit_compute_dtype=dtype)
    try:
        with _shards_hold(dtype) if sharded else nullcontext():
            return AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, device_map=None if sharded else {"": device()}, attn_implementation=attention,
                use_safetensors=True, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{source}: cannot be loaded: {str(error).splitlines()[0]}") from error


def _load_gptq(folder: Path, quantization: QuantizationConfig, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    if quantization.type != "none":
        raise ModelError(f"{folder}: is quantised already (gptq); take the original weights, or quantization: {{type: none}}")
    return load_multiplied_out(folder, dtype, device(), attention)


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(False)
    _keep_weights_differentiable(model)
    return model.eval()


@contextmanager
def _shards_hold(dtype: torch.dtype) -> Iterator[None]:
    """While a model is loaded under ZeRO-3: its parts are kept in `dtype`.

    DeepSpeed takes the type of the parts from its `bf16` section, which is off in a run (mft/training/deepspeed_config.py), and would hold
    and send a bf16 base as float32.
    """
    from transformers.integrations.deepspeed import deepspeed_config

    config = deepspeed_config()
    before = config["bf16"]
    config["bf16"] = {"enabled": dtype == torch.bfloat16}
    try:
        yield
    finally:
        config["bf16"] = before


def _refuse_misread_rows(model: PreTrainedModel, folder: Path) -> None:
    """Refuse 4-bit layers whose rows the CPU reads back wrongly.

    bitsandbytes 0.50.2 dequantises with AVX512 as if each row began a block of 64, so that rows of 96 or 160 numbers get the scales of
    others: a relative error of 0.28 where NF4 has 0.09.
    """
    widths = {module.in_features for module in model.modules() if isinstance(module, Linear4bit)}
    if wrong := sorted(width for width in widths if width % NF4_BLOCK and not _reads_back(width)):
        raise ModelError(f"{folder}: has layers with {wrong[0]} inputs, which is no multiple of {NF4_BLOCK}; this CPU's 4-bit kernel "
                         "(bitsandbytes) misreads such rows; train it on a GPU, or with quantization: {type: none}")


def _reads_back(width: int) -> bool:
    """Whether rows of this many numbers come back from NF4 as well as NF4 can; unequal rows show those read with another's scale."""
    rows = torch.linspace(-1, 1, 4 * width).view(4, width) * torch.tensor([[1.0], [8.0], [1.0], [8.0]])
    back = dequantize_4bit(*quantize_4bit(rows, blocksize=NF4_BLOCK, quant_type="nf4"))
    return bool((back - rows).norm() / rows.norm() < NF4_ERROR)


def _keep_weights_differentiable(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from re-packing 4-bit weights on the CPU.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 packs a layer's weights for inference at the first forward in evaluation
    mode, and a packed layer passes no gradient to its input: one validation pass in the middle of a training run would
    silently cut the gradients of all layers below (and a saved checkpoint would mend them again).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def load_model(path: Path, *, dtype: str = "bf16", attention: str = "auto", cache: QuantizedCache | None = None) -> PreTrainedModel:
    """A model ready for generation or scoring, whatever `path` holds.

    A model folder is loaded whole in `dtype`. An adapter folder that mft wrote is put, unmerged, on its base, which is
    held as it was while training (its `mft.json` says how). `cache`: as for `load_base`.

    Raises:
        ModelError: neither a model folder nor an adapter folder.
    """
    from mft.modeling.adapters import is_adapter, load_adapter, read_adapter_facts
    from mft.modeling.added_tokens import base_of_adapter
    from mft.modeling.base import resolve_base

    if not is_adapter(path):
        return load_base(path, QuantizationConfig.model_validate({"type": "none", "compute_dtype": dtype}), attention=attention)
    facts = read_adapter_facts(path)
    base = load_base(base_of_adapter(resolve_base(facts.base, beside=path), path), facts.quantization, attention=attention, cache=cache)
    return load_adapter(base, path)
