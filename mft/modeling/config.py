"""What a YAML says about the model: base, prompt format, quantisation while training, adapter."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mft.config.model import StrictModel
from mft.errors import MftError
from mft.formats.registry import get, get_reference, names


class ModelConfig(StrictModel):
    """The `model:` block of a project."""

    base: str
    """A folder, a hub id, or the built-in `tiny-code-llama`."""

    format: str | dict[str, Any]
    """Name of the prompt format (README.md lists them), a YAML file of one's own (relative to this config), or what it says."""

    context: int = Field(4096, ge=16)
    """Length of a packed row and of the longest sample, in tokens. Never above the base's own maximum."""

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


class AdapterConfig(StrictModel):
    """The LoRA adapter."""

    type: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    """The update is scaled by alpha / rank."""

    dropout: float = Field(0.05, ge=0, lt=1)
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """`all-linear`: every linear layer but the head; or a list of module names such as [q_proj, v_proj]."""
