"""LoRA, rsLoRA and DoRA adapters in PEFT's layout, with float32 weights and a note of what they were trained on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from mft.errors import ModelError
from mft.files import read_json, write_json
from mft.modeling.compute import DTYPES
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.start import load_start
from mft.modeling.targets import target_names

FACTS = "mft.json"


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter was trained on: enough to use it, and to refuse another base.

    `base` is a built-in name, a hub id or an absolute folder; `base_files` maps config.json and each weights file to
    its sha256. `format` is the name of the prompt format, or what a user's YAML of it says. `add_tokens`: control tokens that were added
    to `base`; `base_files` are then those of the extended base (mft/modeling/added_tokens.py).
    """

    base: str
    base_files: dict[str, str]
    format: str | dict[str, Any]
    context: int
    quantization: QuantizationConfig
    add_tokens: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As written to `mft.json`."""
        return {"base": self.base, "base_files": self.base_files, "format": self.format, "context": self.context,
                "quantization": self.quantization.model_dump(), "add_tokens": self.add_tokens}


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
                            QuantizationConfig.model_validate(facts["quantization"]), facts.get("add_tokens", []))
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if not config.get("base_model_name_or_path"):
        raise ModelError(f"{folder}: adapter_config.json names no base_model_name_or_path")
    return AdapterFacts(config["base_model_name_or_path"], {}, "", 0, QuantizationConfig())


def quantization_of_base(adapter: AdapterConfig, quantization: QuantizationConfig) -> QuantizationConfig:
    """How `load_base` is to hold the base: as the config says, but for `full` in float32, so that no weight is rounded on its way."""
    return quantization.model_copy(update={"compute_dtype": "fp32"}) if adapter.type == "full" else quantization


def add_adapter(model: PreTrainedModel, config: AdapterConfig, seed: int, *, start: Path | None = None,
                new_tokens: Sequence[int] = ()) -> PreTrainedModel | PeftModel:
    """Put a new adapter on a frozen base; its weights are float32 and are the only ones that train. `full`: the base's own do.

    The same seed gives the same first weights whatever was drawn before. `start`: an adapter folder whose weights are gone on
    with; it must be of the same type, rank, scale and targets (`start_faults` says what is not, before a weight is loaded).
    `new_tokens`: ids whose rows of embedding and head train too; the other rows stay as they are.

    Raises:
        ModelError: a target is not the name of a linear layer; or `start` does not fit.
    """
    if config.type == "full":
        return _train_everything(model, start)
    torch.manual_seed(seed)
    targets = config.targets if config.targets == "all-linear" else target_names(config)
    try:
        peft_model = get_peft_model(model, LoraConfig(
            task_type="CAUSAL_LM", r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets,
            bias="none", use_rslora=config.type == "rslora", use_dora=config.type == "dora",
            trainable_token_indices=_rows_to_train(model, new_tokens)))
    except ValueError as error:
        raise ModelError(f"adapter.targets {targets}: {str(error).splitlines()[0]}") from error
    # PEFT keeps the names in a set, whose order would differ from run to run in adapter_config.json.
    adapter = peft_model.active_peft_config
    adapter.target_modules = sorted(adapter.target_modules)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if new_tokens:
        # trl's fused head asks for the bias of the head, which PEFT's wrapper does not pass on; a head with one is refused earlier.
        peft_model.get_output_embeddings().bias = None
    if start is not None:
        load_start(peft_model, start)
    return peft_model


def _rows_to_train(model: PreTrainedModel, ids: Sequence[int]) -> dict[str, list[int]] | None:
    """Ids by the names of embedding and head, as PEFT takes them. It keeps a tied head in step with the embedding by itself."""
    if not ids:
        return None
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name: list(ids) for name, module in model.named_modules() if any(module is layer for layer in layers)}


def _train_everything(model: PreTrainedModel, start: Path | None) -> PreTrainedModel:
    """Every weight trains, as a float32 master; the forward pass runs in the compute dtype under the trainer's autocast.

    In bf16 a weight moves only by steps of 1/128 to 1/256 of itself, so that most updates of a fine-tuning rate would be
    rounded away.
    """
    if start is not None:
        raise ModelError(f"{start}: an adapter cannot be gone on with by adapter.type full; merge it, and train the merged model")
    if getattr(model, "quantization_method", None) is not None:
        raise ModelError("adapter.type full needs a base that is not quantised; set quantization: {type: none}")
    return model.float().requires_grad_(True)


def save_trained(model: PreTrainedModel | PeftModel, weights: dict[str, torch.Tensor], quantization: QuantizationConfig,
                 folder: Path) -> None:
    """Write what was trained, given as whole tensors by parameter name: an adapter in PEFT's layout, float32.

    Of a model whose every weight trained: a model folder in the compute dtype, which plain transformers loads.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), state_dict=weights)
        return
    dtype = DTYPES[quantization.compute_dtype]
    model.save_pretrained(folder, state_dict={name: weight.to(dtype) for name, weight in weights.items()})
    # transformers writes the dtype that the parameters have in memory, float32.
    write_json(folder / "config.json", read_json(folder / "config.json") | {"dtype": str(dtype).removeprefix("torch.")})


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
