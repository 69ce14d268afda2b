"""LoRA adapters in PEFT's layout, with float32 weights and a note of what they were trained on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from mft.errors import ModelError
from mft.files import read_json, write_json
from mft.modeling.config import AdapterConfig, QuantizationConfig

FACTS = "mft.json"


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter was trained on: enough to use it, and to refuse another base.

    `base` is a built-in name, a hub id or an absolute folder; `base_files` maps config.json and each weights file to
    its sha256. `format` is the name of the prompt format, or what a user's YAML of it says.
    """

    base: str
    base_files: dict[str, str]
    format: str | dict[str, Any]
    context: int
    quantization: QuantizationConfig

    def to_json(self) -> dict[str, Any]:
        """As written to `mft.json`."""
        return {"base": self.base, "base_files": self.base_files, "format": self.format, "context": self.context,
                "quantization": self.quantization.model_dump()}


def is_adapter(path: Path) -> bool:
    """True for a folder in PEFT's adapter layout."""
    return (path / "adapter_config.json").is_file()


def write_adapter_facts(folder: Path, facts: AdapterFacts) -> None:
    """Write `mft.json` into an adapter folder."""
    write_json(folder / FACTS, facts.to_json())


def read_adapter_facts(folder: Path) -> AdapterFacts:
    """Read `mft.json`; for an adapter of another tool, what `adapter_config.json` says, with an NF4 base.

    Raises:
        ModelError: the adapter does not say what its base is.
    """
    if (folder / FACTS).is_file():
        facts = read_json(folder / FACTS)
        return AdapterFacts(facts["base"], facts["base_files"], facts["format"], facts["context"],
                            QuantizationConfig.model_validate(facts["quantization"]))
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if not config.get("base_model_name_or_path"):
        raise ModelError(f"{folder}: adapter_config.json names no base_model_name_or_path")
    return AdapterFacts(config["base_model_name_or_path"], {}, "", 0, QuantizationConfig())


def add_adapter(model: PreTrainedModel, config: AdapterConfig, seed: int) -> PeftModel:
    """Put a new LoRA adapter on a frozen base; its weights are float32 and are the only ones that train.

    The same seed gives the same first weights whatever was drawn before.

    Raises:
        ModelError: a target is not the name of a linear layer.
    """
    torch.manual_seed(seed)
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    try:
        peft_model = get_peft_model(model, LoraConfig(
            task_type="CAUSAL_LM", r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout,
            target_modules=targets, bias="none"))
    except ValueError as error:
        raise ModelError(f"adapter.targets {targets}: {str(error).splitlines()[0]}") from error
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return peft_model


def load_adapter(model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> PeftModel:
    """Put a saved adapter on its base, float32.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    try:
        peft_model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, autocast_adapter_dtype=True)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise ModelError(f"{folder}: does not fit {model.name_or_path}: {str(error).splitlines()[0]}") from error
    return peft_model if trainable else peft_model.eval()
