"""What a YAML says about the model: base, prompt format, quantisation while training, adapter."""

from typing import Literal

from pydantic import Field

from mft.config.model import StrictModel


class ModelConfig(StrictModel):
    """The `model:` block of a project."""

    base: str
    """A folder, a hub id, or the built-in `tiny-code-llama`."""

    format: str
    """Name of the prompt format (`codefuse`, `codefuse_2023`, `ziya`)."""

    context: int = Field(4096, ge=16)
    """Length of a packed row and of the longest sample, in tokens. Never above the base's own maximum."""


class QuantizationConfig(StrictModel):
    """How the frozen base is held while an adapter is trained."""

    type: Literal["nf4", "none"] = "nf4"
    """`nf4`: 4-bit NormalFloat through bitsandbytes (QLoRA). `none`: the base in `compute_dtype`."""

    double_quant: bool = True
    """Quantise the quantisation constants too: saves 0.37 bits a weight."""

    compute_dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Type of the activations and of the weights that are not quantised."""


class AdapterConfig(StrictModel):
    """The LoRA adapter."""

    type: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    """The update is scaled by alpha / rank."""

    dropout: float = Field(0.05, ge=0, lt=1)
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """`all-linear`: every linear layer but the head; or a list of module names such as [q_proj, v_proj]."""
