"""What a YAML says about the model: base, prompt format, quantisation while training, adapter."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mft.config.model import StrictModel
from mft.errors import MftError
from mft.formats.registry import get, get_reference, names

CONTROL_SHAPED = re.compile(r"[^\s\w▁][^\s▁]*[^\s\w▁]")
"""What a control token may look like; `▁` is how a Llama vocabulary writes a space."""


class ModelConfig(StrictModel):
    """The `model:` block of a project."""

    base: str
    """A folder, a hub id, or the built-in `tiny-code-llama`."""

    format: str | dict[str, Any]
    """Name of the prompt format (README.md lists them), a YAML file of one's own (relative to this config), or what it says."""

    context: int = Field(4096, ge=16)
    """Length of a packed row and of the longest sample, in tokens. Never above the base's own maximum."""

    attention: Literal["auto", "sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3"] = "auto"
    """How attention is computed. `auto`: the fastest that is installed and keeps packed samples apart, which is tested on the device when
    the base is loaded. One that is named is tested too, and refused if it does not."""

    quantized_cache: str = Field("off", min_length=1)
    """Where a base that is held in NF4 is kept on disk, so that a restart does not quantise it again. `off`; `auto`: `.quantized` in the
    project's output; or a folder, relative to this config, that several projects may share."""

    add_tokens: list[str] = Field(default_factory=list)
    """Control tokens that the base's vocabulary lacks, such as ["<|im_start|>", "<|im_end|>"] for `chatml`: they get the next free ids
    and trained rows in embedding and head."""

    @field_validator("add_tokens")
    @classmethod
    def _can_be_tokens(cls, given: list[str]) -> list[str]:
        """White space, words and numbers are refused, since a server takes every place where a token's text stands for the token."""
        if odd := [token for token in given if not CONTROL_SHAPED.fullmatch(token)]:
            raise ValueError(f"{', '.join(map(repr, odd))}: a control token is at least two characters without white space, of which the "
                             "first and the last are neither letters nor digits, such as '<|im_start|>' or '[TOOL]'")
        if twice := sorted({token for token in given if given.count(token) > 1}):
            raise ValueError(f"{', '.join(map(repr, twice))} stands there more than once")
        return given

    @field_validator("format")
    @classmethod
    def _known(cls, given: str | dict[str, Any], info: ValidationInfo) -> str | dict[str, Any]:
        """A YAML file is read here, so that all that hangs on a config hangs on what the file says."""
        try:
            if isinstance(given, dict):
                get(given)
                return given
            if given.endswith((".yaml", ".yml")):
                return get_reference(str((info.context or {}).get("folder", Path()) / given))
            if given not in names():
                get(given)
        except MftError as error:
            raise ValueError(str(error)) from error
        return given


class QuantizationConfig(StrictModel):
    """How the frozen base is held while an adapter is trained."""

    type: Literal["nf4", "none"] = "nf4"
    """`nf4`: 4-bit NormalFloat through bitsandbytes (QLoRA). `none`: the base in `compute_dtype`."""

    double_quant: bool = True
    """Quantise the quantisation constants too: saves 0.37 bits a weight."""

    compute_dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Type of the activations and of the weights that are not quantised."""


RELEASE_2023 = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers that the 2023 releases trained (MFTCoder's configs/*_train_config.json): all of a Llama block but k_proj."""


class AdapterConfig(StrictModel):
    """Which weights train: an adapter's, or all of them."""

    type: Literal["lora", "rslora", "dora", "full"] = "lora"
    """`lora`: W + alpha / rank * B A (arXiv:2106.09685). `rslora`: alpha / sqrt(rank) instead, so that high ranks learn as fast
    (arXiv:2312.03732). `dora`: a trained length for each row of that sum (arXiv:2402.09353); slower. `full`: every weight of the
    base trains, in float32; needs `quantization: {type: none}` and 16 bytes of memory a weight."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    """The update is scaled by alpha / rank (`rslora`: alpha / sqrt(rank))."""

    dropout: float = Field(0.05, ge=0, lt=1)
    targets: Literal["all-linear", "release_2023"] | list[str] = "all-linear"
    """`all-linear`: every linear layer but the head; `release_2023`: q, v, o, gate, up and down, without k; or a list of module
    names such as [q_proj, v_proj]."""

    @model_validator(mode="after")
    def _options_act(self) -> "AdapterConfig":
        if isinstance(self.targets, list) and not self.targets:
            raise ValueError("targets is an empty list, so nothing would train; name layers, or say all-linear")
        if isinstance(self.targets, list) and (twice := sorted({name for name in self.targets if self.targets.count(name) > 1})):
            raise ValueError(f"targets names {', '.join(twice)} more than once")
        if self.type == "full":
            fields = type(self).model_fields
            if idle := [name for name in ("rank", "alpha", "dropout", "targets") if getattr(self, name) != fields[name].default]:
                raise ValueError(f"{', '.join(idle)}: not used with type: full, which trains every weight; remove "
                                 f"{'it' if len(idle) == 1 else 'them'}")
        return self


def adapter_faults(adapter: AdapterConfig, quantization: QuantizationConfig) -> list[str]:
    """What of the two blocks of a train stage does not go together; one message each."""
    if adapter.type == "full" and quantization.type != "none":
        return [f"adapter.type is full, which trains every weight, but quantization.type is {quantization.type}, which freezes them "
                "in 4 bits; set quantization: {type: none}, or train an adapter (lora, rslora, dora)"]
    if adapter.type == "full" and quantization.compute_dtype == "fp16":
        return ["adapter.type is full with quantization.compute_dtype fp16, whose range small gradients leave; use bf16 or fp32"]
    return []
